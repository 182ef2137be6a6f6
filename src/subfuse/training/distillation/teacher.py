"""What a trained model of slides and expression teaches one of slides alone."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from subfuse.cohort.bags import BagReader
from subfuse.cohort.batches import BagBatch, BinnedReader, draw_batches
from subfuse.cohort.cohort import Patient
from subfuse.errors import DataError, preview
from subfuse.model.linear_path import networks_of
from subfuse.model.output import SubspaceFusionOutput
from subfuse.training.distillation.lessons import DEFAULT_WEIGHTS, Lesson, Lessons, TermWeights
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import ModelRecipe
from subfuse.training.problem import Problem

_BATCH = 8


@dataclass(frozen=True)
class Teacher:
    """A model of the same fold and task, whose lessons are weighted against the loss of the task."""

    fitted: FittedModel
    weights: TermWeights = DEFAULT_WEIGHTS

    def describe(self) -> dict[str, str | dict[str, float]]:
        """Returns which weights it has and how much it counts, as JSON."""
        return {"teacher_sha256": self.fitted.arrays_sha256(), "teacher_weights": asdict(self.weights)}

    def teach(self, problem: Problem) -> Problem:
        """Returns the problem of a student with what it is taught."""
        return replace(problem, lessons=self.lessons(problem.parts.train, problem.recipe))

    def lessons(self, patients: Sequence[Patient], recipe: ModelRecipe) -> tuple[Lessons, ...]:
        """Returns what is taught of those who have slides and expression, for every network of a student.

        All networks are to predict what the teacher as a whole does. Each has the embeddings and positions of one of
        its networks.

        Args:
            patients: On whom teacher and student were or are trained.
            recipe: Of the student.

        Raises:
            DataError: Student and teacher differ in what must be alike, or nobody has both.
        """
        self._check_recipe(recipe)
        both = [patient for patient in patients if patient.slides and patient.expression is not None]
        if not both or self.fitted.standardiser.expression is None:
            raise DataError(
                f"{recipe.name} needs training patients with slides and expression, whom its teacher saw. Found none "
                f"of {len(patients)}. Train subspace-slides instead, which has no teacher."
            )
        networks = networks_of(self.fitted.model)[: recipe.members]
        logits, outputs = list[Tensor](), [list[SubspaceFusionOutput]() for _ in networks]
        with torch.no_grad():
            for batch in self._batches(both):
                logits.append(self.fitted.model(**batch.inputs()).logits.cpu())
                for found, network in zip(outputs, networks, strict=True):
                    found.append(network(**batch.inputs()).cpu())
        names = [patient.patient_id for patient in both]
        return tuple(self._by_patient(names, torch.cat(logits), found) for found in outputs)

    def _by_patient(
        self, names: Sequence[str], logits: Float[Tensor, "patient output"], outputs: Sequence[SubspaceFusionOutput]
    ) -> Lessons:
        """Returns what one network teaches of single patients, given the logits of the whole teacher."""
        embedding = torch.cat([output.embedding for output in outputs])
        grid = torch.cat([output.sampling_grid for output in outputs if output.sampling_grid is not None])
        spread = embedding.var(dim=0, correction=0).mean(dim=1).sqrt()
        is_taught = torch.ones(1, dtype=torch.bool)
        rows = zip(names, logits.split(1), embedding.split(1), grid.split(1), strict=True)
        return Lessons(
            {
                name: Lesson(is_taught, said, place, spread[None], positions, self.weights)
                for name, said, place, positions in rows
            }
        )

    def _batches(self, patients: Sequence[Patient]) -> Iterable[BagBatch]:
        reader = BinnedReader(BagReader(self.fitted.standardiser), self.fitted.recipe.grid)
        drawn = draw_batches(patients, reader, batch_size=_BATCH, n_inputs=self.fitted.recipe.n_inputs)
        return (batch.to(self.fitted.device) for batch in drawn)

    def _check_recipe(self, recipe: ModelRecipe) -> None:
        own, other = _comparable(self.fitted.recipe), _comparable(recipe)
        differing = [name for name, value in own.items() if value != other[name]]
        if differing or self.fitted.recipe.members < recipe.members:
            raise DataError(
                f"{recipe.name} needs a teacher like itself. Found one that differs in "
                f"{preview(differing or ['members'])}. Train {self.fitted.recipe.name} again with the same settings."
            )


def _comparable(recipe: ModelRecipe) -> dict[str, Any]:
    """Returns what must be alike in teacher and student for their outputs to be compared."""
    return {
        "outputs": recipe.n_outputs,
        "subspaces": recipe.network_subspaces,
        "grid": (recipe.grid, recipe.downsample),
        "embed_dim": recipe.architecture.embed_dim,
    }
