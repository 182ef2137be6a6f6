"""DeLong's variance of the AUC against its definition."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from subfuse.evaluation.delong import BinaryAuc, binary_auc, mean_auc


def scored(n: int, seed: int, *, decimals: int = 1) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    generator = np.random.default_rng(seed)
    is_case = generator.random(n) < 0.4
    return is_case, np.round(generator.normal(size=n) + 0.8 * is_case, decimals), pd.Index([f"P{i}" for i in range(n)])


def components(is_case: np.ndarray, score: np.ndarray) -> tuple[list[float], list[float]]:
    """DeLong's structural components by the definition's loops."""
    cases, controls = score[is_case], score[~is_case]
    kernel = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in controls] for x in cases]
    return [np.mean(row) for row in kernel], [np.mean(column) for column in zip(*kernel, strict=True)]


@pytest.mark.parametrize(("n", "seed"), [(31, 0), (84, 1)])
def test_value_and_variance_are_those_of_the_definition(n: int, seed: int) -> None:
    is_case, score, patients = scored(n, seed)
    v10, v01 = components(is_case, score)

    auc = binary_auc(is_case, score, patients)

    assert auc.value == pytest.approx(roc_auc_score(is_case, score), abs=1e-12)
    assert auc.variance == pytest.approx(np.var(v10, ddof=1) / len(v10) + np.var(v01, ddof=1) / len(v01), rel=1e-12)


def test_variance_of_a_difference_is_that_of_the_covariance_matrix() -> None:
    is_case, first, patients = scored(60, 2)
    second = first + np.random.default_rng(3).normal(size=60)
    (a10, a01), (b10, b01) = components(is_case, first), components(is_case, second)
    covariance = np.cov(a10, b10) / len(a10) + np.cov(a01, b01) / len(a01)

    difference = binary_auc(is_case, first, patients).minus(binary_auc(is_case, second, patients))

    expected = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert difference.variance == pytest.approx(expected, rel=1e-10)
    assert 0 < difference.p_value < 1


@pytest.mark.parametrize("value", [0.1, -0.3])
def test_interval_and_p_value_are_those_of_the_normal_distribution(value: float) -> None:
    auc = BinaryAuc(value, pd.Series([0.06, -0.08]))  # standard error 0.1

    assert auc.p_value == pytest.approx(2 * norm.sf(abs(value) / 0.1))
    assert auc.interval == pytest.approx(norm.interval(0.95, loc=value, scale=0.1))


def test_the_difference_of_two_models_is_that_of_their_areas() -> None:
    is_case, score, patients = scored(40, 3)
    one, other = binary_auc(is_case, score, patients), binary_auc(is_case, -score, patients)

    assert one.minus(other).value == pytest.approx(2 * one.value - 1)


def test_a_patient_of_one_model_alone_counts_with_that_model() -> None:
    one, other = BinaryAuc(0.7, pd.Series({"a": 0.3, "b": 0.1})), BinaryAuc(0.6, pd.Series({"a": 0.1, "c": 0.4}))

    assert one.minus(other).influence.to_dict() == pytest.approx({"a": 0.2, "b": 0.1, "c": -0.4})


def test_interval_covers_at_the_nominal_rate() -> None:
    truth = 0.7142  # of normal scores 0.8 apart
    covered = [
        lower <= truth <= upper
        for lower, upper in (binary_auc(*scored(150, seed, decimals=6)).interval for seed in range(500))
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_folds_of_other_patients_average_and_repeats_of_the_same_patients_do_not() -> None:
    is_case, score, patients = scored(50, 4)
    auc = binary_auc(is_case, score, patients)
    others = binary_auc(is_case, score, patients + "b")

    assert mean_auc([auc, others]).variance == pytest.approx(auc.variance / 2)
    assert mean_auc([auc, auc, auc]).variance == pytest.approx(auc.variance)


def test_equal_models_have_no_p_value_and_one_case_no_variance() -> None:
    is_case, score, patients = scored(20, 5)
    auc = binary_auc(is_case, score, patients)

    assert np.isnan(auc.minus(auc).p_value)
    one = np.array([True, False, False])
    for is_case, counted in ((one, "1 and 2"), (~one, "2 and 1")):
        with pytest.raises(ValueError, match=f"two cases and two controls. Found {counted}"):
            binary_auc(is_case, np.array([1.0, 2.0, 3.0]), pd.Index(list("abc")))
    assert binary_auc(np.arange(4) < 2, np.array([2.0, 4.0, 1.0, 3.0]), pd.RangeIndex(4)).value == 0.75
