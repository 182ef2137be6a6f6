"""The tables of a run: what their columns are, and how they are read and put together."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError, preview
from subfuse.evaluation.predictions import (
    COMPETING,
    EXPECTED_CHANGE,
    IN_SET,
    PROMISED_DAYS,
    RECALIBRATED,
    SPREAD,
    UNLIKE,
)
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, VALUE
from subfuse.files import read_json, read_table, sha256_of_file
from subfuse.identifiers import NAME_RULE, is_plain_name
from subfuse.run_folder.names import COMPARISONS, FAILED_RESULTS, FAILURES, METRICS, PREDICTIONS, PROVENANCE, STUDENTS

_FIRST_COLUMNS = ("patient_id", "cohort", "task", "model", "repeat", "fold", "split", "time_days", "event", "label",
                 "risk")  # fmt: skip
_PREFIXES = ("survival_", "p_", "contribution_", RECALIBRATED, SPREAD, IN_SET)
_NUMBERS = ("time_days", "risk", "risk_percentile", VALUE, PREDICTED_VALUE, EXPECTED_CHANGE)
_LAST_COLUMNS = ("has_slides", "has_expression")
_FILLED_COLUMNS = ("patient_id", "task", "model", "repeat", "fold", "split")
PREDICTIONS_SHA256 = "predictions_sha256"  # in provenance.json of a run and of a job: of predictions.csv beside it
RESULTS_SHA256 = "results_sha256"  # in provenance.json of a run: of what was made of the predictions, by name
_RESULTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {  # and the columns of each, see `read_columns`
    METRICS: {
        "names": ("task", "model"),
        "text": ("metric",),
        "numbers": ("value", "sd", "lower", "upper", "n_patients"),
    },
    COMPARISONS: {
        "names": ("task", "model"),
        "text": ("metric", "reference"),
        "numbers": ("difference", "lower", "upper", "p_adjusted"),
    },
    STUDENTS: {
        "names": ("task", "model", "title"),
        "text": ("metric",),
        "numbers": ("value", "lower", "upper", "difference", "difference_lower", "difference_upper", "n_patients"),
    },
    FAILURES: {"names": ("task", "model"), "text": ("fold", "reason")},
    FAILED_RESULTS: {"names": ()},
}
# of tasks that have one, and of new patients
_OPTIONAL_COLUMNS = (VALUE, PREDICTED_VALUE, PROMISED_DAYS, EXPECTED_CHANGE, UNLIKE, COMPETING, "n_models", "reason")


def read_predictions(path: Path) -> pd.DataFrame:
    """Returns a `predictions.csv` with events as True, False or unknown; see `read_table`.

    Raises:
        DataError: There is no such table, it lacks a column that every one has, a job is named as no run names one, a
            number is none, or an event is neither True nor False.
    """
    table = read_table(path, text=["event", COMPETING])
    _check_jobs(path, table)
    numeric = [c for c in map(str, table) if c in _NUMBERS or c.startswith(_PREFIXES)]
    _require(path, table, {name: pd.api.types.is_numeric_dtype(table[name]) for name in numeric}, "numbers")
    for name in ("event", *({COMPETING} & {*table})):
        unknown = table[name].notna() & ~table[name].isin(["True", "False"])
        if unknown.any():
            raise DataError(
                f"{path}, line {int(np.flatnonzero(unknown)[0]) + 2}: {name} must be True, False or empty. Found "
                f"{table.loc[unknown, name].iloc[0]!r}. Correct it."
            )
        table[name] = table[name].map({"True": True, "False": False}).astype("boolean")
    return table


def has_changed_predictions(folder: Path) -> bool:
    """Returns whether `predictions.csv` of a run or job is another one than was written; unknown of earlier versions.

    Raises:
        DataError: `provenance.json`, which says so, cannot be read.
    """
    predictions, provenance = folder / PREDICTIONS, folder / PROVENANCE
    if not predictions.exists() or not provenance.exists():
        return False
    return read_json(provenance).get(PREDICTIONS_SHA256) not in (None, sha256_of_file(predictions))


def require_own_predictions(folder: Path) -> None:
    """Raises a DataError where `has_changed_predictions`."""
    if has_changed_predictions(folder):
        raise DataError(
            f"{folder / PREDICTIONS}: what was written is required. Found that it was changed since. Repeat the "
            "command that made it (`train` with --resume): it predicts again, and trains nothing that is trained."
        )


def _check_jobs(path: Path, table: pd.DataFrame) -> None:
    """Raises a DataError unless every row names its patient, a side of the split, and a job whose folder is its own."""
    required = (*_FIRST_COLUMNS, *_LAST_COLUMNS)
    missing = [name for name in required if name not in table]
    if missing:
        raise DataError(f"{path}: the columns {preview(required, 6)} are required. Missing: {preview(missing)}.")
    _require(path, table, {name: bool(table[name].notna().all()) for name in _FILLED_COLUMNS}, "values in every row")
    _require(path, table, {name: _counts(table[name]) for name in ("repeat", "fold")}, "whole numbers from 0")
    plain = {name: all(map(is_plain_name, table[name].astype(str).unique())) for name in ("task", "model")}
    _require(path, table, plain, f"names ({NAME_RULE})")


def _require(path: Path, table: pd.DataFrame, kept: Mapping[str, bool], what: str) -> None:
    broken = [name for name, is_kept in kept.items() if not is_kept]
    if broken and len(table):
        raise DataError(f"{path}: {what} are required in {preview(broken)}. Found others. Make the table again.")


def _counts(column: pd.Series) -> bool:
    is_numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return is_numeric and bool((column.between(0, 10**6, inclusive="left") & (column % 1 == 0)).all())


def read_optional(path: Path) -> pd.DataFrame:
    """Returns a table, empty where it was not written; see `read_table`."""
    return read_table(path) if path.exists() else pd.DataFrame()


def read_columns(
    path: Path,
    *,
    names: Sequence[str],
    text: Sequence[str] = (),
    numbers: Sequence[str] = (),
    counts: Sequence[str] = (),
) -> pd.DataFrame:
    """Returns a table like `read_optional` that has these columns.

    Args:
        path: The file.
        names: Columns with a name in every row.
        text: Columns that may be empty.
        numbers: Columns of numbers, which may be unknown.
        counts: Columns of whole numbers, where the table has them.

    Raises:
        DataError: It lacks a column, or holds something else in one.
    """
    table = read_optional(path)
    if table.empty:
        return table
    missing = [name for name in (*names, *text, *numbers) if name not in table]
    if missing:
        raise DataError(f"{path}: the column {missing[0]} is required. Found {preview(table.columns)}.")
    _require(path, table, {name: bool(table[name].notna().all()) for name in names}, "names")
    _require(path, table, {name: pd.api.types.is_numeric_dtype(table[name]) for name in numbers}, "numbers")
    known = {name: table[name].dropna() for name in counts if name in table}
    _require(path, table, {name: _counts(cells) for name, cells in known.items()}, "whole numbers from 0")
    return table


def read_result(run: Path, name: str) -> pd.DataFrame:
    """Returns what is told beside a run's predictions, of `_RESULTS`; empty where it was not written.

    Raises:
        DataError: It lacks a column, holds something else in one, or was changed since it was written.
    """
    path, provenance = run / name, run / PROVENANCE
    written = read_json(provenance).get(RESULTS_SHA256) if path.exists() and provenance.exists() else None
    if isinstance(written, dict) and written.get(name) not in (None, sha256_of_file(path)):  # unknown of earlier runs
        raise DataError(
            f"{path}: what was written is required. Found that it was changed since. Repeat the command that made the "
            "run (`train` with --resume): it makes the table again, and trains nothing that is trained."
        )
    return read_columns(path, **_RESULTS[name])


def hashes_of_results(run: Path) -> dict[str, str]:
    """Returns what `read_result` compares the tables with that are there."""
    return {
        name: sha256_of_file(run / name) for name in (METRICS, COMPARISONS, STUDENTS, FAILURES) if (run / name).exists()
    }


def prediction_table(predicted: pd.DataFrame, patients: Sequence, task: TaskSpec) -> pd.DataFrame:
    """Returns predictions with cohort and outcome of the patients beside them; unknown outcomes are empty."""
    table = predicted.copy()
    table["cohort"] = [patient.cohort for patient in patients]
    outcomes = [dict(zip(task.outcome_columns, patient.outcome(task), strict=True)) for patient in patients]
    for column in ("time_days", "event", "label"):
        table[column] = [outcome.get(column) for outcome in outcomes]
    if task.is_regression:
        table[VALUE] = [outcome[VALUE] for outcome in outcomes]
    if task.cause is not None:
        table[COMPETING] = [task.of_other_cause(patient.labels) for patient in patients]
    return table


def order_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with the columns of `predictions.csv` in their documented order."""
    middle = [column for column in map(str, table) if column.startswith(_PREFIXES)]
    middle.sort(key=lambda column: next(i for i, prefix in enumerate(_PREFIXES) if column.startswith(prefix)))
    percentile = [column for column in ("risk_percentile",) if column in table]
    optional = [column for column in _OPTIONAL_COLUMNS if column in table]
    return table.reindex(columns=[*_FIRST_COLUMNS, *percentile, *middle, *_LAST_COLUMNS, *optional])


def stack_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns tables of several tasks and models below one another; columns that one lacks are empty there."""
    filled = [table.dropna(axis=1, how="all") for table in tables]  # all-empty columns would decide the type
    columns = dict.fromkeys(column for table in tables for column in table)
    return order_columns(pd.concat(filled, ignore_index=True).reindex(columns=list(columns)))
