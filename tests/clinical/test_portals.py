"""GDC JSON in its layouts, and cBioPortal studies."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from subfuse.clinical.reading import ClinicalTable, read_clinical
from subfuse.clinical.source import PatientsSection
from subfuse.errors import ConfigurationError, DataError

# --- GDC JSON --------------------------------------------------------------------------------------------------------

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
    return read_clinical(PatientsSection(table=path, format="gdc", **section))


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
    section = PatientsSection(table=(tsv, tmp_path / "clinical.json"), format="gdc")
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
        read_clinical(PatientsSection(table=tmp_path / name, format="gdc"))


# --- cBioPortal ------------------------------------------------------------------------------------------------------

PATIENTS = """\
#Patient Identifier\tOverall Survival Status\tOverall Survival (Months)\tAge\tSex
#Identifier of the patient\tSay "dead" or alive\tMonths\tAge at diagnosis\tSex
#STRING\tSTRING\tNUMBER\tNUMBER\tSTRING
#1\t1\t1\t1\t1
PATIENT_ID\tOS_STATUS\tOS_MONTHS\tAGE\tSEX
TCGA-02-0001\t1:DECEASED\t10\t44\tFemale
TCGA-DH-0002\t0:LIVING\t20.5\t30\tMale
P3\tDECEASED\t1\t\tMale
P4\tLIVING\t2\t50\tMale
P5\t\t[Not Available]\t50\tMale
"""
SAMPLES = """\
#Patient Identifier\tSample Identifier\tGrade\tIDH status
#x\tx\tx\tx
#STRING\tSTRING\tSTRING\tSTRING
#1\t1\t1\t1
PATIENT_ID\tSAMPLE_ID\tGRADE\tIDH
TCGA-DH-0002\tTCGA-DH-0002-02\tG4\tIDHmut-non-codel
TCGA-DH-0002\tTCGA-DH-0002-01\tG2\t
TCGA-02-0001\tTCGA-02-0001-01\tG4\tIDHwt
P9\tP9-1\tG2\tIDHwt
"""


def cbioportal(tmp_path: Path, *texts: str, **section) -> ClinicalTable:
    paths = [tmp_path / name for name in ("data_clinical_patient.txt", "data_clinical_sample.txt")][: len(texts)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    return read_clinical(PatientsSection.model_validate({"table": paths, "format": "cbioportal", **section}))


def test_cbioportal_patients(tmp_path):
    table = cbioportal(tmp_path, PATIENTS)
    patients = table.patients.set_index("patient_id")
    assert patients["time_days"].dropna().to_dict() == {
        "TCGA-02-0001": 304.375, "TCGA-DH-0002": 20.5 * 30.4375, "P3": 30.4375, "P4": 60.875,
    }  # fmt: skip
    assert patients["event"].dropna().to_dict() == {
        "TCGA-02-0001": True, "TCGA-DH-0002": False, "P3": True, "P4": False,
    }  # fmt: skip
    assert patients.loc["P5", ["time_days", "event"]].isna().all()
    assert patients["age"].to_dict()["P3"] is None
    assert patients.loc["TCGA-02-0001", ["gender", "site"]].tolist() == ["Female", "02"]
    assert table.warnings == ()


def test_cbioportal_samples_join_with_the_primary_tumour_first(tmp_path):
    options = {"columns": {"idh": "IDH"}, "derive": {"diagnosis": {"rule": "who2021", "columns": {}}}}
    table = cbioportal(tmp_path, PATIENTS, SAMPLES, **options)
    patients = table.patients.set_index("patient_id")
    assert patients["grade"].dropna().to_dict() == {"TCGA-02-0001": "G4", "TCGA-DH-0002": "G2"}
    assert patients.loc["TCGA-DH-0002", "idh"] == "IDHmut-non-codel"  # the first known
    assert patients["diagnosis"].dropna().to_dict() == {"TCGA-02-0001": "GBM_IDHwt"}
    assert "P9" not in patients.index
    assert any("1 patient(s) are only in the file of samples (P9)" in note for note in table.warnings)
    assert any("1 patient(s) have several samples" in note for note in table.warnings)


def test_cbioportal_samples_follow_the_rule_of_expression_samples_and_others_are_listed(tmp_path):
    text = (
        "PATIENT_ID\tSAMPLE_ID\tSAMPLE_TYPE\tGRADE\n"
        "a\ta0\tSolid Tissue Normal\tG1\na\ta1\tRecurrence\tG4\na\ta2\tPrimary\t\n"
        "TCGA-02-0001\tTCGA-02-0001-11\t\tG1\nTCGA-02-0001\tTCGA-02-0001-03\t\tG3\n"
    )
    table = cbioportal(tmp_path, text)
    assert table.patients.set_index("patient_id")["grade"].to_dict() == {"a": "G4", "TCGA-02-0001": "G3"}
    assert set(table.exclusions["level"]) == {"sample"}
    assert table.exclusions.set_index("id")["reason"].to_dict() == {
        "a0": "normal tissue",
        "TCGA-02-0001-11": "normal tissue",
        "a1": "a2 of the same patient is used (not the primary tumour)",
    }


def test_cbioportal_sample_types_in_words(tmp_path):
    text = (
        "PATIENT_ID\tSAMPLE_ID\tSAMPLE_TYPE\tGRADE\na\ta2\tRecurrence\tG4\na\ta1\tPrimary\tG2\n"
        "b\tb1\t\tG3\nb\tb2\tMetastasis\tG4\n"
    )
    table = cbioportal(tmp_path, text)
    assert table.patients["grade"].tolist() == ["G2", "G3"]
    assert any("no OS_STATUS and OS_MONTHS" in note for note in table.warnings)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("1:DECEASED", "gone", DataError, "row 1 after the header: OS_STATUS must be .* Found gone"),
        ("1:DECEASED", "0:DECEASED", DataError, "OS_STATUS must be .* Found 0:DECEASED"),
        (
            "\t20.5\t",
            "\tlong\t",
            DataError,
            "row 2 after the header: OS_MONTHS must be a number of months. Found 'long'",
        ),
        ("PATIENT_ID\t", "CASE\t", DataError, "a column `PATIENT_ID`"),
        ("P3\t", "P4\t", DataError, "P4 again .* with another"),
    ],
)
def test_bad_cbioportal(tmp_path, old, new, error, message):
    assert old in PATIENTS
    with pytest.raises(error, match=rf"data_clinical_patient\.txt.*{message}"):
        cbioportal(tmp_path, PATIENTS.replace(old, new))


def test_portals_define_time_and_event(tmp_path):
    with pytest.raises(ConfigurationError, match="format cbioportal defines event itself"):
        cbioportal(tmp_path, PATIENTS, columns={"event": "OS_STATUS"})
    for name, value in (("time_unit", "months"), ("event_values", {"a": True})):
        with pytest.raises(ValueError, match=f"`{name}` belongs to format plain"):
            PatientsSection.model_validate({"table": "a.txt", "format": "cbioportal", name: value})


# --- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_gdc_cases_with_published_markers_give_the_published_diagnoses(real_data):
    labels = real_data / "tcga_gbmlgg" / "labels.csv"
    columns = {"patient_id": "case_id", "idh": "idh", "codeletion_1p19q": "codel_1p19q", "cdkn2a": "cdkn2a_gistic"}
    section = PatientsSection.model_validate(
        {
            "table": sorted((real_data / "gdc").glob("clinical.project-*.tar.gz")),
            "format": "gdc",
            "labels": {"table": labels, "columns": columns | {"pathological_grade": "grade"}},
            "derive": {"diagnosis": {"rule": "who2021", "columns": {"grade": "pathological_grade"}}},
        }
    )
    table = read_clinical(section)
    published = pd.read_csv(labels, index_col="case_id")["who2021_cdkn2a_homozygous"]
    derived = table.patients.set_index("patient_id")["diagnosis"]
    assert len(derived) == 1114
    assert derived.dropna().to_dict() == published.to_dict()
    assert {"histology", "diagnosis_basis", "subtype"} <= set(table.patients)
    assert any("569 of 1114 patients are in labels.csv" in note for note in table.warnings)
