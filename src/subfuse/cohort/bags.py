"""Bags: the patches and the expression of one patient, standardised by the training patients."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from subfuse.cohort.cohort import Patient
from subfuse.cohort.covariates import CovariateCoding, column_of
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.expression.table import FAR, ExpressionStandardiser
from subfuse.features.store import SlideFeatures, read_features, read_moments

_LEAST_SPREAD = 0.1  # of a slide's features, in standard deviations of the training patches
_SLIDE_GAP_PATCHES = 4  # empty patch widths between the slides of a patient


@dataclass(frozen=True)
class Bag:
    """All patches of one patient, slides side by side, and the standardised expression and covariates."""

    patient_id: str
    patches: Float[np.ndarray, "patch feature"]  # no rows if the patient has no slide
    coords: Float[np.ndarray, "patch 2"]  # patch centres in µm, (x, y); slides stand side by side
    expression: Float[np.ndarray, " gene"] | None  # genes, then covariates; see `InputStandardiser.profile`
    cells: "BagCells | None" = None  # patches are the means of cells; None: they are patches


@dataclass(frozen=True)
class BagCells:
    """What remains to be known of a bag whose patches were replaced by the means of their cells."""

    cell: Int[np.ndarray, " patch"]
    summary: Float[np.ndarray, " summary"]  # of the patches themselves


@dataclass(frozen=True)
class PatchStandardiser:
    """Mean and scale of every patch feature over all patches of the training patients."""

    mean: Float[np.ndarray, " feature"]
    scale: Float[np.ndarray, " feature"]  # standard deviation; 1 where a feature is constant

    @classmethod
    def fit(cls, paths: Iterable[Path], features: "FeatureCache") -> "PatchStandardiser | None":
        """Fits on slides, by the sums that are stored with their features; None without any."""
        count, total, squares = 0, np.zeros(()), np.zeros(())
        for path in paths:
            n_patches, moments = features.moments(path)
            count, total, squares = count + n_patches, total + moments[0], squares + moments[1]
        if not count:
            return None
        mean = total / count
        deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
        scale = np.where(deviation > 1e-6, deviation, 1.0)
        return cls(mean.astype(np.float32), scale.astype(np.float32))

    def transform(self, patches: Float[np.ndarray, "patch feature"]) -> Float[np.ndarray, "patch feature"]:
        """Returns (patches - mean) / scale, in float32 for patches in float32."""
        return (patches - self.mean) / self.scale

    def is_far(self, mean: Float[np.ndarray, " feature"], spread: Float[np.ndarray, " feature"] | None) -> bool:
        """Returns whether the typical feature of a slide has another scale than in training, whatever the reason.

        Its mean lies more than `FAR` standard deviations of the training patches away, or its spread is more than
        `FAR` times, or less than a tenth of, theirs: so it is where one side was normalised and the other was not.

        Args:
            mean: Of the slide's features, over its patches.
            spread: Their standard deviation; None of too few patches.
        """
        shift = float(np.median(np.abs(mean - self.mean) / self.scale))
        ratio = 1.0 if spread is None else float(np.median(spread / self.scale))
        return shift > FAR or not _LEAST_SPREAD < ratio < FAR


@dataclass(frozen=True)
class InputStandardiser:
    """Centres and scales both inputs by the training patients, so that zero means average."""

    expression: ExpressionStandardiser | None  # None: no training patient has expression
    patches: PatchStandardiser | None  # None: no training patient has slides
    covariates: CovariateCoding | None = None  # None: there are none, or none that is read

    @classmethod
    def fit(
        cls,
        patients: Sequence[Patient],
        genes: Sequence[str],
        features: "FeatureCache",
        covariates: Sequence[str] = (),
    ) -> "InputStandardiser":
        """Fits on training patients; a part that none of them has is None."""
        expression, coding = fit_profile(patients, genes, covariates)
        slides = (path for patient in patients for path in patient.slides)
        return cls(expression, PatchStandardiser.fit(slides, features), coding)

    @property
    def patch_dim(self) -> int:
        """Number of features per patch; 1 without slides, as a model needs one."""
        return 1 if self.patches is None else len(self.patches.mean)

    def reads(self, patient: Patient, modalities: Collection[str]) -> bool:
        """True if a model of these modalities has anything of the patient to read that a training patient had too."""
        has_slides = bool(patient.slides) and self.patches is not None
        return (has_slides and "slides" in modalities) or (set(modalities) != {"slides"} and self.has_profile(patient))

    def has_profile(self, patient: Patient) -> bool:
        """True if `profile` returns one."""
        if self.expression is not None:
            return patient.expression is not None
        return self.covariates is not None and bool(np.isfinite(self.covariates.encode(patient.columns)).any())

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
            parts.append(self.covariates.transform(patient.columns))
        return np.concatenate(parts)


def fit_profile(
    patients: Sequence[Patient], genes: Sequence[str], covariates: Sequence[str]
) -> tuple[ExpressionStandardiser | None, CovariateCoding | None]:
    """Returns how expression and covariates are scaled, fitted on the training patients whose profile a model sees.

    These are the patients with expression; where no gene is read, those with a known covariate.
    """
    seen = [patient for patient in patients if reads_profile(patient, genes, covariates)]
    if not seen:
        return None, None
    measured = [patient.expression for patient in seen if patient.expression is not None]
    expression = ExpressionStandardiser.fit(np.stack(measured), tuple(genes)) if genes else None
    coding = CovariateCoding.fit(covariates, [patient.columns for patient in seen]) if covariates else None
    return expression, coding


def reads_profile(patient: Patient, genes: Sequence[str], covariates: Sequence[str]) -> bool:
    """True if there is something beside slides to read: expression for a model of genes, else a covariate."""
    if genes:
        return patient.expression is not None
    return not patient.columns.keys().isdisjoint(map(column_of, covariates))


@dataclass(frozen=True)
class FeatureCache:
    """Slide features kept in memory up to a limit; beyond it they are read from disk each time.

    The content of every file is verified once, when it is read first.
    """

    limit_bytes: int = 1 << 30
    _kept: dict[Path, SlideFeatures] = field(default_factory=dict)
    _width_of: dict[Path, int] = field(default_factory=dict)  # of every file that was read
    _verified: set[Path] = field(default_factory=set)

    def read(self, path: Path) -> SlideFeatures:
        """Returns the features of one slide.

        Raises:
            DataError: The file is damaged, changed since it was written, or has another number of features than the
                first one that was read.
        """
        if path in self._kept:
            return self._kept[path]
        slide = read_features(path, verify=path not in self._verified)
        self._verified.add(path)
        self._require_width(path, slide.features.shape[1])
        if sum(kept.features.nbytes for kept in self._kept.values()) + slide.features.nbytes <= self.limit_bytes:
            self._kept[path] = slide
        return slide

    def moments(self, path: Path) -> tuple[int, Float[np.ndarray, "moment feature"]]:
        """Returns number, sum and sum of squares of one slide's features, see `read_moments`.

        Raises:
            DataError: As for `read`.
        """
        n_patches, moments = read_moments(path)
        self._require_width(path, moments.shape[1])
        return n_patches, moments

    def _require_width(self, path: Path, n_found: int) -> None:
        self._width_of[path] = n_found
        first, n_features = next(iter(self._width_of.items()))
        if n_found != n_features:
            raise DataError(
                f"{path}: {n_features} features per patch are required, as in {first}. "
                f"Found {n_found}. Run `subfuse prepare` again into a new folder."
            )


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
        slides = [self.features.read(path) for path in patient.slides] if scaler.patches is not None else []
        expression = scaler.profile(patient)
        if scaler.patches is None or not slides:
            n_features = scaler.patch_dim
            return Bag(
                patient.patient_id, np.zeros((0, n_features), np.float32), np.zeros((0, 2), np.float32), expression
            )
        patches = np.concatenate([slide.features for slide in slides]).astype(np.float32)
        return Bag(patient.patient_id, scaler.patches.transform(patches), side_by_side(slides), expression)


def side_by_side(slides: Sequence[SlideFeatures]) -> Float[np.ndarray, "patch 2"]:
    """Returns patch centres in µm with the slides placed left to right, aligned at the top."""
    placed, left = [], 0.0
    for slide in slides:
        centres = slide.centres_um - slide.centres_um.min(axis=0)
        placed.append(centres + np.array([left, 0.0], centres.dtype))
        pitch = slide.patch_size_level0 * slide.level0_mpp
        left += float(centres[:, 0].max()) + (_SLIDE_GAP_PATCHES + 1) * pitch
    return np.concatenate(placed).astype(np.float32)


def class_names(patients: Sequence[Patient], task: TaskSpec) -> tuple[str, ...]:
    """Returns the classes of a task: as declared, else every label that occurs, sorted; none of other tasks."""
    if task.predicts != "classes":
        return ()
    return task.classes or tuple(sorted({p.labels[task.label_column] for p in patients if p.has_outcome(task)}))
