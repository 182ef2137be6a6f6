"""What a teacher says of patients, and how far a student is from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from subfuse.cohort.batches import moved
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.objective import Loss, Objective

_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class TermWeights:
    """How much each term of the teacher counts beside the loss of the task, and how soft its classes are.

    By default predictions alone count: of the choices that `benchmarks/distillation.py` compares, they did best on
    inner splits, and embeddings worst.
    """

    prediction: float = 1.0  # of the distance between predictions
    embedding: float = 0.0  # of that between the subspaces' embeddings, in units of the teacher's variance
    positions: float = 0.0  # of that between sampling positions, in squared grid units
    temperature: float = 2.0  # of the classes


DEFAULT_WEIGHTS = TermWeights()


@dataclass(frozen=True)
class Lesson:
    """What a teacher that saw slides and expression says of the patients of a batch; zeros of those it did not see."""

    is_taught: Bool[Tensor, " batch"]
    logits: Float[Tensor, "batch output"]
    embedding: Float[Tensor, "batch subspace embed"]
    spread: Float[Tensor, "batch subspace"]  # root of the variance of the teacher's embeddings, over its patients
    sampling_grid: Float[Tensor, "batch subspace group point 2"]
    weights: TermWeights = DEFAULT_WEIGHTS

    def to(self, device: torch.device) -> "Lesson":
        """Returns the lesson on a device."""
        there: dict[str, Any] = {name: moved(value, device) for name, value in self.tensors().items()}
        return replace(self, **there)

    def tensors(self) -> dict[str, Tensor]:
        """Returns what is said, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def distances(self, objective: Objective, output: SubspaceFusionOutput) -> dict[str, Float[Tensor, " batch"]]:
        """Returns how far a student is from the teacher, per patient; each at least 0, and 0 where they agree.

        `prediction`: see `Objective.distance`. `embedding`: mean squared difference of the subspaces' embeddings,
        divided by the teacher's variance: 1 for a student that gives everybody the mean of the teacher's embeddings.
        `positions`: mean squared distance of the sampling positions, in grid units.

        Args:
            objective: Of both.
            output: Of the student; logits with what a linear path adds.
        """
        assert output.sampling_grid is not None
        spread = self.spread.clamp(min=_LEAST_SPREAD)[..., None]
        apart = (output.embedding - self.embedding) / spread
        moved_by = output.sampling_grid - self.sampling_grid
        return {
            "prediction": objective.distance(output.logits, self.logits, temperature=self.weights.temperature),
            "embedding": apart.square().flatten(1).mean(dim=1),
            "positions": moved_by.square().sum(dim=-1).flatten(1).mean(dim=1),
        }

    def added_to(self, loss: Loss, objective: Objective, output: SubspaceFusionOutput) -> Loss:
        """Returns the loss of the task with the teacher's terms, which are sums over taught patients per patient.

        So each patient counts alike, whatever batch it is in; the others have the loss of the task alone.
        """
        total, terms = loss.total, dict(loss.terms)
        for name, distance in self.distances(objective, output).items():
            term = torch.where(self.is_taught, distance, 0.0).mean()
            total, terms[f"teacher_{name}"] = total + getattr(self.weights, name) * term, term.detach()
        return Loss(total, terms)


@dataclass(frozen=True)
class Lessons:
    """What one network is taught: the lessons of single patients, by identifier."""

    of_patient: Mapping[str, Lesson]  # at least one

    def of(self, patients: Sequence[str]) -> Lesson:
        """Returns the lesson of patients of a batch, of whom some may not be taught."""
        example = next(iter(self.of_patient.values()))
        nothing = {name: torch.zeros_like(value) for name, value in example.tensors().items()}
        rows = [self.of_patient[patient].tensors() if patient in self.of_patient else nothing for patient in patients]
        joined: dict[str, Any] = {name: torch.cat([row[name] for row in rows]) for name in nothing}
        return replace(example, **joined)
