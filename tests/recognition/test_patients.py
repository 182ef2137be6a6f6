"""The section `patients` of a draft."""

import pandas as pd
import pytest
import yaml
from recognised_folders import N_PATIENTS, clinical, study

from subfuse.clinical.reading import read_clinical
from subfuse.cohort.cohort_file import CohortFile, read_cohort_file
from subfuse.errors import ConfigurationError
from subfuse.recognition.kinds import find_tables
from subfuse.recognition.patients import patients_lines


def drafted(folder):
    return "\n".join(patients_lines(*find_tables(folder), folder))


def read(folder, text):
    section = CohortFile.model_validate({"name": "x", **yaml.safe_load(text)}, context={"base": folder}).patients
    return read_clinical(section).patients


def test_further_follow_ups_of_a_study_are_its_endpoints(tmp_path):
    assert "endpoints" not in drafted(study(tmp_path / "s"))
    path = tmp_path / "s" / "data_clinical_patient.txt"
    comments = [line + "\n" for line in path.read_text().splitlines() if line.startswith("#")]
    table = pd.read_csv(path, sep="\t", comment="#")
    table["DFS_STATUS"] = ["0:DiseaseFree", "1:Recurred/Progressed"] * (N_PATIENTS // 2)
    table["DSS_STATUS"] = ["DiseaseFree", "Recurred"] * (N_PATIENTS // 2)  # which do not say what is an event
    table["DFS_MONTHS"] = table["DSS_MONTHS"] = range(1, N_PATIENTS + 1)
    table["PFS_STATUS"] = "0:CENSORED"  # whose months are not there
    path.write_text("".join(comments) + table.to_csv(index=False, sep="\t"))
    text = drafted(tmp_path / "s")
    assert "# QUESTION: in which unit is the time of dss, and" in text
    assert "PFS" not in text
    found = read(tmp_path / "s", text)
    expected = table.set_index("PATIENT_ID").loc[found["patient_id"]]
    assert (found["dfs_event"] == "True").tolist() == expected["DFS_STATUS"].str.startswith("1").tolist()
    assert found["dfs_days"].astype(float).tolist() == (expected["DFS_MONTHS"] * 30.4375).tolist()


def test_expression_among_the_columns_of_patients_is_told_as_what_it_is(tmp_path):
    genes = {f"{gene}_rnaseq": range(N_PATIENTS) for gene in ("EGFR", "PTEN")}
    write(tmp_path, **genes, EGFR_cnv=range(N_PATIENTS))
    text = drafted(tmp_path)
    told = "# 2 columns are expression (EGFR_rnaseq, PTEN_rnaseq), which `expression` reads from this table by"
    assert f"{told} `gene_suffix: _rnaseq`, `patient_column: patient_id`" in text
    assert "not used, unless columns name them: EGFR_cnv\n" in f"{text}\n"


@pytest.mark.parametrize("dates", [["2019-05-02", "2018-11-30"], ["05/2019", ""], ["2.5.2019", "30.11.2018"]])
def test_dates_are_no_label_whatever_their_column_is_called(tmp_path, dates):
    write(tmp_path, diagnosis=dates * (N_PATIENTS // 2))
    text = drafted(tmp_path)
    assert "diagnosis: diagnosis" not in text
    assert "diagnosis" in text  # as a column that is not used
    write(tmp_path, diagnosis=["glioma", dates[0]] * (N_PATIENTS // 2))
    assert "diagnosis: diagnosis" in drafted(tmp_path)


def write(folder, **columns):
    clinical(**columns).to_csv(folder / "p.csv", index=False)


def test_columns_are_stated_and_others_are_named(tmp_path):
    columns = {
        "Sex": ["f", "m"] * 12,
        "idh_status": ["WT", "Mutant"] * 12,
        "codel": ["codel"] * 24,
        "scanner": ["a"] * 24,
    }
    table = clinical(hospital=["H1"] * 24, **columns).rename(columns={"patient_id": "Case ID", "os_days": "OS_DAYS"})
    table.to_csv(tmp_path / "p.csv", index=False)
    text = drafted(tmp_path)
    assert yaml.safe_load(text)["patients"] == {
        "table": "p.csv",
        "columns": {
            "patient_id": "Case ID", "time_days": "OS_DAYS", "event": "event", "site": "hospital", "grade": "grade",
            "age": "age", "gender": "Sex", "idh": "idh_status", "codeletion_1p19q": "codel",
        },
        "time_unit": "days",
    }  # fmt: skip
    assert "who2021" in text
    assert "scanner" in text
    assert "QUESTION" not in text
    assert sorted(read(tmp_path, text)["time_days"]) == sorted(table["OS_DAYS"])


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("time_days", None),
        ("os_days", "days"),
        ("OS_MONTHS", "months"),
        ("survival_years", "years"),
        ("os_weeks", "weeks"),
    ],
)
def test_a_unit_is_that_of_the_columns_name(tmp_path, name, unit):
    clinical().rename(columns={"os_days": name}).to_csv(tmp_path / "p.csv", index=False)
    text = drafted(tmp_path)
    assert yaml.safe_load(text)["patients"].get("time_unit") == unit
    assert "QUESTION" not in text
    read(tmp_path, text)


def test_a_unit_that_nothing_tells_is_asked_with_what_the_column_holds(tmp_path):
    clinical().rename(columns={"os_days": "os_time"}).to_csv(tmp_path / "p.csv", index=False)
    text = drafted(tmp_path)
    assert yaml.safe_load(text)["patients"]["time_unit"] == "FILL-IN"
    days = clinical()["os_days"]
    assert f"os_time goes from {days.min()} to {days.max()}" in text


@pytest.mark.parametrize(
    ("column", "values", "meaning"),
    [
        ("vital_status", ["Dead", "Alive"], {"Dead": True, "Alive": False}),
        ("OS_STATUS", ["1:DECEASED", "0:LIVING"], {"1:DECEASED": True, "0:LIVING": False}),
        ("OS_STATUS", ["0:DECEASED", "1:LIVING"], {"0:DECEASED": "FILL-IN", "1:LIVING": "FILL-IN"}),
        ("status", ["0", "1"], {"0": "FILL-IN", "1": "FILL-IN"}),
        ("censored", ["True", "False"], {"True": "FILL-IN", "False": "FILL-IN"}),
        ("vital_status", ["Dead", "Lost"], {"Dead": "FILL-IN", "Lost": "FILL-IN"}),
        ("OS", ["0", "1"], None),
        ("os_event", ["0.0", "1.0"], None),
        ("died", ["true", "false"], None),
    ],
)
def test_what_an_event_means_is_stated_where_words_say_it_and_asked_elsewhere(tmp_path, column, values, meaning):
    clinical(event=values * 12).rename(columns={"event": column}).to_csv(tmp_path / "p.csv", index=False)
    text = drafted(tmp_path)
    found = yaml.safe_load(text)["patients"]
    assert found.get("event_values") == meaning
    assert found["columns"]["event"] == column
    assert ("QUESTION" in text) == ("FILL-IN" in str(meaning))
    assert (f"assumed that 1 in {column} means that it was observed, in 12 of 24 rows" in text) == (
        column in ("OS", "os_event")
    )
    if "FILL-IN" not in text:
        assert read(tmp_path, text)["event"].sum() == 12


@pytest.mark.parametrize(
    ("column", "values", "key"), [("status", ["0", "1"], "0"), ("vital_status", ["Alive", "Lost"], "Alive")]
)
def test_an_event_that_is_not_filled_in_is_no_cause_called_fill_in(tmp_path, column, values, key):
    clinical(event=values * 12).rename(columns={"event": column}).to_csv(tmp_path / "p.csv", index=False)
    path = tmp_path / "cohort.yaml"
    path.write_text("name: x\n" + drafted(tmp_path))
    number = next(i for i, line in enumerate(path.read_text().splitlines(), start=1) if "event_values" in line)
    with pytest.raises(
        ConfigurationError, match=rf"line {number}: `patients\.event_values\.{key}`: .*place of FILL-IN"
    ):
        read_cohort_file(path)
    path.write_text(path.read_text().replace("FILL-IN", "true", 1).replace("FILL-IN", "false"))
    assert read_clinical(read_cohort_file(path).patients).patients["event"].sum() == 12


@pytest.mark.parametrize(
    "columns",
    [
        {"os_days": None},
        {"event": None},
        {"OS_MONTHS": range(24)},
        {"status": [0, 1] * 12},
        {"event": [f"word {i}" for i in range(24)]},
    ],
)
def test_a_follow_up_that_is_not_clear_is_asked_about_and_left_out(tmp_path, columns):
    write(tmp_path, **columns)
    text = drafted(tmp_path)
    assert not {"time_days", "event"} & set(yaml.safe_load(text)["patients"]["columns"])
    assert "QUESTION" in text
    assert read(tmp_path, text)["event"].isna().all()


def test_dates_that_are_called_so_are_taken(tmp_path):
    dates = {"time_from": ["2019-01-01"] * 24, "time_to": [f"2020-01-{day:02d}" for day in range(1, 25)]}
    write(tmp_path, os_days=None, **dates)
    text = drafted(tmp_path)
    assert sorted(read(tmp_path, text)["time_days"]) == list(range(365, 389))


def test_of_two_tables_that_with_the_outcome_is_taken_and_the_other_offered(tmp_path):
    write(tmp_path)
    pd.DataFrame({"Case ID": clinical()["patient_id"], "idh": "WT"}).to_csv(tmp_path / "markers.csv", index=False)
    text = drafted(tmp_path)
    assert yaml.safe_load(text)["patients"]["table"] == "p.csv"
    offered = next(line for line in text.splitlines() if "# labels: " in line).partition("labels: ")[2]
    assert yaml.safe_load(offered) == {"table": "markers.csv", "columns": {"patient_id": "Case ID", "idh": "idh"}}
    read(tmp_path, f"{text}\n  labels: {offered}")


def test_two_tables_with_outcomes_are_both_named(tmp_path):
    write(tmp_path)
    (tmp_path / "old.csv").write_text((tmp_path / "p.csv").read_text())
    text = drafted(tmp_path)
    assert yaml.safe_load(text)["patients"] == {"table": "FILL-IN"}
    assert "old.csv or p.csv" in text


def test_tables_of_the_gdc_stand_below_one_another_where_their_patients_differ(tmp_path):
    header = "case_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\n"
    (tmp_path / "gbm.tsv").write_text(header + "P1\tDead\t10\t'--\n")
    (tmp_path / "lgg.tsv").write_text(header + "P2\tAlive\t'--\t20\n")
    text = drafted(tmp_path)
    assert yaml.safe_load(text)["patients"] == {"table": ["gbm.tsv", "lgg.tsv"], "format": "gdc"}
    assert len(read(tmp_path, text)) == 2
    (tmp_path / "again.tsv").write_text(header + "P2\tAlive\t'--\t30\n")
    text = drafted(tmp_path)
    assert yaml.safe_load(text)["patients"] == {"table": "FILL-IN"}
    assert "again.tsv or gbm.tsv or lgg.tsv" in text


def test_tables_of_subfolders_count_where_the_folder_has_none(tmp_path):
    (tmp_path / "tables").mkdir()
    write(tmp_path / "tables")
    assert yaml.safe_load(drafted(tmp_path))["patients"]["table"] == "tables/p.csv"
    clinical(age=None).to_csv(tmp_path / "q.csv", index=False)
    assert yaml.safe_load(drafted(tmp_path))["patients"]["table"] == "q.csv"


def test_without_a_table_there_are_no_lines(tmp_path):
    assert drafted(tmp_path) == ""


def test_a_table_of_slides_with_outcomes_is_that_of_the_patients_too(tmp_path):
    table = clinical(age=None, event=None).rename(columns={"patient_id": "case_id", "os_days": "survival_months"})
    table = table.assign(censorship=[1, 0] * 12, slide_id=[f"{name}-01Z-00-DX1.svs" for name in table["case_id"]])
    second = table.assign(slide_id=table["slide_id"].str.replace("DX1", "DX2"))
    pd.concat([table, second]).to_csv(tmp_path / "dataset.csv")
    text = drafted(tmp_path)
    found = yaml.safe_load(text)["patients"]
    assert found["columns"] == {
        "patient_id": "case_id", "time_days": "survival_months", "event": "censorship", "grade": "grade"
    }  # fmt: skip
    patients = read(tmp_path, text)
    assert len(patients) == 24
    assert patients["event"].sum() == 12
    write(tmp_path)
    assert yaml.safe_load(drafted(tmp_path))["patients"]["table"] == "p.csv"


def test_the_endpoints_of_a_table_of_survpath_have_the_meaning_of_their_columns(tmp_path):
    table = clinical(os_days=None, event=None).rename(columns={"patient_id": "case_id"})
    table = table.sort_values("case_id", ignore_index=True)
    months, censored = pd.Series(range(1, 25)), pd.Series([0, 1] * 12)
    table = table.assign(
        survival_months=months, censorship=censored, survival_months_dss=months / 2, censorship_dss=1.0 - censored
    )
    table.loc[2, ["survival_months_dss", "censorship_dss"]] = None
    table.to_csv(tmp_path / "tcga.csv", index=False)
    text = drafted(tmp_path)
    assert "QUESTION" not in text
    assert "assumed: 1 in censorship_dss is censored, as in MCAT; observed in 12 of 23 rows" in text
    found = read(tmp_path, text)
    assert found["event"].tolist() == (censored == 0).tolist()
    assert found["dss_event"].map({"True": 1, "False": 0}).drop(2).tolist() == censored.drop(2).tolist()
    assert found["dss_days"].astype(float).drop(2).tolist() == (months / 2 * 30.4375).drop(2).tolist()
    assert found.loc[2, ["dss_event", "dss_days"]].isna().all()


def test_a_table_of_labels_with_molecular_classes_is_offered_with_them(tmp_path):
    write(tmp_path)
    pd.DataFrame({"Case ID": clinical()["patient_id"], "KRAS": ["WT", "MUT"] * 12}).to_csv(
        tmp_path / "m.csv", index=False
    )
    offered = next(line for line in drafted(tmp_path).splitlines() if "# labels: " in line).partition("labels: ")[2]
    assert yaml.safe_load(offered)["columns"] == {"patient_id": "Case ID", "KRAS": "KRAS"}


def test_a_further_table_without_labels_is_not_offered_as_one(tmp_path):
    write(tmp_path)
    (tmp_path / "map.csv").write_text("room,patient\n3,P1\n")
    text = drafted(tmp_path)
    assert "not used: map.csv" in text
    assert "QUESTION" not in text
