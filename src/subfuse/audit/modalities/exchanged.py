"""Whether a model uses a modality, and both together: predictions from slides or expression of other patients."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.findings import Finding
from subfuse.audit.fitting import TrainedJob
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.evaluation.benefit.interaction import INTERACTION, variance_shares
from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.metrics import metric_title, number, signed_interval
from subfuse.evaluation.predictions import columns_with, stacked
from subfuse.evaluation.regression.columns import PREDICTED_VALUE
from subfuse.training.models import modalities_of, model_title

if TYPE_CHECKING:
    import subfuse.training.fitted_model

SHUFFLE_NULL = "modality shuffle"
_LEAST_EXCHANGED = 3  # patients of a grid
_EXCHANGED = ("slides", "expression")
_WHY_INTERACTION = "A fusion model whose modalities only add up does no more than the sum of two simpler models."
_TELLING = 0.05  # a loss of C-index or AUC that would matter: an interval that holds it does not rule out a use
_TINY = 1e-7


def modality_shuffles(
    task: AuditedTask, jobs: Sequence[TrainedJob], cohort: Cohort
) -> tuple[list[Finding], pd.DataFrame]:
    """Returns whether every model of two modalities is worse when one of them is exchanged between test patients."""
    findings, tables = [], [pd.DataFrame()]
    for model in (model for model in task.models if len(task.modalities[model]) > 1):
        chosen = [job for job in jobs if (job.job.task, job.job.model) == (task.name, model)]
        if not chosen:
            detail = "cannot be checked, its fitted models are not in the run"
            findings.append(Finding.of_model("note", SHUFFLE_NULL, detail, task=task.name, model=model))
            continue
        for modality in sorted(task.modalities[model] - (set() if cohort.genes else {"expression"})):
            shuffled = _shuffled_rows(task, model, chosen, cohort, modality)
            finding, compared = shuffle_finding(task, model, shuffled, modality)
            findings.append(finding)
            tables.append(compared.assign(reference_is=f"{modality} in place"))
    return findings, stacked(tables)


def interactions(
    task: AuditedTask, jobs: Sequence[TrainedJob], cohort: Cohort, exchanges: int
) -> tuple[list[Finding], pd.DataFrame]:
    """Returns what every model of both modalities has beyond their sum, in the first repeat.

    Args:
        task: Rows of all models and splits.
        jobs: Finished jobs.
        cohort: The prepared cohort.
        exchanges: Patients of a fold whose modalities are exchanged, each with each; fewer than three: none.
    """
    findings, tables = list[Finding](), [pd.DataFrame()]
    if exchanges < _LEAST_EXCHANGED:
        return findings, tables[0]
    from subfuse.training.stored_model import load_fitted  # loads torch, which tables do not need

    both = {patient.patient_id for patient in cohort if patient.slides and patient.expression is not None}
    for model in (model for model in task.models if modalities_of(model) >= {"slides", "expression"}):
        chosen = [job for job in jobs if (job.job.task, job.job.model, job.job.repeat) == (task.name, model, 0)]
        tested = task.tested_by(model).query("repeat == 0")
        grids = []
        for job in chosen:
            ids = sorted({*tested.loc[tested["fold"] == job.job.fold_index, "patient_id"]} & both)
            drawn = np.random.default_rng(task.seed).permutation(ids)[:exchanges]
            if len(drawn) >= _LEAST_EXCHANGED:
                grids.append(exchanged_grid(load_fitted(job.folder), cohort, list(map(str, drawn))))
        if grids:
            finding, shares = interaction_finding(task.name, model, grids)
            findings.append(finding)
            tables.append(shares)
    return findings, stacked(tables)


def shuffled_predictions(
    fitted: "subfuse.training.fitted_model.FittedModel",
    cohort: Cohort,
    test_ids: Sequence[str],
    modality: str,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Returns a fitted model's predictions of test patients with one modality exchanged among those who have it.

    Covariates stay with their patient: they are not part of the measured expression.

    Args:
        fitted: The model of one fold.
        cohort: The prepared cohort.
        test_ids: The fold's test patients.
        modality: `slides` or `expression`.
        generator: Of the exchange.
    """
    patients = list(fitted.align(cohort.select(test_ids)))
    owners = [i for i, patient in enumerate(patients) if _has(patient, modality)]
    givers = generator.permutation(owners)
    changed = list(patients)
    for taker, giver in zip(owners, givers, strict=True):
        changed[taker] = _exchanged(patients[taker], patients[giver], modality)
    return fitted.predict(changed)


def exchanged_grid(
    fitted: "subfuse.training.fitted_model.FittedModel", cohort: Cohort, patient_ids: Sequence[str]
) -> Float[np.ndarray, "patient patient output"]:
    """Returns predictions from the slides of each patient (rows) with the expression of each (columns).

    Risks, numbers, or log probabilities of the classes. Covariates stay with the patient of the slides.

    Args:
        fitted: Anything with `align` and `predict`.
        cohort: The prepared cohort.
        patient_ids: Patients who have both.
    """
    patients = list(fitted.align(cohort.select(patient_ids)))
    n = len(patients)
    rows = np.arange(n)
    grid = None
    for shift in range(n):
        givers = (rows + shift) % n
        exchanged = [
            _exchanged(patient, patients[j], "expression") for patient, j in zip(patients, givers, strict=True)
        ]
        predicted = fitted.predict(exchanged)
        classes = columns_with(predicted, "p_")
        values = predicted[classes or columns_with(predicted, "risk", PREDICTED_VALUE)].to_numpy(dtype=np.float64)
        values = np.log(np.maximum(values, _TINY)) if classes else values
        grid = np.empty((n, n, values.shape[1])) if grid is None else grid
        grid[rows, givers] = values
    return np.empty((0, 0, 1)) if grid is None else grid


def interaction_finding(
    task: str, model: str, grids: Sequence[Float[np.ndarray, "patient patient output"]]
) -> tuple[Finding, pd.DataFrame]:
    """Returns how much of a model's predictions is neither modality alone, and the table of `variance_shares`."""
    table = variance_shares(grids, modalities=_EXCHANGED).assign(task=task, model=model)
    told = table.set_index("part")
    if told["share"].isna().any():
        detail = "cannot be told, predictions do not change with the modalities of a fold"
        return Finding.of_model("note", INTERACTION, detail, _WHY_INTERACTION, task=task, model=model), table
    of_slides, of_expression, together = (
        f"{told.loc[part, 'share']:.0%} ({told.loc[part, 'lower']:.0%} to {told.loc[part, 'upper']:.0%})"
        for part in (*_EXCHANGED, INTERACTION)
    )
    detail = (
        f"with modalities exchanged between patients, {of_slides} of the variance of its predictions is of "
        f"slides, {of_expression} of expression and {together} of both together only "
        f"(grids of {', '.join(str(len(grid)) for grid in grids)} patients)"
    )
    return Finding.of_model("note", INTERACTION, detail, _WHY_INTERACTION, task=task, model=model), table


def shuffle_finding(
    task: AuditedTask, model: str, shuffled: pd.DataFrame, modality: str
) -> tuple[Finding, pd.DataFrame]:
    """Returns whether a model is worse when one modality is exchanged between test patients.

    Args:
        task: Rows of all models and splits.
        model: The model.
        shuffled: Its test rows as predicted from exchanged inputs, with the columns of predictions.csv.
        modality: What was exchanged.

    Returns:
        A finding, and one row in the columns of `compare_models`.
    """
    name = f"{model}, {modality} shuffled"
    rows = pd.concat([task.of_model(model), shuffled.assign(model=name)], ignore_index=True)
    table = compare_models(rows, reference=model, n_bootstrap=task.n_bootstrap, seed=task.seed)
    row = table.iloc[0]
    if np.isnan(row["lower"]):
        detail = f"shuffling {modality} cannot be judged, {row['reason'] or 'the metric is undefined'}"
        return Finding.of_model("note", SHUFFLE_NULL, detail, task=task.name, model=model), table
    change, interval = number(row["difference"], signed=True), signed_interval(row["lower"], row["upper"])
    evidence = f"{metric_title(task.headline)} changes by {change}, 95 % interval {interval}"
    if row["upper"] < 0:
        found = f"{model_title(model)} uses {modality}: exchanged between patients, {evidence}"
        return Finding("ok", SHUFFLE_NULL, found, task=task.name, model=model), table
    why = f"The result is hardly worse with anybody's {modality}."
    if row["lower"] < -_TELLING:
        found = f"{model_title(model)} is not shown to use {modality}: exchanged between patients, {evidence}"
        return Finding("note", SHUFFLE_NULL, found, "", "More patients would tell.", task.name, model), table
    found = f"{model_title(model)} does not visibly use {modality}: exchanged between patients, {evidence}"
    remedy = f"Compare with a model without {modality}."
    return Finding("warning", SHUFFLE_NULL, found, why, remedy, task.name, model), table


def _shuffled_rows(
    task: AuditedTask, model: str, jobs: Sequence[TrainedJob], cohort: Cohort, modality: str
) -> pd.DataFrame:
    """Returns the model's test rows with predictions from exchanged inputs."""
    from subfuse.training.stored_model import load_fitted  # loads torch, which tables do not need

    generator, tested = np.random.default_rng(task.seed), task.tested_by(model)
    known = {patient.patient_id for patient in cohort}
    parts = []
    for job in jobs:
        key = (tested["repeat"] == job.job.repeat) & (tested["fold"] == job.job.fold_index)
        rows = tested[key & tested["patient_id"].isin(known)].set_index("patient_id", drop=False)
        if rows.empty:
            continue
        predicted = shuffled_predictions(load_fitted(job.folder), cohort, list(rows.index), modality, generator)
        predicted = predicted.set_index("patient_id")
        columns = [name for name in columns_with(predicted, "risk", "survival_", "p_", PREDICTED_VALUE) if name in rows]
        rows = rows.copy()
        rows[columns] = predicted.loc[rows.index, columns]
        parts.append(rows)
    rows = pd.concat(parts, ignore_index=True)
    return rows.dropna(subset=task.outcome.predicted)


def _has(patient: Patient, modality: str) -> bool:
    return bool(patient.slides) if modality == "slides" else patient.expression is not None


def _exchanged(taker: Patient, giver: Patient, modality: str) -> Patient:
    return replace(taker, slides=giver.slides) if modality == "slides" else replace(taker, expression=giver.expression)
