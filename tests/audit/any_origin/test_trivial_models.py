"""Predictions without trivial models are compared with some of the patients' table, or it is said why not."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_columns import people, theirs
from drawn_predictions import predictions
from foreign_files import N, change

from subfuse.audit.any_origin.any_table import auditable
from subfuse.audit.any_origin.prediction_files import read_prediction_files
from subfuse.audit.any_origin.trivial_models import TrivialModels, fit_trivial_models
from subfuse.audit.audit import audit_predictions
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.findings import Finding
from subfuse.cli import main


def fitted(table: pd.DataFrame, patients: pd.DataFrame, **given: list[str]) -> TrivialModels:
    return fit_trivial_models(auditable(table)[0], patients.drop(columns=["time_days", "event", "label"]), given)


def test_files_alone_are_ranked_by_what_they_add_to_the_patients_table(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    patients = pd.read_csv(folder / "patients.csv")
    change(folder / "patients.csv", age=80 - np.log(patients["time_days"]) + np.sin(np.arange(N)), sex="f", scanner="0")
    ours = pd.read_csv(folder / "ours.csv")
    ours[ours["split"] == "test"].assign(model="theirs").to_csv(folder / "theirs.csv", index=False)
    files = [str(folder / "ours.csv"), str(folder / "theirs.csv")]
    change(folder / "theirs.csv", risk=np.random.default_rng(0).normal(size=(ours["split"] == "test").sum()))

    assert main(["audit", *files, "--patients", str(folder / "patients.csv"), "--columns", '{"scanner": "batch"}']) == 0

    content, shown = json.loads((folder / "audit.json").read_text()), capsys.readouterr().out
    added = content["tables"]["added_value"]
    assert {row["model"] for row in added} == {"subspace", "theirs"}
    assert {row["trivial"] for row in added} == {"clinical"}
    assert "What the models add" in shown
    assert "survival: fitted here with the folds of the predictions: Clinical model (age, idh); Hospital alone." in (
        " ".join(shown.split())
    )
    assert not [
        f for f in content["findings"] if f["check"] == "trivial baseline" and "cannot be checked" in f["found"]
    ]


def told(table: pd.DataFrame, patients: pd.DataFrame) -> Finding:
    """What the audit says in place of a comparison with a trivial model."""
    audit = audit_predictions(table, patients=patients, n_bootstrap=5)
    (finding,) = (finding for finding in audit.findings if finding.check == "trivial baseline")
    assert len(audit.tables["added_value"]) == 0
    return finding


def test_where_nothing_can_be_fitted_one_line_says_why() -> None:
    patients = people()
    table = theirs(patients)
    assert told(table.drop(columns="fold"), patients).found == (
        "cannot be checked: no model can be fitted on the patients' table, nobody is known who is not tested in fold 0"
    )
    assert (
        told(table.drop(columns="fold"), patients).remedy
        == "Give several folds by a column fold, or rows of split train."
    )
    few = people(36)
    few = few.assign(event=few.groupby("fold_tested").cumcount() < 4)
    assert told(theirs(few), few).found == (
        "cannot be checked: no model can be fitted on the patients' table, fold 0 leaves 24 patients with 8 events, "
        "10 events are needed"
    )
    by_site = patients.assign(fold_tested=patients["site"].map({"A": 0, "B": 1, "C": 2}))
    assert told(theirs(by_site), by_site[["patient_id", "site"]]).found.endswith(
        "no hospital or batch of those tested occurs in another fold"
    )
    assert "there is none" in told(table, patients[["patient_id"]]).found


def test_a_column_that_is_the_outcome_or_cannot_be_read_is_no_input_of_the_clinical_model() -> None:
    patients = people(60)
    patients = patients.assign(grade=np.where(patients["label"] == "G4", "high", "low"), gender=patients["sex"])
    alone = patients.drop(columns=["site", "batch"])
    task, fits = theirs(patients, "diagnosis"), "fitted here with the folds of the predictions: Clinical model"
    assert said(task, alone) == [f"{fits} (age, sex, idh)"]
    assert said(task, alone.assign(grade=patients["idh"])) == [f"{fits} (age, sex, grade, idh)"]
    assert said(theirs(patients, "grade"), alone.assign(grade=patients["idh"])) == [f"{fits} (age, sex, idh)"]

    decimal_comma = patients["age"].astype(str).str.replace(".", ",")
    changed = alone.drop(columns="sex").assign(age=decimal_comma, batch=range(60))
    findings = {finding.found: finding for finding in fitted(task, changed).findings}
    unread, identifier, fitted_ones = findings
    assert findings[unread].level == findings[identifier].level == "warning"
    assert identifier.startswith("models are compared without a column: batch: batch must have at least two values")
    assert unread.startswith("models are compared without a column: age")
    assert "decimal point" in unread
    assert fitted_ones == f"{fits} (gender, idh)"


def test_columns_of_one_value_and_values_that_a_fold_never_trained_on_are_said() -> None:
    patients = people(60).drop(columns=["site", "batch"])
    rare = (patients["fold_tested"] == 1) & (patients.groupby("fold_tested").cumcount() < 2)
    changed = patients.assign(sex="f", idh=patients["idh"].where(~rare, "unclear"))
    notes = said(theirs(patients), changed)
    assert notes[:2] == [
        "sex: one value for all patients, which tells nobody apart",
        "idh unclear never occurs in training of fold 1: it is taken as unknown there",
    ]


def said(table: pd.DataFrame, patients: pd.DataFrame) -> list[str]:
    return [finding.found for finding in fitted(table, patients).findings]


@pytest.mark.walk
def test_what_hospital_and_batch_explain_is_told_of_predictions_alone() -> None:
    patients = people(150)
    table = theirs(patients)
    is_second = table["patient_id"].map(patients.set_index("patient_id")["batch"]) == "02"
    table["risk"] += 2 * is_second * table.groupby("fold")["risk"].transform("std")

    audit = audit_predictions(table, patients=patients, n_bootstrap=5)

    findings = {f.found.partition(":")[0]: f for f in audit.findings if f.check == "confounding"}
    rows = audit.tables["confounders"].set_index("column")
    assert set(findings) == {"site", "batch"}
    assert findings["batch"].level == "warning"  # half of what is predicted among patients alike
    assert rows.loc["batch", "prediction_share"] > 0.5 > 0.2 > rows.loc["site", "prediction_share"]
    table["risk"] -= 1.2 * is_second * theirs(patients).groupby("fold")["risk"].transform("std")
    (fewer,) = (
        f for f in audit_predictions(table, patients=patients, n_bootstrap=5).findings if f.found[:6] == "batch:"
    )
    assert fewer.level == "note"
    without = audit_predictions(table, patients=patients[["patient_id", "age"]], n_bootstrap=5)
    (finding,) = (f for f in without.findings if f.check == "confounding")
    assert finding.found == "cannot be checked from predictions alone: it needs the inputs"


def test_hospitals_of_one_value_or_of_one_patient_each_are_said() -> None:
    patients = people(60)
    same, each = (said(theirs(patients), patients.assign(site=site)) for site in ("A", [f"R{i}" for i in range(60)]))
    assert "site: one value for all patients, which tells nobody apart" in same
    assert any("site: hospitals with several patients are required. Found 60 for 60 patients" in text for text in each)


def test_without_folds_no_value_is_called_unseen_and_models_that_are_fitted_here_are_not_judged() -> None:
    patients = people(90)
    one_file = theirs(patients).drop(columns="fold")
    assert not [f for f in fitted(one_file, patients).findings if "never occurs" in f.found]
    audit = audit_predictions(theirs(patients, "diagnosis"), patients=patients, n_bootstrap=5)
    judged = {f.model for f in audit.findings if f.check in ("calibration", "label permutation")}
    assert judged <= {"theirs", None}
    assert {"clinical", "site", "batch"} <= {*audit.tables["calibration"]["model"]}  # for the curious


def test_models_that_the_predictions_have_are_not_fitted_again() -> None:
    patients = people(60)
    table = pd.concat(
        [theirs(patients), predictions(patients, model="cox of age"), predictions(patients, model="site")]
    )
    found = fitted(table, patients, **{"cox of age": ["covariates"]}).rows
    assert set(found["model"]) == {"batch"}


@pytest.mark.real_data
@pytest.mark.walk
@pytest.mark.parametrize(("left_out", "clinical"), [("grade", 0.847), ("mgmt", 0.866)])
def test_on_the_published_folds_of_tcga_they_reach_what_is_known(real_data, tmp_path, left_out, clinical):
    folds = [pd.read_csv(real_data / "tcga_gbmlgg" / "splits" / f"splits_{i}.csv")["val"].dropna() for i in range(5)]
    people = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv", dtype=str).drop(columns=left_out, errors="ignore")
    rows = pd.concat([pd.DataFrame({"case_id": names, "fold": i}) for i, names in enumerate(folds)])
    rows = rows[rows["case_id"].isin(people["case_id"])]
    rows.assign(risk=np.arange(len(rows)) % 7).to_csv(tmp_path / "theirs.csv", index=False)
    people.to_csv(tmp_path / "people.csv", index=False)
    columns = {"case_id": "patient_id", "os_days": "time_days", "os_event": "event", "project": "batch",
               "codel_1p19q": "codeletion_1p19q"}  # fmt: skip

    read = read_prediction_files([tmp_path / "theirs.csv"], patients=tmp_path / "people.csv", columns=columns)
    table = fit_trivial_models(auditable(read.predictions)[0], read.patients, {}).rows

    (task,) = audited_tasks(table[table["risk"].notna()], n_bootstrap=5)
    assert task.values["clinical"] == pytest.approx(clinical, abs=0.01)
    assert task.values["site"] == pytest.approx(0.774, abs=0.01)
