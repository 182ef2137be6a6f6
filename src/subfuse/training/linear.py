"""Regularised linear baselines: logistic and elastic-net Cox; the penalty is chosen on validation patients."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from subfuse.cohort.batches import BagBatch, ClassTarget, SurvivalTarget
from subfuse.errors import DataError
from subfuse.model.baselines.expression import LinearModel
from subfuse.objective.losses import cox_nll

INVERSE_PENALTIES = tuple(np.logspace(-4, 0, 9))  # scikit-learn's C
COX_PATH = np.logspace(0, -1.7, 15)[1:]  # shares of the penalty that makes every coefficient 0 and ranks nobody
L1_SHARE = 0.5
ABSENT_LOGIT = -30.0  # finite, so that contributions to a class stay defined


@dataclass(frozen=True)
class LinearFit:
    """Coefficients of one penalty and its loss on the validation patients (lower is better)."""

    weight: Float[np.ndarray, "output gene"]
    bias: Float[np.ndarray, " output"]
    penalty: float
    validation_loss: float


def fit_linear(model: LinearModel, train: BagBatch, validation: BagBatch) -> list[LinearFit]:
    """Fits every penalty, loads the best into `model` and returns all fits.

    Args:
        model: Receives the coefficients.
        train: All training patients as one batch, standardised, with targets.
        validation: The inner validation patients; decides the penalty.

    Raises:
        DataError: All training patients are of one class.
    """
    train, validation = _read_by(model, train), _read_by(model, validation)
    if isinstance(train.target, SurvivalTarget):
        fits = _fit_cox(train, validation)
    else:
        fits = _fit_logistic(train, validation, n_classes=len(model.head.bias))
    best = min(fits, key=lambda candidate: candidate.validation_loss)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(best.weight)[None])
        model.head.bias.copy_(torch.from_numpy(best.bias))
    return fits


def _read_by(model: LinearModel, batch: BagBatch) -> BagBatch:
    """Returns the batch with expression as the model reads it."""
    return replace(batch, expression=model.embed(batch.expression, batch.expression_mask))


def _fit_logistic(train: BagBatch, validation: BagBatch, *, n_classes: int) -> list[LinearFit]:
    from sklearn.linear_model import LogisticRegression

    assert isinstance(train.target, ClassTarget)
    assert isinstance(validation.target, ClassTarget)
    label = train.target.label.numpy()
    present = np.unique(label)
    if len(present) < 2:
        raise DataError(
            f"logistic regression needs training patients of two classes. Found one class among {len(label)} patients. "
            "Use fewer folds, stratify them by this label, or leave the model out."
        )
    learnt = torch.from_numpy(np.isin(validation.target.label.numpy(), present))  # the others decide nothing
    fits = []
    for penalty in INVERSE_PENALTIES:
        estimator = LogisticRegression(C=penalty, max_iter=1000, class_weight="balanced")
        estimator.fit(train.expression.numpy(), label)
        weight, bias = estimator.coef_, estimator.intercept_
        if len(weight) == 1:  # scikit-learn keeps one row for two classes
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        weight, bias = _of_all_classes(weight, bias, present, n_classes)
        logits = validation.expression.double() @ torch.from_numpy(weight).double().T + torch.from_numpy(bias)
        loss = torch.nn.functional.cross_entropy(logits[learnt], validation.target.label[learnt])
        fits.append(LinearFit(weight.astype(np.float32), bias.astype(np.float32), float(penalty), float(loss)))
    return fits


def _fit_cox(train: BagBatch, validation: BagBatch) -> list[LinearFit]:
    """Elastic-net Cox along a path of penalties, strongest first, each starting from the one before."""
    assert isinstance(train.target, SurvivalTarget)
    assert isinstance(validation.target, SurvivalTarget)
    expression = train.expression.double()
    loss = breslow_loss(expression, train.target)
    weight = expression.new_zeros(expression.shape[1])
    strongest = float(_gradient(loss, weight)[1].abs().max()) / L1_SHARE  # beyond it every coefficient is 0
    fits = []
    for penalty in strongest * COX_PATH:
        weight = elastic_net(loss, weight, penalty=float(penalty))
        log_risk = validation.expression.double() @ weight
        validation_loss = float(cox_nll(log_risk, validation.target.time_days, validation.target.event))
        coefficients = weight.float().numpy()[None]
        fits.append(LinearFit(coefficients, np.zeros(1, np.float32), float(penalty), validation_loss))
    return fits


def _of_all_classes(
    weight: Float[np.ndarray, "present gene"],
    bias: Float[np.ndarray, " present"],
    present: Int[np.ndarray, " present"],
    n_classes: int,
) -> tuple[Float[np.ndarray, "class gene"], Float[np.ndarray, " class"]]:
    """Returns the coefficients of all classes; one without training patients has a probability of practically 0."""
    every_weight, every_bias = np.zeros((n_classes, weight.shape[1])), np.full(n_classes, ABSENT_LOGIT)
    every_weight[present], every_bias[present] = weight, bias
    return every_weight, every_bias


def breslow_loss(
    expression: Float[Tensor, "patient gene"], target: SurvivalTarget
) -> Callable[[Float[Tensor, " gene"]], Float[Tensor, ""]]:
    """Returns the negative partial log-likelihood per event of a linear Cox model, as a function of its coefficients.

    Ties as by Breslow (1974), the rule of glmnet; patients are sorted once, so that a call is linear in their number
    where `cox_nll` is quadratic.

    Args:
        expression: Of all patients, standardised.
        target: Their follow-up.
    """
    order = target.time_days.argsort(descending=True, stable=True)
    values, event, negative_days = expression[order], target.event[order], -target.time_days[order]
    last_at_risk = torch.searchsorted(negative_days, negative_days, right=True) - 1  # ties are at risk together

    def loss(weight: Tensor) -> Tensor:
        log_risk = values @ weight
        log_at_risk = log_risk.logcumsumexp(0)[last_at_risk]
        return -(log_risk - log_at_risk)[event].sum() / event.sum()

    return loss


def elastic_net(
    loss: Callable[[Float[Tensor, " gene"]], Float[Tensor, ""]],
    start: Float[Tensor, " gene"],
    *,
    penalty: float,
    steps: int = 300,
    tolerance: float = 1e-5,
) -> Float[Tensor, " gene"]:
    r"""Returns the minimum of loss(w) + penalty (a |w|_1 + (1 - a)/2 |w|_2^2) with a = 0.5.

    Accelerated proximal gradient descent with backtracking (Beck and Teboulle 2009, FISTA).

    Args:
        loss: Smooth and convex.
        start: Where to begin, for example the solution of a stronger penalty.
        penalty: Strength of both penalties.
        steps: At most this many steps.
        tolerance: Ends when no coefficient moves more than this.
    """

    def smooth(weight: Tensor) -> Tensor:
        return loss(weight) + 0.5 * (1 - L1_SHARE) * penalty * weight.square().sum()

    weight, ahead, momentum, curvature = start, start, 1.0, 1.0
    for _ in range(steps):
        value, gradient = _gradient(smooth, ahead)
        while True:
            moved = _soft_threshold(ahead - gradient / curvature, L1_SHARE * penalty / curvature)
            change = moved - ahead
            bound = value + (gradient * change).sum() + 0.5 * curvature * change.square().sum()
            if smooth(moved) <= bound + 1e-12:
                break
            curvature *= 2
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - weight)
        converged = bool((moved - weight).abs().max() < tolerance)
        weight, momentum = moved, following
        if converged:
            break
    return weight


def _gradient(function: Callable[[Tensor], Tensor], weight: Tensor) -> tuple[Tensor, Tensor]:
    weight = weight.detach().requires_grad_()
    value = function(weight)
    (gradient,) = torch.autograd.grad(value, weight)
    return value.detach(), gradient


def _soft_threshold(weight: Tensor, threshold: float) -> Tensor:
    return weight.sign() * (weight.abs() - threshold).clamp(min=0)
