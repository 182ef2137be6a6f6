"""The metric of the inner validation patients that decides which epoch's weights are kept."""

from dataclasses import replace
from typing import Literal

import numpy as np

from subfuse.cohort.batches import SurvivalTarget, Target
from subfuse.model.subspace_fusion import SubspaceFusionOutput
from subfuse.objective.objectives import Objective, concordance

Selection = Literal["ranking", "loss"]
SelectionMetric = Literal["c_index", "auc", "loss"]


def selection_metric(selection: Selection, target: Target) -> SelectionMetric:
    """Returns the metric that chooses the epoch: for `ranking` the C-index of survival, the AUC of classes.

    Where the validation patients cannot be ranked (`can_be_ranked`), the loss chooses instead: the training log then
    has no other metric of theirs.

    Args:
        selection: As in the settings.
        target: Outcome of the validation patients.
    """
    if selection == "loss" or not can_be_ranked(target):
        return "loss"
    return "c_index" if isinstance(target, SurvivalTarget) else "auc"


def can_be_ranked(target: Target) -> bool:
    """Returns whether patients have a ranking that predictions can be compared with: a comparable pair, two classes."""
    if isinstance(target, SurvivalTarget):
        return not bool(concordance(target.time_days[:, None], target).isnan().any())
    return len(target.label.unique()) > 1


def validation_metrics(
    metric: SelectionMetric, objective: Objective, output: SubspaceFusionOutput, target: Target
) -> dict[str, float]:
    """Returns the task loss of the validation patients and, if another metric selects, that metric.

    All patients are measured together, so neither the batch size nor the number of processes matters.

    Args:
        metric: Name of the metric.
        objective: Interprets the logits.
        output: Of all validation patients.
        target: Their outcome.
    """
    loss = objective(replace(output, sampling_grid=None), target)  # nothing but the task's loss is compared
    metrics = {"validation_loss": float(loss.terms["task"])}
    if metric == "loss":
        return metrics
    return metrics | {f"validation_{metric}": _metric(objective, output, target)}


def score(metric: SelectionMetric, metrics: dict[str, float]) -> tuple[float, float]:
    """Returns what is minimised over epochs: the loss, or the metric with its sign changed and the loss where tied."""
    loss = metrics["validation_loss"]
    return (loss, loss) if metric == "loss" else (-metrics[f"validation_{metric}"], loss)


def _metric(objective: Objective, output: SubspaceFusionOutput, target: Target) -> float:
    prediction = objective.predict(output.logits)
    if isinstance(target, SurvivalTarget):
        assert prediction.risk is not None
        return float(concordance(prediction.risk[:, None], target))
    assert prediction.probabilities is not None
    return macro_auc(prediction.probabilities.double().cpu().numpy(), target.label.cpu().numpy())


def macro_auc(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Returns the one-vs-rest area under the ROC curve, averaged over the classes that occur.

    Relative to `subfuse.evaluation.metrics`: there, a class that does not occur makes the mean undefined. Validation
    splits are small, and the mean over the classes that do occur still orders the epochs.
    """
    from sklearn.metrics import roc_auc_score

    if not np.isfinite(probabilities).all():
        return float("nan")
    return float(np.mean([roc_auc_score(label == index, probabilities[:, index]) for index in np.unique(label)]))
