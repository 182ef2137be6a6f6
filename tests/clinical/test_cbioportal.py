"""Studies of cBioPortal: one row per patient from the files of patients and of samples."""

from pathlib import Path

import pytest

from clinical_sections import patients_section
from subfuse.clinical.reading import ClinicalTable, read_clinical
from subfuse.errors import ConfigurationError, DataError

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
    return read_clinical(patients_section(table=paths, format="cbioportal", **section))


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
            patients_section(table="a.txt", format="cbioportal", **{name: value})
