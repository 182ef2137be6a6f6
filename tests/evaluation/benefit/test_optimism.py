"""What random folds promise beyond whole hospitals: the numbers of an independent C-index, and a planted signature."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import CLASSES, cohort
from lifelines.utils import concordance_index

from subfuse.evaluation.benefit.optimism import OPTIMISM_COLUMNS, optimism_gap
from subfuse.evaluation.predictions import TaskPredictions, read_tasks

HOSPITALS = 6


def tables(signature: float, *, n: int = 240, is_survival: bool = True) -> tuple[TaskPredictions, TaskPredictions]:
    """A model over random folds and over folds of hospitals: it knows those that it trained on by their signature.

    Severe patients are in hospitals of their own.
    """
    patients, draw = cohort(n=n), np.random.default_rng(1)
    hospital = (patients["severity"].rank(pct=True) * HOSPITALS).clip(upper=HOSPITALS - 0.5).astype(int)
    biology = patients["severity"] + 2 * draw.normal(size=n)
    rows = patients[["patient_id", "cohort", "time_days", "event", "label"]]
    rows = rows.assign(task="t", model="subspace", repeat=0, split="test", event=rows["event"].astype(bool))
    found = []
    for fold, seen in ((patients["fold_tested"], biology + signature * hospital), (hospital % 3, biology)):
        table = rows.assign(fold=fold)
        if is_survival:
            table = table.assign(risk=seen, label=None)
        else:
            shares = 1 / (1 + np.exp(-np.stack([-seen, -np.abs(seen), seen], axis=1)))
            table[[f"p_{name}" for name in CLASSES]] = shares / shares.sum(axis=1, keepdims=True)
        found.append(next(read_tasks(table)))
    return found[0], found[1]


def c_index(task: TaskPredictions) -> float:
    folds = task.tested.groupby("fold")
    return float(np.mean([concordance_index(f["time_days"], -f["risk"], f["event"]) for _, f in folds]))


@pytest.mark.parametrize("signature", [0.0, 2.0])
def test_the_gap_is_the_difference_of_both_means_over_folds(signature):
    seen, held_out = tables(signature)
    (row,) = optimism_gap(seen, held_out, n_bootstrap=200, seed=0).to_dict("records")
    assert list(row) == list(OPTIMISM_COLUMNS)
    assert row["random_folds"] == pytest.approx(c_index(seen), abs=1e-9)
    assert row["held_out"] == pytest.approx(c_index(held_out), abs=1e-9)
    assert row["gap"] == pytest.approx(row["random_folds"] - row["held_out"])
    assert row["lower"] < row["gap"] < row["upper"]
    assert row["n_patients"] == 240


def test_of_one_replicate_both_ends_of_the_interval_are_that_one():
    (row,) = optimism_gap(*tables(2.0), n_bootstrap=1, seed=0).to_dict("records")
    assert np.isfinite(row["lower"])
    assert row["lower"] == row["upper"] != row["gap"]


def test_a_signature_of_the_hospital_shows_as_a_gap():
    (row,) = optimism_gap(*tables(2.0), n_bootstrap=200, seed=0).to_dict("records")
    assert row["lower"] > 0.1


def test_the_same_folds_have_no_gap_and_patients_of_one_table_do_not_count():
    seen, _ = tables(0.0)
    fewer = next(read_tasks(seen.rows[seen.rows["patient_id"] != "TCGA-000"]))
    (row,) = optimism_gap(seen, fewer, n_bootstrap=50, seed=0).to_dict("records")
    assert (row["gap"], row["lower"], row["upper"], row["n_patients"]) == (0.0, 0.0, 0.0, 239)


def test_training_patients_change_nothing_and_a_metric_that_is_undefined_leaves_no_gap():
    seen, held_out = tables(0.0)
    expected = optimism_gap(seen, held_out, n_bootstrap=50, seed=0)
    trained = [
        pd.concat([part.rows.assign(split="train", fold=part.rows["fold"] + 1, risk=0.0), part.rows], ignore_index=True)
        for part in (seen, held_out)
    ]
    for with_training in ([trained[0], held_out.rows], [seen.rows, trained[1]], trained):
        both = [next(read_tasks(rows)) for rows in with_training]
        pd.testing.assert_frame_equal(optimism_gap(*both, n_bootstrap=50, seed=0), expected)
    alone = next(read_tasks(held_out.rows.assign(fold=np.arange(240))))  # nobody to be compared with
    (row,) = optimism_gap(seen, alone, n_bootstrap=50, seed=0).to_dict("records")
    assert row["random_folds"] == expected["random_folds"].item()
    assert np.isnan([row["held_out"], row["gap"], row["lower"], row["upper"]]).all()


def test_without_a_patient_whom_both_test_there_is_nothing_to_compare():
    seen, held_out = tables(0.0)
    other = next(read_tasks(held_out.rows.assign(patient_id="other-" + held_out.rows["patient_id"])))
    (row,) = optimism_gap(seen, other, n_bootstrap=5, seed=0).to_dict("records")
    assert (row["n_patients"], row["reason"]) == (0, "no patient is tested by both")
    assert np.isnan([row[name] for name in ("random_folds", "held_out", "gap", "lower", "upper")]).all()


def test_classes_have_a_gap_too_and_few_events_no_interval():
    (row,) = optimism_gap(*tables(0.0, is_survival=False), n_bootstrap=50, seed=0).to_dict("records")
    assert row["metric"] == "auc"
    assert row["lower"] <= row["gap"] <= row["upper"]
    seen, held_out = tables(0.0)
    rare = seen.rows["patient_id"].isin(seen.rows["patient_id"].unique()[:4])
    few = [next(read_tasks(part.rows.assign(event=rare))) for part in (seen, held_out)]
    (row,) = optimism_gap(*few, n_bootstrap=50, seed=0).to_dict("records")
    assert np.isnan([row["lower"], row["upper"]]).all()
    assert "5 are needed" in row["reason"]
