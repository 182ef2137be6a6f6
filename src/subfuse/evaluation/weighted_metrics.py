"""Metrics of patients that carry weights: rows of weights in, one value per row out, NaN where undefined.

Every metric is written once. With weights of one it is the value that `metrics` reports; with bootstrap counts it is
a thousand resampled values by one matrix product, so a value and its interval cannot disagree. Definitions are in the
docstrings of `metrics.classification_metrics` and `metrics.survival_metrics`.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

from subfuse.evaluation.censoring import MINIMUM_FOLLOW_UP, SurvivalSample

CALIBRATION_BINS = 15
_BLOCK = 512  # cases compared with all patients at a time, so that memory stays flat in large cohorts
_Comparable = Callable[[np.ndarray], np.ndarray]  # cases (case,) -> with whom they are compared (case, patient)


def wins(difference: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Returns what comparisons count: 1 where the case's score is higher, one half for ties, else 0.

    Args:
        difference: Score of the case minus that of the other patient.
    """
    return np.where(difference > 0, 1.0, np.where(difference == 0, 0.5, 0.0))


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
    return _weighted_concordance(weights, risk, event.astype(float), partial(_later, sample))


def weighted_order(
    value: Float[np.ndarray, " patient"],
    predicted: Float[np.ndarray, " patient"],
    weights: Float[np.ndarray, "replicate patient"],
) -> Float[np.ndarray, " replicate"]:
    """Returns, for each row of patient weights, the share of pairs of different values that are predicted in order."""
    return _weighted_concordance(
        weights, predicted, np.ones(len(value)), lambda cases: (value[cases, None] > value).astype(float)
    )


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


def _later(sample: SurvivalSample, cases: Int[np.ndarray, " case"]) -> Bool[np.ndarray, "case patient"]:
    """Returns whom an event is compared with: later events, and last contacts at the same time or later."""
    case_time = sample.time_days[cases, None]
    return (sample.time_days > case_time) | ((sample.time_days == case_time) & ~sample.event)


def _weighted_uno(
    sample: SurvivalSample, weights: Float[np.ndarray, "replicate patient"]
) -> Float[np.ndarray, " replicate"]:
    if sample.censoring is None:
        return np.full(len(weights), np.nan)
    case = sample.event & (sample.time_days < sample.censoring.truncation_days)
    case_weight = np.zeros(len(sample.risk))
    case_weight[case] = sample.censoring.at(sample.time_days[case]) ** -2.0
    return _weighted_concordance(weights, sample.risk, case_weight, partial(_later, sample))


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
    at_event = np.maximum(sample.censoring.at(sample.time_days), MINIMUM_FOLLOW_UP)[:, None]  # smaller only if unused
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
    gap_in_bin = gap[:, None] * np.eye(CALIBRATION_BINS)[bins_of(confidence, CALIBRATION_BINS)]  # (patient, bin)
    return _ratio(np.abs(weights @ gap_in_bin).sum(axis=1), weights.sum(axis=1))


def bins_of(probability: Float[np.ndarray, " patient"], n_bins: int) -> Int[np.ndarray, " patient"]:
    """Returns the bin of each probability among bins of equal width, from 0 on; a probability of 1 is in the last."""
    return np.minimum((probability * n_bins).astype(int), n_bins - 1)


def _ratio(numerator: Float[np.ndarray, "*shape"], denominator: Float[np.ndarray, "*shape"]) -> np.ndarray:
    """Returns the quotient, NaN where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)
