"""Which columns of a plain table of patients are their follow-up, and what their values leave open."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from subfuse.cells import is_date
from subfuse.clinical.columns import DAYS
from subfuse.clinical.event_names import PLAIN_EVENTS, canonical_event, is_ambiguous_event
from subfuse.clinical.time_units import WORDS_IN_NAMES, unit_in_name
from subfuse.errors import preview
from subfuse.recognition.yaml_lines import QUESTION, asked, line, remark, scalar
from subfuse.settings import BLANK
from subfuse.tables import is_missing, usual_name

_TIME = re.compile(
    r"(?:(?:os|overallsurvival|survival|followup|fu)(?:time)?|time)"
    rf"(?:in)?(?:{WORDS_IN_NAMES})?"
)
_EVENTS = (
    "event", "osevent", "osstatus", "os", "status", "vitalstatus", "dead", "died", "death", "deceased", "censored",
    "censoring", "censorship", "deathevent", "eventobserved", "isdead", "overallsurvivalstatus",
)  # fmt: skip
_PERHAPS = re.compile(  # of English and German names, among which the user may find the two
    r"surviv|follow|death|dead|died|deceas|alive|relaps|recur|progress|last|time|days|week|month|event|status|censor"
    r"|vital|date|überleb|ueberleb|verstorb|verlauf|ereignis|zensier|datum|monat|tage",
)
_EVENT_WORDS = {"dead": True, "deceased": True, "died": True, "alive": False, "living": False}
_MOST_EVENT_VALUES = 6
_IS_CENSORED = "censorship"  # 1: censored, in the tables of MCAT, PORPOISE and SurvPath
ASKED_OF_EVENTS = "which of them mean that the event was observed: true or false"


@dataclass(frozen=True)
class EventMeaning:
    """What the values of a column of events mean."""

    values: Mapping[str, bool | str] | None  # `event_values`; None: true, false, 1 and 0 as they are
    told: str = ""  # what is assumed

    @property
    def is_open(self) -> bool:
        """Whether only the user knows it."""
        return self.values is not None and (not self.values or BLANK in self.values.values())


def is_outcome(column: str) -> bool:
    """Returns whether a column is called as a time to an event, or as the event.

    Example:
        >>> is_outcome("OS_MONTHS"), is_outcome("vital_status"), is_outcome("EGFR")
        (True, True, False)
    """
    return is_time(column) or is_event(column)


def may_be_outcome(column: str) -> bool:
    """Returns whether a column's name reminds of a follow-up.

    Example:
        >>> may_be_outcome("date_of_diagnosis"), may_be_outcome("Überlebenszeit (Monate)"), may_be_outcome("EGFR")
        (True, True, False)
    """
    return is_outcome(column) or _PERHAPS.search(usual_name(column)) is not None


def follow_up_lines(table: pd.DataFrame, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns lines on the follow-up, and its columns: both or none.

    Args:
        table: Of patients, as text.
        names: Its columns that can be meant.
    """
    known = {name: [cell for cell in table[name] if not is_missing(cell)] for name in names}
    times = [name for name in names if is_time(name) and not _is_binary(known[name])]
    times = [name for name in times if _are_numbers(known[name])] or times
    events = [name for name in names if is_event(name)]
    if {"time_from", "time_to"} <= set(names) and len(events) == 1:
        lines, _ = _event(events[0], known[events[0]])
        return lines, {"time_from": "time_from", "time_to": "time_to", "event": events[0]}
    if len(times) != 1 or len(events) != 1:
        return _question(names, known), {}
    of_event, fits = _event(events[0], known[events[0]])
    if not fits:
        return of_event, {}
    return [*_unit(times[0], known[times[0]]), *of_event], {"time_days": times[0], "event": events[0]}


def _question(names: Sequence[str], known: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns a question that names every column that may be the time or the event, and says what two dates become."""
    dates = [name for name in names if known[name] and all(map(is_date, known[name]))]
    found = [name for name in names if name in dates or may_be_outcome(name)]
    asks = (
        f"{QUESTION}which columns are time_days (from diagnosis to the event or the last contact) and event? "
        f"Candidates: {preview(found, 10) or 'none'}. Without them there is no survival"
    )
    lines = [remark(asks)]
    if len(dates) == 2:
        proposed = dict(zip(("time_from", "time_to"), dates, strict=True))
        lines.append(remark(f"instead of time_days, dates: {scalar(proposed)}, the earlier first"))
    usual = {usual_name(name) for name in names}
    if "daystodeath" in usual and usual & {"daystolastfollowup", "daystolastcontact"}:
        lines.append(remark("time_days is days_to_death of the dead, and the days to the last contact of the others"))
    return lines


def is_time(column: str) -> bool:
    """Returns whether a column is called as a time to an event."""
    name = usual_name(column)
    return name != "os" and _TIME.fullmatch(name) is not None


def is_event(column: str) -> bool:
    """Returns whether a column is called as an event that is observed or not."""
    return usual_name(column) in _EVENTS


def _is_binary(cells: Sequence[str]) -> bool:
    return set(cells) <= {"0", "1", "0.0", "1.0"}


def _are_numbers(cells: Sequence[str]) -> bool:
    """Returns whether most cells are numbers."""
    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce")
    return 2 * int(numbers.notna().sum()) > len(cells)


def _unit(column: str, cells: Sequence[str]) -> list[str]:
    if column == "time_days":
        return []
    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce").dropna()
    extent = f"{numbers.min():g} to {numbers.max():g}" if len(numbers) else "no number"
    unit = unit_in_name(column)
    if unit is None:
        return [asked("time_unit", f"{', '.join(DAYS)}? {column} goes from {extent}")]
    return [line("time_unit", unit, f"as the column's name says; {extent}")]


def _event(column: str, cells: Sequence[str]) -> tuple[list[str], bool]:
    """Returns lines on the meaning of an event's values, and whether the column can be one at all."""
    meaning = meaning_of_events(column, cells)
    if meaning is None:
        return [remark(f"{QUESTION}which column says whether the event was observed? {column} has other values")], False
    if meaning.is_open:
        return [asked("event_values", ASKED_OF_EVENTS, value=meaning.values)], True
    if meaning.values is not None:
        return [line("event_values", meaning.values, meaning.told)], True
    return [remark(f"event: {meaning.told}")] if meaning.told else [], True


def meaning_of_events(column: str, cells: Sequence[str]) -> EventMeaning | None:
    """Returns what the values of a column of events mean, None where it has too many to be one.

    Args:
        column: Its name, which may show that values mean the contrary.
        cells: Those that are known, as text.
    """
    values = sorted(set(cells))
    if _IS_CENSORED in usual_name(column) and cells and _is_binary(cells):
        of_censoring = {value: canonical_event(value) == "0" for value in values}
        n_observed = sum(of_censoring[cell] for cell in cells)
        told = f"assumed: 1 in {column} is censored, as in MCAT; observed in {n_observed} of {len(cells)} rows"
        return EventMeaning(of_censoring, told)
    if not is_ambiguous_event(column) and {canonical_event(value) for value in values} <= set(PLAIN_EVENTS):
        n_observed = sum(PLAIN_EVENTS[canonical_event(cell)] for cell in cells)
        told = f"assumed that 1 in {column} means that it was observed, in {n_observed} of {len(cells)} rows"
        return EventMeaning(None, told if cells and _is_binary(cells) else "")
    if len(values) > _MOST_EVENT_VALUES:
        return None
    meanings = _meanings(values)
    if meanings:
        return EventMeaning(meanings, "true: the event was observed")
    return EventMeaning(dict.fromkeys(values, BLANK))


def _meanings(values: Sequence[str]) -> Mapping[str, bool]:
    """Returns what the values of an event mean where all of them are words that say it."""
    words = {value: _EVENT_WORDS.get(value.lower().removeprefix("1:").removeprefix("0:")) for value in values}
    meanings = {value: word for value, word in words.items() if word is not None}
    agree = all(
        not value.startswith(("0:", "1:")) or value.startswith("1:") == word for value, word in meanings.items()
    )
    return meanings if agree and len(meanings) == len(values) else {}
