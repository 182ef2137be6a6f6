"""Objectives: the only place that knows what a task is. Models return logits, objectives interpret them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from subfuse.cohort.batches import ClassTarget, SurvivalTarget, Target
from subfuse.errors import DataError, preview
from subfuse.model.subspace_fusion import SubspaceFusionOutput
from subfuse.objective.losses import consistency_loss, cox_nll, discrete_hazard_nll

Consistency = Literal["positions", "offsets"]  # what of the sampling positions follows expression
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
    """

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """How many logits a model must return."""

    @property
    @abstractmethod
    def survival_days(self) -> tuple[float, ...]:
        """Days of the columns of `Prediction.survival`; empty where the objective gives no survival curve."""

    @abstractmethod
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

    @abstractmethod
    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns what the logits mean."""

    @abstractmethod
    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns each subspace's confidence on the batch from its own share of the logits (half of the bias each).

        Detached. NaN for all subspaces where it is undefined. With several processes, pass the patients of all.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Returns everything `objective_from_dict` needs, as JSON values."""


class ClassificationObjective(Objective):
    """Cross-entropy with class weights; also for ordered classes such as grade, which have no risk here.

    The loss of a batch is the mean weighted by the patients' class weights. A subspace's confidence is the sum over
    patients of the probability it gives to the true class.

    Relative to the paper: class weights are fitted on training patients instead of being constants.

    Args:
        classes: Names of the classes in the order of the logits.
        class_weights: One positive number per class; equal if None.
        consistency_weight: Weight of the gene-guided consistency loss.
        consistency_of: See `consistency_loss`.
    """

    class_weights: Float[Tensor, " output"]  # fitted

    def __init__(
        self,
        classes: Sequence[str],
        class_weights: Values | None = None,
        *,
        consistency_weight: float = 0.5,
        consistency_of: Consistency = "positions",
    ) -> None:
        super().__init__()
        weights = _float32(np.ones(len(classes)) if class_weights is None else class_weights)
        if len(classes) < 2 or weights.shape != (len(classes),) or not (weights > 0).all():
            raise ValueError(
                "classes must name at least two classes with one positive class weight each. "
                f"Found {len(classes)} classes ({preview(classes)}) with weights {weights.tolist()}."
            )
        self.classes = tuple(classes)
        self.consistency_weight = consistency_weight
        self.consistency_of = consistency_of
        self.register_buffer("class_weights", torch.from_numpy(weights))

    @classmethod
    def fit(
        cls,
        labels: Values,
        *,
        classes: Sequence[str],
        consistency_weight: float = 0.5,
        consistency_of: Consistency = "positions",
    ) -> "ClassificationObjective":
        """Returns the objective with weights inversely proportional to class frequency.

        Weights are patients / (classes × patients of the class): their mean over the training patients is 1. A class
        without a training patient is weighted as if it had one: it cannot be learnt.

        Args:
            labels: Class index of every training patient.
            classes: Names of the classes.
            consistency_weight: Weight of the gene-guided consistency loss.
            consistency_of: See `consistency_loss`.
        """
        count = np.bincount(np.asarray(labels, dtype=int), minlength=len(classes))
        if len(count) > len(classes) or count.sum() == 0:
            raise UnfittableObjectiveError(
                f"labels must be indices of the {len(classes)} classes {preview(classes)} of at least one training "
                f"patient. Found {count.sum()} labels up to {len(count) - 1}. Check the classes of the task."
            )
        weights = count.sum() / (len(classes) * np.maximum(count, 1))
        return cls(classes, weights, consistency_weight=consistency_weight, consistency_of=consistency_of)

    @property
    def n_outputs(self) -> int:
        """One logit per class."""
        return len(self.classes)

    @property
    def survival_days(self) -> tuple[float, ...]:
        """Empty."""
        return ()

    def forward(
        self, output: SubspaceFusionOutput, target: Target, *, paired: Bool[Tensor, " batch"] | None = None
    ) -> Loss:
        """Returns the weighted cross-entropy plus what the output adds; see `Objective.forward`."""
        _require_outputs(output, self.n_outputs)
        assert isinstance(target, ClassTarget)
        task = functional.cross_entropy(output.logits, target.label.long(), weight=self.class_weights)
        return _with_output_terms(task, output, paired, weight=self.consistency_weight, of=self.consistency_of)

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns class probabilities."""
        return Prediction(probabilities=logits.softmax(dim=-1))

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the summed probability of the true classes; see `Objective.confidence`."""
        assert isinstance(target, ClassTarget)
        probabilities = output.subspace_logits.detach().softmax(dim=-1)  # batch subspace output
        patients = torch.arange(len(target.label), device=target.label.device)
        return probabilities[patients, :, target.label.long()].sum(dim=0)

    def to_dict(self) -> dict[str, Any]:
        """Returns the classes, their weights and the settings."""
        return {
            "name": "classification",
            "classes": list(self.classes),
            "class_weights": self.class_weights.tolist(),
            "consistency_weight": self.consistency_weight,
            "consistency_of": self.consistency_of,
        }


class DiscreteHazardObjective(Objective):
    r"""Survival in time bins: logit :math:`k` gives the hazard :math:`h_k = \sigma(\text{logit}_k)` of bin :math:`k`.

    Survival beyond bin :math:`k` is :math:`S_k = \prod_{j \le k} (1 - h_j)`, the risk is :math:`-\sum_k S_k`. A
    subspace's confidence is the concordance (Harrell) of the risks from its own logits within the batch.

    Relative to the paper: bins are quantiles of the training patients' event times, not of everybody's follow-up.

    Args:
        bin_edges: Days at which a new bin begins, strictly increasing: bin k holds times in [edge k-1, edge k), the
            last bin everything later. n edges make n + 1 bins, i.e. logits.
        consistency_weight: Weight of the gene-guided consistency loss.
        consistency_of: See `consistency_loss`.
    """

    bin_edges: Float[Tensor, " edge"]  # fitted

    def __init__(
        self, bin_edges: Values, *, consistency_weight: float = 0.5, consistency_of: Consistency = "positions"
    ) -> None:
        super().__init__()
        edges = _float32(bin_edges)
        if edges.ndim != 1 or not np.isfinite(edges).all() or not (np.diff(edges, prepend=0.0) > 0).all():
            raise ValueError(f"bin_edges must be positive and strictly increasing days. Found {edges.tolist()}.")
        self.consistency_weight = consistency_weight
        self.consistency_of = consistency_of
        self.register_buffer("bin_edges", torch.from_numpy(edges))

    @classmethod
    def fit(
        cls,
        time_days: Values,
        event: Values,
        *,
        bins: int = 4,
        consistency_weight: float = 0.5,
        consistency_of: Consistency = "positions",
    ) -> "DiscreteHazardObjective":
        """Returns the objective with bins that hold about equally many of the training patients' events.

        Edges that would leave a bin without a training event, because of ties or few events, are dropped.

        Args:
            time_days: Days to event or last contact of every training patient.
            event: True where the event was observed.
            bins: Number of bins aimed at.
            consistency_weight: Weight of the gene-guided consistency loss.
            consistency_of: See `consistency_loss`.

        Raises:
            UnfittableObjectiveError: No training patient had an event.
        """
        event_days = _event_days(time_days, event)
        edges = np.quantile(event_days, np.arange(1, bins) / bins).astype(np.float32)
        occupied = np.isin(np.arange(bins - 1), np.searchsorted(edges, event_days, side="right"))
        return cls(edges[occupied], consistency_weight=consistency_weight, consistency_of=consistency_of)

    @property
    def n_outputs(self) -> int:
        """One logit per bin."""
        return len(self.bin_edges) + 1

    @property
    def survival_days(self) -> tuple[float, ...]:
        """The bin edges: survival beyond bin k is survival to edge k. The last bin is open and has no day."""
        return tuple(self.bin_edges.tolist())

    def forward(
        self, output: SubspaceFusionOutput, target: Target, *, paired: Bool[Tensor, " batch"] | None = None
    ) -> Loss:
        """Returns the mean negative log-likelihood plus what the output adds; see `Objective.forward`."""
        _require_outputs(output, self.n_outputs)
        assert isinstance(target, SurvivalTarget)
        bin_index = torch.bucketize(target.time_days.to(self.bin_edges), self.bin_edges, right=True)
        task = discrete_hazard_nll(output.logits, bin_index, target.event).mean()
        return _with_output_terms(task, output, paired, weight=self.consistency_weight, of=self.consistency_of)

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns risk and the survival probability at `survival_days`."""
        survival = _survival(logits)
        return Prediction(risk=-survival.sum(dim=-1), survival=survival[:, :-1])

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the concordance of each subspace's risk; see `Objective.confidence`."""
        assert isinstance(target, SurvivalTarget)
        risk = -_survival(output.subspace_logits.detach()).sum(dim=-1)
        return concordance(risk, target)

    def to_dict(self) -> dict[str, Any]:
        """Returns the bin edges and the settings."""
        return {
            "name": "discrete_hazard",
            "bin_edges": self.bin_edges.tolist(),
            "consistency_weight": self.consistency_weight,
            "consistency_of": self.consistency_of,
        }


class CoxObjective(Objective):
    """Survival with proportional hazards: the single logit is the log hazard ratio and the risk.

    The loss compares the patients of a batch, so batches should hold several events; one without events has loss 0. A
    subspace's confidence is the concordance (Harrell) of its own log hazards within the batch.

    Relative to the paper: an alternative to its discrete hazards.

    Args:
        consistency_weight: Weight of the gene-guided consistency loss.
        consistency_of: See `consistency_loss`.
    """

    def __init__(self, *, consistency_weight: float = 0.5, consistency_of: Consistency = "positions") -> None:
        super().__init__()
        self.consistency_weight = consistency_weight
        self.consistency_of = consistency_of

    @classmethod
    def fit(
        cls,
        time_days: Values,
        event: Values,
        *,
        consistency_weight: float = 0.5,
        consistency_of: Consistency = "positions",
    ) -> "CoxObjective":
        """Returns the objective after checking that somebody had an event; nothing else is fitted.

        Raises:
            UnfittableObjectiveError: No training patient had an event.
        """
        _event_days(time_days, event)
        return cls(consistency_weight=consistency_weight, consistency_of=consistency_of)

    @property
    def n_outputs(self) -> int:
        """One."""
        return 1

    @property
    def survival_days(self) -> tuple[float, ...]:
        """Empty: the baseline hazard is not estimated."""
        return ()

    def forward(
        self, output: SubspaceFusionOutput, target: Target, *, paired: Bool[Tensor, " batch"] | None = None
    ) -> Loss:
        """Returns the negative partial log-likelihood per event plus what the output adds; see `Objective.forward`."""
        _require_outputs(output, self.n_outputs)
        assert isinstance(target, SurvivalTarget)
        task = cox_nll(output.logits[:, 0], target.time_days, target.event)
        return _with_output_terms(task, output, paired, weight=self.consistency_weight, of=self.consistency_of)

    def predict(self, logits: Float[Tensor, "batch output"]) -> Prediction:
        """Returns the log hazard as risk."""
        return Prediction(risk=logits[:, 0])

    def confidence(self, output: SubspaceFusionOutput, target: Target) -> Float[Tensor, " subspace"]:
        """Returns the concordance of each subspace's log hazard; see `Objective.confidence`."""
        assert isinstance(target, SurvivalTarget)
        return concordance(output.subspace_logits.detach()[..., 0], target)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings."""
        return {
            "name": "cox",
            "consistency_weight": self.consistency_weight,
            "consistency_of": self.consistency_of,
        }


OBJECTIVES: dict[str, type[Objective]] = {
    "classification": ClassificationObjective,
    "discrete_hazard": DiscreteHazardObjective,
    "cox": CoxObjective,
}


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
    return OBJECTIVES[name](**settings)


def concordance(risk: Float[Tensor, "batch subspace"], target: SurvivalTarget) -> Float[Tensor, " subspace"]:
    """Returns the share of comparable pairs of patients that each subspace ranks correctly (Harrell 1982).

    A pair is comparable if the earlier time is an event, or if at equal times exactly one is an event (the other lived
    longer). Equal risks count one half. NaN where no pair is comparable.

    Args:
        risk: Higher is worse. Does not accept survival times or probabilities.
        target: Follow-up of the same patients.

    Example:
        >>> target = SurvivalTarget(torch.tensor([1.0, 2.0]), torch.tensor([True, False]))
        >>> concordance(torch.tensor([[0.9, 0.1], [0.2, 0.5]]), target)
        tensor([1., 0.])
    """
    time, event = target.time_days, target.event
    outlives = (time[None, :] > time[:, None]) | ((time[None, :] == time[:, None]) & ~event[None, :])
    comparable = (event[:, None] & outlives)[..., None]  # batch batch 1: the first died, the second lived longer
    difference = risk[:, None, :] - risk[None, :, :]
    correct = (difference > 0).to(risk.dtype) + 0.5 * (difference == 0).to(risk.dtype)
    return (correct * comparable).sum(dim=(0, 1)) / comparable.sum(dim=(0, 1))


def _survival(logits: Float[Tensor, "*axes bin"]) -> Float[Tensor, "*axes bin"]:
    """Returns the probability of surviving each bin."""
    return functional.logsigmoid(-logits).cumsum(dim=-1).exp()


def _with_output_terms(
    task: Float[Tensor, ""],
    output: SubspaceFusionOutput,
    paired: Bool[Tensor, " batch"] | None,
    *,
    weight: float,
    of: Consistency,
) -> Loss:
    """Returns the task loss plus the weighted sum of the subspaces' consistency losses and the model's alignment."""
    if paired is None:
        paired = torch.ones(len(output.logits), dtype=torch.bool, device=output.logits.device)
    total, terms = task, {"task": task.detach()}
    if output.sampling_grid is not None:
        consistency = torch.zeros_like(task)
        expression_embedding, sampling_grid = output.expression_embedding[paired], output.sampling_grid[paired]
        if len(sampling_grid) >= 2:
            for subspace in range(sampling_grid.shape[1]):
                consistency = consistency + consistency_loss(
                    expression_embedding[:, subspace], sampling_grid[:, subspace], of=of
                )
        total, terms["consistency"] = total + weight * consistency, consistency.detach()
    if output.alignment is not None:
        alignment = output.alignment[paired].sum() / paired.sum().clamp(min=1)
        total, terms["alignment"] = total + alignment, alignment.detach()
    return Loss(total=total, terms=terms)


def _require_outputs(output: SubspaceFusionOutput, n_outputs: int) -> None:
    if output.logits.shape[1] != n_outputs:
        raise ValueError(
            f"logits must have {n_outputs} columns for this objective. Found {output.logits.shape[1]}. "
            "Build the model with n_outputs=objective.n_outputs."
        )


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
