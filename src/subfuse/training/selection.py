"""What the inner validation patients decide: which epoch's weights are kept, and a network's share beside a line."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from subfuse.cohort.batches import Target
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.objective import Objective
from subfuse.objective.ranking import can_be_ranked
from subfuse.training.settings import Selection

NETWORK_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # beside a linear path


def selection_metric(selection: Selection, objective: Objective, target: Target) -> str:
    """Returns the metric that chooses the epoch: for `ranking` that of the objective.

    It is the C-index of survival, the AUC of classes, and Spearman's correlation of numbers.

    Where the validation patients cannot be ranked (`can_be_ranked`), the loss chooses instead: the training log then
    has no other metric of theirs.
    """
    if selection == "loss" or not can_be_ranked(target):
        return "loss"
    return objective.ranking_metric


def validation_metrics(
    metric: str, objective: Objective, output: SubspaceFusionOutput, target: Target
) -> dict[str, float]:
    """Returns the task loss of the validation patients and, if another metric selects, that metric.

    All patients are measured together, so neither the batch size nor the number of processes matters.
    """
    loss = objective(replace(output, sampling_grid=None), target)  # nothing but the task's loss is compared
    metrics = {"validation_loss": float(loss.terms["task"])}
    if metric == "loss":
        return metrics
    return metrics | {f"validation_{metric}": objective.ranking(output.logits, target)}


def score(metric: str, metrics: dict[str, float]) -> tuple[float, float]:
    """Returns what is minimised over epochs: the loss, or the metric with its sign changed and the loss where tied."""
    loss = metrics["validation_loss"]
    return (loss, loss) if metric == "loss" else (-metrics[f"validation_{metric}"], loss)


def score_of(metric: str, objective: Objective, logits: Float[Tensor, "patient output"], target: Target) -> float:
    """Returns what a search minimises: the loss of validation patients, or the metric with its sign changed."""
    return float(objective.task_loss(logits, target)) if metric == "loss" else -objective.ranking(logits, target)


def network_share(
    network: Float[Tensor, "patient output"],
    line: Float[Tensor, "patient output"],
    objective: Objective,
    target: Target,
) -> float:
    """Returns the share of a network in its mixture with a linear path: the mean of two choices.

    One has the lowest task loss, which wants logits that are not too large; the other ranks best, the loss deciding
    where several rank alike. Patients who cannot be ranked (`can_be_ranked`) have the first alone.

    Args:
        network: Its logits for the validation patients.
        line: Those of the linear path, fitted without the patient.
        objective: Of the task.
        target: Outcome of the patients.
    """
    mixtures = {share: share * network + (1 - share) * line for share in NETWORK_SHARES}
    losses = {share: float(objective.task_loss(logits, target)) for share, logits in mixtures.items()}
    of_loss = min(losses, key=losses.__getitem__)
    if not can_be_ranked(target):
        return of_loss
    ranks = {share: objective.ranking(logits, target) for share, logits in mixtures.items()}
    of_rank = max(losses, key=lambda share: (ranks[share], -losses[share]))
    return (of_loss + of_rank) / 2
