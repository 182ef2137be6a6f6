"""Columns of foreign predictions as numbers, events, splits and classes; unclear cells are refused."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from subfuse.cells import number_hint
from subfuse.errors import DataError, and_more
from subfuse.evaluation.predictions import class_name
from subfuse.tables import is_missing

_SPLITS = {"val": "validation", "valid": "validation", "training": "train", "testing": "test", "new": "test"}
_EVENTS = dict.fromkeys(
    ("true", "1", "1.0", "yes", "y", "event", "dead", "deceased", "died", "death", "1:deceased"), True
) | dict.fromkeys(
    ("false", "0", "0.0", "no", "n", "censored", "alive", "living", "0:living"), False
)  # fmt: skip
_CENSORED = dict.fromkeys(("true", "1", "1.0", "yes", "y", "censored"), True) | dict.fromkeys(
    ("false", "0", "0.0", "no", "n", "uncensored", "event"), False
)
_UNITS = {"time_days": re.compile(r"\s*(?:d|days?)$", re.IGNORECASE), "p_": re.compile(r"\s*%$")}  # with one meaning
_WHOLE = re.compile(r"^(-?\d+)\.0+$")


def read_splits(cells: pd.Series) -> pd.Series:
    """Returns train, validation or test for the words that mean it; patients who are new to the models are test."""
    return cells.astype(str).str.strip().str.lower().replace(_SPLITS)


def read_numbers(table: pd.DataFrame, name: str, remedy: str) -> pd.Series:
    """Returns a column as numbers; days and per cent may carry their unit. Words for unknown are missing."""
    cells = _known(table[name])
    for beginning, unit in _UNITS.items():
        cells = cells.str.replace(unit, "", regex=True) if name.startswith(beginning) else cells
    numbers = pd.to_numeric(cells, errors="coerce").astype(float)
    refuse_cells(table, name, cells.notna() & numbers.isna(), "a number", remedy)
    return numbers


def read_events(table: pd.DataFrame) -> pd.Series:
    """Returns the column `event` as True, False or None, from any word that can mean only one of them."""
    cells = _known(table["event"]).str.lower()
    found = cells.map(_EVENTS)
    refuse_cells(
        table, "event", cells.notna() & found.isna(), "true or false", "Write true where the event was observed"
    )
    return found


def read_censored(table: pd.DataFrame) -> pd.Series:
    """Returns the column `censored` as True, False or None; of what happened to patients its words do not speak."""
    cells = _known(table["censored"]).str.lower()
    found = cells.map(_CENSORED)
    remedy = "Write true where the patient was censored; or, if its words say what happened, name the column event"
    refuse_cells(table, "censored", cells.notna() & found.isna(), "true or false", remedy)
    return found


def _known(cells: pd.Series) -> pd.Series:
    """Returns cells as text; missing where they are empty or a word for unknown."""
    text = cells.astype(str).str.strip()
    return text.mask(text.map(_is_missing).astype(bool)).astype(object)


def _is_missing(cell: str) -> bool:
    return is_missing(cell) or cell.lower() == "none"  # as Python writes it


def refuse_cells(table: pd.DataFrame, name: str, unclear: pd.Series, required: str, remedy: str) -> None:
    """Refuses a column with unclear cells.

    Raises:
        DataError: Names the column, the first such cell and its patient.
    """
    if unclear.any():
        row, more = table[unclear].iloc[0], and_more(int(unclear.sum()) - 1, "such row")
        found = "an empty cell" if pd.isna(row[name]) else repr(str(row[name]))
        patient = row["patient_id"]
        where = f"in row {int(unclear.argmax()) + 1}" if pd.isna(patient) else f"for patient {patient}"
        raise DataError(
            f"column {name}: {required} is required for every patient. Found {found} {where}{more}. "
            f"{number_hint(str(row[name])).strip() or f'{remedy}.'}"
        )


def class_of(label: str | None, classes: Sequence[str]) -> str | None:
    """Returns the class that a label means, also of classes that are called 1.0; None for an unknown one."""
    named = {class_text(name): name for name in classes}
    return named.get(label, None if label is None or _is_missing(label) else label)


def class_text(label: object) -> str | None:
    """Returns a class as text; None where unknown. 2.0, as programs write a column that has gaps, is 2."""
    if label is None or label is pd.NA or (isinstance(label, float) and np.isnan(label)):
        return None
    return _WHOLE.sub(r"\1", class_name(label))
