"""One file of predictions or patients as it arrives: read, its columns called as ours, its cells in our form."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from subfuse.audit.any_origin.cells import class_text, read_censored, read_events, read_numbers
from subfuse.clinical.columns import DAYS
from subfuse.errors import ConfigurationError, DataError, and_more, preview
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, VALUE
from subfuse.expression.samples import NORMAL, rank_of_barcode
from subfuse.files import read_table
from subfuse.identifiers import patient_of_barcode
from subfuse.tables import (
    has_semicolons,
    is_separator_line,
    note_of_commas,
    read_first_line,
    read_text_table,
    separator_hint,
    usual_name,
)
from subfuse.training.linear.patients_table import BATCH_COLUMN

_TIMES = {f"time_{unit}": factor for unit, factor in DAYS.items()}
_PATIENTS = ("case_id", "slide_id", "submitter_id", "bcr_patient_barcode", "Patient ID", "patient", "case", "id")
_SHOWN = 200  # characters of a first line that is no table's
_TEXT = frozenset(
    {"patient_id", "cohort", "task", "model", "split", "label", "event", "censored", "site", BATCH_COLUMN}
)


def read_renamed(path: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Returns a table under our names; `attrs` has the columns that were `mapped`, and `notes` on how it was read.

    Raises:
        ConfigurationError: Two columns mean one of ours.
        DataError: It is no table with rows and several columns.
    """
    text = [name for name, ours in columns.items() if ours in _TEXT]
    header = read_first_line(path)  # says what is wrong with a file that is no table
    if has_semicolons(header) or is_separator_line(header):
        table = _of_semicolons(path, text)
    elif "," not in header:
        shown = header.strip() if len(header) <= _SHOWN else f"{header[:_SHOWN]}..."
        raise DataError(
            f"{path}: columns separated by commas are required. Found one, {shown!r}."
            f"{separator_hint(header) or ' Save the table as CSV with commas.'}"
        )
    else:
        table = read_table(path, text=[*_TEXT, *text])
    found = {name: ours for name, ours in columns.items() if name in table}
    twice = [ours for name, ours in found.items() if ours in table and ours != name and ours not in found]
    twice += [ours for ours in found.values() if list(found.values()).count(ours) > 1]
    if twice:
        names = [name for name, ours in found.items() if ours == twice[0]]
        raise ConfigurationError(
            f"--columns: {twice[0]} must be one column of {path}. Found {preview([*names, twice[0]])}. Map one of them."
        )
    table = _without_empty_rows(table).rename(columns=found)
    if table.empty:
        raise DataError(f"{path}: a row for each patient is required. Found the header alone.")
    table.attrs["mapped"] = found
    return table


def _of_semicolons(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Returns a table whose columns semicolons separate, with numbers in the columns that hold nothing else."""
    cells = read_text_table(path)
    commas = cells.attrs.get("decimal_commas", ())
    cells = cells.mask(cells == "")
    numbers = {str(name): pd.to_numeric(cells[name], errors="coerce") for name in cells if name not in (*_TEXT, *text)}
    table = cells.assign(**{name: n for name, n in numbers.items() if n.notna().equals(cells[name].notna())})
    table.attrs["notes"] = note_of_commas(path, commas)
    return table


def _likely(names: Sequence[str], table: pd.DataFrame) -> str:
    """Returns the first of some names that a table has, in its spelling; the first of all where it has none."""
    own = {usual_name(str(name)): str(name) for name in table}
    return next((own[usual_name(name)] for name in names if usual_name(name) in own), names[0])


def _without_empty_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table without the wholly empty rows that spreadsheets leave, which make fractions of whole numbers."""
    kept = table.dropna(how="all")
    if len(kept) == len(table):
        return table
    fractions = kept.select_dtypes("float").dropna(axis=1)
    whole = [name for name in fractions if (fractions[name] % 1 == 0).all()]
    return kept.astype(dict.fromkeys(whole, "int64"))


def cleaned(path: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with patients, days, events, predictions and labels in our form.

    Args:
        path: Its file, for messages.
        table: From `read_renamed`.

    Raises:
        DataError: No patients, a row without one or of normal tissue, or a cell that is unclear.
    """
    mapped: Mapping[str, str] = table.attrs["mapped"]
    if "patient_id" not in table:
        raise DataError(
            f"{path}: the column patient_id is required. Found {preview(table.columns, 15)}. Name its column with "
            f"""--columns '{{"{_likely(_PATIENTS, table)}": "patient_id"}}'."""
        )
    empty = table["patient_id"].isna()
    if empty.any():
        raise DataError(
            f"{path}, row {table.index[empty][0] + 2}: a patient identifier is required. Found none"
            f"{and_more(int(empty.sum()) - 1, 'such row')}. Fill it in, or remove the row."
        )
    samples = table["patient_id"].astype(str).str.strip()
    normal = samples.map(rank_of_barcode) == NORMAL
    if normal.any():
        others = and_more(int(normal.sum()) - 1, "such row")
        raise DataError(
            f"{path}, row {table.index[normal][0] + 2}: a sample of the tumour is required. Found "
            f"{samples[normal].iloc[0]}, which is normal tissue{others}. Remove it."
        )
    table = table.assign(patient_id=samples.map(patient_of_barcode))
    for meaning, names in (("time", _TIMES), ("event", ("event", "censored"))):
        several = [name for name in names if name in table]
        if len(several) > 1:
            raise DataError(
                f"{path}: one column that tells the {meaning} is required. Found {preview(several)}. Keep one of them."
            )
    try:
        for name, factor in _TIMES.items():
            if name in table:
                table["time_days"] = read_numbers(table, name, "Give the time of follow-up as a number") * factor
        for name in ("risk", VALUE, PREDICTED_VALUE):
            if name in table:
                table[name] = read_numbers(table, name, "Give one number a patient")
        if "censored" in table:
            table["event"] = read_censored(table).map({True: False, False: True})
        elif "event" in table:
            table["event"] = read_events(table)
    except DataError as error:
        own = next((name for name, ours in mapped.items() if f"column {ours}:" in str(error)), None)
        text = str(error) if own is None else str(error).replace("column ", f"column {own}, as ", 1)
        raise DataError(f"{path}: {text}") from None
    if "label" in table:
        table["label"] = table["label"].map(class_text)
    return table.drop(columns=[name for name in (*_TIMES, "censored") if name in table and name != "time_days"])
