"""One kind of linear model, elastic net, ridge or logistic, along its path of penalties."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from subfuse.cohort.batches import ClassTarget, OrderedTarget, SurvivalTarget, Target
from subfuse.errors import DataError
from subfuse.objective.losses import cox_nll
from subfuse.objective.ordered import log_probabilities
from subfuse.objective.penalised import BreslowLoss, elastic_net_cox, ridge_cox, ridge_logistic
from subfuse.objective.ranking import concordance

_INVERSE_PENALTIES = tuple(np.logspace(-4, 0, 9))  # scikit-learn's C
_RIDGE_PATH = np.logspace(0.5, -2, 11)  # shares of the sum of the columns' mean squares
_COX_PATH = np.logspace(0, -1.7, 11)[1:]  # shares of the penalty that makes every coefficient 0 and ranks nobody
INNER_FOLDS = 5
_PATIENCE = 2  # weaker penalties in a row that are no better end a path
_LARGEST_WEIGHT = 10.0  # of a model in a sum
_LEAST_SLOPE = 0.01  # of log hazards that are rescaled: they keep their order
_LARGEST_SPREAD = 1.0  # of log hazards that are rescaled: of a few patients in order it would be endless
_WITHIN = (-30.0, 30.0)  # coefficients of principal axes, and log odds of classes that nobody is of
_CLEAR_GAIN = 0.05  # of the partial likelihood per event on a model that says nothing


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
            if len(fits) - 1 - max(best) >= _PATIENCE:
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


def regressions_of(inputs: Float[Tensor, "patient column"], target: Target, *, n_outputs: int) -> list[Regression]:
    """Returns the kinds of linear models for an outcome: elastic net and ridge of Cox, or a ridge of classes."""
    if isinstance(target, OrderedTarget):
        return [_CumulativeLogits(inputs, target, n_outputs + 1)]
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
