"""Plain clinical tables: a column mapping, the meaning of event values, the unit of time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from subfuse.cells import is_date, is_month
from subfuse.clinical.columns import (
    FIXED_COLUMNS,
    WITHIN_PATIENTS,
    map_columns,
    note_of_case,
    note_of_read_commas,
    note_of_repeated,
    parse_days,
    without_empty_rows,
)
from subfuse.clinical.event_names import (
    PLAIN_EVENTS,
    canonical_event,
    contradiction,
    is_ambiguous_event,
    likely_events,
)
from subfuse.clinical.follow_up_dates import DATE_COLUMNS, days_between, has_dates
from subfuse.clinical.source import CENSORED, ENTRIES, TimeUnit, cause_column, causes_of
from subfuse.clinical.time_units import unit_in_name
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.tables import is_missing, read_text_table, require_columns, usual_name

_ROWS_WITHIN = {"slideid", "sampleid", "sample"}  # columns of tables with several rows for a patient


def read_plain(
    paths: Sequence[Path],
    columns: Mapping[str, str] | None = None,
    *,
    event_values: Mapping[str, bool | str] | None = None,
    time_unit: TimeUnit | None = None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the rows of all tables, with `place`, and notes; `attrs` say whether those of any are slides or samples.

    Args:
        paths: Tables to join below one another.
        columns: Our name to a column of the tables; None: columns keep their names.
        event_values: Value of the event column to True, or to its cause, if it means an observed event; None: 1, 0,
            true and false.
        time_unit: Of the column mapped to time_days; None: days, unless its name says another.

    Raises:
        ConfigurationError: A mapped column is missing, only one of time and event is declared, or the meaning of the
            event column or the unit of the time column must be declared.
        DataError: Unreadable table, event, time or date.
    """
    parts, notes = zip(*(_read(path, columns, event_values, time_unit) for path in paths), strict=True)
    table = pd.concat(parts, ignore_index=True)
    table.attrs[WITHIN_PATIENTS] = any(part.attrs[WITHIN_PATIENTS] for part in parts)
    return table, sum(notes, ())


def _read(
    path: Path,
    declared: Mapping[str, str] | None,
    event_values: Mapping[str, bool | str] | None,
    time_unit: TimeUnit | None,
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    raw = read_text_table(path)
    require_columns(raw, {}, path, optional=() if declared else (*FIXED_COLUMNS, *DATE_COLUMNS))
    columns = declared or {str(name): str(name) for name in raw}
    table = map_columns(raw, columns, path, section="patients")
    of_dates = has_dates(table)
    if ("time_days" in table or of_dates) != ("event" in table):
        raise ConfigurationError(
            f"patients.columns: time_days and event are declared together. Found only "
            f"{'event' if 'event' in table else 'time_from and time_to' if of_dates else 'time_days'} for {path}."
        )
    if of_dates and time_unit is not None:
        raise ConfigurationError(
            f"patients.time_unit: the unit of time_days is required. Found {time_unit} beside dates. Leave it out."
        )
    table["place"] = [f"{path}, row {row + 2}" for row in range(len(table))]
    table, note_of_empty = without_empty_rows(table, raw)
    table, note_of_repetition = _without_repetition(table, raw, path)
    note_of_dates: tuple[str, ...] = ()
    if "event" in table:
        if of_dates:
            table["time_days"], note_of_dates = days_between(table, path)
            table = table.drop(columns=list(DATE_COLUMNS))
        else:
            unit = unit_of_time(columns["time_days"], time_unit, section="patients")
            table["time_days"] = parse_days(
                table["time_days"],
                table["place"],
                "time_days",
                unit=unit,
                reads_commas="decimal_commas" in raw.attrs,
            )
        table = _with_causes(table, event_values)
        table["event"] = read_events(table, columns["event"], event_values, path, section="patients")
    table.attrs[WITHIN_PATIENTS] = _is_within_patients(raw)
    notes = (
        *note_of_empty,
        *note_of_repetition,
        *note_of_dates,
        *note_of_read_commas(raw, columns, path),
        *note_of_case(columns, path),
        *(_note_of_entry(raw, path) if "event" in table else ()),
    )
    return table, (*notes, *(() if declared else note_of_repeated(raw, path)))


def _note_of_entry(raw: pd.DataFrame, path: Path) -> tuple[str, ...]:
    """Returns a note on columns that may tell that patients are watched from a later time on."""
    names = [str(column) for column in raw if usual_name(str(column)) in map(usual_name, ENTRIES)]
    if not names:
        return ()
    return (
        f"{path.name}: {preview(names)} may be the time from which on patients are watched, which is not used: where "
        "it is above 0, give times since entry, or leave these patients out",
    )


def _is_within_patients(raw: pd.DataFrame) -> bool:
    return not _ROWS_WITHIN.isdisjoint(usual_name(str(column)) for column in raw)


def _without_repetition(table: pd.DataFrame, raw: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the rows of a table of slides or samples that differ in what is mapped, and a note.

    Args:
        table: Columns by our names, with `place`.
        raw: All cells of the file.
        path: The file, for the note.
    """
    again = table.drop(columns="place").duplicated()
    if not again.any() or not _is_within_patients(raw):
        return table, ()
    note = f"{path.name}: a table of slides or samples, {len(table)} rows for {int((~again).sum())} patients"
    return table[~again].reset_index(drop=True), (note,)


def unit_of_time(column: str, declared: TimeUnit | None, *, section: str) -> TimeUnit:
    """Returns the unit of a column of times: as the section of the cohort file declares, else days.

    Raises:
        ConfigurationError: The column's name says another unit.
    """
    said = unit_in_name(column)
    if declared is None and said not in (None, "days"):
        others = ", ".join(unit for unit in ("months", "years", "weeks", "days") if unit != said)
        raise ConfigurationError(
            f"{section}.time_unit: the name of column {column!r} does not say days. Declare `time_unit: {said}`, or "
            f"which it is ({others})."
        )
    return declared or "days"


def read_events(
    table: pd.DataFrame, column: str, event_values: Mapping[str, bool | str] | None, path: Path, *, section: str
) -> pd.Series:
    """Returns whether the event was observed, missing where a cell says unknown.

    Args:
        table: Text, with `event`, `patient_id` and `place`, where each row is.
        column: Of the file, for messages; its name may show that values mean the contrary.
        event_values: Value to True, or to its cause, if it means an observed event; None: 1, 0, true and false.
        path: The file, for messages.
        section: Of the cohort file that declares the column, for messages.

    Raises:
        ConfigurationError: The meaning of the column must be declared, or is declared to be the contrary of what it is.
        DataError: A cell without a meaning. Names its place.
    """
    cells = table["event"]
    known = cells[~cells.map(is_missing)]
    found = sorted(known.unique())
    _refuse_dates(table.loc[known.index], known, column)
    if event_values is None and is_ambiguous_event(column):
        example = ", ".join(f"{value}: {str(meant).lower()}" for value, meant in likely_events(column, found).items())
        raise ConfigurationError(
            f"{section}.event_values: the name of column {column!r} does not say which value is an observed event. "
            f"Found {preview(found)} in {path}. Declare it, for example `event_values: {{{example}}}`."
        )
    if event_values is not None and (told := contradiction(column, event_values)):
        raise ConfigurationError(f"{section}.event_values: true is required of an observed event. {told}")
    meaning = {canonical_event(key): bool(value) for key, value in (event_values or PLAIN_EVENTS).items()}
    unclear = known[~known.map(canonical_event).isin(list(meaning))]
    if len(unclear):
        row = unclear.index[0]
        required = (
            f"a declared value is required ({preview(event_values)})"
            if event_values
            else "true, false, 1 or 0 are required"
        )
        remedy = (
            f"Add it to {section}.event_values, or correct the cell."
            if event_values
            else f"Declare the meaning of each in {section}.event_values."
        )
        raise DataError(
            f"{table.loc[row, 'place']} ({table.loc[row, 'patient_id']}), column {column}: {required}. Found "
            f"{unclear[row]!r} (in the whole column: {preview(found)}). {remedy}"
        )
    return known.map(lambda value: meaning[canonical_event(value)]).reindex(cells.index).astype("boolean")


def read_causes(cells: pd.Series, event_values: Mapping[str, bool | str]) -> pd.Series:
    """Returns the cause of each event or `censored`, missing where a cell is no declared value.

    Args:
        cells: Text of the event column.
        event_values: Value to the cause of the event; False: none was observed.
    """
    meaning = {canonical_event(key): value or CENSORED for key, value in event_values.items()}
    return cells.map(lambda cell: meaning.get(canonical_event(cell)))


def _with_causes(table: pd.DataFrame, event_values: Mapping[str, bool | str] | None) -> pd.DataFrame:
    """Returns the table with the causes of its events beside them, where any are declared.

    Raises:
        ConfigurationError: Another column has their name.
    """
    if event_values is None or not causes_of(event_values):
        return table
    column = cause_column("event")
    if column in table:
        raise ConfigurationError(
            f"patients.columns: {column} is the name of the causes that `event_values` declares. Map the column of the "
            "table to another name."
        )
    return table.assign(**{column: read_causes(table["event"], event_values)})


def _refuse_dates(table: pd.DataFrame, known: pd.Series, column: str) -> None:
    dates = known[known.map(lambda cell: is_date(cell) or is_month(cell)).astype(bool)]
    if len(dates):
        row = dates.index[0]
        raise DataError(
            f"{table.loc[row, 'place']} ({table.loc[row, 'patient_id']}), column {column}: true or false are "
            f"required. Found the date {dates[row]!r} ({len(dates)} such cells). Make a column of true and false, true "
            "where there is a date of the event, and map it to event."
        )
