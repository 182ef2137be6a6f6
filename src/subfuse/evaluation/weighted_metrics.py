"""Metrics of patients that carry weights: rows of weights in, one value per row out, NaN where undefined.

Every metric is written once. With weights of one it is the value that `metrics` reports; with bootstrap counts it is
a thousand resampled values by one matrix product, so a value and its interval cannot disagree. Definitions are in the
docstrings of `metrics.classification_metrics` and `metrics.survival_metrics`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from subfuse.errors import preview


def known_orders(
    time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> Bool[np.ndarray, "patient patient"]:
    """Returns True where the row's patient is known to have had the event before the column's (Harrell's pairs).

    An event comes before later follow-up of any kind, and before a last contact on the same day; two events on the same
    day have no order.
    """
    return event[:, None] & (
        (time_days > time_days[:, None]) | ((time_days == time_days[:, None]) & ~event)
    )  # (case, patient)


def wins(difference: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Returns what comparisons count: 1 where the case's score is higher, one half for ties, else 0.

    Args:
        difference: Score of the case minus that of the other patient.
    """
    return np.where(difference > 0, 1.0, np.where(difference == 0, 0.5, 0.0))


CALIBRATION_BINS = 15
HORIZON_DAYS = 1095.0  # three years
_MINIMUM_FOLLOW_UP = 0.1  # share of training patients not yet censored; bounds a censoring weight by 10, Uno's by 100
_BLOCK = 512  # cases compared with all patients at a time, so that memory stays flat in large cohorts
_Comparable = Callable[[np.ndarray], np.ndarray]  # cases (case,) -> with whom they are compared (case, patient)


@dataclass(frozen=True)
class CensoringDistribution:
    """Kaplan-Meier estimate of G(t), the probability of not being censored by time t, fitted on training patients.

    At tied times events come before censorings, as in the estimators of Uno and Graf.
    """

    times_days: Float[np.ndarray, " step"]  # increasing, distinct
    uncensored: Float[np.ndarray, " step"]  # G at and after each time, until the next

    @classmethod
    def fit(
        cls, time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
    ) -> "CensoringDistribution":
        """Estimates G from follow-up times (days) and events.

        Raises:
            ValueError: No patients, or times that are missing or negative.
        """
        _check_times(time_days)
        times, position = np.unique(time_days, return_inverse=True)
        n_events = np.bincount(position, weights=event, minlength=len(times))
        n_total = np.bincount(position, minlength=len(times))
        n_at_risk = np.cumsum(n_total[::-1])[::-1] - n_events  # those with an event at this time have already left
        n_censored = n_total - n_events
        staying = np.divide(n_at_risk - n_censored, n_at_risk, out=np.ones(len(times)), where=n_at_risk > 0)
        return cls(times, np.cumprod(staying))

    def at(self, days: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Returns G at these times; one before the first training patient's time."""
        position = np.searchsorted(self.times_days, days, side="right")
        return np.concatenate([[1.0], self.uncensored])[position]

    @property
    def truncation_days(self) -> float:
        """The last time at which G is at least 0.1; beyond it, few training patients would carry all the weight."""
        reliable = self.times_days[self.uncensored >= _MINIMUM_FOLLOW_UP]
        return float(reliable[-1]) if len(reliable) else 0.0


@dataclass(frozen=True)
class SurvivalSample:
    """Outcomes and predictions of the patients that are ranked together; fields and errors as in `survival_metrics`."""

    time_days: Float[np.ndarray, " patient"]
    event: Bool[np.ndarray, " patient"]
    risk: Float[np.ndarray, " patient"]
    censoring: CensoringDistribution | None = None
    survival: Float[np.ndarray, "patient time"] | None = None
    survival_days: Float[np.ndarray, " time"] | None = None
    horizon_days: float = HORIZON_DAYS

    def __post_init__(self) -> None:
        _check_times(self.time_days)
        if not len(self.time_days) == len(self.event) == len(self.risk):
            raise ValueError(
                f"time_days, event and risk must have one value per patient. "
                f"Found {len(self.time_days)}, {len(self.event)} and {len(self.risk)}."
            )
        if not np.isfinite(self.risk).all():
            raise ValueError(
                f"risk must be finite. Found {np.count_nonzero(~np.isfinite(self.risk))} values that are not."
            )
        _check_survival_curves(self.survival, self.survival_days)

    @property
    def brier_times(self) -> Bool[np.ndarray, " time"]:
        """Which of `survival_days` enter the integrated Brier score."""
        if self.survival_days is None or self.censoring is None:
            return np.zeros(0, dtype=bool)
        return (self.survival_days <= self.censoring.truncation_days) & (self.survival_days < self.time_days.max())


def weighted_classification_metrics(
    label: Int[np.ndarray, " patient"],
    probabilities: Float[np.ndarray, "patient class"],
    weights: Float[np.ndarray, "replicate patient"],
) -> dict[str, Float[np.ndarray, " replicate"]]:
    """Returns the metrics of `classification_metrics` for each row of patient weights; arguments are not checked."""
    n_classes = probabilities.shape[1]
    is_class = np.eye(n_classes)[label]  # (patient, class)
    is_predicted = np.eye(n_classes)[probabilities.argmax(axis=1)]
    joint = (is_class[:, :, None] * is_predicted[:, None, :]).reshape(len(label), -1)  # (patient, class * predicted)
    confusion = (weights @ joint).reshape(len(weights), n_classes, n_classes)  # (replicate, class, predicted)
    return {
        "auc": weighted_auc(label, probabilities, weights),
        **_confusion_metrics(confusion),
        **weighted_probability_errors(label, probabilities, weights),
    }


def weighted_probability_errors(
    label: Int[np.ndarray, " patient"],
    probabilities: Float[np.ndarray, "patient class"],
    weights: Float[np.ndarray, "replicate patient"],
) -> dict[str, Float[np.ndarray, " replicate"]]:
    """Returns Brier score and calibration error for each row of patient weights; arguments are not checked."""
    squared_error = np.square(probabilities - np.eye(probabilities.shape[1])[label]).sum(axis=1)
    return {
        "brier": _ratio(weights @ squared_error, weights.sum(axis=1)),
        "expected_calibration_error": _weighted_calibration_error(label, probabilities, weights),
    }


def weighted_auc(
    label: Int[np.ndarray, " patient"],
    probabilities: Float[np.ndarray, "patient class"],
    weights: Float[np.ndarray, "replicate patient"],
) -> Float[np.ndarray, " replicate"]:
    """Returns the macro one-vs-rest AUC for each row of patient weights."""
    per_class = []
    for index in range(probabilities.shape[1]):
        case = label == index
        pairs = _compared_with(~case)
        per_class.append(_weighted_concordance(weights, probabilities[:, index], case.astype(float), pairs))
    return np.mean(per_class, axis=0)


def weighted_c_index(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    risk: Float[np.ndarray, " patient"],
    weights: Float[np.ndarray, "replicate patient"],
) -> Float[np.ndarray, " replicate"]:
    """Returns Harrell's C-index for each row of patient weights."""
    sample = SurvivalSample(time_days, event, risk)
    return _weighted_concordance(weights, risk, event.astype(float), _compared_with_later(sample))


def weighted_survival_metrics(
    sample: SurvivalSample, weights: Float[np.ndarray, "replicate patient"]
) -> dict[str, Float[np.ndarray, " replicate"]]:
    """Returns the metrics of `survival_metrics` for each row of patient weights.

    The censoring distribution stays as fitted: it belongs to the training patients, who are not resampled.
    """
    return {
        "c_index": weighted_c_index(sample.time_days, sample.event, sample.risk, weights),
        "uno_c_index": _weighted_uno(sample, weights),
        horizon_metric(sample.horizon_days): _weighted_horizon_auc(sample, weights),
        "integrated_brier": _weighted_integrated_brier(sample, weights),
    }


def horizon_metric(horizon_days: float) -> str:
    """Returns the name of the cumulative/dynamic AUC at a horizon.

    Example:
        >>> horizon_metric(1095.0)
        'auc_1095_days'
    """
    return f"auc_{horizon_days:g}_days"


def _weighted_concordance(
    weights: Float[np.ndarray, "replicate patient"],
    score: Float[np.ndarray, " patient"],
    case_weight: Float[np.ndarray, " patient"],
    comparable: _Comparable,
) -> Float[np.ndarray, " replicate"]:
    """Returns the weighted share of comparable pairs in which the case has the higher score; ties count one half.

    A pair (i, j) weighs w_i w_j case_weight_i; `comparable(cases)` says, per case, with which patients it is compared.
    """
    if (score == score[0]).all():
        return np.full(len(weights), np.nan)
    concordant, total = np.zeros(len(weights)), np.zeros(len(weights))
    for cases in _blocks(np.flatnonzero(case_weight)):
        pairs = comparable(cases) * case_weight[cases, None]  # (case, patient)
        won = wins(score[cases, None] - score)
        concordant += ((weights[:, cases] @ (pairs * won)) * weights).sum(axis=1)
        total += ((weights[:, cases] @ pairs) * weights).sum(axis=1)
    return _ratio(concordant, total)


def _blocks(indices: Int[np.ndarray, " case"]) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), _BLOCK):
        yield indices[start : start + _BLOCK]


def _compared_with(control: Bool[np.ndarray, " patient"]) -> _Comparable:
    return lambda cases: np.broadcast_to(control, (len(cases), len(control)))


def _compared_with_later(sample: SurvivalSample) -> _Comparable:
    """Compares an event with later events and with last contacts at the same time or later."""

    def comparable(cases: Int[np.ndarray, " case"]) -> Bool[np.ndarray, "case patient"]:
        case_time = sample.time_days[cases, None]
        return (sample.time_days > case_time) | ((sample.time_days == case_time) & ~sample.event)

    return comparable


def _weighted_uno(
    sample: SurvivalSample, weights: Float[np.ndarray, "replicate patient"]
) -> Float[np.ndarray, " replicate"]:
    if sample.censoring is None:
        return np.full(len(weights), np.nan)
    case = sample.event & (sample.time_days < sample.censoring.truncation_days)
    case_weight = np.zeros(len(sample.risk))
    case_weight[case] = sample.censoring.at(sample.time_days[case]) ** -2.0
    return _weighted_concordance(weights, sample.risk, case_weight, _compared_with_later(sample))


def _weighted_horizon_auc(
    sample: SurvivalSample, weights: Float[np.ndarray, "replicate patient"]
) -> Float[np.ndarray, " replicate"]:
    if sample.censoring is None or sample.horizon_days > sample.censoring.truncation_days:
        return np.full(len(weights), np.nan)
    case = sample.event & (sample.time_days <= sample.horizon_days)
    case_weight = np.zeros(len(sample.risk))
    case_weight[case] = 1.0 / sample.censoring.at(sample.time_days[case])
    control = sample.time_days > sample.horizon_days
    return _weighted_concordance(weights, sample.risk, case_weight, _compared_with(control))


def _weighted_integrated_brier(
    sample: SurvivalSample, weights: Float[np.ndarray, "replicate patient"]
) -> Float[np.ndarray, " replicate"]:
    times = sample.brier_times
    if sample.censoring is None or sample.survival is None or sample.survival_days is None or times.sum() < 2:
        return np.full(len(weights), np.nan)
    days, survival = sample.survival_days[times], sample.survival[:, times]
    died = sample.event[:, None] & (sample.time_days[:, None] <= days)  # (patient, time)
    alive = sample.time_days[:, None] > days
    at_event = np.maximum(sample.censoring.at(sample.time_days), _MINIMUM_FOLLOW_UP)[:, None]  # smaller only if unused
    error = died * survival**2 / at_event + alive * (1 - survival) ** 2 / sample.censoring.at(days)
    return _ratio(weights @ (error @ _trapezoid_weights(days)), weights.sum(axis=1))


def _trapezoid_weights(days: Float[np.ndarray, " time"]) -> Float[np.ndarray, " time"]:
    gaps = np.diff(days) / (days[-1] - days[0])
    return (np.append(gaps, 0.0) + np.append(0.0, gaps)) / 2


def _confusion_metrics(confusion: Float[np.ndarray, "replicate class class"]) -> dict[str, np.ndarray]:
    total = confusion.sum(axis=(1, 2))
    true_positive = np.diagonal(confusion, axis1=1, axis2=2)  # (replicate, class)
    present, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    true_negative = total[:, None] - present - predicted + true_positive
    every_class = np.where((present > 0).all(axis=1), 1.0, np.nan)  # NaN where a class has no patient
    sensitivity = _ratio(true_positive, present).mean(axis=1)
    return {
        "accuracy": _ratio(true_positive.sum(axis=1), total),
        "balanced_accuracy": sensitivity,
        "sensitivity": sensitivity,
        "specificity": _ratio(true_negative, total[:, None] - present).mean(axis=1),
        "precision": _ratio(true_positive, predicted).mean(axis=1) * every_class,
        "f1": _ratio(2 * true_positive, present + predicted).mean(axis=1) * every_class,
        "quadratic_kappa": _quadratic_kappa(confusion),
    }


def _quadratic_kappa(confusion: Float[np.ndarray, "replicate class class"]) -> Float[np.ndarray, " replicate"]:
    index = np.arange(confusion.shape[1])
    distance = np.square(index[:, None] - index)
    expected = confusion.sum(axis=2)[:, :, None] * confusion.sum(axis=1)[:, None, :]
    total = confusion.sum(axis=(1, 2))
    return 1 - _ratio((confusion * distance).sum(axis=(1, 2)) * total, (expected * distance).sum(axis=(1, 2)))


def _weighted_calibration_error(
    label: Int[np.ndarray, " patient"],
    probabilities: Float[np.ndarray, "patient class"],
    weights: Float[np.ndarray, "replicate patient"],
) -> Float[np.ndarray, " replicate"]:
    confidence = probabilities.max(axis=1)
    gap = (probabilities.argmax(axis=1) == label) - confidence
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap_in_bin = gap[:, None] * np.eye(CALIBRATION_BINS)[bins]  # (patient, bin)
    return _ratio(np.abs(weights @ gap_in_bin).sum(axis=1), weights.sum(axis=1))


def _ratio(numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*shape"]) -> np.ndarray:
    """Returns the quotient, NaN where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _check_times(time_days: Float[np.ndarray, " patient"]) -> None:
    if len(time_days) == 0 or not (np.isfinite(time_days) & (time_days >= 0)).all():
        raise ValueError(
            f"times of one or more patients must be finite and not negative, in days. Found {preview(time_days)}."
        )


def _check_survival_curves(
    survival: Float[np.ndarray, "patient time"] | None, survival_days: Float[np.ndarray, " time"] | None
) -> None:
    if survival is None and survival_days is None:
        return
    if survival is None or survival_days is None or survival.shape[1] != len(survival_days):
        raise ValueError("survival needs one column per entry of survival_days. Pass both or neither.")
    if not ((survival >= 0) & (survival <= 1)).all():  # NaN fails too
        raise ValueError("survival must hold probabilities from 0 to 1. Found values outside, or missing ones.")
    if not (np.isfinite(survival_days).all() and (np.diff(survival_days) > 0).all()):
        raise ValueError(f"survival_days must be finite and increase. Found {preview(survival_days)}.")
