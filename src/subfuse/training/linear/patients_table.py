"""Trivial models of patients who are known by tables alone: their columns, and who is predicted in which fold."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from subfuse.clinical.columns import known_text
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.covariates import column_of, unseen_words
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError, SubfuseError, preview
from subfuse.evaluation.floors import LEAST_VALIDATION
from subfuse.evaluation.predictions import FOLD, PATIENT, TaskPredictions, stacked
from subfuse.evaluation.regression.columns import VALUE
from subfuse.identifiers import patient_of_barcode
from subfuse.preparation.declared_columns import check_batch, resolve_covariates

BATCH_COLUMN = "batch"
_KEY = "key"  # of a patient, also where two cohorts have one of the same identifier
_FoldName = tuple[Any, Any]  # repeat and name


@dataclass(frozen=True)
class TabledPatients:
    """The patients of a task as models of their columns read them, in the folds in which others predict them."""

    task: TaskPredictions
    cohort: Cohort
    folds: Mapping[_FoldName, Fold]
    keys: pd.DataFrame  # cohort and patient_id of every patient of `cohort`
    unread: tuple[str, ...]  # which columns cannot be read, and why
    constant: tuple[str, ...]  # which have one value for all

    @classmethod
    def of(cls, task: TaskPredictions, patients: pd.DataFrame, clinical: Sequence[str]) -> "TabledPatients":
        """Returns the patients of a task, whose models are fitted on whom the table says it of, else on other folds.

        Fitted on are the patients of a fold's other splits, or, without any, those whom the other folds of its repeat
        test; never a person whom it tests.

        Args:
            task: Rows of all models.
            patients: Columns `patient_id`, perhaps `cohort`, and any of `clinical`, `site` and `batch`.
            clinical: Columns that the clinical model may read, where patients differ in them.
        """
        known = _with_columns(task, patients, [*clinical, "site", BATCH_COLUMN])
        folds = _folds(task.rows.merge(known[[*PATIENT, _KEY]], on=PATIENT))
        cohort, unread = _cohort(task, known, clinical)
        columns = [name for name in (*clinical, "site", BATCH_COLUMN) if name in known]
        constant = tuple(name for name in columns if known[name].nunique() == 1)
        if "site" in known and (n := known["site"].nunique()) > 1 and n == known["site"].notna().sum():
            unread = (*unread, f"site: hospitals with several patients are required. Found {n} for {n} patients.")
        return cls(task, cohort, folds, known[[*PATIENT, _KEY]], unread, constant)

    def without(self, columns: Collection[str]) -> "TabledPatients":
        """Returns the same without some of the clinical columns."""
        kept = tuple(name for name in self.cohort.covariates if column_of(name) not in columns)
        return replace(self, cohort=replace(self.cohort, covariates=kept))

    def too_few(self) -> str | None:
        """Returns in which fold there are too few patients to fit anything on; None where all have enough."""
        outcome, outcomes = self.task.outcome, self.task.rows.drop_duplicates(PATIENT).merge(self.keys, on=PATIENT)
        for (_, name), fold in self.folds.items():
            trained = outcomes[outcomes[_KEY].isin(fold.train)]
            if trained.empty:
                return f"nobody is known who is not tested in fold {name}"
            if not outcome.suffices(trained, LEAST_VALIDATION):
                is_survival = outcome.kind == "survival"
                n_events = f" with {outcome.counts(trained)['n_events']} events" if is_survival else ""
                needed = f"{LEAST_VALIDATION} {outcome.words['fitted on']} are needed"
                return f"fold {name} leaves {len(trained)} patients{n_events}, {needed}"
        return None

    def unseen(self) -> list[str]:
        """Returns in words which values of tested patients the models of their fold never saw."""
        by_id = {patient.patient_id: patient.columns for patient in self.cohort}
        folds: dict[tuple[str, str], list[str]] = {}
        for (_, name), fold in self.folds.items():
            if not fold.train:
                continue  # no model, to which anything were new
            sides = ([by_id[key] for key in keys] for keys in (fold.train, fold.test))
            for column, words in unseen_words(self.cohort.covariates, *sides).items():
                for word in words:
                    folds.setdefault((column, word), []).append(str(name))
        return [
            f"{column} {word} never occurs in training of fold{'s' if len(names) > 1 else ''} {preview(names)}: it is "
            "taken as unknown there"
            for (column, word), names in folds.items()
        ]

    def predict(self, model: str) -> tuple[pd.DataFrame, dict[Any, str]]:
        """Returns what the models of all folds predict of those whom they train on and test, as `crossval` would.

        Also by name the folds in which none was fitted, and why.
        """
        from subfuse.training.fitting import predict_sides, train_fold  # imports PyTorch
        from subfuse.training.settings import TrainingPlan

        plan, spec = TrainingPlan(device="cpu"), self.cohort.tasks[self.task.name]
        tables, unfitted = [], {}
        for (repeat, name), fold in self.folds.items():
            try:
                fitted = train_fold(self.cohort, fold, task=self.task.name, model_name=model, plan=plan)
            except DataError as error:
                unfitted[name] = str(error)
                continue
            others = {"time_days", "event", "label"} - {*spec.outcome_columns}
            rows = predict_sides(fitted, self.cohort, fold)
            rows = rows.rename(columns={"patient_id": _KEY}).drop(columns=["cohort", *others])
            tables.append(rows.assign(task=self.task.name, model=model, repeat=repeat, fold=name))
        found = stacked(tables).merge(self.keys, on=_KEY).drop(columns=_KEY) if tables else pd.DataFrame()
        return found, unfitted


def _with_columns(task: TaskPredictions, patients: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Returns each patient of a task once, with outcome, columns as text and a key of its own."""
    own = task.rows.drop_duplicates(PATIENT)[[*PATIENT, *task.outcome.columns]]
    patients = patients.assign(patient_id=patients["patient_id"].astype(str))
    by = PATIENT if "cohort" in patients and patients["cohort"].isin(own["cohort"]).any() else ["patient_id"]
    names = [name for name in columns if name in patients]
    known = own.merge(patients[[*by, *names]].drop_duplicates(by), on=by, how="left")
    known = known.assign(**{name: known_text(known[name]) for name in names})
    is_twice = known["patient_id"].duplicated(keep=False)
    return known.assign(**{_KEY: known["patient_id"].where(~is_twice, known["cohort"] + " " + known["patient_id"])})


def _folds(rows: pd.DataFrame) -> dict[_FoldName, Fold]:
    """Returns who is tested in each fold, and on whom a model of it may be fitted."""
    tested = {fold: _persons(own[own["split"] == "test"]) for fold, own in rows.groupby(FOLD, sort=False)}
    folds = {}
    for (repeat, fold), own in rows.groupby(FOLD, sort=False):
        trained = _persons(own[own["split"] != "test"])
        others = [persons for (r, f), persons in tested.items() if r == repeat and f != fold]
        candidates = trained or {key: person for persons in others for key, person in persons.items()}
        test = tested[repeat, fold]
        outside = [key for key, person in candidates.items() if person not in set(test.values())]
        folds[repeat, fold] = Fold(tuple(sorted(outside)), (), tuple(sorted(test)))
    return {name: fold for name, fold in folds.items() if fold.test}


def _persons(rows: pd.DataFrame) -> dict[str, str]:
    """Returns the person behind each patient: samples of one TCGA patient are one."""
    keys = rows.drop_duplicates(_KEY)
    return dict(zip(keys[_KEY], keys["patient_id"].map(patient_of_barcode), strict=True))


def _cohort(task: TaskPredictions, known: pd.DataFrame, clinical: Sequence[str]) -> tuple[Cohort, tuple[str, ...]]:
    """Returns the patients as models read them, and which of their columns cannot be read, and why."""
    spec = TaskSpec(time="time_days", event="event")
    if task.outcome.kind == "regression":
        spec = TaskSpec(column=VALUE, kind="regression")
    if task.classes is not None:
        spec = TaskSpec(column="label", classes=task.classes)
    differing = [name for name in (*clinical, BATCH_COLUMN) if name in known and known[name].nunique() > 1]
    batch, names, unread = None, list[str](), list[str]()
    for column in differing:
        try:
            if column == BATCH_COLUMN:
                check_batch(column, known, {}, develops=True)
                batch = column
            else:
                names += resolve_covariates([column], known, {}, develops=True)
        except SubfuseError as error:
            unread.append(str(error))
    read = list(dict.fromkeys(map(column_of, names)))
    patients = tuple(_patient(row, task, read, batch) for row in known.to_dict("records"))
    cohort = Cohort("audited", patients, (), None, gene_sets={}, tasks={task.name: spec}, covariates=tuple(names),
                    batch=batch)  # fmt: skip
    return cohort, tuple(unread)


def _patient(
    row: Mapping[Hashable, Any], task: TaskPredictions, covariates: Sequence[str], batch: str | None
) -> Patient:
    words = {BATCH_COLUMN: row[batch]} if batch is not None and row[batch] is not None else {}
    has_time = task.outcome.kind == "survival"
    outcome = {} if has_time else {name: str(row[name]) for name in task.outcome.columns}
    return Patient(
        row[_KEY],
        row["cohort"],
        covariates={name: row[name] for name in covariates if row[name] is not None},
        time_days=float(row["time_days"]) if has_time else None,
        event=bool(row["event"]) if has_time else None,
        labels={**words, **outcome},
        site=row.get("site"),
    )
