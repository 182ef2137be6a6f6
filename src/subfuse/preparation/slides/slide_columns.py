"""The columns of a slide table, by our names or by those that other tools give them."""

from pathlib import Path

import pandas as pd

from subfuse.expression.samples import TYPE_COLUMNS
from subfuse.tables import read_text_table, require_columns, usual_columns, usual_name

SLIDE_COLUMNS = ("slide_id", "patient_id", "path", "mpp", "kind", *TYPE_COLUMNS, "tissue")
_ELSEWHERE = {"filename": "slide_id", "case_id": "patient_id", "patient": "patient_id"}  # of STAMP, CLAM


def read_slide_table(path: Path) -> pd.DataFrame:
    """Returns a slide table with its columns by our names; `slide_id` is among them.

    Raises:
        DataError: It cannot be read, names no slides, or has two columns of one meaning.
    """
    raw = read_text_table(path)
    table = usual_columns(named_as_ours(raw), SLIDE_COLUMNS, path)
    named_by_file = table if "slide_id" in table else raw
    require_columns(named_by_file, {"slide_id": "the slide"}, path, optional=SLIDE_COLUMNS)
    return table


def named_as_ours(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table whose columns FILENAME, case_id and PATIENT have our names where it has none of these.

    Example:
        >>> list(named_as_ours(pd.DataFrame(columns=["PATIENT", "FILENAME", "mpp"])))
        ['patient_id', 'slide_id', 'mpp']
    """
    usual = {usual_name(str(column)): str(column) for column in reversed(list(table))}
    renamed: dict[str, str] = {}
    for theirs, ours in _ELSEWHERE.items():
        column = usual.get(usual_name(theirs))
        if column is not None and usual_name(ours) not in usual and ours not in renamed.values():
            renamed[column] = ours
    result = table.rename(columns=renamed)
    result.attrs = dict(table.attrs)
    return result
