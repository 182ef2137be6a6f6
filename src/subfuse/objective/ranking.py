"""How well predictions rank the patients of a batch or of a validation split."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from subfuse.cohort.batches import NumberTarget, SurvivalTarget, Target


def can_be_ranked(target: Target) -> bool:
    """Returns whether outcomes rank the patients at all: two classes or numbers, or a comparable pair of follow-ups."""
    if isinstance(target, SurvivalTarget):
        return not bool(concordance(target.time_days[:, None], target).isnan().any())
    return len((target.value if isinstance(target, NumberTarget) else target.label).unique()) > 1


def concordance(risk: Float[Tensor, "batch subspace"], target: SurvivalTarget) -> Float[Tensor, " subspace"]:
    """Returns the share of comparable pairs of patients that each subspace ranks correctly (Harrell 1982).

    A pair is comparable if the earlier time is an event, or if at equal times exactly one is an event (the other lived
    longer). Equal risks count one half. NaN where no pair is comparable.

    Args:
        risk: Higher is worse. Does not accept survival times or probabilities.
        target: Follow-up of the same patients.

    Example:
        >>> import torch
        >>> target = SurvivalTarget(torch.tensor([1.0, 2.0]), torch.tensor([True, False]))
        >>> concordance(torch.tensor([[0.9, 0.1], [0.2, 0.5]]), target)
        tensor([1., 0.])
    """
    time, event = target.time_days, target.event
    outlives = (time[None, :] > time[:, None]) | ((time[None, :] == time[:, None]) & ~event[None, :])
    comparable = (event[:, None] & outlives)[..., None]  # batch batch 1: the first died, the second lived longer
    difference = risk[:, None, :] - risk[None, :, :]
    correct = (difference > 0).to(risk.dtype) + 0.5 * (difference == 0).to(risk.dtype)
    return (correct * comparable).sum(dim=(0, 1)) / comparable.sum(dim=(0, 1))


def rank_correlation(predicted: Float[Tensor, " batch"], value: Float[Tensor, " batch"]) -> float:
    """Returns Spearman's correlation, ties with their mean rank; NaN where either is the same for all."""
    ranks = [_ranks(predicted), _ranks(value)]
    a, b = (rank - rank.mean() for rank in ranks)
    both = float((a.square().sum() * b.square().sum()).sqrt())
    return float((a * b).sum()) / both if both > 0 else float("nan")


def _ranks(values: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    difference = values[:, None] - values
    return ((difference > 0).double() + 0.5 * (difference == 0).double()).sum(dim=1)


def macro_auc(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Returns the one-vs-rest area under the ROC curve, averaged over the classes that occur.

    Relative to `subfuse.evaluation.metrics`: there, a class that does not occur makes the mean undefined. Validation
    splits are small, and the mean over the classes that do occur still orders the epochs.
    """
    from sklearn.metrics import roc_auc_score

    if not np.isfinite(probabilities).all():
        return float("nan")
    return float(np.mean([roc_auc_score(label == index, probabilities[:, index]) for index in np.unique(label)]))
