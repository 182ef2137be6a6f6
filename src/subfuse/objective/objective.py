"""What an objective is: the only thing that knows what a task is. Models return logits, objectives interpret them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.cohort.batches import Target
from subfuse.errors import DataError
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.losses import Consistency

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
    value: Float[Tensor, " batch"] | None = None  # of regression, in the unit of what was measured
    survival: Float[Tensor, "batch day"] | None = None  # probability of no event before each of `survival_days`

    def change(self, other: "Prediction") -> Float[Tensor, " batch"]:
        """Returns how far another prediction of the same patients is.

        Of classes the probability that is moved from some to others, 0 to 1; of survival the mean difference over its
        days, 0 to 1; of a number the distance in its unit. NaN of a risk alone, whose size has no meaning.
        """
        if self.probabilities is not None and other.probabilities is not None:
            return (self.probabilities - other.probabilities).abs().sum(dim=1) / 2
        if self.value is not None and other.value is not None:
            return (self.value - other.value).abs()
        if self.survival is not None and other.survival is not None:
            return (self.survival - other.survival).abs().mean(dim=1)
        assert self.risk is not None
        return torch.full_like(self.risk, torch.nan)


class Objective(nn.Module, ABC):
    """The loss of a task, the meaning of its logits, and the confidence of subspaces.

    Fitted values live in buffers, so they follow `.to(device)`; `to_dict` describes the objective completely.

    Args:
        consistency: The gene-guided consistency loss that is added where a model samples positions.
    """

    name: ClassVar[str]  # in files
    predicts: ClassVar[Literal["survival", "classes", "regression"]]
    ranking_metric: ClassVar[str]  # what `ranking` returns
    classes: tuple[str, ...] = ()  # names in the order of the logits; empty for survival and regression

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
        """Returns each subspace's confidence on the batch from its own share of the logits (the bias in equal parts).

        Detached. NaN for all subspaces where it is undefined. With several processes, pass the patients of all.
        """

    @abstractmethod
    def ranking(self, logits: Float[Tensor, "batch output"], target: Target) -> float:
        """Returns how well the predictions rank the patients, at most 1; NaN where that is undefined."""

    @abstractmethod
    def distance(
        self,
        logits: Float[Tensor, "batch output"],
        taught: Float[Tensor, "batch output"],
        *,
        temperature: float = 1.0,
    ) -> Float[Tensor, " batch"]:
        """Returns how far each patient's prediction is from what a teacher says: at least 0, and 0 where they agree.

        Args:
            logits: Of the student.
            taught: Of the teacher.
            temperature: Of classes; both predictions are softened by it.

        Raises:
            ConfigurationError: Single patients' logits mean nothing for the objective.
        """

    @abstractmethod
    def score_weights(self, logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
        """Returns the weights that turn logits into the explained score.

        A score that is linear in the logits is shared exactly among subspaces.
        """

    @abstractmethod
    def explained(self, logits: Float[Tensor, " output"]) -> str:
        """Returns what of one patient's prediction the score stands for: `risk`, `predicted_value` or a class."""

    def as_logits(self, target: Target) -> Target:
        """Returns the outcome as linear models are fitted to it: on the scale of logits where it is a number."""
        return target

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
            both = paired.nonzero().flatten()
            consistency = self.consistency(output.expression_embedding[both], output.sampling_grid[both])
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


def mean_weights(logits: Float[Tensor, "batch output"]) -> Float[Tensor, "batch output"]:
    """Returns the weights of the mean logit."""
    return torch.full_like(logits, 1 / logits.shape[1])
