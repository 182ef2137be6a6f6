"""Metrics of classification and survival; an undefined metric is NaN with its reason, never 0 or 0.5."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from subfuse.evaluation.censoring import HORIZON_DAYS, CensoringDistribution, SurvivalSample
from subfuse.evaluation.weighted_metrics import (
    horizon_metric,
    weighted_classification_metrics,
    weighted_survival_metrics,
)

NORMAL_95 = 1.96  # standard deviations from the middle of a normal distribution to the ends of its 95 %
CHANCE = 0.5  # C-index, AUC or concordance of predictions that say nothing
_METRIC_TITLES = {
    "c_index": "C-index",
    "uno_c_index": "Uno C-index",
    "integrated_brier": "Integrated Brier",
    "auc": "AUC",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced acc.",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "quadratic_kappa": "Quadratic κ",
    "brier": "Brier",
    "expected_calibration_error": "Calib. error",
    "concordance": "Concordance",
    "spearman": "Spearman ρ",
    "r2": "R²",
    "mae": "Mean abs. error",
}
LOWER_IS_BETTER = frozenset({"integrated_brier", "brier", "expected_calibration_error", "mae"})


@dataclass(frozen=True)
class Metric:
    """A metric's value. NaN means undefined; then `reason` says why in one line, several reasons parted by "; "."""

    value: float
    reason: str | None = None

    @property
    def is_defined(self) -> bool:
        """True unless the value is NaN."""
        return not np.isnan(self.value)


def metric_title(metric: str) -> str:
    """Returns a metric's name for readers; a horizon becomes years."""
    if metric.startswith("auc_") and metric.endswith("_days"):
        return f"AUC at {duration(float(metric.split('_')[1]))}"
    return _METRIC_TITLES.get(metric, metric)


def duration(days: float | int) -> str:
    """Returns a number of days in years, or in months below one year.

    Example:
        >>> duration(365), duration(730.5), duration(91)
        ('1 year', '2 years', '3 months')
    """
    count, noun = (f"{days / 365.25:.2g}", "year") if days >= 365 else (f"{days / 30.44:.0f}", "month")
    return f"{count} {noun}{'' if count == '1' else 's'}"


def number(value: float, *, signed: bool = False) -> str:
    """Returns three decimals with a true minus sign; NaN is `undefined`."""
    if np.isnan(value):
        return "undefined"
    shown = round(value, 3) + 0.0  # not minus zero
    return f"{shown:{'+' if signed else ''}.3f}".replace("-", "−")


def signed_interval(lower: float, upper: float) -> str:
    """Returns the ends of an interval of a difference, or that there is none.

    Example:
        >>> signed_interval(-0.0415, 0.2), signed_interval(float("nan"), 0.2)
        ('−0.042 to +0.200', 'no interval')
    """
    if np.isnan([lower, upper]).any():
        return "no interval"
    return f"{number(lower, signed=True)} to {number(upper, signed=True)}"


def p_value_text(value: float) -> str:
    """Returns `0.012`, `< 0.001`, or that it is undefined."""
    if np.isnan(value):
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def p_text(value: float) -> str:
    """Returns `p = 0.012`, `p < 0.001`, or that it is undefined."""
    text = p_value_text(value)
    return f"p = {text}" if text[0].isdigit() else f"p {text}"


def classification_metrics(
    label: Int[np.ndarray, " patient"],
    probabilities: Float[np.ndarray, "patient class"],
    *,
    classes: Sequence[str] | None = None,
) -> dict[str, Metric]:
    r"""Returns the metrics of predicted class probabilities; the predicted class is the most probable one.

    - `auc`: one-vs-rest area under the ROC curve, mean over classes; tied probabilities count one half.
    - `accuracy`; `balanced_accuracy`, which equals `sensitivity`: both are reported since both are published.
    - `sensitivity` TP/(TP+FN), `specificity` TN/(TN+FP), `precision` TP/(TP+FP) and `f1` 2TP/(2TP+FP+FN) of each
      class against the rest, mean over classes (macro).
    - `quadratic_kappa`: Cohen's kappa with squared distances between class indices; for ordered classes only.
    - `brier`: mean over patients of :math:`\sum_c (p_c - y_c)^2`, from 0 to 2 (twice the usual value for two classes).
    - `expected_calibration_error`: 15 bins of equal width of the highest probability; mean over bins of
      |accuracy - mean probability|, weighted by their patients.

    A class without patients makes `auc`, `balanced_accuracy`, `sensitivity`, `precision` and `f1` undefined: a mean
    over the other classes would be a mean of something else. A present class that is never predicted makes
    `precision` undefined. Equal probabilities for every patient rank nobody: `auc` is undefined.

    Args:
        label: Index of the true class, 0 to class - 1.
        probabilities: Of each class, rows summing to one. Does not accept logits.
        classes: Class names for the reasons; default: the indices.

    Raises:
        ValueError: No patients, labels out of range, or probabilities that are missing or do not sum to one.

    Example:
        >>> metrics = classification_metrics(np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
        >>> metrics["auc"].value, round(metrics["accuracy"].value, 3)
        (1.0, 0.667)
    """
    names = list(classes or map(str, range(probabilities.shape[1])))
    _check_classification(label, probabilities, names)
    values = weighted_classification_metrics(label, probabilities, np.ones((1, len(label))))
    return _explained(values, lambda metric: _classification_reason(metric, label, probabilities, names))


def survival_metrics(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    risk: Float[np.ndarray, " patient"],
    *,
    train_time_days: Float[np.ndarray, " train_patient"] | None = None,
    train_event: Bool[np.ndarray, " train_patient"] | None = None,
    survival: Float[np.ndarray, "patient time"] | None = None,
    survival_days: Float[np.ndarray, " time"] | None = None,
    horizon_days: float = HORIZON_DAYS,
) -> dict[str, Metric]:
    r"""Returns the metrics of predicted risks and, where given, survival curves under right-censoring.

    - `c_index`: Harrell's. A pair is comparable if one patient's event is known to come first: at an earlier time than
      the other's event or last contact, or at the same time as the other's last contact. Tied risks count one half.
    - `uno_c_index`: the same pairs weighted by :math:`1/G(T_i)^2` (Uno 2011), with :math:`G` the probability of not
      being censored yet, estimated from training patients; pairs whose first event is at or after `truncation_time`
      are left out.
    - `auc_<horizon>_days`: cumulative/dynamic AUC (Uno 2007): patients with an event by the horizon, weighted by
      :math:`1/G(T_i)`, against those followed beyond it. Undefined for a horizon after `truncation_time`.
    - `integrated_brier`: squared error of the survival curve, censoring-weighted (Graf 1999), integrated by trapezoids
      over those of `survival_days` up to `truncation_time` and before the last follow-up, divided by their span.

    Args:
        time_days: Event time or last contact, in days.
        event: True where the event was observed.
        risk: Higher is worse. Does not accept survival probabilities or times.
        train_time_days: Of the model's training patients; None leaves the censoring-weighted metrics undefined.
        train_event: Of the model's training patients.
        survival: Probability of being event-free at each of `survival_days`.
        survival_days: Increasing, in days.
        horizon_days: Of the cumulative/dynamic AUC, in days.

    Raises:
        ValueError: No patients, or values that are missing, negative times, probabilities outside 0 to 1, or one of
            two arguments that belong together.

    Example:
        >>> days, risk = np.array([10.0, 20.0, 30.0]), np.array([3.0, 1.0, 2.0])
        >>> round(survival_metrics(days, np.array([True, True, False]), risk)["c_index"].value, 3)
        0.667
    """
    if (train_time_days is None) != (train_event is None):
        raise ValueError("train_time_days and train_event must be given together. Found one of them.")
    censoring = None
    if train_time_days is not None and train_event is not None:
        censoring = CensoringDistribution.fit(train_time_days, train_event)
    return metrics_of(SurvivalSample(time_days, event, risk, censoring, survival, survival_days, horizon_days))


def metrics_of(sample: SurvivalSample) -> dict[str, Metric]:
    """Returns the metrics of `survival_metrics`."""
    values = weighted_survival_metrics(sample, np.ones((1, len(sample.time_days))))
    return _explained(values, lambda metric: _survival_reason(metric, sample))


def truncation_time(train_time_days: Float[np.ndarray, " patient"], train_event: Bool[np.ndarray, " patient"]) -> float:
    """Returns the truncation time, in days, of the metrics weighted by these training patients' censoring.

    Example:
        >>> truncation_time(np.array([100.0, 200.0, 300.0]), np.array([True, True, False]))
        200.0
    """
    return CensoringDistribution.fit(train_time_days, train_event).truncation_days


def _explained(values: dict[str, np.ndarray], reason: Callable[[str], str]) -> dict[str, Metric]:
    single = {metric: float(value.item()) for metric, value in values.items()}
    return {metric: Metric(value, reason(metric) if np.isnan(value) else None) for metric, value in single.items()}


def _classification_reason(
    metric: str,
    label: Int[np.ndarray, " patient"],
    probabilities: Float[np.ndarray, "patient class"],
    names: Sequence[str],
) -> str:
    present = set(label.tolist())
    absent = [name for index, name in enumerate(names) if index not in present]
    if metric == "specificity":
        return f"every patient is of class {names[label[0]]}"
    if metric == "quadratic_kappa":
        return f"every patient is of class {names[label[0]]} and predicted so"
    if absent:
        return "; ".join(f"no patient of class {name}" for name in absent)
    if metric == "precision":
        predicted = set(probabilities.argmax(axis=1).tolist())
        missing = [name for index, name in enumerate(names) if index not in predicted]
        return "; ".join(f"class {name} never predicted" for name in missing)
    return "a class has the same predicted probability for every patient"


def _survival_reason(metric: str, sample: SurvivalSample) -> str:
    if metric == "integrated_brier" and sample.survival is None:
        return "its predictions hold no survival curve"
    if metric != "c_index" and sample.censoring is None:
        return "no training patients to estimate the censoring distribution from"
    truncation_days = np.inf if sample.censoring is None else sample.censoring.truncation_days
    if metric == "integrated_brier":
        last = min(truncation_days, sample.time_days.max())
        return f"the predicted curves have fewer than two times before day {last:.0f}"
    if not sample.event.any():
        return "no event was observed"
    if np.ptp(sample.risk) == 0:
        return "the predicted risk is the same for every patient"
    if metric == horizon_metric(sample.horizon_days):
        return _horizon_reason(sample, truncation_days)
    limit = f" before the truncation time of {truncation_days:.0f} days" if metric == "uno_c_index" else ""
    return f"no comparable pair{limit}"


def _horizon_reason(sample: SurvivalSample, truncation_days: float) -> str:
    if sample.horizon_days > truncation_days:
        return f"the horizon lies beyond the training patients' truncation time of {truncation_days:.0f} days"
    if not (sample.event & (sample.time_days <= sample.horizon_days)).any():
        return f"no event by day {sample.horizon_days:.0f}"
    return f"nobody was followed beyond day {sample.horizon_days:.0f}"


def _check_classification(
    label: Int[np.ndarray, " patient"], probabilities: Float[np.ndarray, "patient class"], names: Sequence[str]
) -> None:
    n_classes = probabilities.shape[1]
    if len(label) == 0 or n_classes < 2 or len(names) != n_classes:
        raise ValueError(
            f"metrics need patients, and a name for each of two or more classes. "
            f"Found {len(label)} patients, {n_classes} columns, {len(names)} names."
        )
    if label.min() < 0 or label.max() >= n_classes:
        raise ValueError(f"label must be in 0..{n_classes - 1}. Found {label.min()} to {label.max()}.")
    if not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-3):  # NaN fails too; tables may be rounded
        raise ValueError(
            "each row of probabilities must sum to one. Pass softmax outputs, not logits, nothing missing."
        )
