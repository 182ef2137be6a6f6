"""Censoring: known orders of patients, the distribution of follow-up, and predicted curves."""

import itertools

import numpy as np
from drawn_outcomes import survival_cohort
from sksurv.nonparametric import CensoringDistributionEstimator
from sksurv.util import Surv

from subfuse.evaluation.censoring import CensoringDistribution, known_orders
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
