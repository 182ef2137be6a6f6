"""Weights of patients stand for patients who occur as often."""

import numpy as np
import pytest
from drawn_outcomes import EVENT, class_cohort, survival_cohort

from subfuse.evaluation.censoring import CensoringDistribution, SurvivalSample
from subfuse.evaluation.metrics import classification_metrics, survival_metrics
from subfuse.evaluation.weighted_metrics import (
    weighted_c_index,
    weighted_classification_metrics,
    weighted_survival_metrics,
    wins,
)


def assert_weights_repeat_patients(weighted: dict, repeated: dict) -> None:
    """Integer weights must equal the metric of a cohort in which patients occur that often."""
    assert weighted.keys() == repeated.keys()
    for name, metric in repeated.items():
        np.testing.assert_allclose(weighted[name][0], metric.value, atol=1e-12, err_msg=name)


def test_classification_weights_repeat_patients() -> None:
    label, probabilities = class_cohort(70, 3, seed=1)
    counts = np.random.default_rng(2).multinomial(70, np.full(70, 1 / 70))
    drawn = np.repeat(np.arange(70), counts)

    weighted = weighted_classification_metrics(label, probabilities, counts[None].astype(float))

    assert_weights_repeat_patients(weighted, classification_metrics(label[drawn], probabilities[drawn]))


def test_survival_weights_repeat_patients() -> None:
    train_time, train_event, _ = survival_cohort(100, 13)
    time_days, event, risk = survival_cohort(70, 14, grid=50.0)
    days = np.array([200.0, 500.0, 900.0])
    survival = np.exp(-days * np.exp(risk)[:, None] / 1200)
    sample = SurvivalSample(
        time_days, event, risk, CensoringDistribution.fit(train_time, train_event), survival, days, 800.0
    )
    counts = np.random.default_rng(3).multinomial(70, np.full(70, 1 / 70))
    counts[time_days.argmax()] = 1  # the last follow-up decides over the Brier score's times, which stay fixed
    drawn = np.repeat(np.arange(70), counts)

    weighted = weighted_survival_metrics(sample, counts[None].astype(float))

    repeated = survival_metrics(
        time_days[drawn],
        event[drawn],
        risk[drawn],
        train_time_days=train_time,
        train_event=train_event,
        survival=survival[drawn],
        survival_days=days,
        horizon_days=800.0,
    )
    assert_weights_repeat_patients(weighted, repeated)


def test_replicates_do_not_influence_each_other() -> None:
    time_days, event, risk = survival_cohort(31, 15)
    weights = np.random.default_rng(4).integers(0, 3, size=(5, 31)).astype(float)

    together = weighted_c_index(time_days, event, risk, weights)

    alone = [weighted_c_index(time_days, event, risk, row[None])[0] for row in weights]
    np.testing.assert_allclose(together, alone, atol=1e-14)


def test_replicate_without_comparable_pair_is_nan_without_a_warning() -> None:
    time_days, event, risk = np.array([1.0, 2.0]), np.array([EVENT, EVENT]), np.array([2.0, 1.0])

    values = weighted_c_index(time_days, event, risk, np.array([[1.0, 1.0], [2.0, 0.0]]))

    np.testing.assert_array_equal(values, [1.0, np.nan])


def test_replicate_without_a_class_has_no_average_over_classes() -> None:
    label, probabilities = np.array([0, 1, 1]), np.array([[0.8, 0.2], [0.4, 0.6], [0.7, 0.3]])

    values = weighted_classification_metrics(label, probabilities, np.array([[1.0, 1.0, 1.0], [0.0, 2.0, 1.0]]))

    assert values["sensitivity"].tolist() == pytest.approx([0.75, np.nan], nan_ok=True)
    assert values["accuracy"].tolist() == pytest.approx([2 / 3, 2 / 3])


def test_ties_count_one_half() -> None:
    assert wins(np.array([[2.0, 0.0, -1.0]])).tolist() == [[1.0, 0.5, 0.0]]
