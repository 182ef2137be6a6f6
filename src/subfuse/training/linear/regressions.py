"""Kinds of linear models: elastic nets and ridges of Cox and of least squares, ridges of classes."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from subfuse.cohort.batches import ClassTarget, NumberTarget, OrderedTarget, SurvivalTarget, Target
from subfuse.errors import DataError
from subfuse.objective.losses import cox_nll
from subfuse.objective.ordered import log_probabilities
from subfuse.objective.penalised import (
    L1_SHARE,
    BreslowLoss,
    elastic_net_cox,
    elastic_net_least_squares,
    ridge_cox,
    ridge_logistic,
)
from subfuse.objective.ranking import concordance
from subfuse.training.linear.path import LinearFit, Regression, lowest, principal_axes

_INVERSE_PENALTIES = tuple(np.logspace(-4, 0, 9))  # scikit-learn's C
_RIDGE_PATH = np.logspace(0.5, -2, 11)  # shares of the sum of the columns' mean squares
# Shares of the penalty that makes every coefficient 0 and ranks nobody
_ELASTIC_NET_PATH = np.logspace(0, -1.7, 11)[1:]
_LEAST_SLOPE = 0.01  # of log hazards that are rescaled: they keep their order
_LARGEST_SPREAD = 1.0  # of log hazards that are rescaled: of a few patients in order it would be endless
_WITHIN = (-30.0, 30.0)  # coefficients of principal axes, and log odds of classes that nobody is of
_CLEAR_GAIN = 0.05  # of the partial likelihood per event on a model that says nothing


class _ElasticNetCox(Regression):
    method = "elastic net"
    solve = staticmethod(elastic_net_cox)

    def __init__(self, inputs: Tensor, target: SurvivalTarget) -> None:
        super().__init__(inputs, target)
        self.target = target

    def fit(self, inputs: Tensor, patients: Tensor, penalty: float, start: Tensor | None) -> tuple[Tensor, Tensor]:
        weight = inputs.new_zeros(inputs.shape[1]) if start is None else start[0]
        if self.target.event[patients].any():
            loss = self._loss_on(inputs[patients], patients)
            weight = torch.from_numpy(self.solve(loss, penalty=penalty, start=weight.numpy()))
        return weight[None], weight.new_zeros(1)

    def loss(self, logits: Tensor, patients: Tensor) -> Tensor:
        return cox_nll(logits[patients, 0], self.target.time_days[patients], self.target.event[patients])

    def concordance(self, logits: Tensor) -> float:
        return float(concordance(logits, self.target))

    def best(self, fits: Sequence[LinearFit], alone: Sequence[Sequence[LinearFit]] = ()) -> LinearFit:
        """Returns the fit with the highest partial likelihood, if that is clearly above the one of saying nothing.

        Else the fit that ranks best, rescaled; of both, the even sum of those that do alone. Of many weak columns the
        risks of every penalty may be too large, so that the likelihood chooses to say nothing although they rank.
        """
        best = super().best(fits)
        silent = float(self.loss(torch.zeros_like(best.out_of_fold), self.everybody))
        if silent - best.loss >= _CLEAR_GAIN:
            return best
        ranked = [max(one, key=lambda fit: fit.concordance) for one in alone or [fits]]
        return self._rescaled(ranked[0] if len(ranked) == 1 else self._even_sum(ranked))

    def _even_sum(self, fits: Sequence[LinearFit]) -> LinearFit:
        """Returns the sum of models whose out-of-fold log hazards were given equal spread.

        One that ranks no better than chance has no weight. Weights that fit best are too uncertain of weak models.
        """
        spread = torch.stack([fit.out_of_fold.std() for fit in fits])
        ranks = torch.tensor([fit.concordance > 0.5 for fit in fits])
        shares = torch.where(ranks & (spread > 0), 1 / spread.clamp(min=1e-12), 0.0)
        out_of_fold = torch.einsum("m,mpo->po", shares, torch.stack([fit.out_of_fold for fit in fits]))
        return self._sum(fits, shares, out_of_fold)

    def _rescaled(self, fit: LinearFit) -> LinearFit:
        """Returns the model with its log hazards multiplied by the slope that fits them best out of fold.

        It is positive, so that their order remains, and their standard deviation at most 1.
        """

        def loss(slope: Tensor) -> Tensor:
            return self.loss(slope * fit.out_of_fold, self.everybody)

        spread = float(fit.out_of_fold.std())
        largest = max(_LEAST_SLOPE, _LARGEST_SPREAD / spread) if spread > 0 else 1.0
        slope = lowest(loss, torch.ones(1).clamp(max=largest), bounds=(_LEAST_SLOPE, largest))
        reads = f"{float(slope):.3g} × ({fit.reads})"
        return self._judged(slope * fit.weight, fit.bias, reads, fit.penalty, slope * fit.out_of_fold)

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        return [self._loss_on(inputs, self.everybody).strongest_penalty * float(share) for share in _ELASTIC_NET_PATH]

    def _loss_on(self, inputs: Tensor, patients: Tensor) -> BreslowLoss:
        time_days, event = self.target.time_days[patients].numpy(), self.target.event[patients].numpy()
        return BreslowLoss.of(inputs.numpy(), time_days, event)


class _RidgeCox(_ElasticNetCox):
    method = "ridge"
    solve = staticmethod(ridge_cox)

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        return [float(inputs.square().sum() / len(inputs) * share) for share in _RIDGE_PATH]

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return principal_axes(inputs)


class _Logistic(Regression):
    method = "ridge"
    patience = len(_INVERSE_PENALTIES)  # none is left out: few covariates, and large, may hide genes at first

    def __init__(self, inputs: Tensor, target: ClassTarget, n_classes: int) -> None:
        super().__init__(inputs, target)
        self.label, self.n_classes = target.label, n_classes
        count = torch.bincount(self.label, minlength=n_classes)
        if (count > 0).sum() < 2:
            raise DataError(
                f"logistic regression needs training patients of two classes. Found one class among {len(self.label)} "
                "patients. Use fewer folds, stratify them by this label, or leave the model out."
            )
        self.class_weight = 1 / count.clamp(min=1).double()

    def fit(self, inputs: Tensor, patients: Tensor, penalty: float, start: Tensor | None) -> tuple[Tensor, Tensor]:
        weight, bias = ridge_logistic(
            inputs[patients].numpy(), self.label[patients].numpy(), inverse_penalty=penalty, n_classes=self.n_classes
        )
        return torch.from_numpy(weight), torch.from_numpy(bias)

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        return _INVERSE_PENALTIES

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return principal_axes(inputs)

    def loss(self, logits: Tensor, patients: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits[patients], self.label[patients], weight=self.class_weight)


class _CumulativeLogits(_Logistic):
    """Proportional odds with a ridge, in which classes count alike."""

    method = "proportional odds, ridge"

    def fit(self, inputs: Tensor, patients: Tensor, penalty: float, start: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns coefficients of logit 1 alone: the others, the distances of the classes, are alike for all."""
        seen, columns = inputs[patients], inputs.shape[1]

        def loss(values: Tensor) -> Tensor:
            weight, bias = values[:columns], values[columns:]
            first = (seen @ weight)[:, None] + bias[0]
            logits = torch.cat([first, bias[1:].expand(len(seen), -1)], dim=1)
            return self._mean(logits, self.label[patients]) + weight.square().sum() / (2 * penalty * len(seen))

        before = torch.zeros(columns).double() if start is None else start[0]
        values = lowest(loss, torch.cat([before, torch.zeros(self.n_classes - 1).double()]), bounds=_WITHIN)
        weight = torch.zeros(self.n_classes - 1, columns).double()
        weight[0] = values[:columns]
        return weight, values[columns:]

    def loss(self, logits: Tensor, patients: Tensor) -> Tensor:
        return self._mean(logits[patients], self.label[patients])

    def _mean(self, logits: Tensor, label: Tensor) -> Tensor:
        return torch.nn.functional.nll_loss(log_probabilities(logits), label, weight=self.class_weight)


class _LeastSquares(Regression):
    """Least squares with an elastic net; numbers as logits are, with a mean near 0 and a spread near 1."""

    method = "elastic net"

    def __init__(self, inputs: Tensor, target: NumberTarget) -> None:
        super().__init__(inputs, target)
        self.value = target.value.double()

    def fit(self, inputs: Tensor, patients: Tensor, penalty: float, start: Tensor | None) -> tuple[Tensor, Tensor]:
        weight = inputs.new_zeros(inputs.shape[1]) if start is None else start[0]
        centre, mean = inputs[patients].mean(dim=0), self.value[patients].mean()
        columns, value = (inputs[patients] - centre).numpy(), (self.value[patients] - mean).numpy()
        weight = torch.from_numpy(self.solve(columns, value, penalty, weight.numpy()))
        return weight[None], (mean - centre @ weight)[None]

    def solve(self, columns: np.ndarray, value: np.ndarray, penalty: float, start: np.ndarray) -> np.ndarray:
        return elastic_net_least_squares(columns, value, penalty=penalty, start=start)

    def loss(self, logits: Tensor, patients: Tensor) -> Tensor:
        return (logits[patients, 0] - self.value[patients]).square().mean() / 2

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        centred = (inputs - inputs.mean(dim=0)).T @ (self.value - self.value.mean()) / len(inputs)
        strongest = float(centred.abs().max()) / L1_SHARE
        return [strongest * float(share) for share in _ELASTIC_NET_PATH]


class _RidgeLeastSquares(_LeastSquares):
    method = "ridge"

    def solve(self, columns: np.ndarray, value: np.ndarray, penalty: float, start: np.ndarray) -> np.ndarray:
        gram = columns.T @ columns / len(columns) + penalty * np.eye(columns.shape[1])
        return np.linalg.solve(gram, columns.T @ value / len(columns))

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        return [float(inputs.square().sum() / len(inputs) * share) for share in _RIDGE_PATH]

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return principal_axes(inputs)


def regressions_of(inputs: Float[Tensor, "patient column"], target: Target, *, n_outputs: int) -> list[Regression]:
    """Returns the kinds of linear models for an outcome: elastic net and ridge, or a ridge of classes."""
    if isinstance(target, OrderedTarget):
        return [_CumulativeLogits(inputs, target, n_outputs + 1)]
    if isinstance(target, SurvivalTarget):
        return [_ElasticNetCox(inputs, target), _RidgeCox(inputs, target)]
    if isinstance(target, NumberTarget):
        return [_LeastSquares(inputs, target), _RidgeLeastSquares(inputs, target)]
    return [_Logistic(inputs, target, n_outputs)]
