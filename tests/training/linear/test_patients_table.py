"""Trivial models of a table of patients are those that a cross-validation of the same folds would have."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_columns import people, theirs
from drawn_predictions import predictions

from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.evaluation.predictions import read_tasks, stacked
from subfuse.run_folder.job import Job
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.cross_validation import run_job
from subfuse.training.linear.patients_table import TabledPatients
from subfuse.training.settings import TrainingPlan

pytestmark = pytest.mark.walk

CLINICAL = ("age", "sex", "idh")
TRIVIAL = ("clinical", "site", "batch")


def tabled(table: pd.DataFrame, patients: pd.DataFrame) -> TabledPatients:
    (task,) = read_tasks(table)
    return TabledPatients.of(task, patients.drop(columns=["time_days", "event", "label"]), CLINICAL)


def cross_validated(patients: pd.DataFrame, tasks: dict[str, TaskSpec], folder: Path) -> pd.DataFrame:
    """What `crossval` predicts with its trivial models in the folds of the patients."""
    rows = patients.to_dict("records")
    cohort = Cohort(
        "tcga",
        tuple(
            Patient(
                row["patient_id"], "tcga", site=row["site"], time_days=row["time_days"], event=row["event"],
                covariates={name: str(row[name]) for name in CLINICAL if not pd.isna(row[name])},
                labels={"grade": row["label"], "project": row["batch"]},
            )
            for row in rows
        ),
        (), None, gene_sets={}, tasks=tasks, covariates=("age", "sex=male", "idh=wildtype"), batch="project",
    )  # fmt: skip
    tables = []
    for index in range(3):
        tested = tuple(sorted(patients.loc[patients["fold_tested"] == index, "patient_id"]))
        others = tuple(sorted({p.patient_id for p in cohort} - set(tested)))
        fold = Fold(others[10:], others[:10], tested)
        for job in (Job(task, model, index, 0) for task in tasks for model in TRIVIAL):
            run_job(cohort, fold, job, folder, TrainingPlan())
            tables.append(read_predictions(job.folder(folder) / "predictions.csv"))
    return stacked(tables)


def test_a_person_who_is_tested_does_not_train_and_cohorts_may_share_identifiers() -> None:
    patients = people(60)
    twice = patients.assign(cohort="second", age=patients["age"] + 5, fold_tested=(patients["fold_tested"] + 1) % 3)
    both = pd.concat([patients, twice], ignore_index=True)
    samples = theirs(both).assign(patient_id=theirs(both)["patient_id"].str.replace("TCGA-", "TCGA-00-0") + "-01A")

    known = tabled(samples, both.assign(patient_id=both["patient_id"].str.replace("TCGA-", "TCGA-00-0") + "-01A"))
    found, _ = known.predict("clinical")

    tested = found[found["split"] == "test"]
    assert len(tested.drop_duplicates(["cohort", "patient_id"])) == len(tested) == 120
    for _, rows in found.groupby("fold"):
        sides = {side: set(own["patient_id"]) for side, own in rows.groupby("split")}
        assert not sides["train"] & sides["test"]
        assert sides["train"]


def test_what_there_is_too_little_of_is_counted_and_columns_can_be_left_out() -> None:
    patients = people(36)
    patients = patients.assign(event=patients.groupby("fold_tested").cumcount() < 4)
    assert tabled(theirs(patients), patients).too_few() == (
        "fold 0 leaves 24 patients with 8 events, 10 events are needed"
    )
    assert tabled(theirs(people(12), "grade"), people(12)).too_few() == (
        "fold 0 leaves 8 patients, 10 patients and some of every class are needed"
    )
    assert tabled(theirs(people()), people()).too_few() is None
    assert tabled(theirs(people()).assign(fold=5), people()).too_few() == "nobody is known who is not tested in fold 5"
    assert tabled(theirs(people()), people()).without({"sex"}).cohort.covariates == ("age", "idh=wildtype")


def test_columns_that_are_missing_alike_for_all_or_nobody_s_own_are_left_out_and_others_named() -> None:
    patients = people().drop(columns=["cohort", "sex"])
    table = theirs(people())
    known = tabled(table, patients.assign(idh="mutant", batch=patients["batch"].where(patients.index > 9)))
    assert (known.cohort.covariates, known.cohort.batch, known.unread) == (("age",), "batch", ())
    labels = {patient.patient_id: patient.labels for patient in known.cohort}
    by_id = dict(zip(patients["patient_id"], patients["batch"], strict=True))
    assert labels == {f"TCGA-{i:03d}": {"batch": by_id[f"TCGA-{i:03d}"]} if i > 9 else {} for i in range(90)}

    alone = tabled(table, patients.drop(columns="batch").assign(cohort="of another name"))
    assert (alone.cohort.covariates, alone.cohort.batch) == (("age", "idh=wildtype"), None)
    assert not any(patient.labels for patient in alone.cohort)
    own = tabled(table, patients.assign(batch=range(90)))
    assert own.cohort.batch is None
    assert [message.partition(".")[0] for message in own.unread] == [
        "batch: batch must have at least two values that patients share"
    ]


def test_folds_are_in_the_order_of_the_table_and_train_on_the_others_of_their_repeat() -> None:
    patients = people()
    again = patients.assign(fold_tested=(patients["fold_tested"] + 1) % 3)
    first = theirs(patients)
    second = predictions(again, model="theirs", repeat=1)[lambda rows: rows["split"] == "test"]
    absent = first["patient_id"] == "TCGA-005"  # tested in the second repeat alone
    table = pd.concat([second, first[~absent]]).assign(fold=lambda rows: rows["fold"].map({0: "c", 1: "a", 2: "b"}))
    folds = tabled(table, patients).folds
    assert list(folds) == [(repeat, fold) for repeat in (1, 0) for fold in "cab"]
    for (repeat, _), fold in folds.items():
        everyone = set(patients["patient_id"]) - ({"TCGA-005"} if repeat == 0 else set())
        assert set(fold.train) == everyone - set(fold.test)


def test_folds_in_which_nothing_can_be_fitted_are_named_and_the_others_predicted() -> None:
    patients = people(60)
    alone = patients["fold_tested"] == 0
    known = tabled(theirs(patients), patients.assign(site=patients["site"].where(~alone, "of the first fold alone")))
    found, unfitted = known.predict("site")
    assert set(found["fold"]) == {1, 2}
    assert list(unfitted) == [0]
    assert "site can test only patients whose site occurs in training" in unfitted[0]
    by_fold = patients["fold_tested"].map({0: "A", 1: "B", 2: "C"})
    found, unfitted = tabled(theirs(patients), patients.assign(site=by_fold)).predict("site")
    assert found.empty
    assert list(unfitted) == [0, 1, 2]


@pytest.mark.walk
def test_they_are_those_of_a_cross_validation_with_the_same_folds(tmp_path: Path) -> None:
    patients = people(60)
    tasks = {"survival": TaskSpec(time="time_days", event="event"), "grade": TaskSpec(column="grade")}
    expected = cross_validated(patients, tasks, tmp_path)

    for name, splits in (("survival", "test"), ("grade", "test"), ("grade", "train validation test")):
        known = tabled(theirs(patients, name, splits), patients)
        predicted = [known.predict(model) for model in TRIVIAL]

        assert [unfitted for _, unfitted in predicted] == [{}] * 3
        key = ["task", "model", "fold", "split", "patient_id"]
        found = stacked([rows for rows, _ in predicted]).sort_values(key, ignore_index=True)
        wanted = expected[expected["task"] == name].sort_values(key, ignore_index=True)
        pd.testing.assert_frame_equal(found[key], wanted[key], check_dtype=False)
        columns = [column for column in found if column.startswith(("risk", "survival_", "p_"))]
        assert len(columns) == (4 if name == "survival" else 3)
        files_have = {"atol": 1e-5}
        np.testing.assert_allclose(found[columns].to_numpy(float), wanted[columns].to_numpy(float), **files_have)
