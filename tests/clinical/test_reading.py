from pathlib import Path

import pytest
from clinical_tables import plain

from clinical_sections import patients_section
from subfuse.clinical.reading import read_clinical
from subfuse.errors import ConfigurationError, DataError


def test_a_negative_time_costs_the_follow_up_and_not_the_patient(tmp_path):
    table = plain(tmp_path, "patient_id,time_days,event,grade\na,-3,1,G2\nb,0,1,G4\n")
    assert table.patients["patient_id"].tolist() == ["a", "b"]
    assert table.patients["grade"].tolist() == ["G2", "G4"]
    assert table.patients["time_days"].isna().tolist() == table.patients["event"].isna().tolist() == [True, False]
    assert table.exclusions.empty
    assert "time_days is negative for 1 patient(s), whose follow-up is taken as unknown (a: -3)" in table.warnings[0]


def test_half_known_outcome_is_unknown(tmp_path):
    table = plain(tmp_path, "patient_id,time_days,event\na,3,\nb,,1\nc,4,1\n")
    assert table.patients["time_days"].notna().tolist() == [False, False, True]
    assert table.patients["event"].notna().tolist() == [False, False, True]
    assert "2 patient(s) have only one of time and event" in table.warnings[0]


def test_several_tables_lie_below_one_another(tmp_path):
    for name, patient in (("a.csv", "x"), ("b.csv", "y")):
        (tmp_path / name).write_text(f"patient_id,grade\n{patient},G2\n", encoding="utf-8")
    both = patients_section(table=(tmp_path / "a.csv", tmp_path / "b.csv"))
    assert read_clinical(both).patients["patient_id"].tolist() == ["x", "y"]
    with pytest.raises(DataError, match=r"x again"):
        read_clinical(patients_section(table=(tmp_path / "a.csv", tmp_path / "a.csv")))


def test_only_included_patients_are_used(tmp_path):
    text = "patient_id,grade\na,G2\nTCGA-02-0047-01A,G4\n\N{LATIN SMALL LETTER U WITH DIAERESIS},G3\n"
    table = plain(tmp_path, text, include=("TCGA-02-0047", "u\N{COMBINING DIAERESIS}"))
    assert table.patients["patient_id"].tolist() == ["TCGA-02-0047", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"]
    assert "2 of 3 patients" in table.warnings[-1]
    with pytest.raises(
        DataError, match=r"patients\.include: patients of .*patients\.csv are required\. Not found: x\."
    ):
        plain(tmp_path, text, include=("a", "x"))


def with_labels(tmp_path: Path, text: str, markers: str, columns: dict[str, str] | None, **section):
    (tmp_path / "markers.csv").write_text(markers, encoding="utf-8")
    further = {"table": tmp_path / "markers.csv", "columns": columns}
    return plain(tmp_path, text, labels=further, **section)


def test_labels_of_a_further_table_join_by_patient(tmp_path):
    markers = "case,idh,codel\nTCGA-02-0047-01A,WT,\nTCGA-DH-5140,Mutant,codel\nother,WT,\n"
    columns = {"patient_id": "case", "idh": "idh", "codeletion_1p19q": "codel"}
    text = "patient_id,grade\nTCGA-02-0047,G4\nTCGA-DH-5140-01A,G2\nP,G3\n"
    derive = {"diagnosis": {"rule": "who2021"}}
    table = with_labels(tmp_path, text, markers, columns, derive=derive)
    assert table.patients["idh"].tolist() == [None, "WT", "Mutant"]
    assert table.patients["diagnosis"].tolist() == [None, "GBM_IDHwt", "Oligo_codel"]
    assert table.patients["diagnosis_basis"].tolist()[0] == "unknown: IDH is missing"
    assert any("2 of 3 patients are in markers.csv; not P" in note for note in table.warnings)
    markers = "patient_id,idh\nPT-O07,WT\nPT-008,WT\n"
    (note,) = with_labels(tmp_path, "patient_id,grade\nPT-007,G4\nPT-008,G2\n", markers, None).warnings
    assert "not PT-007; PT-O07 is not a patient; PT-007 is, which differs in one character" in note


@pytest.mark.parametrize(
    ("markers", "columns", "error", "message"),
    [
        ("patient_id,grade\na,G2\n", None, ConfigurationError, "grade is a column of patients.table already"),
        ("patient_id,event\na,1\n", None, ConfigurationError, "event is a column"),
        ("patient_id,idh\nx,WT\n", None, DataError, r"markers\.csv: patients of patients\.table .* in markers\.csv: x"),
        ("patient_id,idh\nA,WT\n", None, DataError, r"nearest: a and A, which differ only in case.* Correct the ident"),
        ("patient_id,idh\na,WT\na,Mutant\n", None, DataError, r"markers\.csv, row 3: .* a again .* another idh"),
        ("patient_id,idh\na,WT\n", {"idh": "IDH"}, ConfigurationError, "patients.labels.columns.idh: column 'IDH'"),
    ],
)
def test_bad_labels(tmp_path, markers, columns, error, message):
    with pytest.raises(error, match=message):
        with_labels(tmp_path, "patient_id,grade\na,G2\n", markers, columns)


def test_which_of_time_and_event_is_unknown_is_counted(tmp_path):
    table = plain(tmp_path, "patient_id,time_days,event\na,3,\nb,,1\nc,,0\nd,5,1\n")
    assert "(2 without time, 1 without event)" in table.warnings[0]
