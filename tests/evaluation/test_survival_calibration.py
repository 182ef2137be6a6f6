import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from scipy.stats import chi2

from subfuse.evaluation.survival_calibration import (
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


def test_curves_are_straight_between_days_and_constant_beyond() -> None:
    predicted = SurvivalCurves(np.array([100.0, 300.0]), np.array([[0.8, 0.4], [0.9, 0.7], [0.6, 0.6]]))

    np.testing.assert_allclose(predicted.at(np.array([50.0, 200.0, 400.0])), [0.9, 0.8, 0.6])
    np.testing.assert_allclose(predicted.at(np.array([0.0, 100.0, 300.0])), [1.0, 0.9, 0.6])


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
    survival, event = np.append(generator.random(40), [1.0, 0.1, 0.3]), np.append(generator.random(40) < 0.5, [1, 0, 1])
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


def test_what_cannot_be_tested_has_a_reason() -> None:
    time_days, event, hazard = cohort(60, 3)
    short = curves(hazard, np.array([100.0, 500.0]))

    assert "end on day 500" in one_calibration(time_days, event, short).reason
    assert "fewer than 10 events" in one_calibration(time_days, np.zeros(60, bool), curves(hazard)).reason
    assert "fewer than 50 patients" in d_calibration(time_days[:20], event[:20], curves(hazard[:20])).reason
    assert "no event" in d_calibration(time_days, np.zeros(60, bool), curves(hazard)).reason
