"""Objectives: the only place that knows what a task is. Models return logits, objectives interpret them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from subfuse.cohort.batches import ClassTarget, SurvivalTarget, Target
from subfuse.errors import DataError, preview
from subfuse.model.subspace_fusion import SubspaceFusionOutput
from subfuse.objective.losses import DEFAULT_CONSISTENCY, Consistency, cox_nll, discrete_hazard_nll
from subfuse.objective.ranking import concordance, macro_auc

RISK = "risk"  # what is explained of a survival prediction
Values = Sequence[Any] | np.ndarray | Tensor  # one number per patient


class UnfittableObjectiveError(DataError, ValueError):
    """The training patients do not determine the objective, for example because none had an event."""


@dataclass(frozen=True)
class Loss:
    """What training minimises, and its parts."""

    total: Float[Tensor, ""]  # differentiate this
    terms: Mapping[str, Float[Tensor, ""]]  # detached, for the log: task, consistency (unweighted), alignment


@dataclass(frozen=True)
class Prediction:
    """What logits mean for the patients of a batch. None where the task does not define a quantity."""

    probabilities: Float[Tensor, "batch output"] | None = None  # of the classes; rows sum to 1
    risk: Float[Tensor, " batch"] | None = None  # higher is worse; only its order has a meaning
    survival: Float[Tensor, "batch day"] | None = None  # probability of no event before each of `survival_days`


class Objective(nn.Module, ABC):
    """The loss of a task, the meaning of its logits, and the confidence of subspaces.

    Fitted values live in buffers, so they follow `.to(device)`; `to_dict` describes the objective completely.

    Args:
        consistency: The gene-guided consistency loss that is added where a model samples positions.
    """

    name: ClassVar[str]  # in files
    ranking_metric: ClassVar[str]  # what `ranking` returns
    classes: tuple[str, ...] = ()  # names in the order of the logits; empty for survival

    def __init__(self, consistency: Consistency) -> None:
        super().__init__()
        self.consistency = consistency

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """How many logits a model must return."""

    @property
    def survival_days(self) -> tuple[float, ...]:
        """Days of the columns of `Prediction.survival`; empty where the objective gives no survival curve."""
        return ()

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of what `predict` returns, as in tables of predictions."""

    @abstractmethod
    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the loss of the task alone."""

    @abstractmethod
    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns what the logits mean."""

    @abstractmethod
    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns each subspace's confidence on the batch from its own share of the logits (half of the bias each).

        Detached. NaN for all subspaces where it is undefined. With several processes, pass the patients of all.
        """

    @abstractmethod
    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns how well the predictions rank the patients, 0 to 1; NaN where that is undefined."""

    @abstractmethod
    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns the weights that turn logits into the explained score.

        A score that is linear in the logits is shared exactly among subspaces.
        """

    @abstractmethod
    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns what of one patient's prediction the score stands for: `risk`, or the predicted class."""

    def forward(
        self, output: SubspaceFusionOutput, target: Target, *, paired: Bool[Tensor, " batch"] | None = None
    ) -> Loss:
        """Returns the task loss plus what the model's output adds.

        That is the weighted consistency of every subspace, if the model samples positions, and the mean of the model's
        own alignment loss, if it has one.

        Args:
            output: What the model returned for the batch.
            target: Outcome of the same patients.
            paired: True for patients with both slides and expression; only they enter the consistency loss, which is
                0 for fewer than two, and the alignment loss. None: everybody has both.
        """
        if output.logits.shape[1] != self.n_outputs:
            raise ValueError(
                f"logits must have {self.n_outputs} columns for this objective. Found {output.logits.shape[1]}. "
                "Build the model with n_outputs=objective.n_outputs."
            )
        if paired is None:
            paired = torch.ones(len(output.logits), dtype=torch.bool, device=output.logits.device)
        total = self.task_loss(output.logits, target)
        terms = {"task": total.detach()}
        if output.sampling_grid is not None:
            consistency = self.consistency(output.expression_embedding[paired], output.sampling_grid[paired])
            total, terms["consistency"] = total + self.consistency.weight * consistency, consistency.detach()
        if output.alignment is not None:
            alignment = output.alignment[paired].sum() / paired.sum().clamp(min=1)
            total, terms["alignment"] = total + alignment, alignment.detach()
        return Loss(total=total, terms=terms)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything `objective_from_dict` needs, as JSON values."""
        return {
            "name": self.name,
            **self._fitted(),
            "consistency_weight": self.consistency.weight,
            "consistency_of": self.consistency.of,
        }

    @abstractmethod
    def _fitted(self) -> dict[str, Any]:
        """Returns the arguments of the class beside `consistency`, as JSON values."""


class ClassificationObjective(Objective):
    """Cross-entropy with class weights; also for ordered classes such as grade, which have no risk here.

    The loss of a batch is the mean weighted by the patients' class weights. A subspace's confidence is the sum over
    patients of the probability it gives to the true class.

    Relative to the paper: class weights are fitted on training patients instead of being constants.

    Args:
        classes: Names of the classes in the order of the logits.
        class_weights: One positive number per class; equal if None.
        consistency: The gene-guided consistency loss.
    """

    name = "classification"
    ranking_metric = "auc"
    class_weights: Float[Tensor, " output"]  # fitted

    def __init__(
        self,
        classes: Sequence[str],
        class_weights: Values | None = None,
        *,
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> None:
        super().__init__(consistency)
        weights = _float32(np.ones(len(classes)) if class_weights is None else class_weights)
        if len(classes) < 2 or weights.shape != (len(classes),) or not (weights > 0).all():
            raise ValueError(
                "classes must name at least two classes with one positive class weight each. "
                f"Found {len(classes)} classes ({preview(classes)}) with weights {weights.tolist()}."
            )
        self.classes = tuple(classes)
        self.register_buffer("class_weights", torch.from_numpy(weights))

    @classmethod
    def fit(
        cls,
        labels: Values,
        *,
        classes: Sequence[str],
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> "ClassificationObjective":
        """Returns the objective with weights inversely proportional to class frequency.

        Weights are patients / (classes × patients of the class): their mean over the training patients is 1. A class
        without a training patient is weighted as if it had one: it cannot be learnt.

        Args:
            labels: Class index of every training patient.
            classes: Names of the classes.
            consistency: The gene-guided consistency loss.
        """
        count = np.bincount(np.asarray(labels, dtype=int), minlength=len(classes))
        if len(count) > len(classes) or count.sum() == 0:
            raise UnfittableObjectiveError(
                f"labels must be indices of the {len(classes)} classes {preview(classes)} of at least one training "
                f"patient. Found {count.sum()} labels up to {len(count) - 1}. Check the classes of the task."
            )
        weights = count.sum() / (len(classes) * np.maximum(count, 1))
        return cls(classes, weights, consistency=consistency)

    @property
    def n_outputs(self) -> int:
        """One logit per class."""
        return len(self.classes)

    @property
    def columns(self) -> list[str]:
        """One probability per class."""
        return [f"p_{name}" for name in self.classes]

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the weighted cross-entropy."""
        assert isinstance(target, ClassTarget)
        return functional.cross_entropy(logits, target.label.long(), weight=self.class_weights)

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns class probabilities."""
        return Prediction(probabilities=logits.softmax(dim=-1))

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the summed probability of the true classes; see `Objective.confidence`."""
        assert isinstance(target, ClassTarget)
        probabilities = output.subspace_logits.detach().softmax(dim=-1)  # batch subspace output
        patients = torch.arange(len(target.label), device=target.label.device)
        return probabilities[patients, :, target.label.long()].sum(dim=0)

    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns the macro AUC; see `macro_auc`."""
        assert isinstance(target, ClassTarget)
        return macro_auc(logits.softmax(dim=-1).double().cpu().numpy(), target.label.cpu().numpy())

    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns those of the predicted class's logit minus the mean logit."""
        return functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits) - _mean_weights(logits)

    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns the predicted class."""
        return self.classes[int(logits.argmax())]

    def _fitted(self) -> dict[str, Any]:
        return {"classes": list(self.classes), "class_weights": self.class_weights.tolist()}


class _SurvivalObjective(Objective):
    """What survival objectives share, whatever their logits mean."""

    ranking_metric = "c_index"

    @abstractmethod
    def risk(self, logits: Float[Tensor, "*axes output"]) -> Float[Tensor, "*axes"]:
        """Returns the risk, higher is worse."""

    @property
    def columns(self) -> list[str]:
        """The risk, and survival to each of `survival_days`."""
        return ["risk", *(f"survival_{days:g}" for days in self.survival_days)]

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the concordance of each subspace's risk; see `Objective.confidence`."""
        assert isinstance(target, SurvivalTarget)
        return concordance(self.risk(output.subspace_logits.detach()), target)

    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns the concordance (Harrell) of the risk."""
        assert isinstance(target, SurvivalTarget)
        return float(concordance(self.risk(logits)[:, None], target))

    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns those of the mean over outputs: the mean hazard logit, or the log hazard (higher is worse)."""
        return _mean_weights(logits)

    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns `risk`."""
        return RISK


class DiscreteHazardObjective(_SurvivalObjective):
    r"""Survival in time bins: logit :math:`k` gives the hazard :math:`h_k = \sigma(\text{logit}_k)` of bin :math:`k`.

    Survival beyond bin :math:`k` is :math:`S_k = \prod_{j \le k} (1 - h_j)`, the risk is :math:`-\sum_k S_k`. A
    subspace's confidence is the concordance (Harrell) of the risks from its own logits within the batch.

    Relative to the paper: bins are quantiles of the training patients' event times, not of everybody's follow-up.

    Args:
        bin_edges: Days at which a new bin begins, strictly increasing: bin k holds times in [edge k-1, edge k), the
            last bin everything later. n edges make n + 1 bins, i.e. logits.
        consistency: The gene-guided consistency loss.
    """

    name = "discrete_hazard"
    bin_edges: Float[Tensor, " edge"]  # fitted

    def __init__(self, bin_edges: Values, *, consistency: Consistency = DEFAULT_CONSISTENCY) -> None:
        super().__init__(consistency)
        edges = _float32(bin_edges)
        if edges.ndim != 1 or not np.isfinite(edges).all() or not (np.diff(edges, prepend=0.0) > 0).all():
            raise ValueError(f"bin_edges must be positive and strictly increasing days. Found {edges.tolist()}.")
        self.register_buffer("bin_edges", torch.from_numpy(edges))

    @classmethod
    def fit(
        cls,
        time_days: Values,
        event: Values,
        *,
        bins: int = 4,
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> "DiscreteHazardObjective":
        """Returns the objective with bins that hold about equally many of the training patients' events.

        Edges that would leave a bin without a training event, because of ties or few events, are dropped.

        Args:
            time_days: Days to event or last contact of every training patient.
            event: True where the event was observed.
            bins: Number of bins aimed at.
            consistency: The gene-guided consistency loss.

        Raises:
            UnfittableObjectiveError: No training patient had an event.
        """
        event_days = _event_days(time_days, event)
        edges = np.quantile(event_days, np.arange(1, bins) / bins).astype(np.float32)
        occupied = np.isin(np.arange(bins - 1), np.searchsorted(edges, event_days, side="right"))
        return cls(edges[occupied], consistency=consistency)

    @property
    def n_outputs(self) -> int:
        """One logit per bin."""
        return len(self.bin_edges) + 1

    @property
    def survival_days(self) -> tuple[float, ...]:
        """The bin edges: survival beyond bin k is survival to edge k. The last bin is open and has no day."""
        return tuple(self.bin_edges.tolist())

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the mean negative log-likelihood."""
        assert isinstance(target, SurvivalTarget)
        bin_index = torch.bucketize(target.time_days.to(self.bin_edges), self.bin_edges, right=True)
        return discrete_hazard_nll(logits, bin_index, target.event).mean()

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns risk and the survival probability at `survival_days`."""
        survival = _survival(logits)
        return Prediction(risk=self.risk(logits), survival=survival[:, :-1])

    def risk(self, logits: Float[Tensor, "*axes output"]) -> Float[Tensor, "*axes"]:
        """Returns the negative sum of the survival probabilities."""
        return -_survival(logits).sum(dim=-1)

    def _fitted(self) -> dict[str, Any]:
        return {"bin_edges": self.bin_edges.tolist()}


class CoxObjective(_SurvivalObjective):
    """Survival with proportional hazards: the single logit is the log hazard ratio and the risk.

    The loss compares the patients of a batch, so batches should hold several events; one without events has loss 0. A
    subspace's confidence is the concordance (Harrell) of its own log hazards within the batch.

    Relative to the paper: an alternative to its discrete hazards.

    Args:
        consistency: The gene-guided consistency loss.
    """

    name = "cox"

    def __init__(self, *, consistency: Consistency = DEFAULT_CONSISTENCY) -> None:
        super().__init__(consistency)

    @classmethod
    def fit(
        cls,
        time_days: Values,
        event: Values,
        *,
        consistency: Consistency = DEFAULT_CONSISTENCY,
    ) -> "CoxObjective":
        """Returns the objective after checking that somebody had an event; nothing else is fitted.

        Raises:
            UnfittableObjectiveError: No training patient had an event.
        """
        _event_days(time_days, event)
        return cls(consistency=consistency)

    @property
    def n_outputs(self) -> int:
        """One: the log hazard."""
        return 1

    def task_loss(self, logits: Float[Tensor, "batch output"], target: Target) -> Float[Tensor, ""]:
        """Returns the negative partial log-likelihood per event."""
        assert isinstance(target, SurvivalTarget)
        return cox_nll(logits[:, 0], target.time_days, target.event)

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns the log hazard as risk."""
        return Prediction(risk=logits[:, 0])

    def risk(self, logits: Float[Tensor, "*axes output"]) -> Float[Tensor, "*axes"]:
        """Returns the log hazard."""
        return logits[..., 0]

    def _fitted(self) -> dict[str, Any]:
        return {}


_KINDS: tuple[type[Objective], ...] = (ClassificationObjective, DiscreteHazardObjective, CoxObjective)
OBJECTIVES = {kind.name: kind for kind in _KINDS}


def objective_from_dict(description: Mapping[str, Any]) -> Objective:
    """Returns the objective described by `Objective.to_dict`.

    Raises:
        ValueError: Its name is unknown.

    Example:
        >>> objective_from_dict(DiscreteHazardObjective([365.0, 730.0]).to_dict()).survival_days
        (365.0, 730.0)
    """
    settings = dict(description)
    name = settings.pop("name", None)
    if name not in OBJECTIVES:
        raise ValueError(f"name of an objective must be one of {', '.join(OBJECTIVES)}. Found {name!r}.")
    own = {key: settings.pop(f"consistency_{key}") for key in ("weight", "of") if f"consistency_{key}" in settings}
    return OBJECTIVES[name](**settings, consistency=Consistency(**own))


def _survival(logits: Float[Tensor, "*axes bin"]) -> Float[Tensor, "*axes bin"]:
    """Returns the probability of surviving each bin."""
    return functional.logsigmoid(-logits).cumsum(dim=-1).exp()


def _mean_weights(logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
    return torch.full_like(logits, 1 / logits.shape[1])


def _event_days(time_days: Values, event: Values) -> Float[np.ndarray, " event"]:
    """Returns the event times, of which there must be one."""
    event_days = _float32(time_days)[np.asarray(event, dtype=bool)]
    if len(event_days) == 0:
        raise UnfittableObjectiveError(
            f"training patients must include at least one with an observed event. Found none among {len(time_days)}. "
            "Check that event is True where the event was observed, or use fewer folds."
        )
    return event_days


def _float32(values: Values) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)
