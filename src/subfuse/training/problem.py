"""What a model learns from a fold: who trains on which inputs, and what is fitted before any training."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from subfuse.cohort.bags import BagReader, FeatureCache, InputStandardiser, reads_profile, side_by_side
from subfuse.cohort.bags import class_names as classes_of
from subfuse.cohort.batches import BinnedReader, KeptBags
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.covariates import CovariateCoding, column_of, level_names
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.evaluation.floors import LEAST_CHOOSING
from subfuse.expression.gene_sets import gene_indices
from subfuse.features.store import read_places
from subfuse.files import sha256_of_json
from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import Consistency
from subfuse.objective.objective import Objective
from subfuse.objective.ordered import CumulativeLogitObjective
from subfuse.objective.regression import RegressionObjective
from subfuse.objective.survival import CoxObjective, DiscreteHazardObjective
from subfuse.training.distillation.lessons import Lessons
from subfuse.training.models import (
    BATCH,
    MODELS,
    SITE,
    SLIDES,
    Modality,
    ModelRecipe,
    column_read,
    is_linear,
    is_trivial,
    modalities_of,
    trained_on,
)
from subfuse.training.settings import TrainingPlan, TrainingSettings
from subfuse.training.step import TaskData

_SMALLEST_GRID = 8
_SAMPLING_POINTS = 144  # of the paper: 12 × 12 on its grid of 50 × 50


@dataclass(frozen=True)
class Assignment:
    """The patients of a fold that can train, validate and test one model on one task."""

    train: tuple[Patient, ...]
    validation: tuple[Patient, ...]
    test: tuple[Patient, ...]


def assign(cohort: Cohort, fold: Fold, task: TaskSpec, model_name: str) -> Assignment:
    """Returns the fold's patients with a known outcome and at least one modality that the model uses.

    Linear models choose their penalty by cross-validation within all patients that are not tested: all of these train.
    Models of columns alone, such as the hospital, test nobody of whom all words never occurred in training.

    Raises:
        DataError: No training patient is left, no validation patient where some are needed, or no test patient has a
            word of training.
    """
    uses = modalities_of(model_name)
    genes, covariates = _genes_read(cohort, model_name), covariates_read(cohort, model_name)

    def eligible(patient: Patient) -> bool:
        seen = ("slides" in uses and patient.slides) or (uses != SLIDES and reads_profile(patient, genes, covariates))
        return bool(seen) and patient.has_outcome(task)

    by_id = {patient.patient_id: patient for patient in cohort}
    sides = (trained_on(model_name, fold), () if is_linear(model_name) else fold.validation, fold.test)
    parts = [tuple(by_id[i] for i in ids if i in by_id and eligible(by_id[i])) for ids in sides]
    if not parts[0] or (not parts[1] and not is_linear(model_name)):
        raise DataError(
            f"{model_name} needs training and validation patients with {' or '.join(sorted(uses))} and a known "
            f"outcome. Found {len(parts[0])} and {len(parts[1])}. Check `subfuse check`, or leave the model out."
        )
    if is_trivial(model_name) and covariates and parts[2]:
        parts[2] = _recognised(covariates, parts[0], parts[2], model_name)
    return Assignment(*parts)


def _recognised(
    covariates: Sequence[str], trained: Sequence[Patient], tested: Sequence[Patient], model_name: str
) -> tuple[Patient, ...]:
    """Returns the test patients of whom a model that was trained on these knows a number or word."""
    coding = CovariateCoding.fit(covariates, [patient.columns for patient in trained])
    found = tuple(patient for patient in tested if np.isfinite(coding.encode(patient.columns)).any())
    if not found:
        column = " or ".join(dict.fromkeys(map(column_of, covariates)))
        raise DataError(
            f"{model_name} can test only patients whose {column} occurs in training. Found none of "
            f"{len(tested)}. Leave the model out where folds are whole hospitals or batches."
        )
    return found


def _genes_read(cohort: Cohort, model_name: str) -> tuple[str, ...]:
    """Returns the genes that the named model is given: none where it reads slides or columns of the patients alone."""
    return () if is_trivial(model_name) or modalities_of(model_name) == SLIDES else cohort.genes


def covariates_read(cohort: Cohort, model_name: str) -> tuple[str, ...]:
    """Returns the covariates that the named model is given: those declared, or one per word of `site` or `batch`."""
    if modalities_of(model_name) == SLIDES:
        return ()
    if not modalities_of(model_name) <= SITE | BATCH:
        return cohort.covariates
    column = column_read(model_name, cohort)
    return () if column is None else level_names(column, (patient.columns.get(column) for patient in cohort))


def _fit_objective(
    patients: Sequence[Patient], task: TaskSpec, classes: Sequence[str], *, model_name: str, settings: TrainingSettings
) -> Objective:
    """Returns the objective with bin edges, class weights or the scale of numbers fitted on these training patients."""
    consistency = Consistency(settings.consistency)
    if task.is_regression:
        values = [patient.outcome(task)[0] for patient in patients]
        return RegressionObjective.fit(values, error=task.loss or "squared", consistency=consistency)
    if not task.is_survival:
        labels = [classes.index(patient.labels[task.label_column]) for patient in patients]
        kind = CumulativeLogitObjective if task.is_trained_by_order else ClassificationObjective
        return kind.fit(labels, classes=tuple(classes), consistency=consistency)
    time, event = zip(*(patient.outcome(task) for patient in patients), strict=True)
    if is_linear(model_name):
        return CoxObjective.fit(time, event)
    return DiscreteHazardObjective.fit(time, event, bins=settings.time_bins, consistency=consistency)


@dataclass(frozen=True)
class Problem:
    """What there is to be learned from, and what is fitted before any training."""

    parts: Assignment
    genes: tuple[str, ...]
    data: TaskData
    objective: Objective
    recipe: ModelRecipe
    lessons: tuple[Lessons, ...] = ()  # of every network, from a teacher

    def of_network(self, index: int) -> TaskData:
        """Returns the data of one network, with what it is taught."""
        return replace(self.data, lessons=self.lessons[index]) if self.lessons else self.data

    def fingerprint(self) -> dict[str, str]:
        """Returns hashes of the model and of what it sees: patients, outcomes, covariates, expression and slides.

        Slides enter by name and, those of training patients, by the mean and scale of their features.
        """
        task, standardiser = self.data.task, self.data.reader.standardiser
        digest = hashlib.sha256()
        for patient in (*self.parts.train, *self.parts.validation):
            slides = [path.name for path in patient.slides]
            digest.update(
                repr((patient.patient_id, patient.outcome(task), slides, sorted(patient.covariates.items()))).encode()
            )
            digest.update(b"" if patient.expression is None else patient.expression.tobytes())
        if standardiser.patches is not None:
            digest.update(standardiser.patches.mean.tobytes() + standardiser.patches.scale.tobytes())
        return {"model": sha256_of_json(self.recipe.model_dump(mode="json")), "data_sha256": digest.hexdigest()}


def pose(
    cohort: Cohort,
    fold: Fold,
    task: TaskSpec,
    model_name: str,
    plan: TrainingPlan,
    kept: KeptBags | None = None,
    *,
    objective: Objective | None = None,
) -> Problem:
    """Returns what a model learns from a fold, with everything that is fitted on its training patients beforehand.

    Args:
        cohort: A prepared cohort.
        fold: Who trains and validates.
        task: What is learned.
        model_name: Name of the model.
        plan: How to train, and of which sizes.
        kept: Where the bags of a model that sees cells are kept; a new place by default.
        objective: With fitted bin edges or class weights; they are fitted on the training patients by default.

    Raises:
        DataError: The fold's patients do not suffice, see `assign`.
    """
    parts = assign(cohort, fold, task, model_name)
    classes = classes_of(cohort.patients, task)
    features = FeatureCache(limit_bytes=0) if MODELS[model_name].is_binned else FeatureCache()  # cells are kept
    seen = [p if "slides" in modalities_of(model_name) else replace(p, slides=()) for p in parts.train]
    genes, covariates = _genes_read(cohort, model_name), covariates_read(cohort, model_name)
    standardiser = InputStandardiser.fit(seen, genes, features, covariates)
    parts = _readable(parts, standardiser, model_name)
    if objective is None:
        objective = _fit_objective(parts.train, task, classes, model_name=model_name, settings=plan.training)
    known = (*parts.train, *parts.validation)
    has_line = plan.training.linear_path and not is_linear(model_name) and not too_few_for_a_line(known, task)
    grid = _fitted_grid(seen, largest=plan.architecture.max_grid)
    recipe = ModelRecipe(
        name=model_name,
        n_outputs=objective.n_outputs,
        patch_dim=standardiser.patch_dim,
        n_genes=len(genes),
        n_covariates=len(covariates),
        gene_sets=_positions(cohort.gene_sets, genes),
        pathways=_positions(cohort.pathways, genes) if genes else {},
        grid=grid,
        downsample=fitted_downsample(grid),
        architecture=plan.architecture,
        members=1 if is_linear(model_name) else plan.training.members,
        linear_path=_of_linear_path(standardiser, modalities_of(model_name)) if has_line else (),
    )
    bags = BagReader(standardiser, features)
    reader = BinnedReader(bags, recipe.grid, KeptBags() if kept is None else kept) if recipe.is_binned else bags
    data = TaskData(reader, task, classes, recipe.n_inputs)
    return Problem(parts, genes, data, objective, recipe)


def _readable(parts: Assignment, standardiser: InputStandardiser, model_name: str) -> Assignment:
    """Returns the patients without validation patients of whom only what no training patient has is known.

    Raises:
        DataError: None is left.
    """
    uses = modalities_of(model_name)
    validation = tuple(patient for patient in parts.validation if standardiser.reads(patient, uses))
    if parts.validation and not validation:
        raise DataError(
            f"{model_name} needs validation patients with a modality that training patients have. Found none of "
            f"{len(parts.validation)}. Check `subfuse check`, or leave the model out."
        )
    return replace(parts, validation=validation)


def _fitted_grid(patients: Sequence[Patient], *, largest: int) -> tuple[int, int]:
    """Returns (rows, columns) that hold the widest and the tallest training bag at one patch per cell.

    Relative to the paper: there the grid is always 50 × 50, however small the tissue.
    """
    sides = np.array([_SMALLEST_GRID, _SMALLEST_GRID])
    for patient in patients:
        if patient.slides:
            slides = [read_places(path) for path in patient.slides]
            pitch = slides[0].patch_size_level0 * slides[0].level0_mpp
            width, height = np.ptp(side_by_side(slides), axis=0) / pitch + 1
            sides = np.maximum(sides, np.ceil([height, width]).astype(int))
    rows, columns = np.minimum(sides, largest).tolist()
    return rows, columns


def fitted_downsample(grid: tuple[int, int]) -> int:
    """Returns the cells per sampling point that leave about as many points as the paper has.

    Relative to the paper: there it is always 4, for a grid of 50 × 50. A small grid would keep a handful of points,
    which move by more than the slide is wide: training would see a few random patches of a slide and learn little.
    """
    return max(1, round((grid[0] * grid[1] / _SAMPLING_POINTS) ** 0.5))


def _positions(gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if not genes:
        return dict.fromkeys(gene_sets, ())
    return {name: tuple(places) for name, places in gene_indices(gene_sets, genes).items()}


def too_few_for_a_line(patients: Sequence[Patient], task: TaskSpec) -> str:
    """Returns why these patients, who are not tested, have no linear path; empty where they suffice for one.

    A line through fewer is that of whoever they are, and its risks know no bounds.
    """
    if task.is_survival:
        found, who = sum(bool(patient.outcome(task)[1]) for patient in patients), "patients with an event"
    else:
        sizes = Counter(patient.outcome(task) for patient in patients)
        who = "patients outside the largest class"
        if task.is_regression:
            who = "patients with another value than the commonest"
        found = sum(sizes.values()) - max(sizes.values())
    return f"fewer than {LEAST_CHOOSING} {who} are not tested" if found < LEAST_CHOOSING else ""


def _of_linear_path(standardiser: InputStandardiser, modalities: Collection[str]) -> tuple[Modality, ...]:
    """Returns what a linear path reads: the model's inputs that a training patient has."""
    there: dict[Modality, bool] = {
        "slides": standardiser.patches is not None,
        "expression": standardiser.expression is not None or standardiser.covariates is not None,
    }
    return tuple(name for name, is_there in there.items() if is_there and name in modalities)
