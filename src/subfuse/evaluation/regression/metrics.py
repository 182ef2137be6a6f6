"""Metrics of predicted numbers, for weighted patients as in `weighted_metrics`; undefined is NaN with its reason."""

import numpy as np
from jaxtyping import Bool, Float

from subfuse.evaluation.metrics import Metric
from subfuse.evaluation.weighted_metrics import weighted_order

_TINY = 1e-12  # of a variance, as a share of the mean square: less is rounding


def regression_metrics(
    value: Float[np.ndarray, " patient"], predicted: Float[np.ndarray, " patient"]
) -> dict[str, Metric]:
    r"""Returns the metrics of predicted numbers.

    - `concordance`: of two patients with different values, how often the one with the higher value has the higher
      prediction; tied predictions count one half. It is (1 + Kendall's tau-a over such pairs) / 2, and what the C-index
      would be if everybody had an event.
    - `spearman`: correlation of the ranks, those of ties their mean.
    - `r2`: :math:`1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2`; below 0 where the patients' own mean says more.
    - `mae`: mean absolute error, in the unit of the value.

    Args:
        value: As measured.
        predicted: In the same unit.

    Raises:
        ValueError: No patients, or a number that is missing.

    Example:
        >>> found = regression_metrics(np.array([1.0, 2.0, 4.0]), np.array([1.0, 3.0, 3.0]))
        >>> {name: round(metric.value, 3) for name, metric in found.items()}
        {'concordance': 0.833, 'spearman': 0.866, 'r2': 0.571, 'mae': 0.667}
    """
    if len(value) == 0 or not np.isfinite([value, predicted]).all():
        raise ValueError("metrics need patients with a known value and a prediction each. Found none, or a gap.")
    ones = np.ones((1, len(value)))
    found = {**weighted_regression_metrics(value, predicted, ones), **weighted_value_errors(value, predicted, ones)}
    single = {name: float(of_weights.item()) for name, of_weights in found.items()}
    return {name: Metric(number, _reason(value) if np.isnan(number) else None) for name, number in single.items()}


def weighted_regression_metrics(
    value: Float[np.ndarray, " patient"],
    predicted: Float[np.ndarray, " patient"],
    weights: Float[np.ndarray, "replicate patient"],
) -> dict[str, Float[np.ndarray, " replicate"]]:
    """Returns `concordance` and `spearman` for each row of patient weights."""
    return {
        "concordance": weighted_order(value, predicted, weights),
        "spearman": _correlation(_ranks(value, weights), _ranks(predicted, weights), weights),
    }


def weighted_value_errors(
    value: Float[np.ndarray, " patient"],
    predicted: Float[np.ndarray, " patient"],
    weights: Float[np.ndarray, "replicate patient"],
) -> dict[str, Float[np.ndarray, " replicate"]]:
    """Returns `r2` and `mae` for each row of patient weights."""
    total = weights.sum(axis=1)
    centred = value - _quotient(weights @ value, total, total > 0)[:, None]
    spread = (weights * centred**2).sum(axis=1)
    share = _quotient(weights @ (value - predicted) ** 2, spread, spread > _TINY * (weights @ value**2))
    return {"r2": 1 - share, "mae": _quotient(weights @ np.abs(value - predicted), total, total > 0)}


def _ranks(
    values: Float[np.ndarray, " patient"], weights: Float[np.ndarray, "replicate patient"]
) -> Float[np.ndarray, "replicate patient"]:
    """Returns the mean rank of every patient, up to a constant, where each counts as often as it weighs."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    below = np.concatenate([np.zeros((len(weights), 1)), weights[:, order].cumsum(axis=1)], axis=1)
    first, last = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return (below[:, first] + below[:, last]) / 2


def _correlation(
    a: Float[np.ndarray, "replicate patient"],
    b: Float[np.ndarray, "replicate patient"],
    weights: Float[np.ndarray, "replicate patient"],
) -> Float[np.ndarray, " replicate"]:
    share = weights / np.maximum(weights.sum(axis=1, keepdims=True), _TINY)
    a, b = (ranks - (share * ranks).sum(axis=1, keepdims=True) for ranks in (a, b))
    both = np.sqrt((share * a**2).sum(axis=1) * (share * b**2).sum(axis=1))
    return _quotient((share * a * b).sum(axis=1), both, both > _TINY)


def _quotient(
    numerator: Float[np.ndarray, " replicate"],
    denominator: Float[np.ndarray, " replicate"],
    is_defined: Bool[np.ndarray, " replicate"],
) -> Float[np.ndarray, " replicate"]:
    return np.divide(numerator, denominator, out=np.full(len(numerator), np.nan), where=is_defined)


def _reason(value: Float[np.ndarray, " patient"]) -> str:
    return "every patient has the same value" if np.ptp(value) == 0 else "every patient has the same prediction"
