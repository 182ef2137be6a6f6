"""Follow-ups: time and event known together or not at all, of the cohort's own one and of further endpoints."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.clinical.columns import FIXED_COLUMNS, RESERVED, known_text, parse_days
from subfuse.clinical.follow_up_dates import days_between
from subfuse.clinical.plain import read_causes, read_events, unit_of_time
from subfuse.clinical.source import EndpointSection, PatientsSection, cause_column, causes_of
from subfuse.clinical.time_units import names_in_file
from subfuse.errors import ConfigurationError, preview
from subfuse.tables import is_missing

_NOT_FURTHER = (*FIXED_COLUMNS, *RESERVED, "place")
_OF_PREFIXES = {"1": True, "0": False}


def read_endpoints(table: pd.DataFrame, section: PatientsSection) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the table with the columns of every endpoint in the place of those it is read from, and notes.

    They are text, as all columns that not every cohort has: days, and `True` or `False`; unknown is missing.

    Args:
        table: Text, with `patient_id` and `place`, where each row is.
        section: Declares the endpoints.

    Raises:
        ConfigurationError: A column is not there, is the cohort's own follow-up, has the name that an endpoint's gets,
            or its unit or meaning must be declared.
        DataError: A time or an event that cannot be read.
    """
    endpoints = section.endpoints or {}
    if not endpoints:
        return table, ()
    in_file = names_in_file(section)
    sources = {column for endpoint in endpoints.values() for column in endpoint.columns.values()}
    read: dict[str, pd.Series] = {}
    notes: list[str] = []
    for name, endpoint in endpoints.items():
        place = f"patients.endpoints.{name}"
        own = section.endpoint_columns[name]
        given = (*own, cause_column(own[1])) if causes_of(endpoint.event_values) else own
        for key, column in endpoint.columns.items():
            _require_column(table, f"{place}.{key}", column)
        taken = [column for column in given if column in (*table, *_NOT_FURTHER) and column not in sources]
        if taken:
            raise ConfigurationError(
                f"{place}: a name whose columns {' and '.join(given)} are free is required. Found "
                f"{preview(taken)} among the columns of the patients. Rename the endpoint or that column."
            )
        cells = {key: table[column] for key, column in endpoint.columns.items()}
        follow_up = table[["patient_id", "place"]].assign(**cells).fillna("")  # of whom the table of labels lacks
        days, note_of_dates = _days(follow_up, endpoint, in_file, name, section.table[0])
        column = in_file.get(endpoint.event, endpoint.event)
        meaning: Mapping[str, bool | str] | None = endpoint.event_values
        if meaning is None and _has_prefixes(follow_up["event"]):
            follow_up["event"] = follow_up["event"].str.partition(":")[0]
            meaning = _OF_PREFIXES
        if causes_of(meaning):
            follow_up["cause"] = read_causes(follow_up["event"], meaning or {})
        follow_up["event"] = read_events(follow_up, column, meaning, section.table[0], section=place)
        follow_up, note_of_pairs = paired(follow_up.assign(time_days=days))
        follow_up, note_of_negative = without_negative_times(follow_up)
        notes += [f"{name}: {note}" for note in (*note_of_dates, *note_of_pairs, *note_of_negative)]
        read[own[0]] = follow_up["time_days"].map(lambda days: None if np.isnan(days) else repr(float(days)))
        read[own[1]] = follow_up["event"].map({True: "True", False: "False"})
        if "cause" in follow_up:
            read[cause_column(own[1])] = known_text(follow_up["cause"].mask(follow_up["event"].isna()))
    return table.drop(columns=list(sources)).assign(**read), tuple(notes)


def _days(
    follow_up: pd.DataFrame, endpoint: EndpointSection, in_file: Mapping[str, str], name: str, path: Path
) -> tuple[pd.Series, tuple[str, ...]]:
    """Returns the time of an endpoint in days, and a note on how dates are read.

    Args:
        follow_up: Text, by the keys of the endpoint, with `patient_id` and `place`.
        endpoint: As declared.
        in_file: What columns are called in their tables.
        name: Of the endpoint, for messages.
        path: The file of patients, for messages.
    """
    if endpoint.time is None:
        return days_between(follow_up.assign(place=follow_up["place"] + f", {name}"), path)
    unit = unit_of_time(
        in_file.get(endpoint.time, endpoint.time), endpoint.time_unit, section=f"patients.endpoints.{name}"
    )
    return parse_days(follow_up["time"], follow_up["place"], endpoint.time, unit=unit), ()


def paired(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Makes time and event unknown where only one of them is known, or all where there are none; and a note on it."""
    if "event" not in table:
        return table.assign(time_days=np.nan, event=pd.array([pd.NA] * len(table), dtype="boolean")), ()
    no_time, no_event = table["time_days"].isna(), table["event"].isna()
    half = no_time != no_event
    if not half.any():
        return table, ()
    note = (
        f"{half.sum()} patient(s) have only one of time and event ({(half & no_time).sum()} without time, "
        f"{(half & no_event).sum()} without event); their follow-up is unknown "
        f"({preview(table.loc[half, 'patient_id'])})"
    )
    return table.assign(time_days=table["time_days"].mask(half), event=table["event"].mask(half)), (note,)


def without_negative_times(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Makes time and event unknown where the time is negative, and says so."""
    negative = table["time_days"] < 0
    if not negative.any():
        return table, ()
    found = table.loc[negative, ["patient_id", "time_days"]].itertuples(index=False, name=None)
    note = (
        f"time_days is negative for {negative.sum()} patient(s), whose follow-up is taken as unknown "
        f"({preview([f'{patient}: {days:g}' for patient, days in found])}). Correct or empty the cells."
    )
    return table.assign(time_days=table["time_days"].mask(negative), event=table["event"].mask(negative)), (note,)


def _require_column(table: pd.DataFrame, place: str, column: str) -> None:
    if column in _NOT_FURTHER:
        raise ConfigurationError(
            f"{place}: a column of the endpoint is required. Found {column}, which has a meaning of its own. Map the "
            "column of the table under another name too, and name that."
        )
    if column not in table:
        others = preview([str(name) for name in table if name not in _NOT_FURTHER], limit=12) or "none"
        raise ConfigurationError(
            f"{place}: {column!r} is not a column of the patients. They have {others}. Add it to patients.columns."
        )


def _has_prefixes(cells: pd.Series) -> bool:
    """Returns whether all events are written as by cBioPortal: `1:PROGRESSION` and `0:CENSORED`."""
    known = cells[~cells.map(is_missing)]
    return not known.empty and bool(known.str.match(r"[01]:").all())
