"""A run and a cohort as the viewer shows them: predictions in memory, looked up by patient."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

import pandas as pd

from subfuse.cohort.cohort import Cohort, Patient, read_cohort, read_resolved
from subfuse.devices import AUTO
from subfuse.errors import DataError
from subfuse.evaluation.predictions import RECALIBRATED, class_columns, columns_with, predicted_classes
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, VALUE, holds_values
from subfuse.expression.gene_names import gene_aliases
from subfuse.expression.source import ExpressionSection, ExpressionUnit
from subfuse.expression.upload import UploadedExpression, read_upload
from subfuse.run_folder.tables import stack_predictions
from subfuse.runs.external_validation import with_percentiles, with_recalibrated
from subfuse.runs.run import Run, load_run
from subfuse.serve.schema import Outcome, PatientSummary, Prediction, SurvivalPoint, TaskInfo
from subfuse.training.models import main_model


@dataclass(frozen=True)
class RunReader:
    """A run with the cohort whose patients are shown."""

    run: Run
    cohort: Cohort
    predictions: pd.DataFrame  # rows of `predictions.csv` of these patients, risk_percentile and what is recalibrated
    role: str | None = None  # of these patients in their prepared folder, see `read_cohort`

    @property
    def explained_model(self) -> str:
        """The model that explanations are made of: subspace fusion where the run has it."""
        return main_model([str(model) for model in self.run.predictions["model"]])

    def upload_unit(self, patient: Patient) -> ExpressionUnit | None:
        """Returns the unit that an uploaded file of this patient must be in, or None where nothing can be uploaded.

        It is the unit of the patient's cohort; where the source told it, the scale of models. Z-scores within a cohort
        need the whole cohort.
        """
        section = self._expression_section(patient)
        if section is None or self.cohort.expression_unit is None or section.standardise is not None:
            return None
        return section.unit or cast(ExpressionUnit, self.cohort.expression_unit)

    def patient(self, patient_id: str) -> Patient | None:
        """Returns a patient of the cohort, or None."""
        return next((patient for patient in self.cohort if patient.patient_id == patient_id), None)

    @cached_property
    def tasks(self) -> list[TaskInfo]:
        """The tasks that have predictions, in order of appearance."""
        found = []
        for name, rows in self.predictions.groupby("task", sort=False):
            classes = predicted_classes(rows)
            found.append(
                TaskInfo(
                    name=str(name),
                    kind=_kind(rows),
                    classes=classes,
                    models=[str(model) for model in rows["model"].unique()],
                    splits=[split for split in ("test", "new", "validation", "train") if split in set(rows["split"])],
                )
            )
        return found

    def of_patient(self, patient_id: str) -> list[Prediction]:
        """Returns every prediction of one patient."""
        return _as_predictions(self.predictions[self.predictions["patient_id"] == patient_id])

    def summaries(self, task: str, model: str, split: str, explained: set[str]) -> list[PatientSummary]:
        """Returns the patients of one split, from the highest risk percentile or number down, then by identifier.

        Several predictions of a patient are averaged: of all models for a new patient, of those that trained on it for
        a training patient. Of repeated cross-validation the first repeat is shown.

        Args:
            task: Task of the run.
            model: Model of the run.
            split: test, validation, train or new.
            explained: Patients with an explanation of this task.
        """
        table = self.predictions
        rows = table[(table["task"] == task) & (table["model"] == model) & (table["split"] == split)]
        rows = rows[rows["repeat"] == rows["repeat"].min()]
        columns = ["risk", "risk_percentile", *class_columns(rows), *columns_with(rows, PREDICTED_VALUE)]
        found = []
        for patient_id, several in rows.groupby("patient_id", sort=True):
            mean = {str(n): _number(v) for n, v in several[columns].astype(float).mean().items()}
            probabilities = _with_prefix(mean, "p_")
            first = several.iloc[0]
            found.append(
                PatientSummary(
                    patient_id=str(patient_id),
                    split=split,
                    n_predictions=len(several),
                    outcome=_outcome(first),
                    risk=mean["risk"],
                    risk_percentile=mean["risk_percentile"],
                    probabilities=probabilities,
                    predicted_class=_most_probable(probabilities),
                    predicted_value=mean.get(PREDICTED_VALUE),
                    has_slides=bool(first["has_slides"]),
                    has_expression=bool(first["has_expression"]),
                    explained=str(patient_id) in explained,
                )
            )
        return sorted(found, key=_height, reverse=True)

    @property
    def explain(self) -> Callable[[str, Path], object]:
        """What explains a patient's prediction of every task in a folder, see `Run.explain`; in any process."""
        assert self.cohort.root is not None  # it was read from there
        return partial(_explain, self.run.folder, self.run.device, self.cohort.root, self.role, self.explained_model)

    @property
    def n_explained_tasks(self) -> int:
        """Number of tasks that an explanation has."""
        return len({job.task for job in self.run.jobs(model=self.explained_model)})

    def predict_with(
        self, patient: Patient, content: bytes, *, model: str
    ) -> tuple[UploadedExpression, list[Prediction]]:
        """Returns an uploaded expression and the predictions of the patient's slides with it.

        A patient of the run is predicted by the models that did not train on it, a new one by all.

        Raises:
            DataError: The file cannot be used, or the cohort has no expression to compare with.
        """
        unit, section = self.upload_unit(patient), self._expression_section(patient)
        if unit is None or section is None:
            raise DataError(
                "a cohort with expression that is not standardised within the cohort is required: it says in which "
                f"unit a file is. Found none for {patient.cohort!r}."
            )
        aliases = gene_aliases(section.aliases)
        uploaded = read_upload(content, unit=unit, genes=self.cohort.genes, aliases=aliases)
        only = (replace(patient, expression=uploaded.values),)
        changed = replace(self.cohort, patients=only, expression_basis=uploaded.basis)
        table, notes = self.run.predict_with_notes(changed, model=model)
        return replace(uploaded, warnings=(*uploaded.warnings, *notes)), _as_predictions(table)

    def _expression_section(self, patient: Patient) -> ExpressionSection | None:
        if self.cohort.root is None:
            return None
        members = read_resolved(self.cohort.root).members
        return next((member.expression for member in members if member.name == patient.cohort), None)


def open_run(
    run_folder: Path, cohort_folder: Path | None = None, role: str | None = None, *, device: str = AUTO
) -> RunReader:
    """Returns a run with its own cohort or another prepared one, of these the cohorts of a role (`read_cohort`).

    Models predict and are explained on the device, see `chosen_device`.

    Patients of the run keep the predictions of `predictions.csv`; others are predicted now, where a folder or a role
    is named.

    Raises:
        ConfigurationError: The folder is no run, or its cohort has no folder.
        DataError: The cohort is not prepared, or no model can predict its patients.
    """
    run = load_run(run_folder, device=device)
    cohort = read_cohort(cohort_folder or run.cohort_folder, role)
    shown = {patient.patient_id for patient in cohort}
    known = with_recalibrated(with_percentiles(run.predictions))
    tables = [known[known["patient_id"].isin(shown)]]
    new = shown - set(run.predictions["patient_id"])
    if new and (cohort_folder is not None or role is not None):
        tables.append(run.predict(cohort.select(new)))
    tables = [table for table in tables if len(table)]
    if not tables:
        raise DataError(f"{run_folder}: at least one predicted patient of cohort {cohort.name!r} is required.")
    return RunReader(run, cohort, stack_predictions(tables), role)


def _explain(
    run_folder: Path, device: str, cohort_folder: Path, role: str | None, model: str, patient_id: str, out: Path
) -> None:
    load_run(run_folder, device=device).explain(read_cohort(cohort_folder, role), patient_id, out, model=model)


def _as_predictions(rows: pd.DataFrame) -> list[Prediction]:
    """Returns rows of `predictions.csv` as answers."""
    return [_prediction(row) for row in rows.to_dict("records")]


def _prediction(row: Mapping[Any, Any]) -> Prediction:
    named = {str(column): _number(value) for column, value in row.items() if "_" in str(column)}
    probabilities = _with_prefix(named, "p_")
    survival, recalibrated = (
        {float(days): value for days, value in _with_prefix(named, f"{kind}survival_").items()}
        for kind in ("", RECALIBRATED)
    )
    return Prediction(
        task=row["task"],
        model=row["model"],
        repeat=int(row["repeat"]),
        fold=int(row["fold"]),
        split=row["split"],
        outcome=_outcome(row),
        risk=_number(row["risk"]),
        risk_percentile=_number(row["risk_percentile"]),
        survival=[
            SurvivalPoint(days=days, probability=survival[days], recalibrated=recalibrated.get(days))
            for days in sorted(survival)
        ],
        probabilities=probabilities,
        recalibrated=_with_prefix(named, f"{RECALIBRATED}p_"),
        predicted_class=_most_probable(probabilities),
        predicted_value=_number(row.get(PREDICTED_VALUE)),
        contributions=_with_prefix(named, "contribution_"),
        has_slides=bool(row["has_slides"]),
        has_expression=bool(row["has_expression"]),
    )


def _kind(rows: pd.DataFrame) -> Literal["survival", "classification", "regression"]:
    """Returns what the rows of a task predict."""
    if holds_values(rows):
        return "regression"
    return "classification" if predicted_classes(rows) else "survival"


def _height(summary: PatientSummary) -> float:
    """Returns by what patients are sorted: a number, or the risk percentile from 0 on; what is unknown comes last."""
    if summary.predicted_value is not None:
        return summary.predicted_value
    return -1.0 if summary.risk_percentile is None else summary.risk_percentile


def _outcome(row: Mapping[Any, Any] | pd.Series) -> Outcome:
    event, label = row["event"], row["label"]
    return Outcome(
        time_days=_number(row["time_days"]),
        event=None if pd.isna(event) else bool(event),
        label=None if pd.isna(label) else str(label),
        value=_number(row.get(VALUE)),
    )


def _with_prefix(values: Mapping[str, float | None], prefix: str) -> dict[str, float]:
    return {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix) and value is not None
    }


def _most_probable(probabilities: Mapping[str, float]) -> str | None:
    return max(probabilities, key=lambda name: probabilities[name]) if probabilities else None


def _number(value: Any) -> float | None:
    """Returns a finite number, or None for what is missing, infinite or text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
