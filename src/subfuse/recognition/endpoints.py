"""Which columns of a table are follow-ups beside overall survival: to death of the disease, progression, recurrence."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from subfuse.clinical.time_units import WORDS_IN_NAMES, unit_in_name
from subfuse.recognition.follow_up import meaning_of_events
from subfuse.recognition.yaml_lines import QUESTION, line, remark, scalar
from subfuse.settings import BLANK
from subfuse.tables import is_missing, usual_name

_WORDS = {  # in full, as downloads of cBioPortal have them
    "diseasespecific": "dss", "diseasefree": "dfs", "progressfree": "pfs", "progressionfree": "pfs",
    "recurrencefree": "rfs", "relapsefree": "rfs",
}  # fmt: skip
_NAME = rf"(?P<name>dss|css|pfi|pfs|dfi|dfs|rfs|efs|mfs|dmfs|ttp|{'|'.join(_WORDS)})(?:survival|interval)?"
_UNIT = rf"(?:in)?(?:{WORDS_IN_NAMES})"
_OCCURRED = r"(?:event|status|censorship)"
_TIME = (rf"{_NAME}(?:time|{_UNIT}|time{_UNIT})", rf"(?:survival|time|survivaltime){_UNIT}?{_NAME}")
_EVENT = (rf"{_NAME}{_OCCURRED}?", rf"{_OCCURRED}{_NAME}")
_PREFIXED = re.compile(r"[01]:.+")  # as cBioPortal writes events: 1:PROGRESSION


def endpoint_columns(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Returns the columns of time and event by endpoint, of those that have one of each.

    Example:
        >>> endpoint_columns(["OS.time", "OS", "PFI.time", "PFI", "survival_months_dss", "censorship_dss", "EFS"])
        {'pfi': ('PFI.time', 'PFI'), 'dss': ('survival_months_dss', 'censorship_dss')}
    """
    times, events = _called(names, _TIME), _called(names, _EVENT)
    return {
        name: (columns[0], events[name][0])
        for name, columns in times.items()
        if len(columns) == len(events.get(name, ())) == 1
    }


def _called(names: Sequence[str], patterns: Sequence[str]) -> dict[str, list[str]]:
    """Returns the columns that one of the patterns describes, by endpoint."""
    found: dict[str, list[str]] = {}
    for column in names:
        match = next(filter(None, (re.fullmatch(pattern, usual_name(column)) for pattern in patterns)), None)
        if match is not None:
            found.setdefault(_WORDS.get(match["name"], match["name"]), []).append(column)
    return found


def endpoint_lines(table: pd.DataFrame, pairs: Mapping[str, tuple[str, str]]) -> tuple[list[str], dict[str, str]]:
    """Returns lines on endpoints, and the columns that they read.

    An endpoint whose unit or events are open is a comment with a question: the rest of a draft can be used without it.

    Args:
        table: Of patients, as text.
        pairs: Columns of time and event, by endpoint.
    """
    lines: list[str] = []
    asked: dict[str, dict[str, Any]] = {}
    columns: dict[str, str] = {}
    for name, (time, event) in pairs.items():
        section, told = _section(time, event, [cell for cell in table[event] if not is_missing(cell)])
        if section is None:
            continue
        if BLANK in str(section):
            asked[name] = section
            continue
        lines.append(line(name, section, told, indent=4))
        columns |= {time: time, event: event}
    lines = ["  endpoints:", *lines] if lines else []
    if asked:
        names = {column: column for section in asked.values() for column in (section["time"], section["event"])}
        lines += [
            remark(
                f"{QUESTION}in which unit is the time of {', '.join(asked)}, and which values of the event mean that "
                "it was observed? Then they are endpoints, with these lines in columns and endpoints:"
            ),
            remark(f"columns: {scalar(names)}"),
            remark(f"endpoints: {scalar(asked)}"),
        ]
    return lines, columns


def _section(time: str, event: str, cells: Sequence[str]) -> tuple[dict[str, Any] | None, str]:
    """Returns the section of an endpoint, None where its column of events cannot be one, and what is assumed."""
    section: dict[str, Any] = {"time": time, "event": event, "time_unit": unit_in_name(time) or BLANK}
    if cells and all(map(_PREFIXED.fullmatch, cells)):
        return section, ""
    meaning = meaning_of_events(event, cells)
    if meaning is None:
        return None, ""
    if meaning.values is not None:
        section["event_values"] = dict(meaning.values)
    return section, meaning.told
