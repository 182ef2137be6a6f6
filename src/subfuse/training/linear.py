"""Regularised linear baselines, fitted by scikit-learn and lifelines; the penalty is chosen on validation patients."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from subfuse.data.bags import BagBatch, ClassTarget, SurvivalTarget
from subfuse.model.baselines import LinearModel
from subfuse.objective.losses import cox_nll

INVERSE_PENALTIES = tuple(np.logspace(-4, 0, 9))  # scikit-learn's C
COX_PENALTIES = tuple(np.logspace(-2, 1, 6))  # lifelines' penalizer


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
    """
    fit = _fit_cox if isinstance(train.target, SurvivalTarget) else _fit_logistic
    fits = fit(train, validation)
    best = min(fits, key=lambda candidate: candidate.validation_loss)
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(best.weight)[None])
        model.head.bias.copy_(torch.from_numpy(best.bias))
    return fits


def _fit_logistic(train: BagBatch, validation: BagBatch) -> list[LinearFit]:
    from sklearn.linear_model import LogisticRegression

    assert isinstance(train.target, ClassTarget)
    assert isinstance(validation.target, ClassTarget)
    label = train.target.label.numpy()
    fits = []
    for penalty in INVERSE_PENALTIES:
        estimator = LogisticRegression(C=penalty, max_iter=1000, class_weight="balanced")
        estimator.fit(train.expression.numpy(), label)
        weight, bias = estimator.coef_, estimator.intercept_
        if len(weight) == 1:  # scikit-learn keeps one row for two classes
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        logits = validation.expression.double() @ torch.from_numpy(weight).double().T + torch.from_numpy(bias)
        loss = torch.nn.functional.cross_entropy(logits, validation.target.label)
        fits.append(LinearFit(weight.astype(np.float32), bias.astype(np.float32), float(penalty), float(loss)))
    return fits


def _fit_cox(train: BagBatch, validation: BagBatch) -> list[LinearFit]:
    """Ridge Cox. The ridge solution lies in the span of the patients, so it is fitted on their principal axes."""
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError

    assert isinstance(train.target, SurvivalTarget)
    assert isinstance(validation.target, SurvivalTarget)
    left, singular, axes = np.linalg.svd(train.expression.double().numpy(), full_matrices=False)
    kept = singular > singular[0] * 1e-6
    table = pd.DataFrame(left[:, kept] * singular[kept])
    table["time"], table["event"] = train.target.time_days.numpy(), train.target.event.numpy()
    table = table[table["time"] > 0]
    fits = []
    for penalty in COX_PENALTIES:
        try:
            fitter = CoxPHFitter(penalizer=penalty).fit(table, "time", "event")
        except ConvergenceError:
            continue
        weight = (fitter.params_.to_numpy() @ axes[kept])[None].astype(np.float32)
        log_risk = validation.expression @ torch.from_numpy(weight[0])
        loss = cox_nll(log_risk, validation.target.time_days, validation.target.event)
        fits.append(LinearFit(weight, np.zeros(1, np.float32), float(penalty), float(loss)))
    if not fits:
        raise RuntimeError(f"the Cox baseline converged for none of the penalties {COX_PENALTIES}.")
    return fits
