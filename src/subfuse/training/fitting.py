"""From a fold of a cohort to a fitted model."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning.fabric import Fabric
from torch import Tensor, nn

from subfuse.cohort.bags import BagReader, FeatureCache, InputStandardiser, reads_profile, side_by_side
from subfuse.cohort.bags import class_names as classes_of
from subfuse.cohort.batches import make_target
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.covariates import level_names
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError
from subfuse.execution import Progress
from subfuse.expression.gene_sets import gene_indices
from subfuse.files import sha256_of_json
from subfuse.model.baselines.linear import LinearModel
from subfuse.model.deformable_attention import position_bias_error
from subfuse.model.linear_path import WithLinearPath
from subfuse.model.output import Ensemble
from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.losses import Consistency
from subfuse.objective.objective import Objective
from subfuse.objective.survival import CoxObjective, DiscreteHazardObjective
from subfuse.training.checkpoint import Checkpoint
from subfuse.training.fitted_model import FittedModel
from subfuse.training.linear import fit_line, fit_linear
from subfuse.training.loggers import write_log
from subfuse.training.models import (
    BATCH,
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
from subfuse.training.processes import one_process
from subfuse.training.selection import network_share
from subfuse.training.settings import TrainingPlan, TrainingSettings
from subfuse.training.step import TaskData
from subfuse.training.trainer import Trainer

SMALLEST_GRID = 8
SAMPLING_POINTS = 144  # of the paper: 12 × 12 on its grid of 50 × 50


@dataclass(frozen=True)
class Assignment:
    """The patients of a fold that can train, validate and test one model on one task."""

    train: tuple[Patient, ...]
    validation: tuple[Patient, ...]
    test: tuple[Patient, ...]


def assign(cohort: Cohort, fold: Fold, task: TaskSpec, model_name: str) -> Assignment:
    """Returns the fold's patients with a known outcome and at least one modality that the model uses.

    Linear models choose their penalty by cross-validation within all patients that are not tested: all of these train.

    Raises:
        DataError: No training patient is left, or no validation patient where some are needed.
    """
    uses = modalities_of(model_name)
    genes, covariates = genes_read(cohort, model_name), covariates_read(cohort, model_name)

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
    return Assignment(*parts)


def genes_read(cohort: Cohort, model_name: str) -> tuple[str, ...]:
    """Returns the genes that the named model is given: none where it reads columns of the patients alone."""
    return () if is_trivial(model_name) else cohort.genes


def covariates_read(cohort: Cohort, model_name: str) -> tuple[str, ...]:
    """Returns the covariates that the named model is given: those declared, or one per word of `site` or `batch`."""
    if not modalities_of(model_name) <= SITE | BATCH:
        return cohort.covariates
    column = column_read(model_name, cohort)
    return () if column is None else level_names(column, (patient.columns.get(column) for patient in cohort))


def fit_objective(
    patients: Sequence[Patient], task: TaskSpec, classes: Sequence[str], *, model_name: str, settings: TrainingSettings
) -> Objective:
    """Returns the objective with bin edges or class weights fitted on these training patients."""
    consistency = Consistency(settings.consistency)
    if not task.is_survival:
        labels = [classes.index(patient.labels[task.label_column]) for patient in patients]
        return ClassificationObjective.fit(labels, classes=tuple(classes), consistency=consistency)
    time, event = [patient.time_days for patient in patients], [patient.event for patient in patients]
    if is_linear(model_name):
        return CoxObjective.fit(time, event)
    return DiscreteHazardObjective.fit(time, event, bins=settings.time_bins, consistency=consistency)


def train_fold(
    cohort: Cohort,
    fold: Fold,
    *,
    task: str,
    model_name: str,
    plan: TrainingPlan,
    log_path: Path | None = None,
    checkpoint_path: Path | None = None,
    fabric: Fabric | None = None,
    progress: Progress | None = None,
) -> FittedModel:
    """Returns the model fitted on the training patients of a fold; test patients are never looked at.

    Everything estimated from data (standardisation, time bins, class weights, grid size) comes from the training
    patients; the validation patients decide when to stop. Linear models train on both, see `fit_linear`.

    Args:
        cohort: A prepared cohort.
        fold: Who trains and validates.
        task: Name of the task.
        model_name: Name of the model.
        plan: How to train, of which sizes, and the seed of this very training. A search comes before:
            `search_settings` returns the plan to train by.
        log_path: CSV with a row per epoch; trackers write into its folder. Further networks of an ensemble have a
            folder of their own there; see `Trainer.member`.
        checkpoint_path: Where a neural model's training is kept after every epoch. If the file exists, training goes
            on from it and ends with the weights of an uninterrupted one, on the same processor and number of threads.
            Left to the caller to remove, with those of further networks.
        fabric: Device and processes, from `start_processes`; this process alone by default.
        progress: Called after every epoch.

    Raises:
        ConfigurationError: The plan asks for a search, training diverged, or the checkpoint belongs to another
            training.
        DataError: The fold's patients do not suffice.
    """
    if plan.search:
        raise ConfigurationError(f"search must be 0 where one model is trained on one fold. Found {plan.search}.")
    fabric = one_process(plan.training) if fabric is None else fabric
    spec = cohort.tasks[task]
    problem = _pose(cohort, fold, spec, model_name, plan)
    details: dict[str, Any] = {
        "seed": plan.seed,
        "split_sha256": sha256_of_json([fold.train, fold.validation, fold.test]),
        "training": plan.training.model_dump(mode="json"),
    }
    with torch.random.fork_rng():
        if is_linear(model_name):
            model = _fit_linear(problem, log_path if fabric.is_global_zero else None)
        else:
            description = {**details, **_fingerprint(problem), "processes": fabric.world_size}
            checkpoint = None if checkpoint_path is None else Checkpoint(checkpoint_path, description)
            trainer = Trainer(plan.training, plan.seed, fabric, checkpoint, log_path, progress)
            model, found = (
                _fit_beside_line(problem, trainer) if problem.recipe.linear_path else _fit_networks(problem, trainer)
            )
            details |= found
    model.eval()
    return FittedModel(
        task=task,
        task_spec=spec,
        recipe=problem.recipe,
        model=model,
        objective=problem.objective,
        standardiser=problem.data.reader.standardiser,
        baseline_logits=_mean_logits(model, problem),
        genes=problem.genes,
        expression_unit=cohort.expression_unit,
        expression_basis=cohort.expression_basis,
        encoder=cohort.encoder,
        encoder_sha256=cohort.encoder_sha256,
        patch_um=_patch_widths(cohort, problem),
        details={
            **details,
            "position_bias_error": position_bias_error(model),  # of the table, in logits; 0 without one
            "n_train": len(problem.parts.train),
            "n_validation": len(problem.parts.validation),
        },
    )


def _patch_widths(cohort: Cohort, problem: "_Problem") -> tuple[float, float] | None:
    """Returns the sides of the narrowest and of the widest patches in training, in µm; None where none is known."""
    if problem.data.reader.standardiser.patch_mean is None:
        return None
    paths = [path for patient in problem.parts.train for path in patient.slides if path in cohort.patch_um]
    widths = [cohort.patch_um[path] for path in paths]
    return (min(widths), max(widths)) if widths else None


@dataclass(frozen=True)
class _Problem:
    """What there is to be learned from, and what is fitted before any training."""

    parts: Assignment
    genes: tuple[str, ...]
    data: TaskData
    objective: Objective
    recipe: ModelRecipe


def _pose(cohort: Cohort, fold: Fold, task: TaskSpec, model_name: str, plan: TrainingPlan) -> _Problem:
    parts = assign(cohort, fold, task, model_name)
    classes = classes_of(cohort.patients, task)
    features = FeatureCache()
    seen = [p if "slides" in modalities_of(model_name) else replace(p, slides=()) for p in parts.train]
    genes, covariates = genes_read(cohort, model_name), covariates_read(cohort, model_name)
    standardiser = InputStandardiser.fit(seen, genes, features, covariates)
    objective = fit_objective(parts.train, task, classes, model_name=model_name, settings=plan.training)
    has_line = plan.training.linear_path and not is_linear(model_name)
    grid = fitted_grid(seen, features, largest=plan.architecture.max_grid)
    recipe = ModelRecipe(
        name=model_name,
        n_outputs=objective.n_outputs,
        patch_dim=1 if standardiser.patch_mean is None else len(standardiser.patch_mean),
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
    data = TaskData(BagReader(standardiser, features), task, classes, recipe.n_inputs)
    return _Problem(parts, genes, data, objective, recipe)


def fitted_grid(patients: Sequence[Patient], features: FeatureCache, *, largest: int) -> tuple[int, int]:
    """Returns (rows, columns) that hold the widest and the tallest training bag at one patch per cell.

    Relative to the paper: there the grid is always 50 × 50, however small the tissue.
    """
    sides = np.array([SMALLEST_GRID, SMALLEST_GRID])
    for patient in patients:
        if patient.slides:
            slides = [features.read(path) for path in patient.slides]
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
    return max(1, round((grid[0] * grid[1] / SAMPLING_POINTS) ** 0.5))


def _positions(gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> dict[str, tuple[int, ...]]:
    if not genes:
        return dict.fromkeys(gene_sets, ())
    return {name: tuple(places) for name, places in gene_indices(gene_sets, genes).items()}


def _of_linear_path(standardiser: InputStandardiser, modalities: Collection[str]) -> tuple[Modality, ...]:
    """Returns what a linear path reads: the model's inputs that a training patient has."""
    there: dict[Modality, bool] = {
        "slides": standardiser.patch_mean is not None,
        "expression": standardiser.expression is not None or standardiser.covariates is not None,
    }
    return tuple(name for name, is_there in there.items() if is_there and name in modalities)


def _fit_beside_line(problem: _Problem, trainer: Trainer) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the linear path with the network, or the ensemble, that was trained on what it leaves.

    Offsets of training patients are out of fold: those of a model that had seen them would leave too little to learn.
    """
    parts, data = problem.parts, problem.data
    line = problem.recipe.build_linear_path()
    target = make_target(parts.train, data.task, data.classes)
    offsets = fit_line(line, data.batches(parts.train, 1), target, problem.objective)
    of_validation = [line(**batch.inputs()).logits for batch in data.batches(parts.validation, 1)]
    by_patient = zip((*parts.train, *parts.validation), torch.cat([offsets, *of_validation]).detach(), strict=True)
    data = replace(data, offsets={patient.patient_id: offset for patient, offset in by_patient})
    network, found = _fit_networks(replace(problem, data=data), trainer)
    model = WithLinearPath(line, network).eval()
    with torch.inference_mode():
        outputs = [model(**batch.inputs()) for batch in data.batches(parts.validation, 8)]
    validation = make_target(parts.validation, data.task, data.classes)
    model.share.fill_(network_share(torch.cat([o.subspace_logits for o in outputs]), problem.objective, validation))
    return model, {**found, "network_share": float(model.share)}


def _fit_networks(problem: _Problem, trainer: Trainer) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the trained network, or the ensemble of them, and what was found out on the way."""
    recipe, parts = problem.recipe, problem.parts
    networks, states = [], []
    for index in range(recipe.members):
        member = trainer.member(index, recipe.members)
        torch.manual_seed(member.seed)
        network = recipe.build_network()
        states.append(member.fit(network, problem.objective, parts.train, parts.validation, problem.data))
        networks.append(network)
    found = {
        "chosen_epochs": [state.best_epoch for state in states],
        "validation_score": sum(state.best_score[0] for state in states) / len(states),
    }
    return networks[0] if len(networks) == 1 else Ensemble(networks), found


def _fit_linear(problem: _Problem, log_path: Path | None) -> nn.Module:
    model, data, patients = problem.recipe.build(), problem.data, problem.parts.train
    assert isinstance(model, LinearModel)
    fits = fit_linear(model, data.batches(patients, 1), make_target(patients, data.task, data.classes))
    if log_path is not None:
        rows = [{"reads": fit.reads, "penalty": fit.penalty, "cross_validated_loss": fit.loss} for fit in fits]
        write_log(log_path, rows)
    return model


def _mean_logits(model: nn.Module, problem: _Problem) -> Float[Tensor, "subspace output"]:
    with torch.inference_mode():
        batches = problem.data.batches(problem.parts.train, 8)
        logits = [model(**batch.inputs()).subspace_logits for batch in batches]
    return torch.cat(logits).mean(dim=0).clone()


def _fingerprint(problem: _Problem) -> dict[str, str]:
    """Returns hashes of the model and of what training sees: who, their outcomes, covariates, expression and slides.

    Slides enter by name and, those of training patients, by the mean and scale of their features.
    """
    task, standardiser = problem.data.task, problem.data.reader.standardiser
    digest = hashlib.sha256()
    for patient in (*problem.parts.train, *problem.parts.validation):
        slides = [path.name for path in patient.slides]
        digest.update(
            repr((patient.patient_id, patient.outcome(task), slides, sorted(patient.covariates.items()))).encode()
        )
        digest.update(b"" if patient.expression is None else patient.expression.tobytes())
    for values in (standardiser.patch_mean, standardiser.patch_scale):
        digest.update(b"" if values is None else values.tobytes())
    return {"model": sha256_of_json(problem.recipe.model_dump(mode="json")), "data_sha256": digest.hexdigest()}
