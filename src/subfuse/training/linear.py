"""Regularised linear models: logistic and elastic-net Cox; penalties are chosen by cross-validation.

As anybody would fit them: on all patients that are not tested, with the penalty whose out-of-fold predictions among
these have the lowest loss (for Cox the partial likelihood of the cross-validated linear predictor, Dai and Breheny
2019).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from subfuse.cohort.batches import BagBatch, ClassTarget, SurvivalTarget, Target
from subfuse.errors import DataError
from subfuse.model.baselines.linear import LinearModel
from subfuse.objective.losses import cox_nll
from subfuse.objective.objective import Objective
from subfuse.objective.penalised import BreslowLoss, elastic_net_cox, ridge_cox, ridge_logistic

INVERSE_PENALTIES = tuple(np.logspace(-4, 0, 9))  # scikit-learn's C
RIDGE_PATH = np.logspace(0.5, -2, 11)  # shares of the sum of the columns' mean squares
COX_PATH = np.logspace(0, -1.7, 11)[1:]  # shares of the penalty that makes every coefficient 0 and ranks nobody
INNER_FOLDS = 5
PATIENCE = 2  # weaker penalties in a row that are no better end a path
LARGEST_WEIGHT = 10.0  # of a model in a sum
LARGEST_INTERCEPT = 10.0  # of a time bin in which everybody, or nobody, had an event
EXPRESSION_SCALES = (1.0, 3.0, 1 / 3)  # of expression beside slides: a larger one is penalised less


@dataclass(frozen=True)
class LinearFit:
    """A linear model and how well it predicts patients whom it was not fitted on."""

    weight: Float[Tensor, "output column"]
    bias: Float[Tensor, " output"]
    reads: str  # which inputs, and how they are weighed
    penalty: float  # as given to the estimator: a strength for Cox, scikit-learn's C for logistic regression
    loss: float  # of `out_of_fold`; lower is better
    out_of_fold: Float[Tensor, "patient output"]  # logits of the training patients, each from the others' fit


def fit_linear(model: LinearModel, batches: Iterable[BagBatch], target: Target) -> list[LinearFit]:
    """Fits the model in place and returns what was chosen from, the chosen one first.

    Cox models are elastic nets or ridges, logistic regressions ridges. A model of slides and expression is the better
    one of two kinds: a ridge of all columns with expression scaled against slides, which penalises them differently; or
    the sum of the best models of each alone, weighed by their out-of-fold logits.

    Args:
        model: Receives coefficients, and how summaries of slides are standardised.
        batches: All training patients, standardised.
        target: Their outcome.

    Raises:
        DataError: All patients are of one class.
    """
    inputs = _embedded(model, batches)
    regressions = _regressions(inputs, target, n_outputs=len(model.head.bias))
    n_slides = 2 * model.patch_dim
    if n_slides == 0 or model.n_genes == 0:
        reads = "slides" if n_slides else "expression"
        fits = [fit for regression in regressions for fit in regression.path(reads)]
    else:
        fits = _fits_of_both(regressions, torch.arange(inputs.shape[1]) >= n_slides)
    best = min(fits, key=_loss_of)
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
    out_of_fold = fit_linear(model, batches, target)[0].out_of_fold.float().expand(-1, objective.n_outputs)
    if isinstance(target, ClassTarget):
        return out_of_fold
    intercepts = _intercepts(out_of_fold, target, objective)
    with torch.no_grad():
        model.head.bias.copy_(intercepts)
    return out_of_fold + intercepts


def _intercepts(
    logits: Float[Tensor, "patient output"], target: Target, objective: Objective
) -> Float[Tensor, " output"]:
    """Returns what to add to the logits so that the loss is lowest."""
    from scipy.optimize import minimize

    def value(intercepts: np.ndarray) -> tuple[float, np.ndarray]:
        added = torch.from_numpy(intercepts).requires_grad_()
        loss = objective.task_loss(logits.double() + added, target)
        (gradient,) = torch.autograd.grad(loss, added)
        return float(loss.detach()), gradient.numpy()

    bounds = [(-LARGEST_INTERCEPT, LARGEST_INTERCEPT)] * objective.n_outputs
    found = minimize(value, np.zeros(objective.n_outputs), jac=True, bounds=bounds, method="L-BFGS-B").x
    return torch.from_numpy(found).float()


def _fits_of_both(regressions: Sequence["_Regression"], is_expression: Bool[Tensor, " column"]) -> list[LinearFit]:
    """Returns ridges of all columns with expression scaled, and the sum of the best model of each modality."""
    scales = {scale: torch.where(is_expression, scale, 1.0).double() for scale in EXPRESSION_SCALES}
    fits = [
        fit
        for scale, columns in scales.items()
        for fit in regressions[-1].path(f"slides + {scale:.3g} × expression", columns)
    ]
    alone = [
        min((fit for one in regressions for fit in one.path(name, columns.double())), key=_loss_of)
        for name, columns in (("slides", ~is_expression), ("expression", is_expression))
    ]
    return [*fits, regressions[0].weighed_sum(alone)]


def inner_folds(target: Target) -> Int[np.ndarray, " patient"]:
    """Returns the inner fold of every patient; events or classes are spread evenly. Nothing but outcomes decides."""
    strata = (target.event if isinstance(target, SurvivalTarget) else target.label).numpy()
    order = np.lexsort([np.random.default_rng(0).random(len(strata)), strata])
    fold = np.empty(len(strata), dtype=np.int64)
    fold[order] = np.arange(len(strata)) % INNER_FOLDS
    return fold


class _Regression(ABC):
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
            if len(fits) - 1 - int(np.argmin([fit.loss for fit in fits])) >= PATIENCE:
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
        from scipy.optimize import minimize

        def value(weights: np.ndarray) -> tuple[float, np.ndarray]:
            shares = torch.from_numpy(weights).requires_grad_()
            loss = self.loss(torch.einsum("m,mpo->po", shares, logits), patients)
            (gradient,) = torch.autograd.grad(loss, shares)
            return float(loss.detach()), gradient.numpy()

        bounds = [(0.0, LARGEST_WEIGHT)] * len(logits)
        return torch.from_numpy(minimize(value, np.ones(len(logits)), jac=True, bounds=bounds, method="L-BFGS-B").x)

    @abstractmethod
    def penalties(self, inputs: Tensor) -> Sequence[float]:
        """Returns the penalties to try, strongest first."""

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the columns that are fitted, and what turns their coefficients into those of `inputs`."""
        return inputs, None


class _ElasticNetCox(_Regression):
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
        return [self._loss_on(inputs, self.everybody).strongest_penalty * float(share) for share in COX_PATH]

    def _loss_on(self, inputs: Tensor, patients: Tensor) -> BreslowLoss:
        time_days, event = self.target.time_days[patients].numpy(), self.target.event[patients].numpy()
        return BreslowLoss.of(inputs.numpy(), time_days, event)


class _RidgeCox(_ElasticNetCox):
    method = "ridge"
    solve = staticmethod(ridge_cox)

    def penalties(self, inputs: Tensor) -> Sequence[float]:
        return [float(inputs.square().sum() / len(inputs) * share) for share in RIDGE_PATH]

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return _principal_axes(inputs)


class _Logistic(_Regression):
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
        return INVERSE_PENALTIES

    def coordinates(self, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        return _principal_axes(inputs)

    def loss(self, logits: Tensor, patients: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(logits[patients], self.label[patients], weight=self.class_weight)


def _regressions(inputs: Tensor, target: Target, *, n_outputs: int) -> list[_Regression]:
    if isinstance(target, SurvivalTarget):
        return [_ElasticNetCox(inputs, target), _RidgeCox(inputs, target)]
    return [_Logistic(inputs, target, n_outputs)]


def _principal_axes(inputs: Float[Tensor, "patient column"]) -> tuple[Tensor, Tensor]:
    """Returns the patients on their principal axes, and the axes.

    A ridge's coefficients are mixtures of patients, so these columns are as good as all, and fewer.
    """
    left, size, right = torch.linalg.svd(inputs, full_matrices=False)
    return left * size, right


def _embedded(model: LinearModel, batches: Iterable[BagBatch]) -> Float[Tensor, "patient column"]:
    """Returns what the model multiplies by its coefficients, after its standardisation was fitted."""
    with torch.no_grad():
        seen = [
            (model.summarise(b.patches, b.patch_mask), b.patch_mask.any(dim=1), b.expression, b.expression_mask)
            for b in batches
        ]
        summary, has_slides, expression, expression_mask = (torch.cat(part) for part in zip(*seen, strict=True))
        if model.patch_dim and has_slides.any():
            model.fit_summary(summary[has_slides])
        return model.embed(summary, has_slides, expression, expression_mask)


def _loss_of(fit: LinearFit) -> float:
    return fit.loss
