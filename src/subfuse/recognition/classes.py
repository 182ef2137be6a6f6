"""Which columns of a table tell a molecular class of each patient, by the words in them: MSIH, mutated, positive."""

import re
from collections.abc import Collection

import pandas as pd

from subfuse.cells import may_mean_unknown
from subfuse.identifiers import is_plain_name
from subfuse.tables import is_missing

_WORDS = (  # of one test each, without case and what is between letters
    {"msih", "msihigh", "msil", "msilow", "msi", "mss", "microsatelliteinstable", "microsatellitestable"},
    {"dmmr", "pmmr", "mmrd", "mmrp"},
    {"mutated", "mutant", "mutation", "mut", "wildtype", "wt"},
    {"positive", "pos", "negative", "neg"},
)
_NOT = ("non", "not", "no", "un")  # before a word: nonMSIH, not amplified, unmethylated
_FEWEST = 2  # patients of a class


def class_columns(table: pd.DataFrame, taken: Collection[str] = ()) -> list[str]:
    """Returns the columns in which every known cell is a word of one molecular test, each in several rows.

    Args:
        table: Of patients, as text.
        taken: Columns whose meaning is known.

    Example:
        >>> class_columns(pd.DataFrame({"isMSIH": ["MSIH", "nonMSIH"] * 2, "side": ["left", "right"] * 2}))
        ['isMSIH']
    """
    names = [name for name in map(str, table) if name not in taken and is_plain_name(name)]
    return [name for name in names if _are_of_one_test(table[name])]


def _are_of_one_test(cells: pd.Series) -> bool:
    known = cells[[not (pd.isna(cell) or is_missing(cell) or may_mean_unknown(cell)) for cell in cells]]
    words = {re.sub(r"[\W_]+", "", cell.lower()) for cell in known.unique()}
    if len(words) < 2 or known.value_counts().min() < _FEWEST:
        return False
    return any(words <= test for test in _WORDS) or _is_denied(words)


def _is_denied(words: Collection[str]) -> bool:
    """Returns whether one of two words denies the other."""
    shorter, longer = sorted(words, key=len)[:2]
    return len(words) == 2 and len(shorter) > 1 and longer in {f"{word}{shorter}" for word in _NOT}
