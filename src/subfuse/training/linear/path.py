"""A kind of linear model along its path of penalties, and how out-of-fold predictions of several are weighed."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from subfuse.cohort.batches import NumberTarget, SurvivalTarget, Target

INNER_FOLDS = 5
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
    concordance: float = float("nan")  # of `out_of_fold` with survival


def inner_folds(target: Target) -> Int[np.ndarray, " patient"]:
    """Returns the inner fold of every patient; outcomes are spread evenly. Nothing but outcomes decides."""
    strata = _outcome_of(target).numpy()
    order = np.lexsort([np.random.default_rng(0).random(len(strata)), strata])
    fold = np.empty(len(strata), dtype=np.int64)
    fold[order] = np.arange(len(strata)) % INNER_FOLDS
    return fold


def _outcome_of(target: Target) -> Tensor:
    if isinstance(target, SurvivalTarget):
        return target.event
    return target.value if isinstance(target, NumberTarget) else target.label


class Regression(ABC):
    """One kind of linear model on given patients."""

    method: str
    patience: int = 2  # weaker penalties in a row that are no better end a path

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

    def concordance(self, logits: Float[Tensor, "patient output"]) -> float:
        """Returns how well logits of all patients rank their survival; NaN of classes."""
        return float("nan")

    def best(self, fits: Sequence[LinearFit], alone: Sequence[Sequence[LinearFit]] = ()) -> LinearFit:
        """Returns the fit to be used, here the one with the lowest loss.

        Args:
            fits: To choose from.
            alone: Those of slides and those of expression, where `fits` are of both.
        """
        return min(fits, key=lambda fit: fit.loss)

    def path(self, reads: str, scale: Float[Tensor, " column"] | None = None) -> list[LinearFit]:
        """Returns the fits of all penalties, strongest first, until weaker ones neither fit nor rank better.

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
            fits.append(self._judged(weight, solved[0][1], f"{reads}, {self.method}", penalty, out_of_fold))
            best = {int(np.argmin([fit.loss for fit in fits])), int(np.argmax([fit.concordance for fit in fits]))}
            if len(fits) - 1 - max(best) >= self.patience:
                break
        return fits

    def weighed_sum(self, fits: Sequence[LinearFit]) -> LinearFit:
        """Returns the sum of several models, with weights of at least 0 that fit their out-of-fold logits best.

        The loss is that of weights fitted without the inner fold that they are applied to.
        """
        logits = torch.stack([fit.out_of_fold for fit in fits])
        weights = [self._weigh(logits, self.fold != k) for k in range(INNER_FOLDS)]
        out_of_fold = torch.einsum("pm,mpo->po", torch.stack(weights)[self.fold], logits)
        return self._sum(fits, self._weigh(logits, self.everybody), out_of_fold)

    def _sum(self, fits: Sequence[LinearFit], shares: Float[Tensor, " model"], out_of_fold: Tensor) -> LinearFit:
        """Returns the sum of several models with given weights and out-of-fold logits."""
        weighed = list(zip(shares, fits, strict=True))
        return self._judged(
            weight=sum(share * fit.weight for share, fit in weighed),
            bias=sum(share * fit.bias for share, fit in weighed),
            reads=" + ".join(f"{share:.3g} × {fit.reads} (penalty {fit.penalty:.3g})" for share, fit in weighed),
            penalty=float("nan"),
            out_of_fold=out_of_fold,
        )

    def _judged(self, weight: Tensor, bias: Tensor, reads: str, penalty: float, out_of_fold: Tensor) -> LinearFit:
        loss = float(self.loss(out_of_fold, self.everybody))
        return LinearFit(weight, bias, reads, penalty, loss, out_of_fold, self.concordance(out_of_fold))

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


def principal_axes(inputs: Float[Tensor, "patient column"]) -> tuple[Tensor, Tensor]:
    """Returns the patients on their principal axes, and the axes.

    A ridge's coefficients are mixtures of patients, so these columns are as good as all, and fewer.
    """
    left, size, right = torch.linalg.svd(inputs, full_matrices=False)
    return left * size, right
