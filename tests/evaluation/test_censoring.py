"""Censoring: known orders of patients, the distribution of follow-up, and predicted curves."""

import itertools

import numpy as np
import pytest
from drawn_outcomes import survival_cohort
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from subfuse.evaluation.censoring import CensoringDistribution, SurvivalSample, known_orders
from subfuse.evaluation.metrics import truncation_time
from subfuse.evaluation.survival.survival_calibration import SurvivalCurves


def test_censoring_distribution_agrees_with_scikit_survival() -> None:
    time_days, event, _ = survival_cohort(130, 6, grid=100.0)
    at = np.unique(time_days) + 0.5

    ours = CensoringDistribution.fit(time_days, event).at(at[:-1])

    theirs = CensoringDistributionEstimator().fit(Surv.from_arrays(event, time_days)).predict_proba(at[:-1])
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_truncation_bounds_the_censoring_weights() -> None:
    time_days, event, _ = survival_cohort(300, 12)

    limit = truncation_time(time_days, event)

    distribution = CensoringDistribution.fit(time_days, event)
    assert distribution.at(np.array([limit])) >= 0.1
    assert distribution.at(np.array([time_days[time_days > limit].min()])) < 0.1


def test_an_event_is_known_to_come_before_later_follow_up_and_before_last_contacts_of_its_day() -> None:
    time_days = np.array([5.0, 5.0, 5.0, 9.0, 2.0])
    event = np.array([True, True, False, True, False])

    ordered = known_orders(time_days, event)

    for first, second in itertools.product(range(5), repeat=2):
        is_later = time_days[second] > time_days[first]
        is_contact = time_days[second] == time_days[first] and not event[second]
        assert ordered[first, second] == (event[first] and (is_later or is_contact))
    assert not (ordered & ordered.T).any()


def test_curves_are_straight_between_days_and_constant_beyond() -> None:
    predicted = SurvivalCurves(np.array([100.0, 300.0]), np.array([[0.8, 0.4], [0.9, 0.7], [0.6, 0.6]]))

    np.testing.assert_allclose(predicted.at(np.array([50.0, 200.0, 400.0])), [0.9, 0.8, 0.6])
    np.testing.assert_allclose(predicted.at(np.array([0.0, 100.0, 300.0])), [1.0, 0.9, 0.6])


def test_everybody_is_followed_before_the_first_time_and_at_its_events() -> None:
    distribution = CensoringDistribution.fit(np.array([10.0, 20.0]), np.array([True, False]))

    np.testing.assert_array_equal(distribution.at(np.array([0.0, 9.9, 10.0, 20.0])), [1.0, 1.0, 1.0, 0.0])


def test_a_tenth_still_followed_is_enough_and_nobody_followed_leaves_nothing() -> None:
    tenth = CensoringDistribution.fit(np.array([*[5.0] * 9, 8.0]), np.array([*[False] * 9, True]))
    nobody = CensoringDistribution.fit(np.array([5.0, 5.0]), np.array([False, False]))

    assert tenth.at(np.array([5.0])) == pytest.approx(0.1, abs=1e-15)
    assert tenth.truncation_days == 8.0
    assert nobody.truncation_days == 0.0


def test_nobody_has_no_follow_up() -> None:
    with pytest.raises(ValueError, match="one or more patients"):
        CensoringDistribution.fit(np.zeros(0), np.zeros(0, bool))


def sample(**changed) -> SurvivalSample:
    known = {"time_days": np.array([0.0, 50.0]), "event": np.array([True, True]), "risk": np.zeros(2)}
    curves = {"survival": np.array([[1.0, 0.0], [0.5, 0.5]]), "survival_days": np.array([25.0, 50.0])}
    return SurvivalSample(**{**known, **curves, **changed})


def test_brier_scores_look_at_days_before_the_end_of_follow_up() -> None:
    followed = CensoringDistribution.fit(np.array([10.0, 90.0]), np.array([True, True]))
    days = np.array([25.0, 50.0, 90.0])

    assert sample(censoring=followed).brier_times.tolist() == [True, False]  # the last patient is gone on day 50
    curves = {"survival": np.full((2, 3), 0.5), "survival_days": days}
    assert sample(time_days=np.array([0.0, 95.0]), censoring=followed, **curves).brier_times.all()
    assert sample().brier_times.size == 0
    half_a_day = sample(survival_days=np.array([25.0, 25.5]), censoring=followed)
    assert half_a_day.brier_times.all()


@pytest.mark.parametrize(("changed", "named"), [
    ({"time_days": np.array([-1.0, 50.0])}, "not negative"),
    ({"time_days": np.array([np.nan, 50.0])}, "finite"),
    ({"risk": np.array([0.0, np.inf])}, "risk must be finite"),
    ({"survival": np.array([[1.0, -0.1], [0.5, 0.5]])}, "from 0 to 1"),
    ({"survival": np.array([[1.1, 0.1], [0.5, 0.5]])}, "from 0 to 1"),
    ({"survival": np.array([[np.nan, 0.1], [0.5, 0.5]])}, "missing"),
    ({"survival_days": np.array([25.0, 25.0])}, "increase"),
    ({"survival_days": np.array([25.0, np.inf])}, "finite"),
    ({"survival_days": None}, "both or neither"),
])  # fmt: skip
def test_what_no_sample_can_be_is_refused(changed: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        sample(**changed)
