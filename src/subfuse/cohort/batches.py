"""Padded batches of bags and their outcomes, as tensors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from subfuse.cohort.bags import Bag, BagCells, BagReader, InputStandardiser
from subfuse.cohort.cohort import Patient
from subfuse.cohort.task import TaskSpec
from subfuse.features.scratch import Scratch
from subfuse.model.baselines.pooling import patch_summary
from subfuse.model.patch_grid import BinnedBags, bin_patches


@dataclass(frozen=True)
class SurvivalTarget:
    """Follow-up of the patients of a batch."""

    time_days: Float[Tensor, " batch"]
    event: Bool[Tensor, " batch"]  # True where the event was observed

    def to(self, device: torch.device) -> "SurvivalTarget":
        """Returns the target on a device."""
        return SurvivalTarget(moved(self.time_days, device), moved(self.event, device))


@dataclass(frozen=True)
class ClassTarget:
    """Class index of the patients of a batch."""

    label: Int[Tensor, " batch"]

    def to(self, device: torch.device) -> "ClassTarget":
        """Returns the target on a device."""
        return type(self)(moved(self.label, device))


@dataclass(frozen=True)
class OrderedTarget(ClassTarget):
    """Class index of the patients of a batch, of a task that is trained by the order of its classes."""


@dataclass(frozen=True)
class NumberTarget:
    """Measured number of the patients of a batch."""

    value: Float[Tensor, " batch"]

    def to(self, device: torch.device) -> "NumberTarget":
        """Returns the target on a device."""
        return NumberTarget(moved(self.value, device))


Target = SurvivalTarget | ClassTarget | NumberTarget


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor on a device; a GPU copies it while the processor goes on, from memory that stays in place."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


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
    binned: BinnedBags | None = None  # where patches are the means of cells, see `BinnedReader`

    def inputs(self) -> dict[str, Any]:
        """Returns what a model's `forward` takes, by name."""
        return {
            "patches": self.patches,
            "coords": self.coords,
            "patch_mask": self.patch_mask,
            "expression": self.expression,
            "expression_mask": self.expression_mask,
            **({} if self.binned is None else {"binned": self.binned}),
        }

    def to(self, device: torch.device) -> "BagBatch":
        """Returns the batch on a device."""
        target = None if self.target is None else self.target.to(device)
        return self._changed(partial(moved, device=device), target)

    def pinned(self) -> "BagBatch":
        """Returns the batch with its inputs in memory that a GPU copies from while the processor goes on."""
        return self._changed(Tensor.pin_memory, self.target)

    def _changed(self, changed: Callable[[Tensor], Tensor], target: Target | None) -> "BagBatch":
        tensors = {name: changed(value) for name, value in self.inputs().items() if name != "binned"}
        known = self.binned
        binned = None if known is None else BinnedBags(changed(known.cell), changed(known.summary))
        return BagBatch(patient_id=self.patient_id, target=target, binned=binned, **tensors)


def make_target(patients: Sequence[Patient], task: TaskSpec, classes: Sequence[str]) -> Target:
    """Returns the target of patients whose outcome is known; a label outside `classes` is a ValueError."""
    if task.is_survival:
        time_days, event = zip(*(patient.outcome(task) for patient in patients), strict=True)
        return SurvivalTarget(torch.tensor(time_days, dtype=torch.float32), torch.tensor(event, dtype=torch.bool))
    if task.is_regression:
        return NumberTarget(torch.tensor([patient.outcome(task)[0] for patient in patients], dtype=torch.float32))
    index = {name: i for i, name in enumerate(classes)}
    labels = [patient.labels[task.label_column] for patient in patients]
    unknown = set(labels) - index.keys()
    if unknown:
        raise ValueError(f"labels of {task.column!r} must be among {list(classes)}. Found: {sorted(unknown)}.")
    kind = OrderedTarget if task.is_trained_by_order else ClassTarget
    return kind(torch.tensor([index[label] for label in labels], dtype=torch.long))


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
    return BagBatch(ids, patches, coords, patch_mask, expression, expression_mask, target, _binned(bags, n_patches))


def _binned(bags: Sequence[Bag], n_patches: int) -> BinnedBags | None:
    cells = [bag.cells for bag in bags if bag.cells is not None]
    if not cells:
        return None
    cell = torch.zeros(len(bags), n_patches, dtype=torch.long)
    for i, known in enumerate(cells):
        cell[i, : len(known.cell)] = torch.from_numpy(known.cell)
    return BinnedBags(cell, torch.from_numpy(np.stack([known.summary for known in cells])))


@dataclass(frozen=True)
class BinnedReader:
    """Bags whose patches are replaced by the means of the cells of a grid: all that the spatial layout sees of them.

    A slide is read once: what is kept of a bag is a few thousand cells, however many patches there are.

    Args:
        bags: Reads all patches.
        grid: Of the network, in cells.
        kept: Where bags are kept; None: they are not.
    """

    bags: BagReader
    grid: tuple[int, int]
    kept: "KeptBags | None" = None

    @property
    def standardiser(self) -> InputStandardiser:
        """What bags are standardised by."""
        return self.bags.standardiser

    def read(self, patient: Patient) -> Bag:
        """Returns the binned bag of one patient."""
        if self.kept is None:
            return self._binned(patient)
        if patient.patient_id not in self.kept:
            self.kept.add(self._binned(patient))
        return self.kept[patient.patient_id]

    def _binned(self, patient: Patient) -> Bag:
        bag = self.bags.read(patient)
        patches, coords = torch.from_numpy(bag.patches), torch.from_numpy(bag.coords)
        summary = patch_summary(patches[None], torch.ones(1, len(patches), dtype=torch.bool))[0].numpy()
        if not len(patches):
            return replace(bag, cells=BagCells(np.zeros(0, np.int64), summary))
        means, places, cell = (tensor.numpy() for tensor in bin_patches(patches, coords, self.grid))
        return replace(bag, patches=means, coords=places, cells=BagCells(cell, summary))


@dataclass(frozen=True)
class KeptBags:
    """Binned bags by patient, their patches within a budget of memory and beyond it in a scratch file."""

    patches: Scratch = field(default_factory=Scratch)
    _bags: dict[str, tuple[Callable[..., Bag], int]] = field(default_factory=dict)  # without and of the patches

    def __contains__(self, patient_id: str) -> bool:
        return patient_id in self._bags

    def __getitem__(self, patient_id: str) -> Bag:
        bag, number = self._bags[patient_id]
        return bag(patches=self.patches.read(number))

    def add(self, bag: Bag) -> None:
        """Keeps a bag."""
        others = partial(Bag, bag.patient_id, coords=bag.coords, expression=bag.expression, cells=bag.cells)
        self._bags[bag.patient_id] = others, self.patches.keep(bag.patches)


def draw_batches(
    patients: Sequence[Patient],
    reader: "BagReader | BinnedReader",
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
