"""From a fold of a cohort to a fitted model."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from lightning.fabric import Fabric
from torch import Tensor, nn

from subfuse.cohort.batches import KeptBags, make_target
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.fold import Fold
from subfuse.devices import deterministic
from subfuse.errors import ConfigurationError
from subfuse.evaluation.survival.horizons import with_horizons
from subfuse.execution import Progress
from subfuse.model.baselines.linear import LinearModel
from subfuse.model.deformable_attention import position_bias_error
from subfuse.model.linear_path import WithLinearPath
from subfuse.model.output import Ensemble, SubspaceFusionOutput
from subfuse.run_folder.tables import prediction_table
from subfuse.training.checkpoint import Checkpoint
from subfuse.training.distillation.teacher import Teacher
from subfuse.training.fitted_model import FittedModel
from subfuse.training.linear.fit import fit_line, fit_linear
from subfuse.training.loggers import write_log
from subfuse.training.models import MODELS, is_linear
from subfuse.training.problem import Problem, assign, pose
from subfuse.training.processes import one_process
from subfuse.training.seen.expression_effect import ExpressionEffect, with_both
from subfuse.training.seen.inputs import SeenInputs
from subfuse.training.selection import network_share, score_of, selection_metric
from subfuse.training.settings import TrainingPlan
from subfuse.training.step import TaskData
from subfuse.training.trainer import Trainer

logger = logging.getLogger(__name__)

OFFSETS = "validation_offsets"  # in the details of a model: the linear path's part for each validation patient
HEAD_START = 0.5  # how much of what the linear path says a network starts from


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
    kept: KeptBags | None = None,
    teacher: Teacher | None = None,
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
        kept: Where the bags of a model that sees cells are kept, for `predict_sides`.
        teacher: Of a model that has one (`ModelEntry.taught_by`); by default it is trained first, with the same plan.

    Raises:
        ConfigurationError: The plan asks for a search, training diverged, or the checkpoint belongs to another
            training.
        DataError: The fold's patients do not suffice.
    """
    if plan.search:
        raise ConfigurationError(f"search must be 0 where one model is trained on one fold. Found {plan.search}.")
    fabric = one_process(plan) if fabric is None else fabric
    spec = cohort.tasks[task]
    taught_by = MODELS[model_name].taught_by
    if taught_by is not None and teacher is None:
        teacher = Teacher(train_fold(cohort, fold, task=task, model_name=taught_by, plan=plan, fabric=fabric))
    problem = pose(
        cohort, fold, spec, model_name, plan, kept, objective=None if teacher is None else teacher.fitted.objective
    )
    details: dict[str, Any] = {
        "seed": plan.seed,
        "split_sha256": fold.sha256,
        "training": plan.training.model_dump(mode="json"),
    }
    gpus = [fabric.device] if fabric.device.type == "cuda" else []  # the others are left alone
    with deterministic(plan.training.deterministic), torch.random.fork_rng(devices=gpus):
        if teacher is not None:
            teacher.fitted.to(fabric.device)
            problem = teacher.teach(problem)
            details |= teacher.describe() | {"n_taught": len(problem.lessons[0].of_patient)}
        if is_linear(model_name):
            model = _fit_linear(problem, log_path if fabric.is_global_zero else None)
        else:
            description = {**details, **problem.fingerprint(), "processes": fabric.world_size}
            checkpoint = None if checkpoint_path is None else Checkpoint(checkpoint_path, description)
            trainer = Trainer(plan.training, plan.seed, fabric, checkpoint, log_path, progress)
            model, found = (
                _fit_beside_line(problem, trainer) if problem.recipe.linear_path else _fit_networks(problem, trainer)
            )
            details |= found
        model.eval().to(fabric.device)
        baseline_logits = _mean_logits(model, problem)
        effect = _effect(model, problem, None if teacher is None else teacher.fitted)
    return FittedModel(
        task=task,
        task_spec=spec,
        recipe=problem.recipe,
        model=model,
        objective=problem.objective,
        standardiser=problem.data.reader.standardiser,
        baseline_logits=baseline_logits,
        genes=problem.genes,
        expression_unit=cohort.expression_unit,
        expression_basis=cohort.expression_basis,
        encoder=cohort.encoder,
        encoder_sha256=cohort.encoder_sha256,
        patch_um=_patch_widths(cohort, problem),
        seen=SeenInputs.fit(problem.parts.train, problem.data.reader.standardiser, problem.recipe.modalities),
        effect=effect,
        details={
            **details,
            "position_bias_error": position_bias_error(model),  # of the table, in logits; 0 without one
            "n_train": len(problem.parts.train),
            "n_validation": len(problem.parts.validation),
        },
    )


def predict_sides(fitted: FittedModel, cohort: Cohort, fold: Fold, kept: KeptBags | None = None) -> pd.DataFrame:
    """Returns what a fold's model predicts of its training, validation and test patients, told apart by `split`.

    Of validation patients it has what a linear path says of them out of fold: the path was fitted on them, and what
    rests on them, recalibration and promises, would be too bold. Risks without a curve are given one by the training
    patients, as for new patients. Bags that training kept are not read again. Patients of whom nothing is known that
    training patients had are left out, and counted.
    """
    spec = cohort.tasks[fitted.task]
    parts = assign(cohort, fold, spec, fitted.recipe.name)
    offsets = fitted.details.get(OFFSETS)
    lines = {} if offsets is None else {"validation": torch.tensor(offsets)}
    tables = []
    for split, everybody, known in (
        ("train", parts.train, kept),
        ("validation", parts.validation, kept),
        ("test", parts.test, None),
    ):
        patients = [patient for patient in everybody if fitted.usable(patient)]
        if len(patients) < len(everybody):
            lacking = f"{len(everybody) - len(patients)} of {len(everybody)} {split} patients"
            what = f"{fitted.task} · {fitted.recipe.name}"
            logger.warning("%s: %s have no modality that a training patient has: not predicted", what, lacking)
        if patients:  # linear models have no validation patients
            predicted = fitted.predict(patients, line=lines.get(split), kept=known)
            tables.append(prediction_table(predicted, patients, spec).assign(split=split))
    table = pd.concat(tables)
    if fitted.objective.columns == ["risk"]:
        trained = table[table["split"] == "train"].dropna(subset=["risk"])
        table = with_horizons(table, trained).drop(columns="reason")
    return table


def _patch_widths(cohort: Cohort, problem: Problem) -> tuple[float, float] | None:
    """Returns the sides of the narrowest and of the widest patches in training, in µm; None where none is known."""
    if problem.data.reader.standardiser.patches is None:
        return None
    paths = [path for patient in problem.parts.train for path in patient.slides if path in cohort.patch_um]
    widths = [cohort.patch_um[path] for path in paths]
    return (min(widths), max(widths)) if widths else None


def _fit_beside_line(problem: Problem, trainer: Trainer) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the mixture of a linear path and of the network, or the ensemble, that started from half of it.

    The line is fitted as the linear models are (`fit_linear`), on all patients that are not tested, but reads inputs
    that are standardised on the training patients alone, as the network sees them: one standardiser is stored. Training
    patients come first, and so other inner folds than those of `cox`, `cox-slides` or `cox-both`: either may lead to
    another penalty.

    Networks are offset by half of what it says of each patient out of fold: a line that had seen them would leave too
    little to learn, and to judge; a whole line would leave little where a network alone is better, none would let it
    learn the line again.
    """
    parts, data = problem.parts, problem.data
    line = problem.recipe.build_linear_path()
    known = (*parts.train, *parts.validation)
    target = make_target(known, data.task, data.classes)
    said = fit_line(line, data.batches(known, 1), target, problem.objective).detach()
    offsets = {patient.patient_id: HEAD_START * logits for patient, logits in zip(known, said, strict=True)}
    data = replace(data, offsets=offsets)
    network, found = _fit_networks(replace(problem, data=data), trainer)
    model = WithLinearPath(line, network).eval()
    logits = torch.cat(
        [output.logits for output in _outputs(network.to(trainer.fabric.device), data, parts.validation)]
    )
    model.cpu()
    validation = make_target(parts.validation, data.task, data.classes)
    of_line = said[len(parts.train) :]
    started = logits + HEAD_START * of_line
    share = network_share(started, of_line, problem.objective, validation)
    metric = selection_metric(trainer.settings.selection, problem.objective, validation)
    mixed = share * started + (1 - share) * of_line
    model.network_share.fill_(share)
    model.line_share.fill_(1 - share + share * HEAD_START)
    return model, {
        **found,
        "validation_score": score_of(metric, problem.objective, mixed, validation),  # what is kept, not one epoch
        "network_share": share,
        OFFSETS: (model.line_share * of_line).tolist(),
    }


def _fit_networks(problem: Problem, trainer: Trainer) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the trained network, or the ensemble of them, and what was found out on the way."""
    recipe, parts = problem.recipe, problem.parts
    networks, states = [], []
    for index in range(recipe.members):
        member = trainer.member(index, recipe.members)
        torch.manual_seed(member.seed)
        network = recipe.build_network()
        states.append(member.fit(network, problem.objective, parts.train, parts.validation, problem.of_network(index)))
        networks.append(network)
    found = {
        "chosen_epochs": [state.best_epoch for state in states],
        "validation_score": sum(state.best_score[0] for state in states) / len(states),
    }
    return networks[0] if len(networks) == 1 else Ensemble(networks), found


def _fit_linear(problem: Problem, log_path: Path | None) -> nn.Module:
    model, data, patients = problem.recipe.build(), problem.data, problem.parts.train
    assert isinstance(model, LinearModel)
    target = problem.objective.as_logits(make_target(patients, data.task, data.classes))
    fits = fit_linear(model, data.batches(patients, 1), target)
    if log_path is not None:
        rows = [
            {"reads": fit.reads, "penalty": fit.penalty, "cross_validated_loss": fit.loss}
            | ({} if math.isnan(fit.concordance) else {"cross_validated_c_index": fit.concordance})
            for fit in fits
        ]
        write_log(log_path, rows)
    return model


def _effect(model: nn.Module, problem: Problem, teacher: FittedModel | None) -> ExpressionEffect | None:
    """Returns what expression adds to the logits of slides alone: to a student's, what its teacher has beyond them."""
    recipe, own = problem.recipe, problem.data.reader.standardiser
    known = with_both(problem.parts.validation)
    if teacher is None and not (recipe.modalities >= {"slides", "expression"} and own.expression is not None):
        return None
    if not known or own.patches is None:
        return None
    device = next(model.parameters()).device
    alone, both = list[Tensor](), list[Tensor]()
    with torch.inference_mode():
        for batch in (batch.to(device) for batch in problem.data.batches(known, 8)):
            hidden = replace(batch, expression_mask=torch.zeros_like(batch.expression_mask))
            alone.append(model(**hidden.inputs()).logits)
            both.append(model(**batch.inputs()).logits)
    with_expression = (
        torch.cat(both).double().cpu().numpy() if teacher is None else teacher.predict_with_logits(known)[1]
    )
    return ExpressionEffect.fit(torch.cat(alone).double().cpu().numpy(), with_expression)


def _mean_logits(model: nn.Module, problem: Problem) -> Float[Tensor, "subspace output"]:
    outputs = _outputs(model, problem.data, problem.parts.train)
    return torch.cat([output.subspace_logits for output in outputs]).mean(dim=0).clone()


def _outputs(model: nn.Module, data: TaskData, patients: Sequence[Patient]) -> list[SubspaceFusionOutput]:
    """Returns what a model says of patients, computed where it is."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return [model(**batch.to(device).inputs()).cpu() for batch in data.batches(patients, 8)]
