"""Recalibration fitted on validation patients: one or two numbers, or for many patients a rising step function."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.evaluation.censoring import SurvivalCurves
from subfuse.evaluation.floors import LEAST_VALIDATION
from subfuse.evaluation.predictions import (
    RECALIBRATED,
    class_probabilities,
    columns_with,
    events,
    label_indices,
    survival_curves,
    times_days,
)

_TINY = 1e-7
_LOG_TEMPERATURES = (-3.0, 3.0)


@dataclass(frozen=True)
class TemperatureScaling:
    """Divides the logits of all classes by one number (Guo 2017): above 1, predictions were too certain."""

    method: ClassVar[str] = "temperature"

    temperature: float  # fitted

    @classmethod
    def fit(
        cls, probabilities: Float[np.ndarray, "patient class"], label: Int[np.ndarray, " patient"]
    ) -> "TemperatureScaling":
        """Returns the temperature, from 0.05 to 20, with the highest likelihood on these patients."""
        from scipy.optimize import minimize_scalar

        row = np.arange(len(label))

        def loss(log_temperature: float) -> float:
            scaled = cls(float(np.exp(log_temperature))).apply(probabilities)
            return -float(np.log(np.maximum(scaled[row, label], _TINY)).mean())

        return cls(float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x)))

    def apply(self, probabilities: Float[np.ndarray, "patient class"]) -> Float[np.ndarray, "patient class"]:
        """Returns recalibrated probabilities; the most probable class stays the same."""
        logits = np.log(np.maximum(probabilities, _TINY)) / self.temperature
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class PlattScaling:
    """Slope and intercept of the log odds of two classes (Platt 1999)."""

    method: ClassVar[str] = "Platt"

    slope: float  # fitted
    intercept: float  # fitted

    @classmethod
    def fit(
        cls, probabilities: Float[np.ndarray, "patient class"], label: Int[np.ndarray, " patient"]
    ) -> "PlattScaling":
        """Returns the line with the highest likelihood of Platt's smoothed targets: finite for separated classes."""
        from scipy.optimize import minimize
        from scipy.special import expit, log_expit

        log_odds = _log_odds(probabilities)
        n_second, n_first = (label == 1).sum(), (label == 0).sum()
        target = np.where(label == 1, (n_second + 1) / (n_second + 2), 1 / (n_first + 2))

        def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
            score = line[0] * log_odds + line[1]
            value = -(target * log_expit(score) + (1 - target) * log_expit(-score)).mean()
            residual = expit(score) - target
            return float(value), np.array([(residual * log_odds).mean(), residual.mean()])

        slope, intercept = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
        return cls(float(slope), float(intercept))

    def apply(self, probabilities: Float[np.ndarray, "patient class"]) -> Float[np.ndarray, "patient class"]:
        """Returns recalibrated probabilities."""
        from scipy.special import expit

        second = expit(self.slope * _log_odds(probabilities) + self.intercept)
        return np.stack([1 - second, second], axis=1)


@dataclass(frozen=True)
class IsotonicScaling:
    """A rising function per class, whatever its shape, from predicted to observed (scikit-learn's isotonic regression).

    Of two classes the second is fitted; of more, each against the rest, and the values are divided by their sum. Unlike
    the scalings above it can change which class is most probable, and it needs hundreds of patients.

    References:
        Zadrozny and Elkan (2002), KDD, 694-699. Niculescu-Mizil and Caruana (2005), ICML, 625-632.
    """

    steps: tuple[Float[np.ndarray, "2 _"], ...]  # fitted: predicted and observed at the ends of each step

    @classmethod
    def fit(
        cls, probabilities: Float[np.ndarray, "patient class"], label: Int[np.ndarray, " patient"]
    ) -> "IsotonicScaling":
        """Returns the rising functions with the least squared error on these patients."""
        from sklearn.isotonic import IsotonicRegression

        n_classes = probabilities.shape[1]
        steps = []
        for index in range(1 if n_classes == 2 else 0, n_classes):
            fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(probabilities[:, index], label == index)
            steps.append(np.stack([fitted.X_thresholds_, fitted.y_thresholds_]).astype(np.float64))
        return cls(tuple(steps))

    def apply(self, probabilities: Float[np.ndarray, "patient class"]) -> Float[np.ndarray, "patient class"]:
        """Returns recalibrated probabilities; beyond the validation patients' range the functions stay level.

        A patient for whom every class comes out at zero gets equal probabilities, as in scikit-learn.
        """
        fitted = probabilities[:, -len(self.steps) :]
        observed = np.stack([np.interp(p, *step) for p, step in zip(fitted.T, self.steps, strict=True)], axis=1)
        if len(self.steps) == 1:
            return np.concatenate([1 - observed, observed], axis=1)
        total = observed.sum(axis=1, keepdims=True)
        return np.divide(observed, total, out=np.full_like(observed, 1 / observed.shape[1]), where=total > 0)


@dataclass(frozen=True)
class HazardRecalibration:
    r"""Level and slope of predicted hazards: :math:`\Lambda'(t|x) = \Lambda(t|x) \exp(a + c (x - m))`.

    With :math:`\Lambda = -\log S`, :math:`x` the log of :math:`\Lambda` at the end of the curve and :math:`m` its mean.
    Two numbers are what some tens of validation patients can carry.

    References:
        Crowson, Atkinson and Therneau (2016), Stat Methods Med Res 25: 1692-1706.
    """

    level: float  # fitted, a
    slope: float  # fitted, c; the calibration slope is 1 + c
    centre: float  # fitted, m

    @classmethod
    def fit(
        cls, curves: SurvivalCurves, time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
    ) -> "HazardRecalibration":
        r"""Returns the proportional change of the hazards with the highest likelihood on these patients.

        That likelihood is the one of event counts that are Poisson with mean :math:`\Lambda'` at the patient's time.
        """
        from sklearn.linear_model import PoissonRegressor

        end = curves.days[-1]
        expected = np.maximum(-np.log(np.maximum(curves.at(time_days), _TINY)), _TINY)
        count = (event & (time_days <= end)).astype(np.float64)
        predictor = _log_hazard_at_end(curves)
        centre = float(predictor.mean())
        if predictor.min() == predictor.max():
            return cls(float(np.log(max(count.sum(), _TINY) / expected.sum())), 0.0, centre)
        # a rate with exposure `expected`; the slight penalty keeps the slope finite where risks separate events
        model = PoissonRegressor(alpha=1e-3, solver="newton-cholesky")
        model.fit((predictor - centre)[:, None], count / expected, sample_weight=expected)
        return cls(float(model.intercept_), float(model.coef_[0]), centre)

    def apply(self, curves: SurvivalCurves) -> SurvivalCurves:
        """Returns recalibrated curves at the same days."""
        return SurvivalCurves(curves.days, np.maximum(curves.survival, _TINY) ** self.factors(curves)[:, None])

    def factors(self, curves: SurvivalCurves) -> Float[np.ndarray, " patient"]:
        """Returns by what the cumulative hazards of these patients are multiplied, at all times."""
        return np.exp(self.level + self.slope * (_log_hazard_at_end(curves) - self.centre))


def scaling_of(classes: Sequence[str]) -> type[PlattScaling] | type[TemperatureScaling]:
    """Returns how probabilities of these classes are recalibrated where patients are few."""
    return PlattScaling if len(classes) == 2 else TemperatureScaling


def fitted_scaling(validation: pd.DataFrame, classes: Sequence[str]) -> PlattScaling | TemperatureScaling | None:
    """Returns how a model's probabilities are recalibrated by its validation patients; None for fewer than ten."""
    if len(validation) < LEAST_VALIDATION:
        return None
    known = class_probabilities(validation, classes)
    return scaling_of(classes).fit(known, label_indices(validation, classes))


def fitted_hazards(validation: pd.DataFrame) -> HazardRecalibration | None:
    """Returns how a model's hazards are recalibrated by its validation patients; None without curve or ten events."""
    known = None if validation.empty else survival_curves(validation)
    if known is None or int(events(validation).sum()) < LEAST_VALIDATION:
        return None
    return HazardRecalibration.fit(known, times_days(validation), events(validation))


def with_scaled(
    predicted: pd.DataFrame, fitted: PlattScaling | TemperatureScaling | None, classes: Sequence[str]
) -> pd.DataFrame:
    """Returns one model's predictions with `recalibrated_p_<class>` beside `p_<class>`, where anything was fitted."""
    if fitted is None or predicted.empty:
        return predicted
    after = fitted.apply(class_probabilities(predicted, classes))
    return predicted.assign(**{f"{RECALIBRATED}p_{name}": after[:, i] for i, name in enumerate(classes)})


def with_hazards(
    predicted: pd.DataFrame, at_horizons: pd.DataFrame, fitted: HazardRecalibration | None
) -> pd.DataFrame:
    """Returns one model's survival at horizons with `recalibrated_survival_<days>` beside `survival_<days>`.

    Args:
        predicted: Columns of predictions.csv, survival at the ends of the model's own time bins.
        at_horizons: The same patients with survival at the horizons instead, see `with_horizons`.
        fitted: On the model's validation patients; None changes nothing.
    """
    curves = survival_curves(predicted)
    if curves is None or fitted is None:
        return at_horizons
    factors, names = fitted.factors(curves), columns_with(at_horizons, "survival_")
    return at_horizons.assign(**{f"{RECALIBRATED}{name}": at_horizons[name] ** factors for name in names})


def recalibrated_classes(predicted: pd.DataFrame, validation: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Returns `with_scaled` of predictions, fitted on the model's validation patients, see `fitted_scaling`."""
    return with_scaled(predicted, fitted_scaling(validation, classes), classes)


def recalibrated_survival(predicted: pd.DataFrame, at_horizons: pd.DataFrame, validation: pd.DataFrame) -> pd.DataFrame:
    """Returns `with_hazards` of predictions, fitted on the model's validation patients, see `fitted_hazards`."""
    return with_hazards(predicted, at_horizons, fitted_hazards(validation))


def _log_odds(probabilities: Float[np.ndarray, "patient class"]) -> Float[np.ndarray, " patient"]:
    clipped = np.clip(probabilities, _TINY, 1.0)
    return np.log(clipped[:, 1]) - np.log(clipped[:, 0])


def _log_hazard_at_end(curves: SurvivalCurves) -> Float[np.ndarray, " patient"]:
    return np.log(np.maximum(-np.log(np.clip(curves.survival[:, -1], _TINY, 1 - _TINY)), _TINY))
