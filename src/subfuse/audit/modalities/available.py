"""How good models of both modalities are for patients of whom only one is there."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from subfuse.audit.audited_task import AuditedTask, headline_value
from subfuse.audit.fitting import TrainedJob
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.predictions import PATIENT, columns_with, stacked
from subfuse.evaluation.regression.columns import PREDICTED_VALUE

BOTH = "slides and expression"
AVAILABLE_COLUMNS = (
    "task", "model", "available", "metric", "value", "difference", "lower", "upper", "n_patients", "reason",
)  # fmt: skip


def by_available_modality(task: AuditedTask, jobs: Sequence[TrainedJob], cohort: Cohort) -> pd.DataFrame:
    """Returns the headline metric of every model of both modalities with both, and with one of them hidden.

    The same test patients, those who have both, are predicted three times by the model that did not train on them. A
    hidden modality is masked, as that of a patient who lacks it; covariates stay. `difference` is from the same model
    with both, with the interval of the paired bootstrap.

    Args:
        task: Rows of all models and splits.
        jobs: Finished jobs.
        cohort: The prepared cohort.

    Returns:
        Columns `AVAILABLE_COLUMNS`, three rows for each model; none where no patient has both.
    """
    known = {patient.patient_id: patient for patient in cohort if patient.slides and patient.expression is not None}
    tables = [pd.DataFrame(columns=list(AVAILABLE_COLUMNS))]
    for model in (model for model in task.models if task.modalities[model] >= {"slides", "expression"}):
        chosen = [job for job in jobs if (job.job.task, job.job.model) == (task.name, model)]
        rows = _with_one_hidden(task, model, chosen, cohort, list(known))
        if len(rows):
            tables.append(_measured(task, model, rows))
    return stacked(tables)


def hidden(patient: Patient, modality: str) -> Patient:
    """Returns the patient without slides, or without expression."""
    return replace(patient, slides=()) if modality == "slides" else replace(patient, expression=None)


def _with_one_hidden(
    task: AuditedTask, model: str, jobs: Sequence[TrainedJob], cohort: Cohort, known: Sequence[str]
) -> pd.DataFrame:
    """Returns test rows of patients who have both, as predicted from both and from each; the column says from which."""
    from subfuse.training.stored_model import load_fitted  # loads torch, which tables do not need

    tested, parts = task.tested_by(model), [pd.DataFrame()]
    for job in jobs:
        of_job = (tested["repeat"] == job.job.repeat) & (tested["fold"] == job.job.fold_index)
        rows = tested[of_job & tested["patient_id"].isin(known)]
        if rows.empty:
            continue
        fitted = load_fitted(job.folder)
        patients = list(fitted.align(cohort.select(rows["patient_id"])))
        parts.append(rows.assign(available=BOTH))
        for modality, left in (("expression", "slides"), ("slides", "expression")):
            alone = [hidden(patient, modality) for patient in patients]
            found = fitted.predict([patient for patient in alone if fitted.usable(patient)]).set_index("patient_id")
            columns = [name for name in columns_with(found, "risk", "survival_", "p_", PREDICTED_VALUE) if name in rows]
            changed = rows[rows["patient_id"].isin(found.index)].copy()
            changed[columns] = found.loc[changed["patient_id"], columns].to_numpy()
            parts.append(changed.assign(available=f"{left} alone"))
    return stacked(parts)


def _measured(task: AuditedTask, model: str, tested: pd.DataFrame) -> pd.DataFrame:
    own = task.of_model(model)
    trained = own[own["split"] != "test"]
    names = list(dict.fromkeys(tested["available"]))
    rows = stacked(
        [part.assign(model=name) for name in names for part in (trained, tested[tested["available"] == name])]
    )
    shown = replace(task, rows=rows, modalities=dict.fromkeys(names, frozenset[str]()), values={})
    compared = compare_models(rows, reference=BOTH, n_bootstrap=task.n_bootstrap, seed=task.seed)
    differences = {str(row["model"]): row for row in compared.to_dict("records")}
    found = []
    for name in names:
        row: dict[Hashable, Any] = {"difference": np.nan, "lower": np.nan, "upper": np.nan, "reason": None}
        row |= {part: value for part, value in differences.get(name, {}).items() if part in row}
        n_patients = tested.loc[tested["available"] == name, PATIENT].drop_duplicates()
        found.append({"available": name, "value": headline_value(shown, name), "n_patients": len(n_patients), **row})
    table = pd.DataFrame(found).assign(task=task.name, model=model, metric=task.headline)
    return table[list(AVAILABLE_COLUMNS)]
