"""Padded batches of bags and their outcomes, as tensors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from subfuse.cohort.bags import Bag, BagReader
from subfuse.cohort.cohort import Patient
from subfuse.cohort.task import TaskSpec


@dataclass(frozen=True)
class SurvivalTarget:
    """Follow-up of the patients of a batch."""

    time_days: Float[Tensor, " batch"]
    event: Bool[Tensor, " batch"]  # True where the event was observed

    def to(self, device: torch.device) -> "SurvivalTarget":
        """Returns the target on a device."""
        return SurvivalTarget(self.time_days.to(device), self.event.to(device))


@dataclass(frozen=True)
class ClassTarget:
    """Class index of the patients of a batch."""

    label: Int[Tensor, " batch"]

    def to(self, device: torch.device) -> "ClassTarget":
        """Returns the target on a device."""
        return ClassTarget(self.label.to(device))


Target = SurvivalTarget | ClassTarget


@dataclass(frozen=True)
class BagBatch:
    """Bags padded to the longest. A missing modality is False in a mask, never a value."""

    patient_id: tuple[str, ...]
    patches: Float[Tensor, "batch patch feature"]  # padded with zeros
    coords: Float[Tensor, "batch patch 2"]  # patch centres in µm, (x, y)
    patch_mask: Bool[Tensor, "batch patch"]  # True where a patch is real
    expression: Float[Tensor, "batch gene"]  # standardised genes, then covariates; zeros where not measured
    expression_mask: Bool[Tensor, " batch"]  # False where expression was not measured
    target: Target | None

    def inputs(self) -> dict[str, Tensor]:
        """Returns what a model's `forward` takes, by name."""
        return {
            "patches": self.patches,
            "coords": self.coords,
            "patch_mask": self.patch_mask,
            "expression": self.expression,
            "expression_mask": self.expression_mask,
        }

    def to(self, device: torch.device) -> "BagBatch":
        """Returns the batch on a device."""
        target = None if self.target is None else self.target.to(device)
        moved = {name: tensor.to(device) for name, tensor in self.inputs().items()}
        return BagBatch(patient_id=self.patient_id, target=target, **moved)


def make_target(patients: Sequence[Patient], task: TaskSpec, classes: Sequence[str]) -> Target:
    """Returns the target of patients whose outcome is known; a label outside `classes` is a ValueError."""
    if task.is_survival:
        return SurvivalTarget(
            torch.tensor([p.time_days for p in patients], dtype=torch.float32),
            torch.tensor([p.event for p in patients], dtype=torch.bool),
        )
    index = {name: i for i, name in enumerate(classes)}
    labels = [patient.labels[task.label_column] for patient in patients]
    unknown = set(labels) - index.keys()
    if unknown:
        raise ValueError(f"labels of {task.column!r} must be among {list(classes)}. Found: {sorted(unknown)}.")
    return ClassTarget(torch.tensor([index[label] for label in labels], dtype=torch.long))


def collate(bags: Sequence[Bag], *, n_inputs: int, target: Target | None = None) -> BagBatch:
    """Returns a batch padded to its longest bag; what is missing is masked.

    Args:
        bags: At least one.
        n_inputs: Genes and covariates that the model reads.
        target: Of the patients.
    """
    n_patches = max(len(bag.patches) for bag in bags)
    patches = torch.zeros(len(bags), n_patches, bags[0].patches.shape[1])
    coords = torch.zeros(len(bags), n_patches, 2)
    patch_mask = torch.zeros(len(bags), n_patches, dtype=torch.bool)
    expression = torch.zeros(len(bags), n_inputs)
    for i, bag in enumerate(bags):
        n = len(bag.patches)
        patches[i, :n], coords[i, :n] = torch.from_numpy(bag.patches), torch.from_numpy(bag.coords)
        patch_mask[i, :n] = True
        if bag.expression is not None:
            expression[i] = torch.from_numpy(bag.expression)
    expression_mask = torch.tensor([bag.expression is not None for bag in bags])
    ids = tuple(bag.patient_id for bag in bags)
    return BagBatch(ids, patches, coords, patch_mask, expression, expression_mask, target)


def draw_batches(
    patients: Sequence[Patient],
    reader: BagReader,
    *,
    batch_size: int,
    n_inputs: int,
    task: TaskSpec | None = None,
    classes: Sequence[str] = (),
) -> Iterator[BagBatch]:
    """Yields batches in the given order; with a task every patient's outcome must be known."""
    for start in range(0, len(patients), batch_size):
        chunk = patients[start : start + batch_size]
        target = None if task is None else make_target(chunk, task, classes)
        yield collate([reader.read(patient) for patient in chunk], n_inputs=n_inputs, target=target)
