"""The metric of the inner validation patients that decides which epoch's weights are kept."""

from dataclasses import replace
from typing import Literal

import numpy as np

from subfuse.data.bags import ClassTarget, SurvivalTarget, Target
from subfuse.errors import ConfigurationError, DataError
from subfuse.model.subspace_fusion import SubspaceFusionOutput
from subfuse.objective.objectives import Objective, concordance

Selection = Literal["loss", "c_index", "auc"]


def check_selection(selection: Selection, target: Target) -> None:
    """Raises an error if the metric is not defined for these validation patients, whatever the model predicts.

    Args:
        selection: Name of the metric.
        target: Outcome of the validation patients.

    Raises:
        ConfigurationError: The metric belongs to the other kind of task.
        DataError: No two patients can be compared (c_index), or a class occurs in nobody or in everybody (auc).
    """
    needed = {"c_index": SurvivalTarget, "auc": ClassTarget}.get(selection)
    if needed is not None and not isinstance(target, needed):
        raise ConfigurationError(
            f"selection must suit the task: c_index survival, auc classification. Found {selection}. Use loss, which "
            "suits both."
        )
    if isinstance(target, SurvivalTarget) and selection == "c_index":
        undefined = bool(concordance(target.time_days[:, None], target).isnan().any())
    else:
        undefined = isinstance(target, ClassTarget) and selection == "auc" and len(target.label.unique()) < 2
    if undefined:
        raise DataError(
            f"selection by {selection} needs validation patients that can be ranked. Found none among "
            f"{len(target.label if isinstance(target, ClassTarget) else target.event)}. Use selection loss, or larger "
            "validation splits."
        )


def validation_metrics(
    selection: Selection, objective: Objective, output: SubspaceFusionOutput, target: Target
) -> dict[str, float]:
    """Returns the task loss of the validation patients and, if another metric selects, that metric.

    All patients are measured together, so neither the batch size nor the number of processes matters.

    Args:
        selection: Name of the metric.
        objective: Interprets the logits.
        output: Of all validation patients.
        target: Their outcome.
    """
    loss = objective(replace(output, sampling_grid=None), target)  # nothing but the task's loss is compared
    metrics = {"validation_loss": float(loss.terms["task"])}
    if selection == "loss":
        return metrics
    return metrics | {f"validation_{selection}": _metric(objective, output, target)}


def score(selection: Selection, metrics: dict[str, float]) -> float:
    """Returns what is minimised over epochs: the loss, or the metric with its sign changed."""
    return metrics["validation_loss"] if selection == "loss" else -metrics[f"validation_{selection}"]


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
