"""Numbers that a task of regression predicts: refused where they are none, or tell too little apart."""

import math
from collections.abc import Mapping

import pandas as pd

from subfuse.cells import number_hint
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError, preview

_LEAST_VALUES = 5  # different numbers; fewer are classes


def require_numbers(tasks: Mapping[str, TaskSpec], patients: pd.DataFrame) -> None:
    """Refuses a column of a regression task in which a cell is no number.

    Args:
        tasks: All of them.
        patients: Everybody, with their columns as text, None where unknown.

    Raises:
        DataError: Names task, column, patient and cell.
    """
    for name, task in tasks.items():
        if not task.is_regression:
            continue
        cells = patients.set_index("patient_id")[task.label_column].dropna().astype(str)
        others = cells[[not _is_number(cell) for cell in cells]]
        if len(others):
            remedy = number_hint(others.iloc[0]) or " Correct it, or leave out `kind: regression` to predict classes."
            raise DataError(
                f"tasks.{name}: numbers of {task.column} are required, as `kind: regression` learns them. Found "
                f"{others.iloc[0]!r} of {others.index[0]} ({len(others)} such cells).{remedy}"
            )


def require_spread(tasks: Mapping[str, TaskSpec], patients: pd.DataFrame) -> None:
    """Refuses regression of a column with fewer than five different numbers.

    Args:
        tasks: All of them.
        patients: Those to develop on.

    Raises:
        DataError: Names task and column, and the numbers.
    """
    for name, task in tasks.items():
        values = task.cases(patients).dropna() if task.is_regression else None
        if values is not None and values.nunique() < _LEAST_VALUES:
            found = preview([f"{value:g}" for value in sorted(values.unique())]) or "none"
            raise DataError(
                f"tasks.{name}: {_LEAST_VALUES} different numbers of {task.column} are required, as `kind: regression` "
                f"learns them. Found {values.nunique()} among {len(values)} patients ({found}). Leave out `kind: "
                "regression` to predict classes, or remove the task."
            )


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell)) and "_" not in cell
    except ValueError:
        return False
