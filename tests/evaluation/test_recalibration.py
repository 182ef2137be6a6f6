import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression

from subfuse.evaluation.calibration.measures import calibration_table
from subfuse.evaluation.censoring import SurvivalCurves
from subfuse.evaluation.recalibration import (
    HazardRecalibration,
    IsotonicScaling,
    PlattScaling,
    TemperatureScaling,
    recalibrated_classes,
    recalibrated_survival,
)

DAYS = np.array([200.0, 600.0, 1500.0])


def classes(n: int, n_classes: int, seed: int, *, sharpened: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities, and the same probabilities with logits times `sharpened`."""
    generator = np.random.default_rng(seed)
    logits = 1.5 * generator.normal(size=(n, n_classes))
    odds = np.exp(logits)
    truth = odds / odds.sum(axis=1, keepdims=True)
    label = (truth.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    odds = np.exp(sharpened * logits)
    return label, odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("sharpened", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(sharpened: float) -> None:
    label, probabilities = classes(4000, 3, 0, sharpened=sharpened)

    fitted = TemperatureScaling.fit(probabilities, label)

    assert fitted.temperature == pytest.approx(sharpened, rel=0.1)
    scaled = fitted.apply(probabilities)
    np.testing.assert_array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
    np.testing.assert_allclose(scaled.sum(axis=1), 1.0)


@pytest.mark.parametrize(("right", "temperature"), [(True, np.exp(-3)), (False, np.exp(3))])
def test_temperature_stays_within_a_twentieth_and_twenty(right: bool, temperature: float) -> None:
    probabilities = np.tile([[0.6, 0.4], [0.4, 0.6]], (10, 1))
    label = np.tile([0, 1] if right else [1, 0], 10)

    assert TemperatureScaling.fit(probabilities, label).temperature == pytest.approx(temperature, rel=1e-3)


def test_certain_probabilities_are_scaled_like_nearly_certain_ones() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])

    for scaling in (TemperatureScaling(2.0), PlattScaling(0.5, 0.0)):  # alike for two classes
        scaled = scaling.apply(certain)
        np.testing.assert_allclose(scaled[:, 1] / scaled[:, 0], [10**-3.5, 10**3.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(PlattScaling(0.5, -1.0).apply(certain)[2], [np.e / (1 + np.e), 1 / (1 + np.e)])


def test_platt_agrees_with_logistic_regression_on_smoothed_targets() -> None:
    label, probabilities = classes(90, 2, 1, sharpened=2.0)
    log_odds = np.log(probabilities[:, 1] / probabilities[:, 0])
    n_second, n_first = label.sum(), (1 - label).sum()
    target = np.where(label == 1, (n_second + 1) / (n_second + 2), 1 / (n_first + 2))
    # a fractional target is two rows with weights
    reference = LogisticRegression(C=1e10, tol=1e-10, max_iter=1000).fit(
        np.tile(log_odds, 2)[:, None], np.repeat([1, 0], 90), sample_weight=np.concatenate([target, 1 - target])
    )

    fitted = PlattScaling.fit(probabilities, label)

    assert fitted.slope == pytest.approx(reference.coef_[0, 0], rel=1e-3)
    assert fitted.intercept == pytest.approx(reference.intercept_[0], abs=1e-3)
    np.testing.assert_allclose(fitted.apply(probabilities), reference.predict_proba(log_odds[:, None]), atol=1e-4)


def test_platt_stays_finite_where_classes_are_separated() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])

    fitted = PlattScaling.fit(probabilities, np.array([0, 0, 1, 1]))

    assert 0 < fitted.slope < 10


class Told(ClassifierMixin, BaseEstimator):
    """A classifier that predicts what it is told."""

    def fit(self, probabilities, label):
        self.classes_ = np.unique(label)
        return self

    def predict(self, probabilities):
        return probabilities.argmax(axis=1)

    def predict_proba(self, probabilities):
        return probabilities


@pytest.mark.parametrize("n_classes", [2, 3])
def test_isotonic_regression_is_that_of_scikit_learn(n_classes: int) -> None:
    label, probabilities = classes(400, n_classes, 3, sharpened=2.5)
    _, others = classes(150, n_classes, 4, sharpened=5.0)  # some beyond the range of those it is fitted on
    told = FrozenEstimator(Told().fit(probabilities, label))
    reference = CalibratedClassifierCV(told, method="isotonic", ensemble=False).fit(probabilities, label)

    fitted = IsotonicScaling.fit(probabilities, label)

    np.testing.assert_allclose(fitted.apply(others), reference.predict_proba(others), atol=1e-6)
    for index in range(n_classes - len(fitted.steps), n_classes):
        order = probabilities[:, index].argsort()
        observed = np.interp(probabilities[order, index], *fitted.steps[index - n_classes])
        assert (np.diff(observed) >= 0).all()


def test_isotonic_regression_says_nothing_of_a_patient_like_none_of_any_class() -> None:
    told = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])
    fitted = IsotonicScaling.fit(told, np.array([0, 1, 2]))

    unlike = fitted.apply(np.array([[0.05, 0.04, 0.03], [0.95, 0.03, 0.02]]))

    np.testing.assert_allclose(unlike, [[1 / 3, 1 / 3, 1 / 3], [1, 0, 0]])


@pytest.mark.parametrize(("level", "slope"), [(0.0, 0.0), (0.7, -0.5), (-0.6, 0.4)])
def test_level_and_slope_of_hazards_are_recovered(level: float, slope: float) -> None:
    generator = np.random.default_rng(2)
    predictor = generator.normal(-0.5, 0.8, size=6000)
    predicted = SurvivalCurves(DAYS, np.exp(-np.exp(predictor)[:, None] * DAYS / DAYS[-1]))
    rate = np.exp(predictor + level + slope * (predictor - predictor.mean())) / DAYS[-1]
    survival_time, last_contact = generator.exponential(1 / rate), generator.uniform(0, 3000, 6000)
    time_days, event = np.minimum(survival_time, last_contact), survival_time <= last_contact

    fitted = HazardRecalibration.fit(predicted, time_days, event)

    # straight lines between three days are not quite exponential curves
    assert (fitted.level, fitted.slope) == pytest.approx((level, slope), abs=0.12)
    truth = np.exp(-rate[:, None] * DAYS)
    assert np.abs(fitted.apply(predicted).survival - truth).mean() < 0.03


@pytest.mark.parametrize("seed", range(8))
def test_hazards_that_are_the_same_for_everybody_have_a_level_and_no_slope(seed: int) -> None:
    generator = np.random.default_rng(seed)
    time_days, event = generator.exponential(900, 19), generator.random(19) < 0.8
    hazard = np.full(19, 1 / generator.uniform(500, 1500))
    alike = HazardRecalibration.fit(SurvivalCurves(DAYS, np.exp(-hazard[:, None] * DAYS)), time_days, event)
    nearly = hazard * (1 + 1e-6 * generator.normal(size=19))
    found = HazardRecalibration.fit(SurvivalCurves(DAYS, np.exp(-nearly[:, None] * DAYS)), time_days, event)
    assert alike.slope == 0
    assert alike.level == pytest.approx(found.level, abs=1e-3)


def test_hazards_are_recalibrated_by_their_value_at_the_end_of_the_curve() -> None:
    survival = np.array([[0.9, 0.7, 0.4], [0.8, 0.75, 0.7]])
    end = np.log(-np.log(survival[:, -1]))

    found = HazardRecalibration(level=0.3, slope=-0.2, centre=0.1).apply(SurvivalCurves(DAYS, survival))

    np.testing.assert_allclose(found.survival, survival ** np.exp(0.3 - 0.2 * (end - 0.1))[:, None])
    np.testing.assert_array_equal(found.days, DAYS)


def test_an_event_on_the_last_day_of_the_curves_counts() -> None:
    predicted = SurvivalCurves(DAYS, np.tile([0.9, 0.7, 0.5], (40, 1)))
    time_days, event = np.repeat(DAYS[1:], 20), np.repeat([False, True], 20)

    fitted = HazardRecalibration.fit(predicted, time_days, event)

    # events over expected ones: of equal curves nothing but the level can be fitted
    assert fitted.level == pytest.approx(np.log(20 / -(20 * np.log(0.7) + 20 * np.log(0.5))), abs=1e-4)
    assert fitted.slope == pytest.approx(0.0, abs=1e-9)
    assert fitted.centre == pytest.approx(np.log(np.log(2)))


def test_what_happens_beyond_the_end_of_the_curves_does_not_recalibrate_them() -> None:
    generator = np.random.default_rng(5)
    hazard = np.exp(generator.normal(size=80)) / 1500
    predicted = SurvivalCurves(DAYS, np.exp(-hazard[:, None] * DAYS))
    time_days, event = generator.exponential(1 / hazard), generator.random(80) < 0.7
    is_beyond = time_days > DAYS[-1]
    assert event[is_beyond].any()

    fitted = HazardRecalibration.fit(predicted, time_days, event)

    until_then = HazardRecalibration.fit(predicted, np.minimum(time_days, DAYS[-1]), event & ~is_beyond)
    assert fitted == until_then


def with_curves(n: int, fold: int = 0) -> tuple[pd.DataFrame, SurvivalCurves]:
    """Rows of patients with survival on three days, and the curves."""
    generator = np.random.default_rng(n)
    hazard = np.exp(generator.normal(size=n)) / 800
    died, last_seen = generator.exponential(1 / (2 * hazard)), generator.uniform(0, 3000, n)
    rows = pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], "fold": fold, "task": "t", "model": "m"})
    rows = rows.assign(time_days=np.minimum(died, last_seen), event=died <= last_seen)
    curves = SurvivalCurves(np.array([365.0, 1095.0, 1825.0]), np.exp(-np.outer(hazard, [365.0, 1095.0, 1825.0])))
    rows[[f"survival_{day:g}" for day in curves.days]] = curves.survival
    return rows, curves


def test_survival_at_horizons_is_recalibrated_as_the_curves_are() -> None:
    (validation, known), (predicted, curves) = with_curves(60), with_curves(5)
    fitted = HazardRecalibration.fit(
        known, validation["time_days"].to_numpy(), validation["event"].to_numpy(dtype=bool)
    )
    table = recalibrated_survival(predicted, predicted, validation)
    after = table[[f"recalibrated_survival_{day:g}" for day in curves.days]].to_numpy()
    np.testing.assert_allclose(after, fitted.apply(curves).survival, rtol=1e-6)
    pd.testing.assert_frame_equal(table[list(predicted)], predicted)  # what the model says stays


def test_fewer_than_ten_events_or_patients_recalibrate_nothing() -> None:
    (validation, _), (predicted, _) = with_curves(60), with_curves(5)
    few, enough = (validation.assign(event=np.arange(60) < n) for n in (9, 10))
    curves = [f"survival_{day}" for day in (365, 1095, 1825)]
    for other in (few, validation[:0], validation.drop(columns=curves)):
        assert list(recalibrated_survival(predicted, predicted, other)) == list(predicted)
    assert "recalibrated_survival_365" in recalibrated_survival(predicted, predicted, enough)
    no_curve = predicted.drop(columns=curves)
    assert list(recalibrated_survival(no_curve, no_curve, validation)) == list(no_curve)
    share = np.linspace(0.1, 0.9, 12)
    rows = pd.DataFrame({"p_A": share, "p_B": 1 - share, "label": list("AB" * 6), "patient_id": "P", "task": "t"})
    assert list(recalibrated_classes(rows, rows[:9], ["A", "B"])) == list(rows)
    assert "recalibrated_p_A" in recalibrated_classes(rows, rows[:10], ["A", "B"])
    table = recalibrated_classes(rows, rows, ["A", "B"])
    np.testing.assert_allclose(table["recalibrated_p_A"] + table["recalibrated_p_B"], 1.0)


def test_two_classes_get_a_slope_and_an_intercept_and_more_a_temperature() -> None:
    for n_classes, scaling in ((2, PlattScaling), (3, TemperatureScaling)):
        label, told = classes(60, n_classes, 0, sharpened=3.0)
        rows = pd.DataFrame(told, columns=[f"p_{name}" for name in "ABC"[:n_classes]])
        rows = rows.assign(label=[*map("ABC".__getitem__, label)], patient_id="P", task="t", model="m", fold=0)
        table = recalibrated_classes(rows, rows, list("ABC"[:n_classes]))
        after = table[[f"recalibrated_p_{name}" for name in "ABC"[:n_classes]]]
        np.testing.assert_allclose(after, scaling.fit(told, label).apply(told))


def test_recalibrated_probabilities_beside_those_of_a_mean_of_models_are_measured() -> None:
    share = np.random.default_rng(0).uniform(0.05, 0.95, 200)
    is_second = np.random.default_rng(1).random(200) < share
    rows = pd.DataFrame({"patient_id": [f"P{i}" for i in range(200)], "cohort": "c", "task": "t", "model": "m"})
    rows = rows.assign(repeat=0, fold=0, split="test", label=np.where(is_second, "B", "A"), p_A=0.5, p_B=0.5)
    given = rows.assign(recalibrated_p_A=1 - share, recalibrated_p_B=share)
    as_predicted = rows.assign(p_A=1 - share, p_B=share)
    brier = [calibration_table(table).set_index("measure").loc["brier"] for table in (rows, given, as_predicted)]
    assert np.isnan(brier[0]["after"])
    assert brier[1]["after"] == brier[2]["before"] < brier[1]["before"]
