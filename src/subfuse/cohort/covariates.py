"""Covariates: columns of the patients, such as age and gender, as numbers beside expression."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.clinical.reading import FIXED_COLUMNS, RESERVED
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError, preview


def resolve_covariates(
    declared: Sequence[str], patients: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, develops: bool
) -> tuple[str, ...]:
    """Returns the names of the covariates, which say how each is coded.

    A column of numbers keeps its name. A column of two words becomes `column=word`, after the alphabetically later
    word, which is coded 1: `gender` with the values female and male becomes `gender=male`. A name that is declared in
    this form stays, so that cohorts prepared apart can be coded alike; every other known value is then 0.

    Args:
        declared: `covariates` of the cohort file.
        patients: Patients with their columns as text, None where unknown.
        tasks: Tasks, whose outcomes cannot be covariates.
        develops: True where models are trained on these patients; only then must a covariate be known for some, and a
            word that is coded 1 occur. A trained model takes an unknown covariate for that of its average patient.

    Raises:
        ConfigurationError: Not a column of the patients, an outcome, given twice, a column of words that are not two,
            or a word that does not occur.
        DataError: Unknown for every patient.
    """
    outcomes = {column for task in tasks.values() for column in (task.time, task.event, task.column) if column}
    names: list[str] = []
    for entry in declared:
        column = column_of(entry)
        if column in outcomes:
            raise ConfigurationError(
                f"covariates: {column} is an outcome, which a model must not see. Remove it, or the task that predicts "
                f"it. Tasks: {preview(tasks)}."
            )
        available = [str(name) for name in patients if name not in (*FIXED_COLUMNS, *RESERVED)]
        if column not in available:
            raise ConfigurationError(
                f"covariates: {column!r} must be a column of the patients. They have {preview(available, limit=12)}. "
                "Add it to patients.columns."
            )
        names.append(_coded_name(entry, patients[column].dropna().astype(str), develops=develops))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigurationError(f"covariates: {preview(repeated)} must be given once.")
    return tuple(names)


def covariate_values(names: Sequence[str], patients: pd.DataFrame) -> Float[np.ndarray, "patient covariate"]:
    """Returns the covariates of patients in float32, NaN where unknown.

    Args:
        names: From `resolve_covariates`.
        patients: Patients with their columns as text, None where unknown.

    Raises:
        DataError: A value of a numeric covariate is not a finite number. Names the patient.
    """
    columns = [_numbers(name, patients) for name in names]
    return np.stack(columns, axis=1) if columns else np.zeros((len(patients), 0), dtype=np.float32)


def completeness(names: Sequence[str], patients: pd.DataFrame) -> dict[str, int]:
    """Returns for every covariate how many patients it is known for."""
    return {name: int(patients[column_of(name)].notna().sum()) for name in names}


def column_of(name: str) -> str:
    """Returns the column behind a covariate.

    Example:
        >>> column_of("gender=male"), column_of("age")
        ('gender', 'age')
    """
    return name.partition("=")[0]


def _coded_name(entry: str, known: pd.Series, *, develops: bool) -> str:
    if known.empty and develops:
        raise DataError(f"covariates: {column_of(entry)} must be known for some patients. Found none. Remove it.")
    column, has_word, word = entry.partition("=")
    if has_word:
        found = sorted({_canonical(cell) for cell in known})
        if develops and _canonical(word) not in found:
            raise ConfigurationError(f"covariates: {word!r} must occur in {column}. Found {preview(found)}.")
        return f"{column}={_canonical(word)}"
    numeric = np.isfinite(pd.to_numeric(known, errors="coerce"))
    if numeric.all():
        return entry
    words = sorted({_canonical(cell) for cell in known})
    if len(words) != 2:
        shown = sorted({_canonical(cell) for cell in known[~numeric]})
        raise ConfigurationError(
            f"covariates: {entry} must hold numbers or two words. Found {len(words)} value(s), among them "
            f"{preview(shown)}. Correct the column, or name the value that is coded 1, such as `{entry}={shown[-1]}`."
        )
    return f"{entry}={words[1]}"


def _numbers(name: str, patients: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    cells = patients[column_of(name)]
    known = cells.notna().to_numpy()
    values = np.full(len(cells), np.nan, dtype=np.float32)
    if "=" in name:
        word = _canonical(name.partition("=")[2])
        values[known] = [_canonical(cell) == word for cell in cells[known]]
        return values
    numbers = pd.to_numeric(cells[known], errors="coerce").to_numpy(dtype=np.float32)
    if not np.isfinite(numbers).all():
        row = np.flatnonzero(known)[np.argmin(np.isfinite(numbers))]
        patient, cell = patients["patient_id"].iloc[row], cells.iloc[row]
        raise DataError(
            f"covariates: {name} must be a number. Found {cell!r} for {patient}. Correct or empty the cell."
        )
    values[known] = numbers
    return values


def _canonical(value: Any) -> str:
    return str(value).strip().lower()
