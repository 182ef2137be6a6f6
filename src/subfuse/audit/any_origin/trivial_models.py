"""Trivial models for predictions that come without any, fitted on the patients' table with the folds of the file."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pandas as pd

from subfuse.audit.confounding.strata import AGE, MARKERS
from subfuse.audit.disguised_outcomes import suspicious_inputs
from subfuse.audit.findings import Finding
from subfuse.audit.simple_baselines import TRIVIAL_BASELINE, WHY_TRIVIAL
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.covariates import column_of
from subfuse.errors import listed, preview
from subfuse.evaluation.predictions import read_tasks, stacked
from subfuse.training.linear.patients_table import TabledPatients
from subfuse.training.models import BATCH, MODELS, SITE, compared_in, is_trivial, modalities_of, model_title

FITTED = "trivial models"
CLINICAL_COLUMNS = (AGE, "sex", "gender", "grade", *MARKERS)  # what the clinical model reads, where the table has it


@dataclass(frozen=True)
class TrivialModels:
    """Predictions of the models that were fitted, in the form of the table, and what was done or could not be."""

    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    findings: tuple[Finding, ...] = ()
    unfitted: Mapping[str, Finding] = field(default_factory=dict)  # task -> why its models could not be fitted
    cohorts: Mapping[str, Cohort] = field(default_factory=dict)  # task -> patients of whom hospital or batch is known


def fit_trivial_models(
    table: pd.DataFrame, patients: pd.DataFrame, given: Mapping[str, Collection[str]]
) -> TrivialModels:
    """Returns `clinical`, `site` and `batch` of every task as `crossval` fits them; those that are there stay.

    `clinical` reads `CLINICAL_COLUMNS`, but no column that is the task's outcome or tells it, and `sex` rather than
    `gender`. See `TabledPatients.of` for whom they are fitted on.

    Args:
        table: From `auditable`.
        patients: Columns `patient_id`, perhaps `cohort`, and any of `CLINICAL_COLUMNS`, `site` and `batch`.
        given: Model to the modalities it reads; the others read what this package's model of that name reads.
    """
    parts, findings, unfitted, cohorts = [], [], {}, {}
    for task in read_tasks(table):
        columns = [name for name in CLINICAL_COLUMNS if name != task.name and name in patients]
        tabled = TabledPatients.of(task, patients, [n for n in columns if n != "gender" or "sex" not in columns])
        tabled = tabled.without(_telling(tabled))
        there = {frozenset(given.get(model, ())) or modalities_of(model) for model in task.models}
        wanted = {n for n in MODELS if is_trivial(n) and n not in task.models and modalities_of(n) not in there}
        findings += _unread(tabled)
        if (SITE | BATCH) & {*compared_in(tabled.cohort)}:
            cohorts[task.name] = tabled.cohort
        if not wanted & {*compared_in(tabled.cohort)}:
            continue
        usable = [name for name in compared_in(tabled.cohort, list(tabled.folds.values())) if name in wanted]
        reason = tabled.too_few() or ("" if usable else "no hospital or batch of those tested occurs in another fold")
        if reason:
            found = f"cannot be checked: no model can be fitted on the patients' table, {reason}"
            remedy = "Give several folds by a column fold, or rows of split train."
            unfitted[task.name] = Finding("note", TRIVIAL_BASELINE, found, WHY_TRIVIAL, remedy, task.name)
            continue
        fitted = []
        for name in usable:
            rows, failed = tabled.predict(name)
            texts = [f"{model_title(name)} is not fitted in fold {fold}: {why}" for fold, why in failed.items()]
            findings += [Finding("note", FITTED, text, WHY_TRIVIAL, "", task.name, name) for text in texts]
            parts.append(rows)
            fitted += [_in_words(name, tabled)] if len(rows) else []
        if fitted:
            found = f"fitted here with the folds of the predictions: {listed(fitted)}"
            findings.append(Finding("note", FITTED, found, WHY_TRIVIAL, task=task.name))
    return TrivialModels(stacked(parts or [pd.DataFrame()]), tuple(findings), unfitted, cohorts)


def _unread(tabled: TabledPatients) -> list[Finding]:
    """Returns what the models lack: columns that cannot be read, or tell nobody apart, and values they never saw."""
    name, why = tabled.task.name, "A clinical model that lacks a column is a weaker one to compare with."
    lacking = [
        f"models are compared without a column: {text.removeprefix('covariates: ').removesuffix('.')}"
        for text in tabled.unread
    ]
    alike = [f"{column}: one value for all patients, which tells nobody apart" for column in tabled.constant]
    return [
        *(Finding("warning", FITTED, text, why, "Correct the patients' table.", name) for text in lacking),
        *(Finding("note", FITTED, text, WHY_TRIVIAL, task=name) for text in (*alike, *tabled.unseen())),
    ]


def _telling(tabled: TabledPatients) -> set[str]:
    """Returns the clinical columns that are the outcome in disguise."""
    everybody = tuple(patient.patient_id for patient in tabled.cohort)
    found = suspicious_inputs(tabled.cohort, everybody, tabled.task.name)
    return {column_of(name) for name in found.loc[found["is_sure"], "input"]}


def _in_words(model: str, tabled: TabledPatients) -> str:
    columns = dict.fromkeys(map(column_of, tabled.cohort.covariates)) if model == "clinical" else {}
    return f"{model_title(model)}{f' ({preview(columns, len(columns))})' if columns else ''}"
