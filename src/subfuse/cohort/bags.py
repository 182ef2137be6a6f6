"""Bags: the patches and the expression of one patient, and padded batches of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from subfuse.cohort.cohort import Patient
from subfuse.cohort.covariates import CovariateCoding
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.expression.reading import ExpressionStandardiser
from subfuse.features.store import SlideFeatures, read_features

SLIDE_GAP_PATCHES = 4  # empty patch widths between the slides of a patient


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
class Bag:
    """All patches of one patient, slides side by side, and the standardised expression and covariates."""

    patient_id: str
    patches: Float[np.ndarray, "patch feature"]  # no rows if the patient has no slide
    coords: Float[np.ndarray, "patch 2"]  # patch centres in µm, (x, y); slides stand side by side
    expression: Float[np.ndarray, " gene"] | None  # genes, then covariates; see `InputStandardiser.profile`


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


@dataclass(frozen=True)
class InputStandardiser:
    """Centres and scales both inputs by their training patients, so that zero means average."""

    expression: ExpressionStandardiser | None  # None: no training patient has expression
    patch_mean: Float[np.ndarray, " feature"] | None  # None: no training patient has slides
    patch_scale: Float[np.ndarray, " feature"] | None
    covariates: CovariateCoding | None = None  # None: there are none, or none that is read

    @classmethod
    def fit(
        cls,
        patients: Sequence[Patient],
        genes: Sequence[str],
        features: "FeatureCache",
        covariates: Sequence[str] = (),
    ) -> "InputStandardiser":
        """Fits on training patients; patches are read slide by slide, so memory does not grow with the cohort."""
        expression, coding = fit_profile(patients, genes, covariates)
        count, total, squares = 0, np.zeros(()), np.zeros(())
        for path in (path for patient in patients for path in patient.slides):
            values = features.read(path).features.astype(np.float64)
            count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
        if not count:
            return cls(expression, None, None, coding)
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        scale = np.where(deviation > 1e-6, deviation, 1.0)
        return cls(expression, mean.astype(np.float32), scale.astype(np.float32), coding)

    def has_profile(self, patient: Patient) -> bool:
        """True if `profile` returns one."""
        if self.expression is not None:
            return patient.expression is not None
        return self.covariates is not None and bool(np.isfinite(self.covariates.encode(patient.covariates)).any())

    def profile(self, patient: Patient) -> Float[np.ndarray, " gene"] | None:
        """Returns the standardised expression, then the covariates: the one place where they are joined.

        None without expression; for a model that reads no gene, None where no covariate is known.
        """
        if not self.has_profile(patient):
            return None
        parts = []
        if self.expression is not None and patient.expression is not None:
            parts.append(self.expression.transform(patient.expression))
        if self.covariates is not None:
            parts.append(self.covariates.transform(patient.covariates))
        return np.concatenate(parts)


def fit_profile(
    patients: Sequence[Patient], genes: Sequence[str], covariates: Sequence[str]
) -> tuple[ExpressionStandardiser | None, CovariateCoding | None]:
    """Returns what is fitted of expression and covariates on the training patients whose profile a model sees.

    These are the patients with expression; where no gene is read, those with a known covariate.
    """
    seen = [patient for patient in patients if reads_profile(patient, genes)]
    if not seen:
        return None, None
    measured = [patient.expression for patient in seen if patient.expression is not None]
    expression = ExpressionStandardiser.fit(np.stack(measured), tuple(genes)) if genes else None
    coding = CovariateCoding.fit(covariates, [patient.covariates for patient in seen]) if covariates else None
    return expression, coding


def reads_profile(patient: Patient, genes: Sequence[str]) -> bool:
    """True if a model of these genes has something to read beside slides: expression, or without genes a covariate."""
    return patient.expression is not None if genes else bool(patient.covariates)


@dataclass(frozen=True)
class FeatureCache:
    """Slide features kept in memory up to a limit; beyond it they are read from disk each time.

    The content of every file is verified once, when it is read first.
    """

    limit_bytes: int = 1 << 30
    _kept: dict[Path, SlideFeatures] = field(default_factory=dict)
    _width_of: dict[Path, int] = field(default_factory=dict)  # of every file that was verified

    def read(self, path: Path) -> SlideFeatures:
        """Returns the features of one slide.

        Raises:
            DataError: The file is damaged, changed since it was written, or has another number of features than the
                first one that was read.
        """
        if path in self._kept:
            return self._kept[path]
        slide = read_features(path, verify=path not in self._width_of)
        self._width_of[path] = slide.features.shape[1]
        first, n_features = next(iter(self._width_of.items()))
        if slide.features.shape[1] != n_features:
            raise DataError(
                f"{path}: {n_features} features per patch are required, as in {first}. "
                f"Found {slide.features.shape[1]}. Run `subfuse prepare` again into a new folder."
            )
        if sum(kept.features.nbytes for kept in self._kept.values()) + slide.features.nbytes <= self.limit_bytes:
            self._kept[path] = slide
        return slide


@dataclass(frozen=True)
class BagReader:
    """Draws bags of patients with both inputs standardised."""

    standardiser: InputStandardiser
    features: FeatureCache = field(default_factory=FeatureCache)

    def read(self, patient: Patient) -> Bag:
        """Returns the bag of one patient.

        Slides stand side by side, four patch widths apart, so that patches of different slides never become
        neighbours. Slides are left out when no training patient had any, expression and covariates likewise.
        """
        scaler = self.standardiser
        has_patches = scaler.patch_mean is not None and scaler.patch_scale is not None
        slides = [self.features.read(path) for path in patient.slides] if has_patches else []
        expression = scaler.profile(patient)
        if not slides:
            n_features = 1 if scaler.patch_mean is None else len(scaler.patch_mean)  # a model needs one feature
            return Bag(patient.patient_id, np.zeros((0, n_features), np.float32), _no_coords(), expression)
        patches = np.concatenate([slide.features for slide in slides]).astype(np.float32)
        assert scaler.patch_mean is not None
        patches = (patches - scaler.patch_mean) / scaler.patch_scale
        return Bag(patient.patient_id, patches, side_by_side(slides), expression)


def _no_coords() -> Float[np.ndarray, "patch 2"]:
    return np.zeros((0, 2), np.float32)


def side_by_side(slides: Sequence[SlideFeatures]) -> Float[np.ndarray, "patch 2"]:
    """Returns patch centres in µm with the slides placed left to right, aligned at the top."""
    placed, left = [], 0.0
    for slide in slides:
        centres = slide.centres_um - slide.centres_um.min(axis=0)
        placed.append(centres + np.array([left, 0.0], centres.dtype))
        pitch = slide.patch_size_level0 * slide.level0_mpp
        left += float(centres[:, 0].max()) + (SLIDE_GAP_PATCHES + 1) * pitch
    return np.concatenate(placed).astype(np.float32)


def has_outcome(patient: Patient, task: TaskSpec) -> bool:
    """True if the patient's outcome for this task is known."""
    if task.is_survival:
        return patient.time_days is not None and patient.event is not None
    return task.label_column in patient.labels


def class_names(patients: Sequence[Patient], task: TaskSpec) -> tuple[str, ...]:
    """Returns the classes of a classification task: as declared, else every label that occurs, sorted."""
    return task.classes or tuple(sorted({p.labels[task.label_column] for p in patients if has_outcome(p, task)}))


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


def collate(bags: Sequence[Bag], *, n_genes: int, target: Target | None = None) -> BagBatch:
    """Returns a batch padded to the longest bag, of no patches if nobody has a slide; what is missing is masked.

    Args:
        bags: At least one.
        n_genes: Genes and covariates that the model reads.
        target: Of the patients.
    """
    n_patches = max(len(bag.patches) for bag in bags)
    patches = torch.zeros(len(bags), n_patches, bags[0].patches.shape[1])
    coords = torch.zeros(len(bags), n_patches, 2)
    patch_mask = torch.zeros(len(bags), n_patches, dtype=torch.bool)
    expression = torch.zeros(len(bags), n_genes)
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
    n_genes: int,
    task: TaskSpec | None = None,
    classes: Sequence[str] = (),
) -> Iterator[BagBatch]:
    """Yields batches in the given order; with a task every patient's outcome must be known."""
    for start in range(0, len(patients), batch_size):
        chunk = patients[start : start + batch_size]
        target = None if task is None else make_target(chunk, task, classes)
        yield collate([reader.read(patient) for patient in chunk], n_genes=n_genes, target=target)
