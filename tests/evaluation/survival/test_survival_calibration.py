from itertools import pairwise

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from scipy.stats import chi2

from subfuse.evaluation.survival.survival_calibration import (
    SurvivalCurves,
    calibration_groups,
    d_calibration,
    d_calibration_counts,
    one_calibration,
)

DAYS = np.array([150.0, 400.0, 700.0, 1200.0, 2500.0])


def cohort(n: int, seed: int, *, censored_by: float = 6000.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, events and the true hazards per day."""
    generator = np.random.default_rng(seed)
    hazard = np.exp(generator.normal(size=n)) / 1200
    survival_time, last_contact = generator.exponential(1 / hazard), generator.uniform(0, censored_by, n)
    return np.minimum(survival_time, last_contact), survival_time <= last_contact, hazard


def curves(hazard: np.ndarray, days: np.ndarray = DAYS) -> SurvivalCurves:
    return SurvivalCurves(days, np.exp(-hazard[:, None] * days))


def test_observed_share_is_that_of_lifelines() -> None:
    time_days, event, hazard = cohort(230, 0)

    groups = calibration_groups(time_days, event, curves(hazard), horizon_days=1000.0)

    order = np.array_split(np.argsort(1 - curves(hazard).at_horizon(1000.0), kind="stable"), len(groups))
    expected = [1 - KaplanMeierFitter().fit(time_days[g], event[g]).predict(1000.0) for g in order]
    np.testing.assert_allclose(groups["observed"], expected, atol=1e-12)
    assert groups["n_patients"].sum() == 230


def test_without_censoring_the_variance_is_binomial() -> None:
    time_days, event, hazard = cohort(2000, 1, censored_by=1e12)
    groups = calibration_groups(time_days, event, curves(hazard, np.linspace(50.0, 3000.0, 60)))
    p, n = groups["predicted"], groups["n_patients"]

    statistic = ((groups["observed"] - p) ** 2 / groups["variance"]).sum()

    assert len(groups) == 7  # more would expect fewer than five survivors in the last
    np.testing.assert_allclose(groups["variance"], p * (1 - p) / n, rtol=0.4)
    p_value = one_calibration(time_days, event, curves(hazard, np.linspace(50.0, 3000.0, 60))).value
    assert p_value == pytest.approx(chi2.sf(statistic, 7))


def test_patients_lost_before_the_horizon_enlarge_the_variance() -> None:
    complete, _, hazard = cohort(200, 1, censored_by=1e12)
    lost = np.minimum(complete, np.random.default_rng(0).uniform(0, 1500, 200))
    everybody = np.ones(200, dtype=bool)

    full = calibration_groups(complete, everybody, curves(hazard))
    partial = calibration_groups(lost, complete <= lost, curves(hazard))

    assert (partial["variance"] > 1.2 * full["variance"]).all()


def halves(n: int) -> SurvivalCurves:
    """Curves by which half of the patients are alive on day 1000."""
    return SurvivalCurves(np.array([1000.0, 2000.0]), np.tile([0.5, 0.25], (n, 1)))


@pytest.mark.parametrize(("n", "groups"), [(20, 2), (29, 2), (30, 3), (40, 4), (200, 10)])
def test_every_group_expects_five_events_and_five_survivors(n: int, groups: int) -> None:
    time_days, event = np.linspace(500.0, 2500.0, n), np.ones(n, dtype=bool)
    time_days[:10] = 400.0

    table = calibration_groups(time_days, event, halves(n), horizon_days=1000.0)

    assert len(table) == groups
    assert np.isfinite(one_calibration(time_days, event, halves(n), horizon_days=1000.0).value)
    assert np.isfinite(one_calibration(time_days, event, halves(n), horizon_days=2000.0).value)  # where they end


def test_variance_is_greenwoods_under_the_predicted_curve() -> None:
    time_days = np.tile([10.0, 30.0, 590.0, 950.0], 5)  # in the middle of steps, and nobody is left in the last two
    event = np.ones(20, dtype=bool)

    table = calibration_groups(time_days, event, halves(20), horizon_days=1000.0)

    days = np.linspace(0, 1000, 51)
    hazard = -np.log(1 - 0.5 * days / 1000)
    expected = []
    for group in np.array_split(time_days, 2):
        n_at_risk = [max(sum(t >= (a + b) / 2 for t in group), 1) for a, b in pairwise(days)]
        expected.append(0.25 * sum(np.diff(hazard) / n_at_risk))
    np.testing.assert_allclose(table["variance"], expected)


@pytest.mark.parametrize(
    ("last", "is_event", "observed"),
    [(1000.0, False, 5 / 6), (1000.0, True, 1.0), (900.0, True, 1.0), (900.0, False, np.nan), (1001.0, True, 5 / 6)],
)
def test_observed_is_known_where_somebody_was_followed_or_nobody_is_left(last, is_event, observed) -> None:
    time_days, event = np.tile([100.0, 200.0, 200.0, 300.0, 400.0, last], 2), np.array([True] * 5 + [is_event])

    table = calibration_groups(time_days, np.tile(event, 2), halves(12), horizon_days=1000.0)

    np.testing.assert_allclose(table["observed"], observed)
    assert np.isnan(one_calibration(time_days, np.tile(event, 2), halves(12), horizon_days=1000.0).value) == np.isnan(
        observed
    )


@pytest.mark.parametrize("test", [one_calibration, d_calibration])
def test_true_curves_pass_and_wrong_ones_do_not(test) -> None:
    days = np.linspace(50.0, 3000.0, 60)  # dense, so that straight lines are close to the truth
    passed, refused = [], []
    for seed in range(60):
        time_days, event, hazard = cohort(200, seed)
        passed.append(test(time_days, event, curves(hazard, days)).value > 0.05)
        refused.append(test(time_days, event, curves(1.7 * hazard, days)).value < 0.05)
    assert np.mean(passed) > 0.88
    assert np.mean(refused) > 0.8


def test_d_calibration_counts_are_those_of_the_definition() -> None:
    generator = np.random.default_rng(2)
    survival = np.append(generator.random(40), [1.0, 0.1, 0.3, 0.0, 0.05])
    event = np.append(generator.random(40) < 0.5, [1, 0, 1, 1, 1])
    expected = np.zeros(10)
    for s, seen in zip(survival, event, strict=True):
        own = next(b for b in range(10) if s <= (b + 1) / 10 + 1e-12)
        if seen:
            expected[own] += 1
        else:
            expected[own] += (s - own / 10) / s
            expected[:own] += 0.1 / s

    np.testing.assert_allclose(d_calibration_counts(survival, event.astype(bool)), expected, atol=1e-9)


def test_what_happens_beyond_the_end_of_the_curves_is_not_held_against_them() -> None:
    time_days, event, hazard = cohort(200, 4)
    short = curves(hazard, np.linspace(20.0, 400.0, 20))
    is_beyond = time_days > 400
    assert (event & is_beyond).sum() > 50

    found = d_calibration(time_days, event, short).value

    assert found > 0.05  # they are true
    assert d_calibration(np.minimum(time_days, 400.0), event & ~is_beyond, short).value == pytest.approx(found)
    assert d_calibration(np.where(is_beyond, 9999.0, time_days), event | is_beyond, short).value == pytest.approx(found)


def test_an_event_on_the_last_day_of_the_curves_is_seen() -> None:
    time_days = np.full(50, 1000.0)  # fifty patients suffice
    seen = d_calibration(time_days, np.ones(50, bool), SurvivalCurves(np.array([1000.0]), np.full((50, 1), 0.55)))
    assert seen.value == pytest.approx(chi2.sf(9 * 5 + 45**2 / 5, 9))


@pytest.mark.parametrize("n_events", [9, 10])
def test_an_event_on_the_day_of_the_horizon_is_one_by_it(n_events: int) -> None:
    _, _, hazard = cohort(60, 3)
    groups = calibration_groups(np.full(60, 1000.0), np.arange(60) < n_events, curves(hazard), horizon_days=1000.0)

    assert (len(groups) > 0) == (n_events == 10)


def test_what_cannot_be_tested_has_a_reason() -> None:
    time_days, event, hazard = cohort(60, 3)
    short = curves(hazard, np.array([100.0, 300.0, 500.0]))

    assert "end on day 500" in one_calibration(time_days, event, short).reason
    assert "fewer than 10 events" in one_calibration(time_days, np.zeros(60, bool), curves(hazard)).reason
    assert "fewer than 50 patients" in d_calibration(time_days[:49], event[:49], curves(hazard[:49])).reason
    on_first_days = np.where(np.arange(60) < 12, 100.0, time_days)
    for n_events in (9, 10):
        found = d_calibration(on_first_days, np.arange(60) < n_events, curves(hazard, np.array([100.0, 2000.0])))
        assert found.is_defined is (n_events == 10)
        assert found.is_defined or "fewer than 10 events by day" in found.reason


def test_curves_without_days_where_most_events_are_are_not_judged() -> None:
    time_days, event, hazard = cohort(200, 4)
    event[:] = True
    half = float(np.quantile(time_days, 0.5))
    days = np.array([half, *np.quantile(time_days, [0.8, 1.0])])
    fine = curves(hazard, np.quantile(time_days, np.linspace(0.05, 1.0, 20)))
    assert d_calibration(time_days, event, fine).is_defined
    assert d_calibration(time_days, event, curves(hazard, days)).is_defined  # half of them lie before the first day
    coarse = d_calibration(time_days, event, curves(hazard, days[1:]))
    assert coarse.reason == f"no day of the curves between 0 and {days[1]:.0f}, where most events are"
    on_days = np.where(time_days < days[1], days[1], time_days)
    assert d_calibration(on_days, event, curves(hazard, days[1:])).is_defined
