import gzip
import io
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from subfuse.clinical.plausibility import outcome_warnings
from subfuse.clinical.reading import read_clinical
from subfuse.clinical.source import PatientsSection
from subfuse.errors import ConfigurationError, DataError
from subfuse.identifiers import patient_of_barcode, sample_type_of_barcode

GDC_HEADER = (
    "case_id\tcase_submitter_id\tgender\tvital_status\tdays_to_death\tdays_to_last_follow_up\tprimary_diagnosis\t"
    "tumor_grade\tage_at_index\ttreatment_type"
)


def plain(tmp_path: Path, text: str, **section):
    path = tmp_path / "patients.csv"
    path.write_text(text, encoding="utf-8")
    return read_clinical(PatientsSection(table=path, **section))


def gdc(tmp_path: Path, rows: list[str], header: str = GDC_HEADER, **section):
    path = tmp_path / "clinical.tsv"
    path.write_text("\n".join([header, *(row.replace("|", "\t") for row in rows)]) + "\n", encoding="utf-8")
    return read_clinical(PatientsSection(table=path, format="gdc", **section))


# --- plain -----------------------------------------------------------------------------------------------------------


def test_plain_table_without_mapping(tmp_path):
    table = plain(tmp_path, "patient_id,time_days,event,grade\nb,20.5,0,G2\na,7,1,not reported\n").patients
    assert table["patient_id"].tolist() == ["a", "b"]
    assert table["time_days"].tolist() == [7, 20.5]
    assert table["event"].tolist() == [True, False]
    assert table["grade"].tolist() == [None, "G2"]
    assert table["site"].tolist() == [None, None]


def test_rows_that_are_wholly_empty_are_left_out_with_a_word(tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("patient_id,kps\na,90\n,\nb,80\n")
    found = plain(tmp_path, "patient_id,grade\na,G2\n,\nb,G3\n , \nc,G2\n,\n", labels={"table": labels})
    assert found.patients["patient_id"].tolist() == ["a", "b", "c"]
    assert f"{tmp_path / 'patients.csv'}, row 3, 5: wholly empty, left out" in found.warnings
    assert f"{labels}, row 3: wholly empty, left out" in found.warnings
    with pytest.raises(DataError, match=r"row 4: a patient identifier is required\. Found none in 1 row\(s\) with val"):
        plain(tmp_path, "patient_id,grade\na,G2\n,\n,G3\n")


def test_spaces_that_keep_words_together_are_spaces(tmp_path):
    table = plain(tmp_path, "patient_id,grade\na,WHO grade 2\nb,WHO\u00a0grade\u202f2\u00a0\n").patients
    assert table["grade"].tolist() == ["WHO grade 2", "WHO grade 2"]


@pytest.mark.parametrize("cell", ["#N/A", "#NV", "#DIV/0!", "?", ".", "n.a.", "k.A.", "Unbekannt", "missing"])
def test_what_spreadsheets_write_for_nothing_is_unknown(tmp_path, cell):
    table = plain(tmp_path, f"patient_id,grade,m\na,G2,-\nb,{cell},+\n").patients
    assert table["grade"].tolist() == ["G2", None]
    assert table["m"].tolist() == ["-", "+"]  # of markers


def test_mapping_renames_and_selects(tmp_path):
    text = "case\tdays\tdead\tgrade_2021\thospital\tsecret\na\t3\tTRUE\tG4\tX\t1\n"
    columns = {"patient_id": "case", "time_days": "days", "event": "dead", "grade": "grade_2021", "site": "hospital"}
    table = plain(tmp_path, text, columns=columns).patients
    assert list(table.columns) == ["patient_id", "site", "time_days", "event", "grade"]
    assert table.iloc[0].tolist() == ["a", "X", 3.0, True, "G4"]


def test_table_without_outcome_has_unknown_outcome(tmp_path):
    table = plain(tmp_path, "patient_id,grade\na,G2\n").patients
    assert table[["time_days", "event"]].isna().all(axis=None)


@pytest.mark.parametrize("column", ["vital_status", "os_status", "censored", "Censorship"])
def test_ambiguous_event_columns_need_their_meaning(tmp_path, column):
    text = f"patient_id,t,{column}\na,3,1\nb,4,0\n"
    columns = {"time_days": "t", "event": column}
    with pytest.raises(ConfigurationError, match=f"{column}.*Found 0, 1.*event_values: {{0: false, 1: true}}"):
        plain(tmp_path, text, columns=columns)
    declared = plain(tmp_path, text, columns=columns, event_values={"1": False, "0": True})
    assert declared.patients["event"].tolist() == [False, True]


@pytest.mark.parametrize("column", ["event", "vital_status_date"])
def test_dates_are_no_events(tmp_path, column):
    text = f"patient_id,time_days,{column}\nP1,100,\nP2,200,03.05.2012\nP3,300,01.02.2013\n"
    columns = {"patient_id": "patient_id", "time_days": "time_days", "event": column}
    with pytest.raises(DataError, match=r"row 3 \(P2\).*date '03.05.2012' \(2 such cells\). Make a column of true and"):
        plain(tmp_path, text, columns=columns)


def test_event_values_ignore_case_and_decimals(tmp_path):
    text = "patient_id,time_days,event\na,3,dead\nb,4,ALIVE\nc,5,\nd,6,1.0\n"
    table = plain(tmp_path, text, event_values={"Dead": True, "Alive": False, "1": True}).patients
    assert table["event"].tolist() == [True, False, pd.NA, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "patient_id,time_days,event\na,3,2\nb,4,1\n",
            r"row 2 \(a\), column event: true, false, 1 or 0 are required. Found '2' \(in the whole column: 1, 2\)",
        ),
        ("patient_id,time_days,event\na,3,1\nb,soon,1\n", "row 3: time_days must be a number of days. Found 'soon'"),
        ("patient_id,time_days,event\na,inf,1\n", "row 2: time_days"),
        (
            "patient_id,time_days,event\na,3,1\nb,3,0\na,4,1\n",
            r"row 4: one row per patient .* Found a again \(first: .*row 2\)",
        ),
        ("patient_id,grade\n,G2\n", "row 2: a patient identifier is required"),
        ("patient_id;grade\na;G2\n", "commas or tabs"),
        ("patient_id,site,site\na,S2,S3\n", "unique. Found twice: site"),
        ("patient_id,grade\na,G2,G3\n", "complete table"),
        ("<html>", "web page"),
        ("", "empty"),
    ],
)
def test_bad_plain_tables(tmp_path, text, message):
    with pytest.raises(DataError, match=f"patients.csv.*{message}"):
        plain(tmp_path, text)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"patient_id": "case"}, "patients.columns.patient_id: column 'case' is not in .*It has patient_id"),
        ({"time_days": "time_days"}, "declared together. Found only time_days"),
        ({"cohort": "event"}, "cohort are names that subfuse gives"),
    ],
)
def test_bad_mappings(tmp_path, columns, message):
    with pytest.raises(ConfigurationError, match=message):
        plain(tmp_path, "patient_id,time_days,event\na,3,1\n", columns=columns)


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


def test_barcodes_are_matched_by_patient_and_give_the_site(tmp_path):
    table = plain(tmp_path, "patient_id,grade\nTCGA-02-0047-01A,G4\ntcga-dh-5140,G2\nP-9.x,G2\n")
    assert table.patients["patient_id"].tolist() == ["P-9.x", "TCGA-02-0047", "TCGA-DH-5140"]
    assert table.patients["site"].tolist() == [None, "02", "DH"]
    assert "2 patient identifiers" in table.warnings[0]
    with pytest.raises(DataError, match="TCGA-02-0047 again"):
        plain(tmp_path, "patient_id,grade\nTCGA-02-0047-01A,G4\nTCGA-02-0047-02A,G4\n")


def test_several_tables_lie_below_one_another(tmp_path):
    for name, patient in (("a.csv", "x"), ("b.csv", "y")):
        (tmp_path / name).write_text(f"patient_id,grade\n{patient},G2\n", encoding="utf-8")
    both = PatientsSection(table=(tmp_path / "a.csv", tmp_path / "b.csv"))
    assert read_clinical(both).patients["patient_id"].tolist() == ["x", "y"]
    with pytest.raises(DataError, match=r"x again"):
        read_clinical(PatientsSection(table=(tmp_path / "a.csv", tmp_path / "a.csv")))


def test_only_included_patients_are_used(tmp_path):
    text = "patient_id,grade\na,G2\nTCGA-02-0047-01A,G4\n\N{LATIN SMALL LETTER U WITH DIAERESIS},G3\n"
    table = plain(tmp_path, text, include=("TCGA-02-0047", "u\N{COMBINING DIAERESIS}"))
    assert table.patients["patient_id"].tolist() == ["TCGA-02-0047", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"]
    assert "2 of 3 patients" in table.warnings[-1]
    with pytest.raises(
        DataError, match=r"patients\.include: patients of .*patients\.csv are required\. Not found: x\."
    ):
        plain(tmp_path, text, include=("a", "x"))


@pytest.mark.parametrize(("unit", "days"), [("days", 2.0), ("months", 60.875), ("years", 730.5)])
def test_declared_units_of_time(tmp_path, unit, days):
    columns = {"time_days": f"follow_up_{unit}", "event": "event"}
    table = plain(tmp_path, f"patient_id,follow_up_{unit},event\na,2,1\n", columns=columns, time_unit=unit)
    assert table.patients["time_days"].tolist() == [days]
    assert table.warnings == ()  # nothing is doubtful about what was declared


@pytest.mark.parametrize("column", ["OS_MONTHS", "survival (years)", "os.mo", "os_yrs"])
def test_columns_in_another_unit_need_their_unit(tmp_path, column):
    columns = {"time_days": column, "event": "event"}
    with pytest.raises(ConfigurationError, match=r"patients\.time_unit: the name of column .* does not say days"):
        plain(tmp_path, f"patient_id,{column},event\na,2,1\n", columns=columns)


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


def test_repeated_patients_are_told_from_conflicting_ones(tmp_path):
    header = "patient_id,time_days,event,grade\na,3,1,G2\n"
    with pytest.raises(DataError, match=r"row 3: .* a again \(first: .*row 2\) with the same values; 1 repeated"):
        plain(tmp_path, header + "a,3,1,G2\n")
    with pytest.raises(DataError, match=r"row 3: .* with another time_days, grade; 2 repeated"):
        plain(tmp_path, header + "a,4,1,G3\na,4,1,G3\n")
    with pytest.raises(DataError, match=r"row 3: .*TCGA-02-0047 again .* with another grade"):
        plain(tmp_path, "patient_id,grade\nTCGA-02-0047-01A,G2\nTCGA-02-0047-02A,G4\n")


def test_which_of_time_and_event_is_unknown_is_counted(tmp_path):
    table = plain(tmp_path, "patient_id,time_days,event\na,3,\nb,,1\nc,,0\nd,5,1\n")
    assert "(2 without time, 1 without event)" in table.warnings[0]


def outcomes(time: list[float], event: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"time_days": time, "event": pd.array(event, dtype="boolean")})


def test_warnings_about_months_censoring_and_flipped_events():
    months = outwarn(outcomes([5, 50, 120] * 10, [True, False, False] * 10))
    assert "months" in months
    assert "100%" in outwarn(outcomes([500, 900], [True, True]))
    assert "can be neither learned nor evaluated" in outwarn(outcomes([500, 900], [False, False]))
    assert "flipped" in outwarn(outcomes([2500] * 10 + [900] * 12, [True] * 10 + [False] * 12))
    assert outwarn(outcomes([900] * 10 + [2500] * 12, [True] * 10 + [False] * 12)) == ""
    assert outwarn(outcomes([], [])) == ""


def outwarn(patients: pd.DataFrame) -> str:
    return " ".join(outcome_warnings(patients))


# --- GDC -------------------------------------------------------------------------------------------------------------


def test_gdc_rows_collapse_to_patients(tmp_path):
    table = gdc(
        tmp_path,
        [
            "1|TCGA-02-0001|male|Dead|100|'--|Glioblastoma|not reported|44|Radiation",
            "1|TCGA-02-0001|male|Dead|100|90|Glioblastoma|not reported|44|Chemo",
            "2|TCGA-DH-0002|female|Alive|'--|50|Astrocytoma, NOS|G3|--|Radiation",
            "2|TCGA-DH-0002|female|Alive|'--|70|Oligodendroglioma|G3|--|Chemo",
            "3|TCGA-DH-0003|female|Not Reported|'--|70|--|--|--|--",
        ],
    )
    patients = table.patients.set_index("patient_id")
    assert patients.loc["TCGA-02-0001", ["time_days", "event", "diagnosis"]].tolist() == [100, True, "Glioblastoma"]
    assert patients.loc["TCGA-DH-0002", ["time_days", "event", "grade"]].tolist() == [70, False, "G3"]
    assert patients.loc["TCGA-DH-0003", ["time_days", "event"]].isna().all()
    assert patients["grade"].tolist() == [None, "G3", None]
    assert patients["site"].tolist() == ["02", "DH", "DH"]
    assert "several values of diagnosis; the first is used (TCGA-DH-0002)" in table.warnings[0]


def test_gdc_death_without_day_is_unknown_follow_up(tmp_path):
    table = gdc(tmp_path, ["1|TCGA-02-0001|male|Dead|'--|90|Glioblastoma|--|44|x"])
    assert table.patients[["time_days", "event"]].isna().all(axis=None)


def test_gdc_newer_column_names_and_own_labels(tmp_path):
    header = (
        "cases.submitter_id\tdemographic.vital_status\tdemographic.days_to_death\tdiagnoses.days_to_last_follow_up\t"
        "diagnoses.submitter_id\tdiagnoses.primary_diagnosis\tdiagnoses.who_cns_grade"
    )
    rows = ["TCGA-02-0001|Dead|5|--|d1|Glioblastoma|Grade IV"]
    table = gdc(tmp_path, rows, header, columns={"grade": "who_cns_grade"}).patients
    assert table.loc[0, ["patient_id", "time_days", "event", "grade"]].tolist() == ["TCGA-02-0001", 5, True, "Grade IV"]


def test_gdc_defines_outcome_itself(tmp_path):
    with pytest.raises(ConfigurationError, match="format gdc defines event itself"):
        gdc(tmp_path, ["1|a|m|Dead|1|1|x|y|z|t"], columns={"event": "vital_status"})


def test_gdc_shifted_row_is_named(tmp_path):
    with pytest.raises(DataError, match=r"row 2: days_to_last_follow_up must be .*'Radiation, NOS'.*shifted"):
        gdc(tmp_path, ["1|a|m|Alive|--|Radiation, NOS|x|y|z|t"])


def test_archive_without_clinical_table(tmp_path):
    path = tmp_path / "clinical.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("exposure.tsv"), io.BytesIO(b""))
    with pytest.raises(DataError, match=r"clinical\.tsv is required inside. Found exposure\.tsv"):
        read_clinical(PatientsSection(table=path, format="gdc"))


def test_truncated_archive(tmp_path):
    path = tmp_path / "clinical.tar.gz"
    path.write_bytes(gzip.compress(b"x" * 10_000, mtime=0)[:-20])
    with pytest.raises(DataError, match=r"clinical\.tar\.gz"):
        read_clinical(PatientsSection(table=path, format="gdc"))


def test_sample_types():
    assert [sample_type_of_barcode(b) for b in ("TCGA-02-0047-11A-01R", "TCGA-02-0047", "x")] == [11, None, None]
    assert patient_of_barcode("TCGA-02-0047X") == "TCGA-02-0047X"


# --- real tables -----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_gdc_archives_join_the_published_patients(real_data):
    labels = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv")
    archives = tuple(sorted((real_data / "gdc").glob("clinical.project-*.tar.gz")))
    table = read_clinical(PatientsSection(table=archives, format="gdc"))
    both = labels.merge(table.patients, left_on="case_id", right_on="patient_id")
    assert len(both) == len(labels) == 569
    assert (both["event"] == both["os_event"].astype(bool)).mean() > 0.9  # releases of 2018 and 2020
    assert table.exclusions.empty
    assert any("negative for 1 patient(s)" in note and "TCGA-TQ-A7RS" in note for note in table.warnings)


@pytest.mark.real_data
def test_real_gdc_table_with_shifted_cells_is_refused(real_data):
    with pytest.raises(DataError, match="row 145: days_to_last_follow_up"):
        read_clinical(PatientsSection(table=real_data / "gdc" / "clinical.tsv.gz", format="gdc"))
