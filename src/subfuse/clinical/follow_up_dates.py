"""Follow-up as two dates, from which days are counted: one writing for all of them, or an error."""

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subfuse.errors import ConfigurationError, DataError
from subfuse.tables import is_missing

DATE_COLUMNS = ("time_from", "time_to")  # instead of time_days
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_TIME_OF_DAY = re.compile(r"[T ]\d{1,2}:\d\d.*$")
_EXAMPLE = "such as 2019-05-31"


@dataclass(frozen=True)
class _Written:
    """A date as a cell writes it."""

    cell: str
    place: str  # of the cell, for messages
    writing: str  # year first or last, and the sign between
    parts: tuple[int, int, int]  # as they stand there

    def read(self, order: str) -> datetime.date:
        """Returns the date whose parts stand in an order, such as `dmy`."""
        part = dict(zip(order, self.parts, strict=True))
        try:
            return datetime.date(part["y"], part["m"], part["d"])
        except ValueError as error:
            raise DataError(
                f"{self.place}: a day of the calendar is required. Found {self.cell!r}. Correct it."
            ) from error


def has_dates(table: pd.DataFrame) -> bool:
    """Returns whether the follow-up of a mapped table is told by dates.

    Raises:
        ConfigurationError: Only one of them is there, or days as well.
    """
    found = [name for name in DATE_COLUMNS if name in table]
    if found and ("time_days" in table or len(found) < len(DATE_COLUMNS)):
        raise ConfigurationError(
            "patients.columns: either time_days, or both time_from and time_to are required. Found "
            f"{' and '.join([*found, *(['time_days'] if 'time_days' in table else [])])}."
        )
    return bool(found)


def days_between(table: pd.DataFrame, path: Path) -> tuple[pd.Series, tuple[str, ...]]:
    """Returns the days from `time_from` to `time_to`, NaN where either is unknown, and a note on how dates are read.

    Dates have a day, a month and a year of four digits, and all are written alike: `2019-05-31`, `31.05.2019`, or with
    slashes or hyphens in the order that some of them tell, since no month is above 12. A time of day is left out.

    Args:
        table: Text, with `patient_id` and `place`, where each row is.
        path: The file, for messages.

    Raises:
        DataError: A cell that is no such date, several writings, an order that nothing tells, or a follow-up that ends
            before it begins.
    """
    columns = {name: [_written(*cell) for cell in _cells(table, name)] for name in DATE_COLUMNS}
    dates = [date for written in columns.values() for date in written if date is not None]
    order = _order(dates, path) if dates else "ymd"
    first, last = ([None if date is None else date.read(order) for date in written] for written in columns.values())
    days = [
        None if start is None or end is None else (end - start).days for start, end in zip(first, last, strict=True)
    ]
    for place, patient, start, end, n_days in zip(table["place"], table["patient_id"], first, last, days, strict=True):
        if n_days is not None and n_days < 0:
            raise DataError(
                f"{place} ({patient}): a follow-up that ends after it begins is required. Found time_from {start} and "
                f"time_to {end}. Correct or empty one of the cells."
            )
    return pd.Series(days, index=table.index, dtype=float), _note_of_order(dates, order, path)


def _note_of_order(dates: list[_Written], order: str, path: Path) -> tuple[str, ...]:
    """Returns a note on which part of a date is the day, where other dates have told it."""
    if not dates or order == "ymd" or "." in dates[0].writing:
        return ()
    names = {"d": "day", "m": "month", "y": "year"}
    return (f"{path.name}: dates such as {dates[0].cell} are read as {', '.join(names[part] for part in order)}",)


def _cells(table: pd.DataFrame, name: str) -> list[tuple[str, str]]:
    places = table["place"] + " (" + table["patient_id"].astype(str) + f"), {name}"
    return list(zip(table[name].astype(str), places, strict=True))


def _written(cell: str, place: str) -> _Written | None:
    if is_missing(cell):
        return None
    text = _TIME_OF_DAY.sub("", cell)
    for kind, pattern in (("first", _YEAR_FIRST), ("last", _YEAR_LAST)):
        if match := pattern.fullmatch(text):
            return _Written(cell, place, f"year {kind}, {match[2]}", (int(match[1]), int(match[3]), int(match[4])))
    raise DataError(
        f"{place}: a date with day, month and year of four digits is required, {_EXAMPLE}. Found {cell!r}. Correct or "
        "empty the cell."
    )


def _order(dates: list[_Written], path: Path) -> str:
    first = dates[0]
    other = next((date for date in dates if date.writing != first.writing), None)
    if other is None and first.writing.startswith("year first"):
        return "ymd"
    if other is None and "." in first.writing:
        return "dmy"
    day_first = next((date for date in dates if date.parts[0] > 12 >= date.parts[1]), None)
    month_first = next((date for date in dates if date.parts[1] > 12 >= date.parts[0]), None)
    if other is None and day_first and month_first:
        first, other = day_first, month_first
    if other is not None:
        raise DataError(
            f"{other.place}: all dates must be written alike. Found {other.cell!r}, and {first.cell!r} in "
            f"{first.place}. Write all of them {_EXAMPLE}."
        )
    if day_first is None and month_first is None:
        raise DataError(
            f"{path}: dates whose order of day and month is clear are required. Found {first.cell!r} and no date after "
            f"the 12th of a month. Write all of them {_EXAMPLE}."
        )
    return "dmy" if day_first else "mdy"
