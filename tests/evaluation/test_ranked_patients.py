"""Patients that are ranked together: those of a fold or all, and what their metrics are of."""

import numpy as np
import pytest
from drawn_predictions import CLASSES, cohort, predictions
from sksurv.metrics import concordance_index_censored

from subfuse.evaluation.censoring import CensoringDistribution
from subfuse.evaluation.predictions import ClassOutcome, SurvivalOutcome
from subfuse.evaluation.ranked_patients import ranked_patients


def test_patients_are_ranked_within_their_fold_or_all_together() -> None:
    table = predictions(cohort())
    outcome = SurvivalOutcome()
    folds, (pooled,) = ranked_patients(table, outcome), ranked_patients(table, outcome, by=["repeat"])
    for fold, group in enumerate(folds):
        tested = table[(table["fold"] == fold) & (table["split"] == "test")]
        assert list(group.patients) == list(tested[["cohort", "patient_id"]].itertuples(index=False, name=None))
        assert group.n_train == ((table["fold"] == fold) & (table["split"] == "train")).sum()
    assert sorted(pooled.patients) == sorted(patient for group in folds for patient in group.patients)


@pytest.mark.parametrize("task", ["survival", "grade"])
def test_weights_of_one_give_the_metrics_themselves(task: str) -> None:
    outcome = SurvivalOutcome() if task == "survival" else ClassOutcome(CLASSES)
    for group in ranked_patients(predictions(cohort(), task=task), outcome):
        ones = np.ones((2, len(group.patients)))
        for name, values in group.weighted(ones).items():
            np.testing.assert_allclose(values, group.metrics[name].value, atol=1e-12, err_msg=name)
        headline = group.metrics[outcome.headline].value
        np.testing.assert_allclose(group.weighted_headline(ones), headline, atol=1e-12)
        assert (group.weighted_errors is None) == (task == "survival")


def test_metrics_are_those_of_the_patients_of_the_fold_alone() -> None:
    table = predictions(cohort())
    for fold, group in enumerate(ranked_patients(table, SurvivalOutcome())):
        tested = table[(table["fold"] == fold) & (table["split"] == "test")]
        expected = concordance_index_censored(tested["event"], tested["time_days"], tested["risk"])[0]
        assert group.metrics["c_index"].value == pytest.approx(expected)


def test_without_training_patients_nothing_is_weighted_by_censoring() -> None:
    table = predictions(cohort())
    (trained, *_), (alone, *_) = (
        ranked_patients(rows, SurvivalOutcome()) for rows in (table, table[table["split"] == "test"])
    )
    train = table[(table["fold"] == 0) & (table["split"] == "train")]
    expected = CensoringDistribution.fit(train["time_days"].to_numpy(), train["event"].to_numpy()).truncation_days
    assert (trained.n_train, trained.truncation_days) == (len(train), expected)
    assert alone.n_train == 0
    assert np.isnan(alone.truncation_days)
    assert np.isnan(alone.metrics["uno_c_index"].value)


@pytest.mark.parametrize(
    ("n_second", "is_known"), [(0, False), (1, False), (2, True), (10, True), (11, False), (12, False)]
)
def test_delong_needs_two_classes_of_two_patients_each(n_second: int, is_known: bool) -> None:
    patients = cohort(n=12, folds=1).assign(label=["G2"] * (12 - n_second) + ["G3"] * n_second)
    table = predictions(patients, task="grade")
    two = table.assign(p_G3=table["p_G3"] + table["p_G4"]).drop(columns="p_G4")
    (group,) = ranked_patients(two, ClassOutcome(("G2", "G3")))
    assert (group.delong is not None) == is_known
    (of_three,) = ranked_patients(table, ClassOutcome(CLASSES))
    assert of_three.delong is None
