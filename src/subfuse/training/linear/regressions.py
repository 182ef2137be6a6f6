"""One kind of linear model, elastic net, ridge or logistic, along its path of penalties."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from subfuse.cohort.batches import ClassTarget, SurvivalTarget, Target
from subfuse.errors import DataError
from subfuse.objective.losses import cox_nll
from subfuse.objective.penalised import BreslowLoss, elastic_net_cox, ridge_cox, ridge_logistic

_INVERSE_PENALTIES = tuple(np.logspace(-4, 0, 9))  # scikit-learn's C
_RIDGE_PATH = np.logspace(0.5, -2, 11)  # shares of the sum of the columns' mean squares
_COX_PATH = np.logspace(0, -1.7, 11)[1:]  # shares of the penalty that makes every coefficient 0 and ranks nobody
INNER_FOLDS = 5
_PATIENCE = 2  # weaker penalties in a row that are no better end a path
_LARGEST_WEIGHT = 10.0  # of a model in a sum


@dataclass(frozen=True)
class LinearFit:
    """A linear model and how well it predicts patients whom it was not fitted on."""

    weight: Float[Tensor, "output column"]
    bias: Float[Tensor, " output"]
    reads: str  # which inputs, and how they are weighed
    penalty: float  # as given to the estimator: a strength for Cox, scikit-learn's C for logistic regression
    loss: float  # of `out_of_fold`; lower is better
    out_of_fold: Float[Tensor, "patient output"]  # logits of the training patients, each from the others' fit


def inner_folds(target: Target) -> Int[np.ndarray, " patient"]:
    """Returns the inner fold of every patient; events or classes are spread evenly. Nothing but outcomes decides."""
    strata = (target.event if isinstance(target, SurvivalTarget) else target.label).numpy()
    order = np.lexsort([np.random.default_rng(0).random(len(strata)), strata])
    fold = np.empty(len(strata), dtype=np.int64)
    fold[order] = np.arange(len(strata)) % INNER_FOLDS
    return fold


class Regression(ABC):
    """One kind of linear model on given patients."""

    method: str

    def __init__(self, inputs: Float[Tensor, "patient column"], target: Target) -> None:
        self.inputs = inputs.double()
        self.fold = torch.from_numpy(inner_folds(target))
        self.everybody = torch.ones(len(inputs), dtype=torch.bool)

    @abstractmethod
    def fit(self, inputs: Tensor, patients: Tensor, penalty: float, start: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns coefficients and bias for some of the patients; `start` are coefficients of a stronger penalty."""

    @abstractmethod
    def loss(self, logits: Float[Tensor, "patient output"], patients: Tensor) -> Tensor:
        """Returns the mean loss of some of the patients."""

    def path(self, reads: str, scale: Float[Tensor, " column"] | None = None) -> list[LinearFit]:
        """Returns the fits of all penalties, strongest first, until weaker ones are no better.

        Args:
            reads: Named in the log.
            scale: Of the columns; one of 0 is not read.
        """
        scale = torch.ones(self.inputs.shape[1]).double() if scale is None else scale
        read = scale > 0
        inputs, axes = self.coordinates(self.inputs[:, read] * scale[read])
        groups = [self.everybody, *(self.fold != k for k in range(INNER_FOLDS))]
        states: list[Tensor | None] = [None] * len(groups)
        fits: list[LinearFit] = []
        for penalty in self.penalties(inputs):
            solved = [self.fit(inputs, group, penalty, state) for group, state in zip(groups, states, strict=True)]
            states = [weight for weight, _ in solved]
            logits = torch.stack([inputs @ weight.T + bias for weight, bias in solved[1:]])
            out_of_fold = logits[self.fold, torch.arange(len(inputs))]
            weight = torch.zeros(len(solved[0][1]), len(scale)).double()
            weight[:, read] = (solved[0][0] if axes is None else solved[0][0] @ axes) * scale[read]
            loss = float(self.loss(out_of_fold, self.everybody))
            fits.append(LinearFit(weight, solved[0][1], f"{reads}, {self.method}", penalty, loss, out_of_fold))
            if len(fits) - 1 - int(np.argmin([fit.loss for fit in fits])) >= _PATIENCE:
                break
        return fits

    def weighed_sum(self, fits: Sequence[LinearFit]) -> LinearFit:
        """Returns the sum of several models, with weights of at least 0 that fit their out-of-fold logits best.

        The loss is that of weights fitted without the inner fold that they are applied to.
        """
        logits = torch.stack([fit.out_of_fold for fit in fits])
        weights = [self._weigh(logits, self.fold != k) for k in range(INNER_FOLDS)]
        out_of_fold = torch.einsum("pm,mpo->po", torch.stack(weights)[self.fold], logits)
        chosen = self._weigh(logits, self.everybody)
        return LinearFit(
            weight=sum(share * fit.weight for share, fit in zip(chosen, fits, strict=True)),
            bias=sum(share * fit.bias for share, fit in zip(chosen, fits, strict=True)),
            reads=" + ".join(
                f"{share:.3g} × {fit.reads} (penalty {fit.penalty:.3g})"
                for share, fit in zip(chosen, fits, strict=True)
            ),
            penalty=float("nan"),
            loss=float(self.loss(out_of_fold, self.everybody)),
            out_of_fold=out_of_fold,
        )

    def _weigh(self, logits: Float[Tensor, "model patient output"], patients: Tensor) -> Float[Tensor, " model"]:
        def loss(weights: Tensor) -> Tensor:
            return self.loss(torch.einsum("m,mpo->po", weights, logits), patients)

        return lowest(loss, torch.ones(len(logits)), bounds=(0.0, _LARGEST_WEIGHT))

    @abstractmethod
    def penalties(self, inputs: Tensor) -> Sequence[float]:
        """Returns the penalties to try, strongest first."""

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the columns that are fitted, and what turns their coefficients into those of `inputs`."""
        return inputs, None


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

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        return [self._loss_on(inputs, self.everybody).strongest_penalty * float(share) for share in _COX_PATH]

    def _loss_on(self, inputs: Tensor, patients: Tensor) -> BreslowLoss:
        time_days, event = self.target.time_days[patients].numpy(), self.target.event[patients].numpy()
        return BreslowLoss.of(inputs.numpy(), time_days, event)


class _RidgeCox(_ElasticNetCox):
    method = "ridge"
    solve = staticmethod(ridge_cox)

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        return [float(inputs.square().sum() / len(inputs) * share) for share in _RIDGE_PATH]

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return _principal_axes(inputs)


class _Logistic(Regression):
    method = "ridge"

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
        return _principal_axes(inputs)

    def loss(self, logits: Tensor, patients: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits[patients], self.label[patients], weight=self.class_weight)


def regressions_of(inputs: Float[Tensor, "patient column"], target: Target, *, n_outputs: int) -> list[Regression]:
    """Returns the kinds of linear models for an outcome: elastic net and ridge of Cox, or a logistic ridge."""
    if isinstance(target, SurvivalTarget):
        return [_ElasticNetCox(inputs, target), _RidgeCox(inputs, target)]
    return [_Logistic(inputs, target, n_outputs)]


def lowest(
    loss: Callable[[Tensor], Tensor], start: Float[Tensor, " value"], *, bounds: tuple[float, float]
) -> Float[Tensor, " value"]:
    """Returns where a loss is lowest within bounds, by its gradient (L-BFGS-B), in double precision."""
    from scipy.optimize import minimize

    def value(point: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(point).requires_grad_()
        found = loss(at)
        (gradient,) = torch.autograd.grad(found, at)
        return float(found.detach()), gradient.numpy()

    limits = [bounds] * len(start)
    return torch.from_numpy(minimize(value, start.double().numpy(), jac=True, bounds=limits, method="L-BFGS-B").x)


def _principal_axes(inputs: Float[Tensor, "patient column"]) -> tuple[Tensor, Tensor]:
    """Returns the patients on their principal axes, and the axes.

    A ridge's coefficients are mixtures of patients, so these columns are as good as all, and fewer.
    """
    left, size, right = torch.linalg.svd(inputs, full_matrices=False)
    return left * size, right
