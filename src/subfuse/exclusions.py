"""What is not used and why: one row per patient, sample, slide or gene."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd

from subfuse.errors import DataError, preview

_COLUMNS = ["level", "id", "reason"]
RENAMED = "renamed"  # level of what is used under another name; only in exclusions.csv


def exclusion_table(rows: Iterable[tuple[str, str, str]] = ()) -> pd.DataFrame:
    """Returns rows (level, id, reason) as a table of strings, in the given order.

    A row of level `patient` means that the patient is not in the cohort. The others mean that this `slide`, this
    `sample` of the clinical source, this `expression` (a sample, file or row of its source) or this `gene` is not used;
    its patient may still be.
    """
    return pd.DataFrame(list(rows), columns=_COLUMNS, dtype=object)


def join_exclusions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns several exclusion tables below one another, numbered anew."""
    rows = [row for table in tables for row in table[_COLUMNS].itertuples(index=False, name=None)]
    return exclusion_table(rows)


class NothingLeft(DataError):
    """Everything of a kind that the cohort file declares is excluded; carries what was excluded and why."""

    def __init__(self, message: str, exclusions: pd.DataFrame) -> None:
        """Takes the message and all exclusions so far, which `prepare` writes all the same."""
        super().__init__(message)
        self.exclusions = exclusions


def group_reasons(exclusions: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per level and kind of reason, the commonest first: level, reason of the first, n, ids.

    Reasons are of one kind when they differ only in words that hold a digit or a slash, such as identifiers and paths.

    Example:
        >>> rows = [("slide", "a1", "a1.svs is absent"), ("slide", "b2", "b2.svs is absent"), ("gene", "X", "no name")]
        >>> group_reasons(exclusion_table(rows))[["reason", "n"]].values.tolist()
        [['a1.svs is absent', 2], ['no name', 1]]
    """
    kinds: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for level, name, reason in exclusions[_COLUMNS].itertuples(index=False, name=None):
        kind = re.sub(r"\S*[\d/\\]\S*", "#", reason.replace(name, "#"))
        kinds.setdefault((level, kind), []).append((name, reason))
    rows = [(level, found[0][1], len(found), [name for name, _ in found]) for (level, _), found in kinds.items()]
    rows.sort(key=lambda row: -row[2])
    return pd.DataFrame(rows, columns=["level", "reason", "n", "ids"])


def example_of(exclusions: pd.DataFrame) -> str:
    """Returns the commonest reason with its number and one example, for a warning.

    Example:
        >>> example_of(exclusion_table([("slide", "a", "no tissue"), ("slide", "b", "no tissue")]))
        'Commonest reason: no tissue (2, for example a).'
    """
    if exclusions.empty:
        return "The others are in no table or folder."
    row = group_reasons(exclusions).iloc[0]
    return f"Commonest reason: {str(row['reason']).rstrip('.')} ({row['n']}, for example {row['ids'][0]})."


def commonest_reasons(exclusions: pd.DataFrame, limit: int = 2) -> str:
    """Returns the commonest reasons with their numbers, for a message.

    Example:
        >>> commonest_reasons(exclusion_table([("slide", "a", "no tissue"), ("slide", "b", "no tissue")]))
        'no tissue (2)'
    """
    grouped = group_reasons(exclusions)
    return (
        preview(
            [f"{str(reason).rstrip('.')} ({n})" for reason, n in zip(grouped["reason"], grouped["n"], strict=True)],
            limit,
        )
        or "none is listed"
    )
