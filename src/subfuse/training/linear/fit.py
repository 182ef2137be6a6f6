"""Which regularised linear model predicts best: of slides, of expression or of both, by cross-validation.

As anybody would fit them: on all patients that are not tested, with the penalty whose out-of-fold predictions among
these have the lowest loss (for Cox the partial likelihood of the cross-validated linear predictor, Dai and Breheny
2019). Where that is hardly better than saying nothing, the penalty of a Cox model is the one that ranks best out of
fold, and its log hazards are rescaled.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.cohort.batches import BagBatch, ClassTarget, SurvivalTarget, Target
from subfuse.model.baselines.linear import LinearModel
from subfuse.objective.objective import Objective
from subfuse.training.linear.path import LinearFit, Regression, lowest
from subfuse.training.linear.regressions import regressions_of

_LARGEST_INTERCEPT = 10.0  # of a time bin in which everybody, or nobody, had an event
_EXPRESSION_SCALES = (1.0, 3.0, 1 / 3)  # of expression beside slides: a larger one is penalised less


def fit_linear(model: LinearModel, batches: Iterable[BagBatch], target: Target) -> list[LinearFit]:
    """Fits the model in place and returns what was chosen from, the chosen one first.

    Cox models and least squares are elastic nets or ridges, logistic regressions ridges. A model of slides and
    expression is the better one of two kinds: a ridge of all columns with expression scaled against slides, which
    penalises them differently; or the sum of the best models of each alone, weighed by their out-of-fold logits. Where
    no Cox model predicts clearly, it is the sum of both alone with equal spread.

    Args:
        model: Receives coefficients, and how summaries of slides are standardised.
        batches: All training patients, standardised.
        target: Their outcome; numbers as logits are, see `Objective.as_logits`.

    Raises:
        DataError: All patients are of one class.
    """
    inputs = _embedded(model, batches)
    regressions = regressions_of(inputs, target, n_outputs=len(model.head.bias))
    n_slides = 2 * model.patch_dim
    if n_slides == 0 or model.n_genes == 0:
        reads = "slides" if n_slides else "expression"
        fits, alone = [fit for regression in regressions for fit in regression.path(reads)], list[list[LinearFit]]()
    else:
        fits, alone = _fits_of_both(regressions, torch.arange(inputs.shape[1]) >= n_slides)
    best = regressions[0].best(fits, alone)
    with torch.no_grad():
        model.head.weight.copy_(best.weight[None])
        model.head.bias.copy_(best.bias)
    return [best, *(fit for fit in fits if fit is not best)]


def fit_line(
    model: LinearModel, batches: Iterable[BagBatch], target: Target, objective: Objective
) -> Float[Tensor, "patient output"]:
    """Fits the linear path of a network in place; returns what it says of the training patients, each out of fold.

    It is the linear model of the same inputs (`fit_linear`); a Cox model's log hazard is added to the logit of every
    time bin, whose intercepts then fit these patients best. Where all are of one class it says nothing.

    Args:
        model: As many outputs as the objective.
        batches: All training patients, standardised.
        target: Their outcome.
        objective: Of the network.
    """
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    if isinstance(target, ClassTarget) and target.label.unique().numel() < 2:
        return torch.zeros(len(target.label), objective.n_outputs)
    out_of_fold = (
        fit_linear(model, batches, objective.as_logits(target))[0].out_of_fold.float().expand(-1, objective.n_outputs)
    )
    if not isinstance(target, SurvivalTarget):
        return out_of_fold

    def loss(intercepts: Tensor) -> Tensor:
        return objective.task_loss(out_of_fold.double() + intercepts, target)

    intercepts = lowest(
        loss, torch.zeros(objective.n_outputs), bounds=(-_LARGEST_INTERCEPT, _LARGEST_INTERCEPT)
    ).float()
    with torch.no_grad():
        model.head.bias.copy_(intercepts)
    return out_of_fold + intercepts


def _fits_of_both(
    regressions: Sequence[Regression], is_expression: Bool[Tensor, " column"]
) -> tuple[list[LinearFit], list[list[LinearFit]]]:
    """Returns ridges of all columns with expression scaled, with the sum of the best of each alone; and those alone."""
    scales = {scale: torch.where(is_expression, scale, 1.0).double() for scale in _EXPRESSION_SCALES}
    fits = [
        fit
        for scale, columns in scales.items()
        for fit in regressions[-1].path(f"slides + {scale:.3g} × expression", columns)
    ]
    alone = [
        [fit for one in regressions for fit in one.path(name, columns.double())]
        for name, columns in (("slides", ~is_expression), ("expression", is_expression))
    ]
    best = [min(one, key=lambda fit: fit.loss) for one in alone]
    return [*fits, regressions[0].weighed_sum(best)], alone


def _embedded(model: LinearModel, batches: Iterable[BagBatch]) -> Float[Tensor, "patient column"]:
    """Returns what the model multiplies by its coefficients, after its standardisation was fitted."""
    with torch.no_grad():
        seen = [
            (
                model.summarise(b.patches, b.patch_mask, b.binned),
                b.patch_mask.any(dim=1),
                b.expression,
                b.expression_mask,
            )
            for b in batches
        ]
        summary, has_slides, expression, expression_mask = (torch.cat(part) for part in zip(*seen, strict=True))
        if model.patch_dim and has_slides.any():
            model.fit_summary(summary[has_slides])
        return model.embed(summary, has_slides, expression, expression_mask)
