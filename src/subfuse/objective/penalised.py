"""Penalised linear models as minima of their loss: elastic nets of Cox and of least squares, ridges."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float, Int

L1_SHARE = 0.5  # of the elastic net
_STEPS = 300  # at most
_ABSENT_LOGIT = -30.0  # of a class without patients: finite, so that contributions to it stay defined

Vector = np.ndarray
ValueAndGradient = tuple[float, Vector]


@dataclass(frozen=True)
class BreslowLoss:
    """Negative partial log-likelihood per event of a linear Cox model, as a function of its coefficients.

    Ties as by Breslow (1974), the rule of glmnet; patients are sorted once, so that a call is linear in their number.
    """

    inputs: Float[np.ndarray, "patient column"]  # longest follow-up first
    is_event: Bool[np.ndarray, " patient"]
    last_at_risk: Int[np.ndarray, " patient"]  # patients up to it are at risk when this one's time comes
    log_events: Float[np.ndarray, " patient"]  # of those whose last at risk this patient is; -inf without any

    @classmethod
    def of(
        cls,
        inputs: Float[np.ndarray, "patient column"],
        time_days: Float[np.ndarray, " patient"],
        event: Bool[np.ndarray, " patient"],
    ) -> "BreslowLoss":
        """Returns the loss on patients, at least one with an event."""
        order = np.argsort(-time_days, kind="stable")
        negative_days, event = -time_days[order], event[order]
        last = np.searchsorted(negative_days, negative_days, side="right") - 1  # ties are at risk together
        count = np.bincount(last[event], minlength=len(event))
        log_events = np.log(count, out=np.full(len(event), -np.inf), where=count > 0)
        return cls(inputs[order], event, last, log_events)

    def of_columns(self, columns: Bool[np.ndarray, " column"]) -> "BreslowLoss":
        """Returns the loss of a model of some columns."""
        return BreslowLoss(self.inputs[:, columns], self.is_event, self.last_at_risk, self.log_events)

    def __call__(self, weight: Float[np.ndarray, " column"]) -> ValueAndGradient:
        """Returns the loss and its gradient."""
        log_risk = self.inputs @ weight
        log_at_risk = np.logaddexp.accumulate(log_risk)
        n_events = self.is_event.sum()
        value = -(log_risk - log_at_risk[self.last_at_risk])[self.is_event].sum() / n_events
        log_hazard = np.logaddexp.accumulate((self.log_events - log_at_risk)[::-1])[::-1]  # cumulative, Breslow's
        return value, -self.inputs.T @ (self.is_event - np.exp(log_risk + log_hazard)) / n_events

    @property
    def strongest_penalty(self) -> float:
        """From which on every coefficient of the elastic net is 0."""
        return float(np.abs(self(np.zeros(self.inputs.shape[1]))[1]).max()) / L1_SHARE


def elastic_net_cox(
    loss: BreslowLoss, *, penalty: float, start: Float[np.ndarray, " column"], tolerance: float = 1e-4
) -> Float[np.ndarray, " column"]:
    """Returns the coefficients of an elastic-net Cox model; see `elastic_net`.

    Only columns that may count are worked on; the others are looked at again until none would enter.

    Args:
        loss: On the patients.
        penalty: Strength of both penalties, as the loss per event.
        start: Where to begin, for example the solution of a stronger penalty.
        tolerance: Ends when no coefficient moves more than this.
    """
    weight = start.copy()
    active = weight != 0
    while True:
        if active.any():
            part = loss.of_columns(active)
            weight[active] = elastic_net(part, weight[active], penalty=penalty, tolerance=tolerance)
        entering = ~active & (np.abs(loss(weight)[1]) > L1_SHARE * penalty * (1 + tolerance))
        if not entering.any():
            return weight
        active |= entering


def ridge_cox(
    loss: BreslowLoss, *, penalty: float, start: Float[np.ndarray, " column"], tolerance: float = 1e-5
) -> Float[np.ndarray, " column"]:
    """Returns the coefficients w that minimise loss + penalty/2 |w|_2^2 (L-BFGS).

    Args:
        loss: On the patients.
        penalty: Strength, as the loss per event.
        start: Where to begin.
        tolerance: Largest gradient at the end.
    """
    from scipy.optimize import minimize

    penalised = partial(_with_ridge, loss, penalty)
    return minimize(penalised, start, jac=True, method="L-BFGS-B", options={"gtol": tolerance, "ftol": 1e-12}).x


def elastic_net_least_squares(
    inputs: Float[np.ndarray, "patient column"],
    value: Float[np.ndarray, " patient"],
    *,
    penalty: float,
    start: Float[np.ndarray, " column"],
) -> Float[np.ndarray, " column"]:
    """Returns the coefficients that minimise the mean of half the squared errors plus an elastic net.

    Args:
        inputs: Centred.
        value: Centred.
        penalty: Strength of both penalties, see `elastic_net`.
        start: Where to begin, for example the solution of a stronger penalty.
    """
    from sklearn.linear_model import ElasticNet

    estimator = ElasticNet(alpha=penalty, l1_ratio=L1_SHARE, fit_intercept=False, warm_start=True, max_iter=10_000)
    estimator.coef_ = start.copy()
    return estimator.fit(inputs, value).coef_


def elastic_net(
    loss: Callable[[Vector], ValueAndGradient],
    start: Float[np.ndarray, " column"],
    *,
    penalty: float,
    tolerance: float = 1e-5,
) -> Float[np.ndarray, " column"]:
    r"""Returns the minimum of loss(w) + penalty (a |w|_1 + (1 - a)/2 |w|_2^2) with a = 0.5.

    Accelerated proximal gradient descent with backtracking (Beck and Teboulle 2009, FISTA).

    Args:
        loss: Value and gradient; smooth and convex.
        start: Where to begin, for example the solution of a stronger penalty.
        penalty: Strength of both penalties.
        tolerance: Ends when no coefficient moves more than this.
    """
    smooth = partial(_with_ridge, loss, (1 - L1_SHARE) * penalty)
    weight, ahead, momentum, curvature = start, start, 1.0, 1.0
    for _ in range(_STEPS):
        value, gradient = smooth(ahead)
        while True:
            moved = _soft_threshold(ahead - gradient / curvature, L1_SHARE * penalty / curvature)
            change = moved - ahead
            bound = value + float(gradient @ change) + 0.5 * curvature * float(change @ change)
            if smooth(moved)[0] <= bound + 1e-12:
                break
            curvature *= 2
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = moved + (momentum - 1) / following * (moved - weight)
        converged = bool(np.abs(moved - weight).max() < tolerance)
        weight, momentum = moved, following
        if converged:
            break
    return weight


def _with_ridge(
    loss: Callable[[Vector], ValueAndGradient], penalty: float, weight: Float[np.ndarray, " column"]
) -> ValueAndGradient:
    """Returns loss + penalty/2 |w|_2^2 and its gradient."""
    value, gradient = loss(weight)
    return value + 0.5 * penalty * float(weight @ weight), gradient + penalty * weight


def ridge_logistic(
    inputs: Float[np.ndarray, "patient column"],
    label: Int[np.ndarray, " patient"],
    *,
    inverse_penalty: float,
    n_classes: int,
) -> tuple[Float[np.ndarray, "class column"], Float[np.ndarray, " class"]]:
    """Returns coefficients and intercepts of a logistic regression in which classes count alike.

    A class without patients has a probability of practically 0; with patients of one class only, every coefficient
    is 0.

    Args:
        inputs: Standardised.
        label: Class of the patients.
        inverse_penalty: scikit-learn's C.
        n_classes: Number of classes, also of those without patients.
    """
    from sklearn.linear_model import LogisticRegression

    present = np.unique(label)
    every_weight, every_bias = np.zeros((n_classes, inputs.shape[1])), np.full(n_classes, _ABSENT_LOGIT)
    if len(present) == 1:
        every_bias[present] = 0.0
        return every_weight, every_bias
    estimator = LogisticRegression(C=inverse_penalty, max_iter=1000, class_weight="balanced").fit(inputs, label)
    weight, bias = estimator.coef_, estimator.intercept_
    if len(weight) == 1:  # scikit-learn keeps one row for two classes
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    every_weight[present], every_bias[present] = weight, bias
    return every_weight, every_bias


def _soft_threshold(weight: np.ndarray, threshold: float) -> np.ndarray:
    return np.sign(weight) * np.maximum(np.abs(weight) - threshold, 0)
