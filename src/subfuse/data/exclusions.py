"""What is not used and why: one row per thing left out, the table that becomes `exclusions.csv`."""

from collections.abc import Iterable, Sequence

import pandas as pd

EXCLUSION_COLUMNS = ("level", "id", "reason")
LEVELS = ("patient", "slide", "expression", "gene")  # `expression`: a sample, file or row of the expression source


def exclusion_table(rows: Iterable[tuple[str, str, str]] = ()) -> pd.DataFrame:
    """Returns rows (level, id, reason) as a table of strings, in the given order.

    A row of level `patient` means that the patient is not in the cohort. The other levels mean that this slide, this
    expression sample or this gene is not used; its patient may still be.
    """
    return pd.DataFrame(list(rows), columns=list(EXCLUSION_COLUMNS), dtype=object)


def join_exclusions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns several exclusion tables below one another, numbered anew."""
    rows = [row for table in tables for row in table[list(EXCLUSION_COLUMNS)].itertuples(index=False, name=None)]
    return exclusion_table(rows)
