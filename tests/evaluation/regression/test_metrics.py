"""Metrics of numbers against scikit-learn and SciPy, and their replicates against patients who are repeated."""

import numpy as np
import pytest
from drawn_numbers import N, predicted
from scipy.stats import kendalltau, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score

from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.evaluation.regression.metrics import (
    regression_metrics,
    weighted_regression_metrics,
    weighted_value_errors,
)


def drawn(n: int, *, seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    value = random.normal(size=n)
    guess = value + random.normal(size=n)
    return (value.round(), guess.round()) if ties else (value, guess)


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_other_libraries(ties: bool) -> None:
    value, guess = drawn(31, seed=3, ties=ties)
    found = {name: metric.value for name, metric in regression_metrics(value, guess).items()}
    assert found["r2"] == pytest.approx(r2_score(value, guess))
    assert found["mae"] == pytest.approx(mean_absolute_error(value, guess))
    assert found["spearman"] == pytest.approx(spearmanr(value, guess).statistic)
    if not ties:
        assert found["concordance"] == pytest.approx((1 + kendalltau(value, guess).statistic) / 2)


def test_weights_count_patients_as_often() -> None:
    value, guess = drawn(9, seed=1, ties=True)
    weights = np.random.default_rng(0).multinomial(9, np.full(9, 1 / 9), size=6).astype(float)
    of_weights = weighted_regression_metrics(value, guess, weights) | weighted_value_errors(value, guess, weights)
    for replicate, counts in enumerate(weights.astype(int)):
        repeated = regression_metrics(np.repeat(value, counts), np.repeat(guess, counts))
        for name, metric in repeated.items():
            assert of_weights[name][replicate] == pytest.approx(metric.value, nan_ok=True), name


@pytest.mark.parametrize(
    ("value", "guess", "undefined", "reason"),
    [
        ([2.0, 2.0, 2.0], [1.0, 2.0, 3.0], {"concordance", "spearman", "r2"}, "every patient has the same value"),
        ([1.0, 2.0, 3.0], [2.0, 2.0, 2.0], {"concordance", "spearman"}, "every patient has the same prediction"),
        ([1.0], [2.0], {"concordance", "spearman", "r2"}, "every patient has the same value"),
    ],
)
def test_what_is_undefined_says_why(value, guess, undefined, reason) -> None:
    found = regression_metrics(np.array(value), np.array(guess))
    assert {name for name, metric in found.items() if not metric.is_defined} == undefined
    assert {found[name].reason for name in undefined} == {reason}


def test_nobody_and_gaps_are_refused() -> None:
    for value, guess in (([], []), ([1.0, np.nan], [1.0, 2.0]), ([1.0, 2.0], [1.0, np.nan])):
        with pytest.raises(ValueError, match="known value and a prediction"):
            regression_metrics(np.array(value), np.array(guess))


def test_order_is_measured_within_folds_and_errors_over_all_of_them() -> None:
    rows = predicted(noise=0.5, model="linear")
    rows.loc[rows["fold"] == 1, "predicted_value"] += 2.0  # of another level in one fold: order within it remains
    found = evaluate_predictions(rows, n_bootstrap=100).set_index("metric")
    assert found.loc["concordance", "value"] == pytest.approx(
        np.mean(
            [(1 + kendalltau(fold["value"], fold["predicted_value"]).statistic) / 2 for _, fold in rows.groupby("fold")]
        )
    )
    assert found.loc["r2", "value"] == pytest.approx(r2_score(rows["value"], rows["predicted_value"]))
    assert found.loc["r2", "value"] < 0
    assert (found["lower"] < found["value"]).all()
    assert (found["value"] < found["upper"]).all()
    assert set(found["n_patients"]) == {N}
    assert found["n_events"].isna().all()
