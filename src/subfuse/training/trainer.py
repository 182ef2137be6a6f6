"""One loop for every neural model, and the road from a fold to a fitted model."""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from subfuse.data.bags import BagBatch, BagReader, FeatureCache, InputStandardiser, draw_batches, has_outcome
from subfuse.data.bags import class_names as classes_of
from subfuse.data.cohort import Cohort, Patient
from subfuse.data.cohort_file import TaskSpec
from subfuse.data.gene_sets import gene_indices
from subfuse.data.splits import Fold
from subfuse.errors import DataError
from subfuse.files import atomic_path, sha256_of_json
from subfuse.model.baselines import LinearModel
from subfuse.model.deformable_attention import position_bias_error
from subfuse.objective.objectives import ClassificationObjective, CoxObjective, DiscreteHazardObjective, Objective
from subfuse.training.checkpoint import FittedModel
from subfuse.training.coordination import (
    ConfidenceGuidedProjection,
    GradientCoordinator,
    NoCoordination,
    gradient_conflict,
)
from subfuse.training.linear import fit_linear
from subfuse.training.recipe import ModelRecipe, fitted_grid, modalities_of
from subfuse.training.settings import ArchitectureSettings, TrainingSettings


@dataclass(frozen=True)
class Assignment:
    """The patients of a fold that can train, validate and test one model on one task."""

    train: tuple[Patient, ...]
    validation: tuple[Patient, ...]
    test: tuple[Patient, ...]


def assign(cohort: Cohort, fold: Fold, task: TaskSpec, model_name: str) -> Assignment:
    """Returns the fold's patients with a known outcome and at least one modality that the model uses.

    Raises:
        DataError: No training or no validation patient is left.
    """
    uses = modalities_of(model_name)

    def eligible(patient: Patient) -> bool:
        seen = ("slides" in uses and patient.slides) or ("expression" in uses and patient.expression is not None)
        return bool(seen) and has_outcome(patient, task)

    by_id = {patient.patient_id: patient for patient in cohort}
    parts = [
        tuple(by_id[i] for i in ids if i in by_id and eligible(by_id[i]))
        for ids in (fold.train, fold.validation, fold.test)
    ]
    if not parts[0] or not parts[1]:
        raise DataError(
            f"{model_name} needs training and validation patients with {' or '.join(sorted(uses))} and a known "
            f"outcome. Found {len(parts[0])} and {len(parts[1])}. Check `subfuse check`, or leave the model out."
        )
    return Assignment(*parts)


def fit_objective(
    patients: Sequence[Patient], task: TaskSpec, classes: Sequence[str], *, model_name: str, settings: TrainingSettings
) -> Objective:
    """Returns the objective with bin edges or class weights fitted on these training patients."""
    if not task.is_survival:
        labels = [classes.index(patient.labels[task.label_column]) for patient in patients]
        return ClassificationObjective.fit(labels, classes=tuple(classes), consistency_weight=settings.consistency)
    time, event = [patient.time_days for patient in patients], [patient.event for patient in patients]
    if model_name == "cox":
        return CoxObjective.fit(time, event)
    return DiscreteHazardObjective.fit(time, event, bins=settings.time_bins, consistency_weight=settings.consistency)


def train_fold(
    cohort: Cohort,
    fold: Fold,
    *,
    task: str,
    model_name: str,
    settings: TrainingSettings,
    architecture: ArchitectureSettings,
    seed: int,
    log_path: Path | None = None,
) -> FittedModel:
    """Returns the model fitted on the training patients of a fold; test patients are never looked at.

    Everything estimated from data (standardisation, time bins, class weights, grid size) comes from the training
    patients; the validation patients decide when to stop and, for linear models, the penalty.
    """
    spec = cohort.tasks[task]
    parts = assign(cohort, fold, spec, model_name)
    classes = () if spec.is_survival else classes_of(cohort.patients, spec)
    features = FeatureCache()
    uses = modalities_of(model_name)
    seen = [p if "slides" in uses else replace(p, slides=()) for p in parts.train]
    standardiser = InputStandardiser.fit(seen, cohort.genes, features)
    objective = fit_objective(parts.train, spec, classes, model_name=model_name, settings=settings)
    recipe = ModelRecipe(
        name=model_name,
        n_outputs=objective.n_outputs,
        patch_dim=1 if standardiser.patch_mean is None else len(standardiser.patch_mean),
        n_genes=len(cohort.genes),
        gene_sets={name: tuple(i) for name, i in gene_indices(cohort.gene_sets, cohort.genes).items()},
        grid=fitted_grid(seen, features, largest=architecture.max_grid),
        architecture=architecture,
    )
    reader = BagReader(standardiser, features)
    data = TaskData(reader, spec, classes, len(cohort.genes))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = recipe.build()
        if isinstance(model, LinearModel):
            log = _fit_linear(model, parts, data)
        else:
            log = Trainer(settings, seed).fit(model, objective, parts.train, parts.validation, data)
    if log_path is not None:
        write_log(log_path, log)
    model.eval()
    return FittedModel(
        task=task,
        task_spec=spec,
        recipe=recipe,
        model=model,
        objective=objective,
        standardiser=standardiser,
        baseline_logits=_mean_logits(model, parts.train, data),
        genes=cohort.genes,
        expression_unit=cohort.expression_unit,
        encoder=cohort.encoder,
        encoder_sha256=cohort.encoder_sha256,
        details={
            "seed": seed,
            "split_sha256": sha256_of_json([fold.train, fold.validation, fold.test]),
            "training": settings.model_dump(mode="json"),
            "position_bias_error": position_bias_error(model),  # of the table, in logits; 0 without one
            "n_train": len(parts.train),
            "n_validation": len(parts.validation),
        },
    )


def _mean_logits(model: nn.Module, train: Sequence[Patient], data: "TaskData") -> Tensor:
    with torch.inference_mode():
        logits = [model(**batch.inputs()).subspace_logits for batch in data.batches(train, 8)]
    return torch.cat(logits).mean(dim=0).clone()


@dataclass(frozen=True)
class TaskData:
    """How patients become batches of one task."""

    reader: BagReader
    task: TaskSpec
    classes: tuple[str, ...]
    n_genes: int

    def batches(self, patients: Sequence[Patient], batch_size: int) -> Iterator[BagBatch]:
        """Yields batches with targets, in the given order."""
        return draw_batches(
            patients, self.reader, batch_size=batch_size, n_genes=self.n_genes, task=self.task, classes=self.classes
        )


def _fit_linear(model: LinearModel, parts: Assignment, data: TaskData) -> list[dict[str, Any]]:
    train, validation = (next(data.batches(group, len(group))) for group in (parts.train, parts.validation))
    fits = fit_linear(model, train, validation)
    return [{"penalty": fit.penalty, "validation_loss": fit.validation_loss} for fit in fits]


@dataclass(frozen=True)
class Trainer:
    """Trains one neural model with Fabric. Knows no task and no model by name."""

    settings: TrainingSettings
    seed: int

    def fit(
        self,
        model: nn.Module,
        objective: Objective,
        train: Sequence[Patient],
        validation: Sequence[Patient],
        data: TaskData,
    ) -> list[dict[str, Any]]:
        """Trains `model` in place and leaves it at the epoch with the lowest validation task loss.

        Returns:
            One row per epoch: losses, learning rate, gradient conflict.
        """
        from lightning.fabric import Fabric

        settings = self.settings
        fabric = Fabric(accelerator=settings.accelerator, devices=1, precision=settings.precision)
        optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        n_steps = settings.epochs * math.ceil(len(train) / settings.batch_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._rate(step, n_steps))
        fabric.to_device(model)
        wrapped = fabric.setup_optimizers(optimizer)
        objective = objective.to(fabric.device)
        step = _Step(fabric, model, wrapped, schedule, objective, self._coordinator(), settings.clip)
        log: list[dict[str, Any]] = []
        best_loss, best_epoch, best_weights = math.inf, 0, _copy(model)
        for epoch in range(settings.epochs):
            terms = self._epoch(step, train, data, epoch)
            validation_loss = self._validate(step, validation, data)
            log.append({"epoch": epoch, **terms, "validation_loss": validation_loss})
            if validation_loss < best_loss:
                best_loss, best_epoch, best_weights = validation_loss, epoch, _copy(model)
            if epoch - best_epoch >= settings.patience:
                break
        model.load_state_dict(best_weights)
        model.cpu()
        objective.cpu()
        return log

    def _epoch(self, step: "_Step", train: Sequence[Patient], data: TaskData, epoch: int) -> dict[str, float]:
        generator = np.random.default_rng([self.seed, epoch])  # the order depends on the epoch only: resumable
        order = [train[i] for i in generator.permutation(len(train))]
        step.model.train()
        rows = [
            step(drop_modalities(batch, self.settings.modality_dropout, generator))
            for batch in data.batches(order, self.settings.batch_size)
        ]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _validate(self, step: "_Step", validation: Sequence[Patient], data: TaskData) -> float:
        step.model.eval()
        total = 0.0
        with torch.inference_mode():
            for batch in data.batches(validation, self.settings.batch_size):
                batch = batch.to(step.fabric.device)
                with step.fabric.autocast():
                    output = step.model(**batch.inputs())
                loss = step.objective(output, batch.target, paired=paired(batch))
                total += float(loss.terms["task"]) * len(batch.patient_id)
        return total / len(validation)

    def _coordinator(self) -> GradientCoordinator:
        rule = self.settings.coordination
        return NoCoordination() if rule == "none" else ConfidenceGuidedProjection(rule)

    def _rate(self, step: int, n_steps: int) -> float:
        warmup = max(1, round(self.settings.warmup * n_steps))
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


@dataclass(frozen=True)
class _Step:
    """One optimiser step: loss, backward, coordination at the head, clipping."""

    fabric: Any
    model: Any
    optimizer: Any
    schedule: Any
    objective: Objective
    coordinator: GradientCoordinator
    clip: float

    def __call__(self, batch: BagBatch) -> dict[str, float]:
        batch = batch.to(self.fabric.device)
        assert batch.target is not None
        with self.fabric.autocast():
            output = self.model(**batch.inputs())
        loss = self.objective(output, batch.target, paired=paired(batch))
        self.optimizer.zero_grad()
        self.fabric.backward(loss.total)
        weight = self.model.head.weight
        conflict = gradient_conflict(weight.grad)
        confidence = self.objective.confidence(output, batch.target)
        weight.grad = self.coordinator.coordinate(weight.grad, confidence)
        self.fabric.clip_gradients(self.model, self.optimizer, max_norm=self.clip)
        rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        terms = {f"train_{name}": float(value) for name, value in loss.terms.items()}
        return {
            "train_loss": float(loss.total.detach()),
            **terms,
            "lr": rate,
            "gradient_cosine": float(conflict.cosine),
            "gradient_conflict": float(conflict.rate),
        }


def paired(batch: BagBatch) -> Tensor:
    """Returns (batch,): True where a patient has both slides and expression."""
    return batch.patch_mask.any(dim=1) & batch.expression_mask


def drop_modalities(batch: BagBatch, probability: float, generator: np.random.Generator) -> BagBatch:
    """Returns the batch with one modality hidden from some of the patients that have both."""
    draw = torch.from_numpy(generator.random(len(batch.patient_id)))
    both = paired(batch)
    hide_slides = both & (draw < probability / 2)
    hide_expression = both & (draw >= probability / 2) & (draw < probability)
    return replace(
        batch,
        patch_mask=batch.patch_mask & ~hide_slides[:, None],
        expression_mask=batch.expression_mask & ~hide_expression,
    )


def write_log(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes one row per epoch (or penalty) as CSV, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
