"""Bootstrap over patients: equal draws for all, and intervals and p-values of known draws."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import cohort, predictions

from subfuse.evaluation.bootstrap import (
    BootstrapWeights,
    bootstrap_p_value,
    mean_over_folds,
    percentile_interval,
    replicates_of_family,
)
from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.evaluation.predictions import SurvivalOutcome
from subfuse.evaluation.ranked_patients import ranked_patients


def test_no_replicates_is_an_error_and_one_is_the_least() -> None:
    assert len(drawn(predictions(cohort()), n_bootstrap=1).weights) == 1
    with pytest.raises(ValueError, match="n_bootstrap must be one or more"):
        evaluate_predictions(predictions(cohort()), n_bootstrap=0)


def test_a_clear_difference_is_significant_in_a_family_of_any_size() -> None:
    good = predictions(cohort(n=45), noise=0.01)
    reversed_order = good.assign(risk=-good["risk"])
    one, many = (
        compare_models(pd.concat([good, *[reversed_order.assign(model=f"m{i}") for i in range(n)]])) for n in (1, 8)
    )

    assert one["p_value"].iloc[0] == pytest.approx(2 / 1001)
    assert (many["p_adjusted"] <= 0.01).all()
    assert replicates_of_family(1, 1000) == replicates_of_family(5, 1000) == 1000
    for n_tests in (6, 45, 153):
        assert n_tests * 2 / (replicates_of_family(n_tests, 1000) + 1) <= 0.01


def drawn(table: pd.DataFrame, n_bootstrap: int = 400) -> BootstrapWeights:
    return BootstrapWeights.draw(table[table["split"] == "test"], n_bootstrap, np.random.default_rng(7))


def test_every_replicate_draws_as_many_patients_of_a_fold_as_it_tests() -> None:
    weights = drawn(predictions(cohort(n=31)))
    for group in ranked_patients(predictions(cohort(n=31)), SurvivalOutcome()):
        of_fold = weights.of(group)
        assert (of_fold.sum(axis=1) == len(group.patients)).all()
        np.testing.assert_allclose(of_fold.mean(axis=0), 1.0, atol=0.3)  # standard error 0.05
        np.testing.assert_array_equal(weights.after_ones(group.patients)[1:], of_fold)
        assert (weights.after_ones(group.patients)[0] == 1).all()


def test_a_patient_of_several_repeats_and_models_is_drawn_equally_often_in_each() -> None:
    patients = cohort(n=31)
    one = predictions(patients)
    again = predictions(patients.assign(fold_tested=patients["fold_tested"].to_numpy()[::-1]), repeat=1)
    several = pd.concat([one, again, one.assign(model="snn")])
    assert len(drawn(several).patients) == 31
    np.testing.assert_array_equal(drawn(several).weights, drawn(one).weights)


def test_the_mean_over_folds_leaves_out_what_is_undefined() -> None:
    folds = [np.array([1.0, np.nan, np.nan, 4.0]), np.array([3.0, 5.0, np.nan, 6.0]), np.array([8.0, 7.0, np.nan, 5.0])]
    mean, share_undefined = mean_over_folds(folds)
    np.testing.assert_array_equal(mean, [4.0, 6.0, np.nan, 5.0])
    assert share_undefined == pytest.approx(4 / 12)


def test_the_interval_holds_the_middle_of_the_replicates_and_moves_to_its_centre() -> None:
    values = np.random.default_rng(3).permutation(np.arange(1001.0))
    assert percentile_interval([values]) == (25.0, 975.0, None)
    assert percentile_interval([values], centre=400.0) == (0.0, 875.0, None)  # not below zero
    assert np.isnan(percentile_interval([])[:2]).all()


def test_undefined_replicates_are_told_and_too_many_leave_no_interval() -> None:
    values = np.arange(100.0)
    *_, few = percentile_interval([np.where(values < 4, np.nan, values)])
    *_, some = percentile_interval([np.where(values < 5, np.nan, values)])
    lower, upper, most = percentile_interval([np.where(values < 51, np.nan, values)])
    assert few is None
    assert some == "5% of the resamples are undefined and left out of the interval"
    assert np.isnan([lower, upper]).all()
    assert most == "no interval: undefined in most bootstrap replicates"


def test_the_p_value_is_twice_the_smaller_side_with_one_added() -> None:
    assert bootstrap_p_value(np.array([1.0, 2.0, np.nan, 3.0, -1.0])) == pytest.approx(2 * (1 + 1) / (4 + 1))
    assert bootstrap_p_value(np.full(99, 0.2)) == bootstrap_p_value(np.full(99, -0.2)) == pytest.approx(2 / 100)
    assert bootstrap_p_value(np.zeros(9)) == 1.0


def test_half_of_the_replicates_is_enough_for_an_interval() -> None:
    half, most = np.array([0.4, 0.6, np.nan, np.nan]), np.array([0.4, 0.6, np.nan, np.nan, np.nan])

    assert percentile_interval([half])[:2] == pytest.approx((0.405, 0.595))
    assert percentile_interval([most])[2] == "no interval: undefined in most bootstrap replicates"
