"""What names of event columns and the words in them say of what a value means, in English, German and French."""

import re
from collections.abc import Mapping, Sequence

from subfuse.cells import without_accents
from subfuse.clinical.source import ALIVE
from subfuse.errors import preview

_LIVING = r"alive|living|lebt|lebend|am.?leben|surviv(?:ed|or|ing)|survivant|vivante?s?(?![a-z])|en.?vie(?![a-z])"
_FREE = (  # of the event; with survival it is the name of an endpoint
    r"(?:no|non|sans).?event|event.?free"
    r"|(?:disease|progress(?:ion)?|relapse|recurrence|metastas[ie]s).?free(?!.?(?:surv|int|time))"
)
_UNKNOWN = r"cens|zensier|lost|perdu|(?:^|[^a-z])(?:c|ltfu|lfu)(?:$|[^a-z])"
_OPPOSITE = re.compile(f"{_LIVING}|{_FREE}|{_UNKNOWN}")
_UNCLEAR = re.compile(r"vital|status|^(?:overall.?)?survival$|^survie$")
_ALSO_OTHERWISE = re.compile(  # not_alive, dead_or_alive
    r"dead|death|died?(?![a-z])|mort|dece|storb|tot|status|vital|survival|(?:^|[^a-z])(?:no|not|non|nicht|pas)(?![a-z])"
)
_DEAD = ("dead", "deceased", "died", "death", "tot", "verstorben", "gestorben", "mort", "morte", "decede", "decedee")
_OUTCOMES = dict.fromkeys(_DEAD, True) | dict.fromkeys(ALIVE, False)
_YES = {"yes", "y", "ja", "j", "oui", "o", "true", "1"}
PLAIN_EVENTS = {"1": True, "0": False, "true": True, "false": False}


def is_opposite_of_event(column: str) -> bool:
    """Returns whether the name of a column says the opposite of an event, so that it is not certain what 1 means.

    Example:
        >>> is_opposite_of_event("survived"), is_opposite_of_event("überlebt"), is_opposite_of_event("dead")
        (True, True, False)
    """
    return _OPPOSITE.search(without_accents(column)) is not None


def is_ambiguous_event(column: str) -> bool:
    """Returns whether the name of a column does not say which of its values is an observed event.

    Example:
        >>> is_ambiguous_event("en_vie"), is_ambiguous_event("vital_status"), is_ambiguous_event("décès")
        (True, True, False)
    """
    return is_opposite_of_event(column) or _UNCLEAR.search(without_accents(column)) is not None


def likely_events(column: str, values: Sequence[str]) -> dict[str, bool]:
    """Returns what two values of a column probably mean: by themselves, or by its name where they are no such words."""
    words = [without_accents(value) for value in values]
    if all(word in _OUTCOMES for word in words):
        return {value: _OUTCOMES[word] for value, word in zip(values[:2], words, strict=False)}
    return {value: bool(i) != is_opposite_of_event(column) for i, value in enumerate(values[:2])}


def contradiction(column: str, event_values: Mapping[str, bool | str]) -> str:
    """Returns in which way a meaning of events contradicts its own words: the living as dead; nothing if it does not.

    A name that tells of death too, or denies, decides nothing.

    Example:
        >>> contradiction("alive", {"no": True, "yes": False})
        ''
        >>> contradiction("event", {"Alive": True, "Dead": False})
        'Found Alive as true and Dead as false. Interchange them.'
    """
    meaning = {without_accents(value.strip()): bool(meant) for value, meant in event_values.items()}
    if meaning and all(word in _OUTCOMES and _OUTCOMES[word] is not meant for word, meant in meaning.items()):
        found = " and ".join(f"{value} as {str(meant).lower()}" for value, meant in event_values.items())
        return f"Found {found}. Interchange them."
    name = without_accents(column)
    if not re.search(f"{_LIVING}|{_FREE}", name) or _ALSO_OTHERWISE.search(name):
        return ""
    yes = [value for value, meant in event_values.items() if meant and canonical_event(without_accents(value)) in _YES]
    if not yes:
        return ""
    return (
        f"Found {preview(yes)} in column {column!r}, by its name the opposite. Declare it as false and the other value "
        "as true; or, if it does mean an event, give the column another name."
    )


def canonical_event(value: str) -> str:
    """Returns the text by which event values are compared: lower case, 1.0 as 1."""
    return re.sub(r"^(\d+)\.0*$", r"\1", value.strip().lower())
