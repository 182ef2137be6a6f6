"""Clinical tables of the GDC portal, also in JSON: all are read, and what contradicts itself is named."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from clinical_sections import patients_section
from subfuse.clinical.reading import ClinicalTable, read_clinical
from subfuse.errors import ConfigurationError, DataError

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
    return read_clinical(patients_section(table=[str(table) for table in tables], format="gdc", **keys))


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
    section = patients_section(table=str(path), format=format, columns={"same": "same"} if format != "plain" else None)
    patients = read_clinical(section).patients
    assert patients["patient_id"].tolist() == ["P"]
    assert patients["same"].tolist() == ["s"]
    assert "note" not in patients
    with pytest.raises(DataError, match=r"column 'note', mapped to stage, is required once"):
        read_clinical(patients_section(table=str(path), format=format, columns={**mapped(format), "stage": "note"}))


def mapped(format: str) -> dict[str, str]:
    return {"time_days": "time_days", "event": "event"} if format == "plain" else {}


def test_a_repeated_column_of_the_outcome_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("patient_id,event,event,time_days\nP,1,0,5\n")
    with pytest.raises(DataError, match=r"column names must be unique\. Found twice: event"):
        read_clinical(patients_section(table=str(tmp_path / "p.csv")))


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
    plain = read_clinical(patients_section(table=str(columns / "excel_trailing.csv")))
    assert outcomes(plain) == {"P1": (True, 100), "P2": (False, 200)}


GDC_HEADER = (
    "case_id\tcase_submitter_id\tgender\tvital_status\tdays_to_death\tdays_to_last_follow_up\tprimary_diagnosis\t"
    "tumor_grade\tage_at_index\ttreatment_type"
)


def gdc(tmp_path: Path, rows: list[str], header: str = GDC_HEADER, **section):
    path = tmp_path / "clinical.tsv"
    path.write_text("\n".join([header, *(row.replace("|", "\t") for row in rows)]) + "\n", encoding="utf-8")
    return read_clinical(patients_section(table=path, format="gdc", **section))


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
        read_clinical(patients_section(table=path, format="gdc"))


def test_truncated_archive(tmp_path):
    path = tmp_path / "clinical.tar.gz"
    path.write_bytes(gzip.compress(b"x" * 10_000, mtime=0)[:-20])
    with pytest.raises(DataError, match=r"clinical\.tar\.gz"):
        read_clinical(patients_section(table=path, format="gdc"))


@pytest.mark.real_data
def test_real_gdc_archives_join_the_published_patients(real_data):
    labels = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv")
    archives = tuple(sorted((real_data / "gdc").glob("clinical.project-*.tar.gz")))
    table = read_clinical(patients_section(table=archives, format="gdc"))
    both = labels.merge(table.patients, left_on="case_id", right_on="patient_id")
    assert len(both) == len(labels) == 569
    assert (both["event"] == both["os_event"].astype(bool)).mean() > 0.9  # releases of 2018 and 2020
    assert table.exclusions.empty
    assert any("negative for 1 patient(s)" in note and "TCGA-TQ-A7RS" in note for note in table.warnings)


@pytest.mark.real_data
def test_real_gdc_table_with_shifted_cells_is_refused(real_data):
    with pytest.raises(DataError, match="row 145: days_to_last_follow_up"):
        read_clinical(patients_section(table=real_data / "gdc" / "clinical.tsv.gz", format="gdc"))


CURRENT = [
    {
        "case_id": "8f1c",
        "submitter_id": "TCGA-02-0001",
        "project": {"project_id": "TCGA-GBM"},
        "demographic": {
            "submitter_id": "TCGA-02-0001_demographic",
            "state": "released",
            "vital_status": "Dead",
            "days_to_death": 358,
            "gender": "female",
            "age_at_index": 44,
        },
        "diagnoses": [
            {"primary_diagnosis": "Astrocytoma, NOS", "diagnosis_is_primary_disease": "false", "tumor_grade": "G2"},
            {
                "submitter_id": "TCGA-02-0001_diagnosis",
                "primary_diagnosis": "Glioblastoma",
                "diagnosis_is_primary_disease": "true",
                "tumor_grade": "Not Reported",
                "age_at_diagnosis": 16179,
                "treatments": [{"treatment_type": "Radiation Therapy, NOS"}],
            },
        ],
        "exposures": [{"alcohol_history": "Not Reported"}],
    },
    {
        "submitter_id": "TCGA-DH-0002",
        "demographic": {"vital_status": "Alive", "gender": "male", "age_at_index": 30},
        "diagnoses": [{"days_to_last_follow_up": 50.0, "primary_diagnosis": "Mixed glioma", "tumor_grade": "G3"}],
        "follow_ups": [{"days_to_follow_up": 900}, {"days_to_follow_up": 400}, {"days_to_follow_up": None}],
    },
    {"submitter_id": "TCGA-DH-0003", "demographic": {"vital_status": "Not Reported"}},
]

OF_2017 = [  # status and times in the diagnosis, the case known by its entities only
    {
        "case_id": "8f1c",
        "exposures": [{"submitter_id": "TCGA-02-0001_exposure", "weight": None}],
        "demographic": {"submitter_id": "TCGA-02-0001_demographic", "gender": "female"},
        "diagnoses": [
            {
                "submitter_id": "TCGA-02-0001_diagnosis",
                "vital_status": "dead",
                "days_to_death": 358,
                "days_to_last_follow_up": None,
                "age_at_diagnosis": 16179,
                "primary_diagnosis": "c71.9",
            }
        ],
    }
]


def gdc_json(path: Path, content: object, **section) -> ClinicalTable:
    text = json.dumps(content).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return read_clinical(patients_section(table=path, format="gdc", **section))


@pytest.mark.parametrize("name", ["clinical.cart.json", "clinical.project.json.gz"])
def test_gdc_json(tmp_path, name):
    table = gdc_json(tmp_path / name, CURRENT)
    patients = table.patients.set_index("patient_id")
    assert patients.loc["TCGA-02-0001", ["time_days", "event", "diagnosis", "grade", "age"]].tolist() == [
        358, True, "Glioblastoma", None, "44",
    ]  # fmt: skip
    assert patients.loc["TCGA-DH-0002", ["time_days", "event", "grade", "gender"]].tolist() == [
        900,
        False,
        "G3",
        "male",
    ]
    assert patients.loc["TCGA-DH-0003", ["time_days", "event"]].isna().all()
    assert table.warnings == ()
    assert gdc_json(tmp_path / name, {"data": {"hits": CURRENT}}).patients.equals(table.patients)  # of the API


def test_gdc_json_of_2017(tmp_path):
    table = gdc_json(tmp_path / "clinical.json", OF_2017)
    patient = table.patients.iloc[0]
    assert patient[["patient_id", "time_days", "event", "gender"]].tolist() == ["TCGA-02-0001", 358, True, "female"]
    assert float(patient["age"]) == pytest.approx(44.3, abs=0.01)  # 16179 days
    assert "in days, in years" in table.warnings[0]


def test_json_and_table_of_one_portal_lie_below_one_another(tmp_path):
    tsv = tmp_path / "clinical.tsv"
    tsv.write_text("case_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\nX\tAlive\t'--\t7\n")
    (tmp_path / "clinical.json").write_text(json.dumps(CURRENT))
    section = patients_section(table=(tsv, tmp_path / "clinical.json"), format="gdc")
    assert read_clinical(section).patients["patient_id"].tolist()[-1] == "X"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"file_name": "a.htseq.counts.gz", "associated_entities": []}], "choose Clinical, then JSON"),
        ([], "clinical JSON of the GDC portal"),
        ({"message": "not found"}, "clinical JSON of the GDC portal"),
        ([{"demographic": {"vital_status": "Dead"}}], "record 1: a submitter_id is required"),
        ([{"submitter_id": "a", "demographic": {"vital_status": "Dead", "days_to_death": "soon"}}], "a: days_to_death"),
    ],
)
def test_bad_gdc_json(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"clinical\.json.*{message}"):
        gdc_json(tmp_path / "clinical.json", content)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"", "a JSON file is required. Found an empty file"),
        ("a.json", b"<html>", "a JSON file is required. Found a web page"),
        ("a.json", b'[{"demographic"', "complete JSON"),
        ("a.json", b"\xff\xfe", "Found UTF-16"),
        ("a.json", b"[\n\xff]", "complete JSON"),
        ("a.json", gzip.compress(b"[]", mtime=0), "Let its name end in .gz"),
        ("a.json.gz", b"[]", "a readable JSON file"),
        ("a.json.gz", gzip.compress(b"[" + b" " * 9999 + b"]", mtime=0)[:-9], "a readable JSON file"),
        ("a.json.gz", gzip.compress(b"[\n" + bytes(9999), mtime=0)[:-9], "complete JSON"),
    ],
)
def test_broken_json(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.json.*{message}"):
        read_clinical(patients_section(table=tmp_path / name, format="gdc"))


@pytest.mark.real_data
def test_real_gdc_cases_with_published_markers_give_the_published_diagnoses(real_data):
    labels = real_data / "tcga_gbmlgg" / "labels.csv"
    columns = {"patient_id": "case_id", "idh": "idh", "codeletion_1p19q": "codel_1p19q", "cdkn2a": "cdkn2a_gistic"}
    section = patients_section(
        table=sorted((real_data / "gdc").glob("clinical.project-*.tar.gz")),
        format="gdc",
        labels={"table": labels, "columns": columns | {"pathological_grade": "grade"}},
        derive={"diagnosis": {"rule": "who2021", "columns": {"grade": "pathological_grade"}}},
    )
    table = read_clinical(section)
    published = pd.read_csv(labels, index_col="case_id")["who2021_cdkn2a_homozygous"]
    derived = table.patients.set_index("patient_id")["diagnosis"]
    assert len(derived) == 1114
    assert derived.dropna().to_dict() == published.to_dict()
    assert {"histology", "diagnosis_basis", "subtype"} <= set(table.patients)
    assert any("569 of 1114 patients are in labels.csv" in note for note in table.warnings)
