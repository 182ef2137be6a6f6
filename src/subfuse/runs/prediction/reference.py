"""What a model's predictions are read beside: numbers of its training and validation patients that tell of no one."""

import numpy as np
import pandas as pd
from jaxtyping import Float
from pydantic import ConfigDict, Field, FiniteFloat, PositiveFloat
from scipy.special import ndtr

from subfuse.evaluation.benefit.conformal import day_of_level, least_probability, least_survival
from subfuse.evaluation.floors import LEAST_VALIDATION
from subfuse.evaluation.predictions import (
    IN_SET,
    PROMISED_DAYS,
    class_probabilities,
    curve_columns,
    events,
    label_indices,
    survival_curves,
    times_days,
)
from subfuse.evaluation.recalibration import (
    HazardRecalibration,
    PlattScaling,
    TemperatureScaling,
    fitted_hazards,
    fitted_scaling,
    with_hazards,
    with_scaled,
)
from subfuse.evaluation.survival.horizons import HORIZONS_DAYS, FollowUp
from subfuse.settings import Section

_MOST_QUANTILES, _LEAST_OF_QUANTILE = 101, 5  # a quantile is the mean of so many patients
_LEAST_RANKED = 20  # training patients; of fewer, quantiles would be their own risks
_LEAST_SPREAD = 3  # of two, mean and spread would be their risks
_LEAST_POSITIVE = 1e-100
_TIE = 1e-6  # of the spread of risks: closer ones are equal
_YEAR, _MONTH = HORIZONS_DAYS[0], 30  # follow-up is known by whole years and months


class RiskScale(Section):
    """Where a risk lies among those of a model's training patients.

    At least 20 of them are known by up to 101 quantiles, each the mean of at least five neighbours; 3 to 19 by their
    mean and spread, as if risks were normal. So no number is one patient's own risk.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    quantiles: tuple[FiniteFloat, ...] = Field((), max_length=_MOST_QUANTILES)  # rising
    mean: FiniteFloat | None = None
    spread: FiniteFloat | None = Field(None, ge=0)

    @classmethod
    def of(cls, trained: Float[np.ndarray, " patient"]) -> "RiskScale | None":
        """Returns the scale of these training patients' risks; None of fewer than three."""
        risks = np.sort(trained)
        if len(risks) < _LEAST_SPREAD:
            return None
        if len(risks) < _LEAST_RANKED:
            return cls(mean=float(risks.mean()), spread=float(risks.std()))
        groups = np.array_split(risks, min(_MOST_QUANTILES, len(risks) // _LEAST_OF_QUANTILE))
        return cls(quantiles=tuple(float(np.clip(group.mean(), group[0], group[-1])) for group in groups))

    def percentile(self, risk: Float[np.ndarray, " patient"]) -> Float[np.ndarray, " patient"]:
        """Returns the share (0 to 100) of training patients with a lower risk, those of the same counting half.

        Between quantiles on a straight line; beyond the outermost, which stand for at least five patients each, half
        their share. NaN stays.
        """
        if self.mean is not None and self.spread is not None:
            return 100 * ndtr((risk - self.mean) / max(self.spread, _LEAST_POSITIVE))
        known = np.array(self.quantiles)
        places = (np.arange(len(known)) + 0.5) / len(known) * 100
        within = _TIE * (known[-1] - known[0])
        left, right = np.searchsorted(known, risk - within, "left"), np.searchsorted(known, risk + within, "right")
        last = len(known) - 1
        tied = (places[np.minimum(left, last)] + places[np.maximum(right - 1, 0)]) / 2
        found = np.where(right > left, tied, np.interp(risk, known, places))
        return np.where(np.isnan(risk), np.nan, found)


class Reference(Section):
    """What a job's predictions are read beside; its numbers tell of groups of patients, never of one of them.

    The longest follow-up is known by whole years, the last event by whole months; limits of promises are rounded to
    three decimals, so that they promise no more than before.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    risks: RiskScale | None = None  # None: no survival, or too few training patients
    follow_up_days: FiniteFloat = Field(0.0, ge=0)
    last_event_day: FiniteFloat = Field(0.0, ge=0)
    log_baseline: tuple[FiniteFloat | None, ...] | None = Field(None, min_length=3, max_length=3)  # None: -inf
    temperature: PositiveFloat | None = None
    platt: tuple[FiniteFloat, FiniteFloat] | None = None  # slope, intercept
    hazards: tuple[FiniteFloat, FiniteFloat, FiniteFloat] | None = None  # level, slope, centre
    least_probability: FiniteFloat | None = None  # of a class in a promised set; None: too few validation patients
    least_survival: FiniteFloat | None = None  # how low survival falls before the promised day

    @classmethod
    def of_classes(cls, rows: pd.DataFrame, classes: tuple[str, ...]) -> "Reference":
        """Returns it of a job's predictions of its training and validation patients."""
        validation = _validation(rows)
        scaling = fitted_scaling(validation, classes)
        limit = None
        if len(validation) >= LEAST_VALIDATION:
            known = class_probabilities(validation, classes)
            limit = np.floor(least_probability(known, label_indices(validation, classes)) * 1000) / 1000
        return cls(
            temperature=scaling.temperature if isinstance(scaling, TemperatureScaling) else None,
            platt=(scaling.slope, scaling.intercept) if isinstance(scaling, PlattScaling) else None,
            least_probability=limit,
        )

    @classmethod
    def of_survival(cls, rows: pd.DataFrame, *, has_curve: bool) -> "Reference":
        """Returns it of a job's predictions of its training and validation patients.

        Args:
            rows: The predictions.
            has_curve: The model predicts a survival curve, and not log hazards alone.
        """
        trained = rows[rows["split"] == "train"].dropna(subset=["risk"])
        known, validation = FollowUp.of(trained, has_curve=has_curve), _validation(rows)
        hazards = fitted_hazards(validation) if has_curve else None
        baseline = known.log_baseline
        return cls(
            risks=RiskScale.of(trained["risk"].to_numpy(float)),
            follow_up_days=known.last_day // _YEAR * _YEAR,
            last_event_day=float(np.ceil(known.last_event_day / _MONTH) * _MONTH),
            log_baseline=None if baseline is None else tuple(x if np.isfinite(x) else None for x in baseline),
            hazards=None if hazards is None else (hazards.level, hazards.slope, hazards.centre),
            least_survival=_least_survival(validation) if has_curve else None,
        )

    def beside_classes(self, predicted: pd.DataFrame, classes: tuple[str, ...]) -> pd.DataFrame:
        """Returns predictions of classes with `recalibrated_...` and the promised set beside them, where known."""
        scaling: PlattScaling | TemperatureScaling | None = None
        if self.platt is not None:
            scaling = PlattScaling(*self.platt)
        elif self.temperature is not None:
            scaling = TemperatureScaling(self.temperature)
        table = with_scaled(predicted, scaling, classes).assign(risk=np.nan, risk_percentile=np.nan)
        if self.least_probability is None or predicted.empty:
            return table
        is_in = class_probabilities(predicted, classes) >= self.least_probability
        return table.assign(**{f"{IN_SET}{name}": is_in[:, i].astype(float) for i, name in enumerate(classes)})

    def beside_survival(self, predicted: pd.DataFrame) -> pd.DataFrame:
        """Returns survival at the horizons, with `risk_percentile`, `recalibrated_...` and `promised_days`."""
        risk = predicted["risk"].to_numpy(float)
        percentile = np.full(len(risk), np.nan) if self.risks is None else self.risks.percentile(risk)
        predicted = predicted.assign(risk_percentile=percentile)
        baseline = self.log_baseline
        log_baseline = None if baseline is None else tuple(-np.inf if x is None else x for x in baseline)
        known = FollowUp(self.follow_up_days, self.last_event_day, log_baseline)
        hazards = None if self.hazards is None else HazardRecalibration(*self.hazards)
        table = with_hazards(predicted, known.at_horizons(predicted), hazards)
        curves = None if self.least_survival is None else survival_curves(predicted)
        if curves is None or self.least_survival is None:
            return table
        return table.assign(**{PROMISED_DAYS: day_of_level(curves, self.least_survival)})


def _validation(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["split"] == "validation"]


def _least_survival(validation: pd.DataFrame) -> float | None:
    known = validation.dropna(subset=["time_days", "event", *curve_columns(validation).values()])
    curves = None if len(known) < LEAST_VALIDATION else survival_curves(known)
    if curves is None:
        return None
    return float(np.ceil(least_survival(times_days(known), events(known), curves) * 1000) / 1000)
