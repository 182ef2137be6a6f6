"""Slope and level of calibration are those of independent implementations, and tell planted faults."""

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from subfuse.audit.calibration import calibration_findings
from subfuse.evaluation.calibration.measures import calibration_table
from subfuse.evaluation.calibration_slopes import (
    SLOPE_COLUMNS,
    logistic_level,
    logistic_slope,
    observed_to_expected,
    slope_table,
    survival_slope,
)

N = 600
HORIZON = 1095.0
DAYS = np.array([300.0, 700.0, HORIZON, 1500.0])


def drawn(slope: float = 1.0, level: float = 0.0, n: int = N, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log odds as predicted, and outcomes whose true log odds are slope times these plus the level."""
    generator = np.random.default_rng(seed)
    log_odds = generator.normal(size=n)
    return log_odds, generator.random(n) < 1 / (1 + np.exp(-slope * log_odds - level))


def followed(power: float, factor: float, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted hazards, and times and events of patients whose true hazards are their power times the factor."""
    generator = np.random.default_rng(1)
    hazard = np.exp(generator.normal(size=n)) / 1200
    died, last_seen = generator.exponential(1 / (factor * hazard**power)), generator.uniform(0, 5000, n)
    return hazard, np.minimum(died, last_seen), died <= last_seen


def rows_of(n_repeats: int, folds: int = 3, **columns: object) -> pd.DataFrame:
    n = len(next(value for value in columns.values() if isinstance(value, np.ndarray)))
    table = pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], "cohort": "c", "task": "t", "model": "snn"})
    table = table.assign(**columns)
    side = np.array(["test", "validation", "train"])
    return pd.concat(
        [
            table.assign(repeat=repeat, fold=fold, split=side[(np.arange(n) + fold) % folds])
            for repeat in range(n_repeats)
            for fold in range(folds)
        ],
        ignore_index=True,
    )


def two_classes(slope: float, level: float = 0.0, *, repeats: int = 1, n: int = N) -> pd.DataFrame:
    log_odds, is_case = drawn(slope, level, n)
    probability = 1 / (1 + np.exp(-log_odds))
    return rows_of(repeats, label=np.where(is_case, "B", "A"), p_A=1 - probability, p_B=probability)


def measured(table: pd.DataFrame, name: str) -> pd.Series:
    (row,) = table[table["measure"] == name].to_dict("records")
    return pd.Series(row)


def test_logistic_slope_and_level_are_those_of_other_implementations() -> None:
    log_odds, is_case = drawn(0.6, 0.4)
    free = LogisticRegression(C=1e12, tol=1e-10).fit(log_odds[:, None], is_case)

    def gradient(weights: np.ndarray) -> np.ndarray:
        residual = is_case - 1 / (1 + np.exp(-weights[0] * log_odds - weights[1]))
        return np.array([residual @ log_odds, residual.sum()])

    best = np.array([free.coef_[0, 0], free.intercept_[0]])
    information = -np.stack([approx_fprime(best, lambda w, i=i: gradient(w)[i], 1e-6) for i in range(2)])
    slope, level = logistic_slope(log_odds, is_case), logistic_level(log_odds, is_case)
    assert slope.value == pytest.approx(best[0], abs=1e-4)
    assert slope.error == pytest.approx(np.sqrt(np.linalg.inv(information)[0, 0]), rel=1e-3)
    expected = 1 / (1 + np.exp(-log_odds - level.value))
    assert expected.sum() == pytest.approx(is_case.sum())  # the score equation of an intercept beside an offset
    assert level.error == pytest.approx(1 / np.sqrt((expected * (1 - expected)).sum()))


def test_survival_slope_and_ratio_are_those_of_other_implementations() -> None:
    hazard, time, event = followed(0.7, 0.2)
    time = np.where(np.abs(time / HORIZON - 1) < 0.05, HORIZON, time)  # some die on the very day
    survival = np.exp(-hazard * HORIZON)
    until = {"time": np.minimum(time, HORIZON), "event": event & (time <= HORIZON)}
    cox = CoxPHSurvivalAnalysis(ties="efron", tol=1e-12).fit(
        np.log(hazard * HORIZON)[:, None], Surv.from_arrays(**until)
    )
    alive = KaplanMeierFitter().fit(time, event).predict(HORIZON)

    slope = survival_slope(survival, time, event, horizon_days=HORIZON)
    ratio = observed_to_expected(survival, time, event, horizon_days=HORIZON)

    assert slope.value == pytest.approx(cox.coef_[0], abs=1e-4)
    assert np.exp(ratio.value) == pytest.approx((1 - alive) / (1 - survival.mean()))
    replicates = []
    for seed in range(300):
        drawn_again = np.random.default_rng(seed).integers(0, N, N)
        alive = KaplanMeierFitter().fit(time[drawn_again], event[drawn_again]).predict(HORIZON)
        replicates.append(np.log((1 - alive) / (1 - survival.mean())))
    assert ratio.error == pytest.approx(np.std(replicates), rel=0.15)


def test_probabilities_too_extreme_have_a_slope_below_one_that_recalibration_mends() -> None:
    table = slope_table(two_classes(0.5, 0.8))
    assert tuple(table) == SLOPE_COLUMNS
    slope, level = measured(table, "calibration_slope"), measured(table, "calibration_in_the_large")
    assert slope["outcome"] == "B"
    assert slope["upper"] < 1
    assert slope["lower"] < 0.5 < slope["upper"]
    assert level["lower"] > 0
    assert slope["lower_after"] < 1 < slope["upper_after"]
    assert level["lower_after"] < 0 < level["upper_after"]


def test_true_probabilities_are_within_their_intervals_as_often_as_promised() -> None:
    held = []
    for seed in range(400):
        estimate = logistic_slope(*drawn(n=150, seed=seed))
        held.append(abs(estimate.value - 1) < 1.96 * estimate.error)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


def test_hazards_too_high_are_told_by_the_ratio_at_the_horizon() -> None:
    hazard, time, event = followed(1.0, 0.5)
    curves = {f"survival_{day:g}": np.exp(-hazard * day) for day in DAYS}
    table = slope_table(rows_of(1, time_days=time, event=event, risk=np.log(hazard), **curves))
    slope, ratio = measured(table, "calibration_slope"), measured(table, "observed_to_expected")
    assert slope["horizon_days"] == ratio["horizon_days"] == HORIZON
    assert slope["lower"] < 1 < slope["upper"]
    assert ratio["upper"] < 1
    assert ratio["lower_after"] < 1 < ratio["upper_after"]


def test_each_of_three_classes_is_told_against_the_rest() -> None:
    generator = np.random.default_rng(2)
    truth = generator.dirichlet([2.0, 1.0, 1.0], N)
    label = np.array(["A", "B", "C"])[(truth.cumsum(axis=1) < generator.random((N, 1))).sum(axis=1)]
    table = slope_table(rows_of(1, label=label, **{f"p_{name}": truth[:, i] for i, name in enumerate("ABC")}))
    assert table["outcome"].tolist() == ["A", "A", "B", "B", "C", "C"]
    for place, name in enumerate("ABC"):
        log_odds = np.log(truth[:, place] / (1 - truth[:, place]))
        slope = table[(table["outcome"] == name) & (table["measure"] == "calibration_slope")]["before"].item()
        assert slope == pytest.approx(logistic_slope(log_odds, label == name).value, abs=1e-6)


def test_repeats_do_not_narrow_the_interval() -> None:
    once, thrice = slope_table(two_classes(0.8)), slope_table(two_classes(0.8, repeats=3))
    pd.testing.assert_frame_equal(once, thrice)


def test_what_cannot_be_told_is_empty_with_its_reason() -> None:
    table = slope_table(two_classes(0.8, n=15))
    assert table["before"].isna().all()
    assert (table["reason"] == "15 test patients, 20 are needed").all()
    rare = slope_table(two_classes(0.8, -5.0, n=60))
    assert rare["reason"].str.fullmatch(r"\d test patients of class B, 5 are needed").all()
    apart = logistic_slope(np.linspace(-2, 2, 40), np.linspace(-2, 2, 40) > 0)
    assert (np.isnan(apart.value), "tell all patients apart" in str(apart.reason)) == (True, True)
    alike = logistic_slope(np.full(40, 0.3), np.arange(40) < 20)
    assert (np.isnan(alike.value), "the same probability" in str(alike.reason)) == (True, True)


@pytest.mark.parametrize(
    ("n_cases", "few"), [(5, ""), (4, "4 test patients of"), (56, "4 test patients of others than")]
)
def test_a_class_of_five_test_patients_and_as_many_others_is_told(n_cases: int, few: str) -> None:
    log_odds = np.random.default_rng(0).normal(size=60)
    probability = 1 / (1 + np.exp(-log_odds))
    label = np.where(np.random.default_rng(1).permutation(60) < n_cases, "B", "A")
    table = slope_table(rows_of(1, 1, label=label, p_A=1 - probability, p_B=probability))
    assert (table["before"].isna() == bool(few)).tolist() == [True, True]
    assert table["reason"].str.startswith(few or "not recalibrated").all()


@pytest.mark.parametrize(("n", "n_events", "few"), [(20, 10, ""), (20, 9, "20 test patients, 9"), (19, 10, "19 test")])
def test_twenty_patients_of_whom_ten_had_an_event_by_the_horizon_are_told(n: int, n_events: int, few: str) -> None:
    place = np.arange(n)
    time = np.where(place < n_events, HORIZON - 100.0 * (n_events - 1 - place), HORIZON + 100)  # the last on its day
    hazard = np.exp(np.random.default_rng(0).normal(size=n)) / 1200
    curves = {f"survival_{day:g}": np.exp(-hazard * day) for day in DAYS}
    later = place == n - 1  # an event after the horizon is none by then
    table = slope_table(rows_of(1, 1, time_days=time, event=(place < n_events) | later, risk=np.log(hazard), **curves))
    assert (table["before"].isna() == bool(few)).tolist() == [True, True]
    assert table["reason"].str.startswith(few or "not recalibrated").all()


def test_probabilities_of_0_and_1_are_nearly_certain_and_told() -> None:
    log_odds, is_case = drawn(n=60)
    probability = np.where(np.arange(60) < 3, 0.0, np.where(np.arange(60) < 6, 1.0, 1 / (1 + np.exp(-log_odds))))
    label = np.where(is_case, "B", "A")
    nearly = np.clip(probability, 1e-7, 1 - 1e-7)
    both = [slope_table(rows_of(1, 1, label=label, p_A=1 - p, p_B=p))["before"] for p in (probability, nearly)]
    assert np.isfinite(both[0]).all()
    np.testing.assert_allclose(*both, rtol=1e-4)

    hazard, time, event = followed(1.0, 1.0, n=60)
    survival = np.exp(-hazard * HORIZON)
    survival[:3], survival[3:5] = 0.0, 1.0
    assert np.isfinite(survival_slope(survival, time, event, horizon_days=HORIZON).value)


def test_the_ratio_is_unknown_where_nobody_was_followed_to_the_horizon_unless_all_had_died() -> None:
    days, survival, everybody = np.array([100.0, 200.0, 300.0, 400.0]), np.full(4, 0.5), np.ones(4, bool)
    all_died = observed_to_expected(survival, days, everybody, horizon_days=HORIZON)
    assert (all_died.value, all_died.reason) == (pytest.approx(np.log(2)), None)
    one_seen = observed_to_expected(survival, days, days < 400, horizon_days=HORIZON)
    assert (np.isnan(one_seen.value), one_seen.reason) == (True, "nobody was followed to day 1095")
    followed_to_it = observed_to_expected(survival, days, days < 400, horizon_days=400.0)
    assert followed_to_it.value == pytest.approx(np.log(0.75 / 0.5))  # one of four lives
    greenwood = 0.25**2 * (1 / (4 * 3) + 1 / (3 * 2) + 1 / (2 * 1))
    assert followed_to_it.error == pytest.approx(np.sqrt(greenwood) / 0.75)
    none_expected = observed_to_expected(np.ones(4), days, everybody, horizon_days=HORIZON)
    assert none_expected.value == pytest.approx(np.log(1e7))


def test_the_finding_says_in_which_way_probabilities_are_off() -> None:
    off, right = (two_classes(slope, n=900) for slope in (0.3, 1.0))
    (finding,) = calibration_findings(calibration_table(off), slope_table(off))
    assert finding.level == "warning"
    assert "too extreme for B (slope 0." in finding.found
    hazard, time, event = followed(1.0, 0.4)
    curves = {f"survival_{day:g}": np.exp(-hazard * day) for day in DAYS}
    high = rows_of(1, time_days=time, event=event, risk=np.log(hazard), **curves)
    (finding,) = calibration_findings(calibration_table(high), slope_table(high))
    assert "risk too high (observed over expected events 0." in finding.found
    (finding,) = calibration_findings(calibration_table(right), slope_table(right))
    assert (finding.level, "slope" in finding.found) == ("ok", False)
