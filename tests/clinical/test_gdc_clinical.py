"""Clinical tables of the GDC portal: every table is read, and what contradicts itself is named."""

import io
import json
import tarfile

import pandas as pd
import pytest

from subfuse.clinical.reading import read_clinical
from subfuse.clinical.source import PatientsSection
from subfuse.errors import DataError

HEADER = "case_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up"
NONE = "'--"


def clinical(*rows: str) -> str:
    return (
        "\n".join([HEADER, *("\t".join(NONE if cell == "-" else cell for cell in row.split()) for row in rows)]) + "\n"
    )


def archive(path, tables: dict[str, str]):
    with tarfile.open(path, "w:gz") as file:
        for name, text in tables.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            file.addfile(info, io.BytesIO(text.encode()))
    return path


def read(path, **keys):
    tables = [path] if not isinstance(path, list) else path
    return read_clinical(PatientsSection(table=[str(table) for table in tables], format="gdc", **keys))


def outcomes(table) -> dict:
    patients = table.patients
    return {
        patient: (None if pd.isna(event) else bool(event), None if pd.isna(time) else float(time))
        for patient, event, time in zip(patients["patient_id"], patients["event"], patients["time_days"], strict=True)
    }


@pytest.mark.parametrize(
    ("rows", "outcome", "note"),
    [
        (["P Alive - 100", "P Dead 800 100"], (True, 800), "as alive and as dead"),
        (["P Dead 800 100", "P Alive - 100"], (True, 800), "as alive and as dead"),
        (["P Dead 300 -", "P Alive - 900"], (False, 900), "as alive and as dead"),
        (["P Dead - -", "P Alive - 900"], (None, None), "as alive and as dead"),
        (["P Alive 500 400"], (False, 400), "alive with a date of death"),
        (["P Alive 500 -"], (None, None), "alive with a date of death"),
        (["P Dead 300 900"], (True, 300), "follow-up after their death"),
        (["P unknown 300 200"], (True, 300), "date of death without vital status"),
        (["P Lost - 200"], (None, None), "other than Dead and Alive"),
        (["P Dead 700 700"], (True, 700), ""),
        (["P Alive - 100", "P Alive - 900", "P Alive - 200"], (False, 900), ""),
    ],
)
def test_contradictions_are_named(tmp_path, rows, outcome, note):
    (tmp_path / "clinical.tsv").write_text(clinical(*rows))
    table = read(tmp_path / "clinical.tsv")
    assert outcomes(table) == {"P": outcome}
    found = [warning for warning in table.warnings if "(P)" in warning and "only one of time" not in warning]
    assert len(found) == bool(note)
    assert note in "".join(found)


def test_all_tables_of_an_archive_are_read(tmp_path):
    tables = {
        "x/clinical.tsv": clinical("P Alive - -", "Q Dead 50 -"),
        "x/follow_up.tsv": "cases.submitter_id\tfollow_ups.days_to_follow_up\nP\t70\nP\t90\nQ\t40\nR\t10\n",
        "x/exposure.tsv": "cases.submitter_id\texposures.tobacco\nP\t'--\nP\tyes\nQ\tno\n",
        "x/notes.tsv": "a\tb\n1\t2\n",
        "x/MANIFEST.txt": "clinical.tsv",
    }
    table = read(archive(tmp_path / "c.tar.gz", tables), columns={"smoking": "tobacco"})
    assert outcomes(table) == {"P": (False, 90), "Q": (True, 50)}
    assert table.patients["smoking"].tolist() == ["yes", "no"]
    assert "notes.tsv does not name its cases: not used" in table.warnings
    assert "1 case(s) without vital status are not used (R)" in table.warnings


def test_unpacked_tables_are_listed_or_missed_by_name(tmp_path):
    first, second = tmp_path / "clinical.tsv", tmp_path / "follow_up.tsv"
    first.write_text(clinical("P Alive - 10"))
    second.write_text("case_submitter_id\tdays_to_follow_up\nP\t90\n")
    assert outcomes(read([first, second])) == {"P": (False, 90)}
    alone = read(first)
    assert outcomes(alone) == {"P": (False, 10)}
    assert "follow_up.tsv lies beside clinical.tsv and is not read: list it in patients.table" in alone.warnings
    with pytest.raises(DataError, match="vital_status"):
        read(second)


def test_a_patient_in_two_files_is_refused(tmp_path):
    paths = [tmp_path / "a.tsv", tmp_path / "b.tsv"]
    for path in paths:
        path.write_text(clinical("TCGA-02-0001 Alive - 10"))
    with pytest.raises(DataError, match=r"b\.tsv: one row per patient .* TCGA-02-0001 again \(first: .*a\.tsv\)"):
        read(paths)


def test_every_entity_of_a_json_file_is_read(tmp_path):
    case = {
        "submitter_id": "P",
        "demographic": {"vital_status": "Alive"},
        "diagnoses": [{"tumor_grade": "G2", "days_to_last_follow_up": 5}],
        "exposures": [{"alcohol": "no"}, {"tobacco": "yes"}],
        "family_histories": [{"relative": "aunt"}],
        "follow_ups": [{"days_to_follow_up": 80, "karnofsky": 90}, {"days_to_follow_up": None}],
    }
    (tmp_path / "c.json").write_text(json.dumps([case]))
    table = read(tmp_path / "c.json", columns={"smoking": "tobacco", "relative": "relative", "kps": "karnofsky"})
    assert outcomes(table) == {"P": (False, 80)}
    assert table.patients[["smoking", "relative", "kps", "grade"]].to_numpy().tolist() == [["yes", "aunt", "90", "G2"]]


@pytest.mark.parametrize("format", ["gdc", "plain", "cbioportal"])
def test_repeated_and_nameless_columns_that_nobody_needs(tmp_path, format):
    header = {
        "gdc": "case_submitter_id,vital_status,days_to_death,days_to_last_follow_up",
        "plain": "patient_id,event,days,time_days",
        "cbioportal": "PATIENT_ID,OS_STATUS,X,OS_MONTHS",
    }[format]
    cells = {"gdc": "P,Alive,,100", "plain": "P,0,,100", "cbioportal": "P,0:LIVING,,100"}[format]
    path = tmp_path / "p.csv"
    path.write_text(f"{header},note,note,same,same,,\n{cells},a,b,s,s,,\n,,,,,,,,,\n")
    section = PatientsSection(table=str(path), format=format, columns={"same": "same"} if format != "plain" else None)
    patients = read_clinical(section).patients
    assert patients["patient_id"].tolist() == ["P"]
    assert patients["same"].tolist() == ["s"]
    assert "note" not in patients
    with pytest.raises(DataError, match=r"column 'note', mapped to stage, is required once"):
        read_clinical(PatientsSection(table=str(path), format=format, columns={**mapped(format), "stage": "note"}))


def mapped(format: str) -> dict[str, str]:
    return {"time_days": "time_days", "event": "event"} if format == "plain" else {}


def test_a_repeated_column_of_the_outcome_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("patient_id,event,event,time_days\nP,1,0,5\n")
    with pytest.raises(DataError, match=r"column names must be unique\. Found twice: event"):
        read_clinical(PatientsSection(table=str(tmp_path / "p.csv")))


@pytest.mark.real_data
def test_downloads_with_follow_ups_apart_and_contradictions(cases):
    table = read(cases / "gdc_follow_up_apart" / "clinical.tar.gz")
    known = table.patients.dropna(subset=["time_days", "event"])
    assert (len(known), int(known["event"].sum())) == (60, 11)
    found = read(cases / "gdc_contradictions" / "clinical.tsv")
    assert outcomes(found)["TCGA-AA-0009"] == (True, 800)
    named = "\n".join(found.warnings)
    assert all(patient in named for patient in ("TCGA-AA-0001", "TCGA-AA-0008", "TCGA-AA-0009"))
    columns = cases / "gdc_2024_columns"
    assert outcomes(read(columns / "clinical.tsv")) == {"TCGA-ZZ-0001": (True, 300), "TCGA-ZZ-0002": (False, 800)}
    plain = read_clinical(PatientsSection(table=str(columns / "excel_trailing.csv")))
    assert outcomes(plain) == {"P1": (True, 100), "P2": (False, 200)}
