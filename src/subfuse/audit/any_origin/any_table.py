"""Makes any table of predictions auditable: what is missing is filled in, left out, and said."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from subfuse.audit.any_origin.cells import class_of, class_text, read_events, read_numbers, read_splits, refuse_cells
from subfuse.audit.any_origin.outcomes import outcome_columns
from subfuse.audit.findings import Finding
from subfuse.errors import DataError, and_more, counted, preview
from subfuse.evaluation.predictions import class_columns, holds_risks, predicted_classes
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, VALUE, holds_values
from subfuse.identifiers import difference_of_spelling, same_but_for_spelling
from subfuse.training.models import model_title

CHECK = "completeness"
_DEFAULTS: dict[str, Any] = {
    "cohort": "unnamed", "task": "task", "model": "model", "repeat": 0, "fold": 0, "split": "test",
}  # fmt: skip
_ROUNDED = 0.02  # how far from 1 rounding may move a row of probabilities
_CURVE = re.compile(r"survival_\d+(?:\.\d+)?")
_RISE, _RISING_SHARE = 0.01, 0.05  # of survival from one day to the next, and of the rows in which it is said
_TABLE = "reading"
_KEY = ["task", "model", "repeat", "fold", "cohort", "patient_id"]
_WHY_MISSING = {
    "split": "Without the training rows, leakage, risk groups and censoring-weighted metrics cannot be checked; every "
    "row is taken to be a test patient.",
    "fold": "All rows are taken to come from one model, whose risks may be ranked together.",
    "model": "All rows are taken to be predictions of one model, so nothing can be compared.",
}


def auditable(predictions: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Returns the rows that can be audited, with every column of predictions.csv that audits need, and findings.

    Rows without an outcome or a prediction are left out; so are further rows of the same patient in the same fold of
    a model. Columns that are missing get one value for all rows.

    Args:
        predictions: At least patient_id, and time_days, event and risk (survival), label and two p_<class>, or
            value and predicted_value (regression).

    Raises:
        DataError: These columns are missing, or no row is left.
    """
    _check_columns(predictions)
    predictions = predictions.reset_index(drop=True)  # tables of several runs may be stacked
    table, findings = predictions.copy(), []
    absent = [name for name in _DEFAULTS if name not in table or table[name].isna().all()]
    for name in absent:
        table[name] = _DEFAULTS[name]
        if name in _WHY_MISSING:
            remedy = f"Add the column {name} as predictions.csv has it."
            findings.append(Finding("note", CHECK, f"the column {name} is missing", _WHY_MISSING[name], remedy))
    table["repeat"] = table["repeat"].fillna(_DEFAULTS["repeat"])  # empty where the models of all folds were averaged
    for name in ("patient_id", "task", "model", "fold"):
        refuse_cells(table, name, table[name].isna(), "a value", "Fill it in, or remove the row")
    table["patient_id"] = table["patient_id"].astype(str)
    table["cohort"] = table["cohort"].astype(str)
    table["split"] = read_splits(table["split"])
    for name, remedy in (("time_days", "Convert it to days"), ("risk", "Give one number a patient, higher is worse")):
        table[name] = read_numbers(table, name, remedy) if name in table else np.nan
    for name in (VALUE, PREDICTED_VALUE) if {VALUE, PREDICTED_VALUE} <= {*table} else ():
        table[name] = read_numbers(table, name, "Give one number a patient")
    table["event"] = read_events(table) if "event" in table else None
    for name in (name for name in map(str, table) if name.startswith("p_")):
        table[name] = read_numbers(table, name, "Give one probability a patient")
    for name in (name for name in map(str, table) if _CURVE.fullmatch(name)):
        table[name] = read_numbers(table, name, "Give one probability a patient")
        refuse_cells(
            table, name, (table[name] < 0) | (table[name] > 1), "a probability from 0 to 1", "Divide per cent by 100"
        )
    table, read = _with_probabilities(table)
    findings += read
    table["label"] = _labels(table) if "label" in table else None
    _refuse_no_time(table)
    _refuse_contradictions(table)
    for keep, level, found, why in _FILTERS:
        left_out = table[~keep(table)]
        if len(left_out):
            table = table.drop(left_out.index)
            findings.append(
                Finding(level, CHECK, found.format(**_numbers(left_out)), why, "Correct or complete these rows.")
            )
    findings += _tested_again(table)
    if table.empty:
        found = "; ".join(finding.found for finding in findings) or "no rows"
        raise DataError(
            f"predictions must have rows with patient, outcome and prediction. Found none that is complete: {found}. "
            "Give outcomes that the file lacks with --patients."
        )
    return table.reset_index(drop=True), [*findings, *_rising(table)]


def _rising(table: pd.DataFrame) -> Iterator[Finding]:
    """Yields a warning for each model whose survival rises with time; where late days lack models, a mean may do so."""
    days = sorted((name for name in map(str, table) if _CURVE.fullmatch(name)), key=lambda name: float(name[9:]))
    for (task, model), rows in table.groupby(["task", "model"], sort=False):
        folds = [fold[days].dropna(axis=1, how="all") for _, fold in rows.groupby(["repeat", "fold"])]
        n_rising = sum(int((fold.diff(axis=1) > _RISE).any(axis=1).sum()) for fold in folds)
        if n_rising > _RISING_SHARE * len(rows):
            found = f"survival of {model_title(str(model))} rises with time in {n_rising} of {len(rows)} rows"
            why = "Whoever is alive on a later day was so on the earlier ones: what rises is no survival curve."
            remedy = "Check which column belongs to which day, and that they hold survival and no hazards."
            yield Finding("warning", CHECK, found, why, remedy, str(task))


def _check_columns(predictions: pd.DataFrame) -> None:
    columns = [str(name) for name in predictions.columns]
    has_survival = {"time_days", "event", "risk"} <= set(columns)
    has_classes = "label" in columns and sum(name.startswith("p_") for name in columns) >= 2
    has_values = {VALUE, PREDICTED_VALUE} <= set(columns)
    if "patient_id" not in columns or not (has_survival or has_classes or has_values):
        raise DataError(
            "predictions need the column patient_id, and time_days, event and risk (higher is worse) for survival, "
            "label and p_<class> of each class, or value and predicted_value for regression. Found "
            f"{preview(columns, 15)}. Rename or add columns."
        )


def _with_probabilities(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Finding]]:
    """Returns the table with class probabilities that sum to 1 in every row, and what was done for it.

    Per cent and sums that rounding moved away from 1 have one meaning. Anything else, such as logits, has not.
    """
    findings = []
    for name, rows in table.groupby("task", sort=False):
        columns = class_columns(rows)
        values = rows[columns].to_numpy(float)
        complete = rows.index[np.isfinite(values).all(axis=1)] if columns else rows.index[:0]
        if complete.empty:
            continue
        sums = table.loc[complete, columns].sum(axis=1)
        per_cent = 100.0 if ((sums - 100).abs() <= 100 * _ROUNDED + 1e-9).all() else 1.0
        sums = sums / per_cent
        off = ((sums - 1).abs() > _ROUNDED + 1e-9) | (table.loc[complete, columns] < 0).any(axis=1)
        if off.any():
            row = table.loc[off.idxmax()]
            numbers = row[columns].astype(float)
            remedy = "softmax outputs, not logits," if numbers.min() < 0 or numbers.max() > 1 else "unrounded ones"
            raise DataError(
                f"columns {preview(columns, 4)}: probabilities from 0 to 1 that sum to 1 are required (or per cent). "
                f"Found {preview(numbers.map('{:g}'.format), 4)}, in sum "
                f"{numbers.sum():.3g}, for patient {row['patient_id']}{and_more(int(off.sum()) - 1, 'such row')}. Give "
                f"{remedy} of every class."
            )
        done = [text for text, is_so in (("read as per cent", per_cent > 1), (
            f"divided by their sums, {sums.min():.3g} to {sums.max():.3g}", bool(((sums - 1).abs() > 1e-3).any())
        )) if is_so]  # fmt: skip
        table.loc[complete, columns] = table.loc[complete, columns].div(sums * per_cent, axis=0)
        if done:
            found = f"the probabilities of {preview(columns, 4)} were {' and '.join(done)}"
            findings.append(Finding("note", _TABLE, found, task=str(name)))
    return table, findings


def _labels(table: pd.DataFrame) -> pd.Series:
    """Returns the labels as the classes of their task are called.

    Raises:
        DataError: A label is no class of its task.
    """
    labels = table["label"].map(class_text).astype(object)
    for _, rows in table.groupby("task", sort=False):
        classes = predicted_classes(rows)
        if not classes:
            continue
        named = pd.Series([class_of(label, classes) for label in labels[rows.index]], rows.index, dtype=object)
        extra = named[~named.isin([*classes, None])]
        if len(extra):
            label, like = str(extra.iloc[0]), same_but_for_spelling([str(extra.iloc[0])], classes)
            alike = [f"It differs from {name} only in {difference_of_spelling(label, name)}." for name in like.values()]
            raise DataError(
                f"column label: one of the predicted classes {preview(classes, 10)} is required. Found {label!r} for "
                f"patient {rows['patient_id'][extra.index[0]]}{and_more(len(extra) - 1, 'such row')}. "
                f"{''.join(alike) or f'Add its probability as p_{label}, or correct or empty the cell.'}"
            )
        labels[rows.index] = named
    return labels


def _refuse_no_time(table: pd.DataFrame) -> None:
    for name, rows in table.groupby("task", sort=False):
        if holds_risks(rows) and len(rows) > 1 and rows["time_days"].eq(0).all():
            raise DataError(
                f"column time_days: follow-ups above 0 are required. Found 0 for all {rows['patient_id'].nunique()} "
                f"patients of task {name}. Give the days from diagnosis to death or last contact."
            )


def _refuse_contradictions(table: pd.DataFrame) -> None:
    """Refuses rows of one patient in one fold of a model that do not agree on the outcome."""
    for _, rows in table.groupby("task", sort=False):
        columns = list(outcome_columns(rows))
        known = rows.dropna(subset=columns)
        several = known[known.duplicated([*_KEY, "split"], keep=False)]
        differ = (several.groupby([*_KEY, "split"])[columns].nunique() > 1).any(axis=1)
        if differ.any():
            patient = differ.index[differ][0][_KEY.index("patient_id")]
            outcomes = known.loc[known["patient_id"] == patient, columns].drop_duplicates()
            found = outcomes.astype(str).agg(", ".join, axis=1)
            raise DataError(
                f"column{'s' * (len(columns) > 1)} {' and '.join(columns)}: rows of one patient must agree. Found "
                f"{preview(found.map(repr), 3)} for patient {patient}"
                f"{and_more(int(differ.sum()) - 1, 'such patient')}. Keep the right outcome."
            )


def _numbers(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        "rows": counted(len(rows), "row"),
        "which": preview(dict.fromkeys(rows["patient_id"]), 3),
        "models": preview(map(model_title, dict.fromkeys(rows["model"].astype(str))), 5),
        "splits": preview(dict.fromkeys(rows["split"]), 5),
    }


def _tested_again(table: pd.DataFrame) -> list[Finding]:
    """Returns a warning of patients tested in several folds of a repeat, but not in all, as external patients are."""
    tested = table[table["split"] == "test"]
    of_models = ["task", "model", "repeat"]
    n_folds = tested.groupby([*of_models, "cohort", "patient_id"])["fold"].nunique()
    of_all = tested.groupby(of_models)["fold"].nunique().reindex(n_folds.index.droplevel(["cohort", "patient_id"]))
    again = n_folds[(n_folds > 1) & (n_folds.to_numpy() < of_all.to_numpy())]
    if again.empty:
        return []
    names = list(dict.fromkeys(again.index.get_level_values("patient_id")))
    return [
        Finding(
            "warning",
            CHECK,
            f"{counted(len(names), 'patient')} tested in several folds ({preview(names, 3)})",
            "Where slides were divided instead of patients, models were tested on patients of their training.",
            "Divide patients between folds; or, if these are repeated random splits, number them in a column `repeat`.",
        )
    ]


def _of_tasks(rows: pd.DataFrame, known: Callable[[pd.DataFrame], pd.Series]) -> pd.Series:
    """Returns a row-wise answer that depends on the kind of the row's task."""
    parts = [known(task) for _, task in rows.groupby("task", sort=False)]
    return pd.concat(parts).reindex(rows.index).astype(bool) if parts else pd.Series(dtype=bool)


def _has_outcome(rows: pd.DataFrame) -> pd.Series:
    def known(task: pd.DataFrame) -> pd.Series:
        if holds_risks(task):
            return task["time_days"].ge(0) & task["event"].notna()
        return task[VALUE if holds_values(task) else "label"].notna()

    return _of_tasks(rows, known)


def _has_prediction(rows: pd.DataFrame) -> pd.Series:
    def known(task: pd.DataFrame) -> pd.Series:
        columns = ["risk"] if holds_risks(task) else class_columns(task)
        columns = [PREDICTED_VALUE] if holds_values(task) else columns
        return pd.Series(np.isfinite(task[columns].astype(float)).all(axis=1) & bool(columns), index=task.index)

    return _of_tasks(rows, known)


# what is kept, and what is said of the rest
_FILTERS: tuple[tuple[Callable[[pd.DataFrame], pd.Series], Any, str, str], ...] = (
    (
        lambda rows: rows["split"].isin(["train", "validation", "test"]),
        "note",
        "{rows} of split {splits} left out",
        "Only train, validation and test have a meaning here.",
    ),
    (
        _has_outcome,
        "note",
        "{rows} without a usable outcome left out ({which})",
        "Without an outcome a prediction cannot be judged.",
    ),
    (
        _has_prediction,
        "warning",
        "{rows} without a finite prediction left out (models {models}; patients {which})",
        "A model that is silent on difficult patients looks better than it is.",
    ),
    (
        lambda rows: ~rows.duplicated([*_KEY, "split"]),
        "failure",
        "{rows} too many of a patient within a fold of a model; the first is used ({which}). Where rows are slides, "
        "give each patient the mean of them",
        "Patients who count twice make intervals too narrow.",
    ),
)
