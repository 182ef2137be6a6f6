"""Units of time: which one the name of a column says, and whether a cohort file leaves it open."""

import re
from collections.abc import Mapping

from subfuse.cells import TIME_WORDS, without_accents
from subfuse.clinical.source import PatientsSection, PlainPatients, TimeUnit

_STEM = "(?:os|pfs|pfi|dfs|dfi|dss|rfs|efs|fu|time|survival|followup)?"  # with which short words are written together
_AS_OTHER_WORDS = {"m", "y", "j", "an"}  # metastasis, the second of two tables, jour or Jahr, an event
_SHORTEST = 4  # letters of a word that is known inside others, such as in Ueberlebensmonate
WORDS_IN_NAMES = "|".join(  # a pattern
    word for words in TIME_WORDS.values() for word in words if word not in _AS_OTHER_WORDS
)


def unit_in_name(column: str) -> TimeUnit | None:
    """Returns the unit that the name of a column of times says, days where it says several.

    Example:
        >>> unit_in_name("survival_months_dss"), unit_in_name("OS (days)"), unit_in_name("PFI.time")
        ('months', 'days', None)
        >>> unit_in_name("FU_mths"), unit_in_name("Überleben (Monate)"), unit_in_name("suivi_années")
        ('months', 'months', 'years')
    """
    name = without_accents(re.sub(r"(?<=[a-zß-ÿ])(?=[A-Z])", " ", column))
    units: tuple[TimeUnit, ...] = ("days", "weeks", "months", "years")
    return next((unit for unit in units if _says(name, TIME_WORDS[unit])), None)


def _says(name: str, words: tuple[str, ...]) -> bool:
    short = [word for word in words if len(word) < _SHORTEST and word not in _AS_OTHER_WORDS]
    letters = "".join(set(words) & {"m", "y"})
    return (
        any(word in name for word in words if len(word) >= _SHORTEST)
        or re.search(rf"(?<![a-z]){_STEM}(?:{'|'.join(short)})(?![a-z])", name) is not None
        or bool(letters and re.search(rf"[(\[]\s*{letters}\s*[)\]]", name))
    )


def names_in_file(section: PatientsSection) -> Mapping[str, str]:
    """Returns what the columns that the cohort file maps, by our names, are called in their tables."""
    labels = {} if section.labels is None else section.labels.columns or {}
    return {**labels, **(section.columns or {})}


def is_unit_open(section: PatientsSection, endpoint: str | None = None) -> bool:
    """Returns whether times are taken for days because nothing says a unit: neither the file nor the column's name.

    Args:
        section: Declares the patients.
        endpoint: Name of a further follow-up; None: the cohort's own one.
    """
    if endpoint is not None:
        further = (section.endpoints or {}).get(endpoint)
        column, declared = (None, None) if further is None else (further.time, further.time_unit)
    elif isinstance(section, PlainPatients) and "time_from" not in (section.columns or {}):
        column, declared = "time_days", section.time_unit
    else:
        return False
    return column is not None and declared is None and unit_in_name(names_in_file(section).get(column, column)) is None
