"""What every source of clinical tables shares: column mapping, days, words for unknown, one row per patient."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.cells import is_date, is_month, other_writing
from subfuse.clinical.follow_up_dates import DATE_COLUMNS
from subfuse.clinical.source import TimeUnit
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.identifiers import composed, patient_of_barcode
from subfuse.tables import is_missing, note_of_commas

FIXED_COLUMNS = ("patient_id", "site", "time_days", "event")
RESERVED = ("cohort", "n_slides", "has_expression")  # of patients.csv, written by us
DAYS = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}  # a month is a twelfth of a Julian year
WITHIN_PATIENTS = "within_patients"  # in `attrs` of a table: whether its rows are slides or samples
_OF_SLIDES = (
    "Its rows are slides or samples, and labels here are of patients: give a table with one row per patient, and this "
    "one as `slides.table`"
)
_ROWS_OF_TITLE = 10  # in which the header is looked for
_WITH_UNIT = ("unit", "age")  # writings of a number that name its unit


def map_columns(raw: pd.DataFrame, columns: Mapping[str, str], path: Path, *, section: str) -> pd.DataFrame:
    """Returns the mapped columns of a table under our names, `patient_id` among them.

    Args:
        raw: The table.
        columns: Our name to a column of the table; `patient_id` keeps its name where it is not given.
        path: The table's file, for messages.
        section: Section of the cohort file that declares the columns, for messages.

    Raises:
        ConfigurationError: A name that subfuse gives, or a column that is not in the table.
        DataError: A column that the table has several times, with different cells.
    """
    columns = columns if "patient_id" in columns else {"patient_id": "patient_id", **columns}
    reserved = [name for name in columns if name in RESERVED]
    if reserved:
        raise ConfigurationError(
            f"{section}.columns: {preview(reserved)} are names that subfuse gives. Map the column of {path} to another."
        )
    for name, column in columns.items():
        if column in raw.attrs.get("repeated", ()):
            raise DataError(
                f"{path}: column {column!r}, mapped to {name}, is required once. Found it several times with different "
                "cells. Rename or remove one."
            )
        if column not in raw:
            raise ConfigurationError(
                f"{section}.columns.{name}: column {column!r} is not in {path}. "
                f"It has {preview(raw.columns, limit=20)}.{_lower_header(raw, column)}"
            )
    return pd.DataFrame({name: raw[column] for name, column in columns.items()})


def _lower_header(raw: pd.DataFrame, column: str) -> str:
    """Returns what is said of a table whose header stands below a title, by the row that has the column's name."""
    row = next((row for row in range(min(_ROWS_OF_TITLE, len(raw))) if column in raw.iloc[row].tolist()), None)
    return "" if row is None else f" Row {row + 2} has it: remove what stands above the header."


def note_of_repeated(raw: pd.DataFrame, path: Path) -> tuple[str, ...]:
    """Returns a note on the columns that `read_text_table` left out since their name stands for several."""
    repeated = raw.attrs.get("repeated", ())
    if not repeated:
        return ()
    return (f"{path.name}: several columns with different cells are called {preview(repeated)}; they are not used",)


def note_of_read_commas(raw: pd.DataFrame, columns: Mapping[str, str], path: Path) -> tuple[str, ...]:
    """Returns a note on the mapped columns whose commas `read_text_table` read as decimal ones."""
    return note_of_commas(path, [name for name in raw.attrs.get("decimal_commas", ()) if name in columns.values()])


def note_of_case(columns: Collection[str], path: Path) -> tuple[str, ...]:
    """Returns a note on columns, by our names, that differ from each other in case alone: one may be meant by both."""
    spelt: dict[str, list[str]] = {}
    for name in columns:
        spelt.setdefault(name.lower(), []).append(name)
    return tuple(
        f"{path.name}: {' and '.join(names)} differ only in case; each is read where it is named so"
        for names in spelt.values()
        if len(names) > 1
    )


def labels_of_portal(
    format: str,
    defaults: Mapping[str, Sequence[str]],
    found: Sequence[str],
    declared: Mapping[str, str] | None,
    *,
    derives_diagnosis: bool,
) -> dict[str, str]:
    """Returns which columns of a portal's table become labels: the usual ones it has, and those of the cohort file.

    Args:
        format: Of the portal's files, for the message.
        defaults: Our name to the columns that may hold it, the first that is found counts.
        found: Columns of the table.
        declared: `columns` of the cohort file.
        derives_diagnosis: True where `diagnosis` is derived: the portal's is then the histology.

    Raises:
        ConfigurationError: The cohort file maps a column that the format defines itself.
    """
    fixed = sorted(set(declared or {}) & {*FIXED_COLUMNS, *DATE_COLUMNS} - {"site"})
    if fixed:
        raise ConfigurationError(f"patients.columns: format {format} defines {preview(fixed)} itself. Map only labels.")
    usual = {
        name: next(column for column in candidates if column in found)
        for name, candidates in defaults.items()
        if any(column in found for column in candidates)
    }
    if derives_diagnosis and "diagnosis" in usual:  # the derivation may need it
        usual["histology"] = usual.pop("diagnosis")
    return usual | dict(declared or {})


def parse_days(
    cells: pd.Series, places: pd.Series, name: str, *, unit: TimeUnit = "days", reads_commas: bool = False
) -> pd.Series:
    """Returns times in days, NaN where the cell says unknown.

    Args:
        cells: Text.
        places: Where each cell is, for messages.
        name: What the cells hold, for messages.
        unit: Unit of the cells. Months have 30.4375 days, years 365.25.
        reads_commas: Whether decimal commas were read in columns of numbers alone: another cell is then at fault.

    Raises:
        DataError: A cell that is not a finite number.
    """
    unknown = cells.map(is_missing)
    times = pd.to_numeric(cells.mask(unknown), errors="coerce").astype(float)
    bad = ~unknown & ~np.isfinite(times)
    if bad.any():
        at_fault = bad & ~cells.str.fullmatch(r"[+-]?\d*,\d+") if reads_commas else bad
        row = at_fault.idxmax() if at_fault.any() else bad.idxmax()
        is_usual = 2 * int(cells[bad].map(_names_unit).sum()) > int((~unknown).sum())
        remedy = _remedy(str(cells[row]), unit, is_usual=is_usual)
        written = other_writing(str(cells[row]))
        if (bad & ~at_fault).any() and written is not None and written.kind == "thousands":
            remedy = written.remedy_among_commas
        raise DataError(f"{places[row]}: {name} must be a number of {unit}. Found {cells[row]!r}. {remedy}")
    if unit == "days":
        _refuse_thousands(cells[~unknown], places, name)
    return times * DAYS[unit]


def _names_unit(cell: str) -> bool:
    written = other_writing(cell)
    return written is not None and written.kind in _WITH_UNIT


def _refuse_thousands(cells: pd.Series, places: pd.Series, name: str) -> None:
    """Refuses `1.825` beside whole hundreds: a point between thousands, as German spreadsheets write it.

    Raises:
        DataError: Names the first such cell.
    """
    has_point = cells.str.contains(".", regex=False)
    whole = pd.to_numeric(cells[~has_point])
    if not has_point.any() or not cells[has_point].str.fullmatch(r"[1-9]\.\d{3}").all():
        return
    if whole.between(100, 999).any() and not (whole > 999).any():
        row = has_point.idxmax()
        thousands = cells[row].replace(".", "")
        raise DataError(
            f"{places[row]}: {name} must be a number of days. Found {cells[row]!r} ({int(has_point.sum())} such cells) "
            f"beside whole hundreds: the point seems to separate thousands. Write {thousands}, or {cells[row]}0 if it "
            "is a decimal one."
        )


def _remedy(cell: str, unit: TimeUnit, *, is_usual: bool) -> str:
    """Returns what to do about a time that is no number; `is_usual` where most cells are written so."""
    if written := other_writing(cell):
        if written.kind in _WITH_UNIT and not is_usual:
            return f"Convert it to {unit}, as the other cells are, and write the number alone."
        alone = f"Write the number alone, as {written.number}, and declare its unit as `patients.time_unit`."
        return alone if written.unit else written.remedy
    if is_date(cell) or is_month(cell):
        return f"This is a date: map it to time_to, and that of diagnosis to time_from, or give {unit} between them."
    return "Correct or empty the cell; if the row's cells are shifted, load the file again or remove the row."


def known_text(cells: pd.Series) -> pd.Series:
    """Returns text, None where a cell says unknown."""
    values = [None if pd.isna(cell) or is_missing(str(cell)) else str(cell) for cell in cells]
    return pd.Series(values, index=cells.index, dtype=object)


def first_known(cells: pd.DataFrame, names: Sequence[str], source: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns one row per patient, with the first known value of each column, and a note on each that differs.

    Args:
        cells: Rows with `patient_id` and the columns `names`, in the order in which they count.
        names: Columns to reduce; unknown is missing.
        source: The file, for notes.
    """
    grouped = cells.groupby("patient_id", sort=False)
    table = grouped[list(names)].first()
    differing = grouped[list(names)].nunique() > 1
    notes = [
        f"{source}: {int(differing[name].sum())} patient(s) have several values of {name}; the first is used "
        f"({preview(differing.index[differing[name]])})"
        for name in names
        if differing[name].any()
    ]
    return table, tuple(notes)


def without_empty_rows(table: pd.DataFrame, raw: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns a table with `place` without the rows that are wholly empty, as spreadsheets leave them, and a note.

    Args:
        table: Columns of `raw` by our names.
        raw: All cells of the file as text.
    """
    is_empty = (raw == "").all(axis=1)
    if not is_empty.any():
        return table, ()
    file, *_ = str(table["place"].iloc[0]).rpartition(", row ")
    rows = preview([str(row + 2) for row in np.flatnonzero(is_empty)])
    return table[~is_empty].reset_index(drop=True), (f"{file}, row {rows}: wholly empty, left out",)


def match_barcodes(table: pd.DataFrame) -> tuple[str, ...]:
    """Reduces TCGA barcodes in `patient_id` to their patient, in place; returns a note where that changed any.

    Other identifiers become `composed`.

    Raises:
        DataError: A row without identifier. Names its `place`.
    """
    empty = table["patient_id"].map(is_missing)
    if empty.any():
        raise DataError(
            f"{table.loc[empty.idxmax(), 'place']}: a patient identifier is required. Found none "
            f"in {empty.sum()} row(s) with values. Fill it in, or remove the row."
        )
    matched = table["patient_id"].map(patient_of_barcode)
    changed = int((matched != table["patient_id"].map(composed)).sum())
    table["patient_id"] = matched
    if not changed:
        return ()
    others = f"; the other {len(table) - changed} are used as they are" if changed < len(table) else ""
    return (f"{changed} patient identifiers are TCGA barcodes, matched by their first 12 characters{others}",)


def refuse_repeated_patients(table: pd.DataFrame) -> None:
    """Checks that every patient has one row.

    Args:
        table: With `patient_id` and `place`, a row's file and number; `attrs` may say that rows are slides or samples.

    Raises:
        DataError: A patient occurs again. Names both rows and the columns in which they differ.
    """
    repeated = table["patient_id"].duplicated()
    if not repeated.any():
        return
    row = int(np.argmax(repeated))
    patient = table["patient_id"].iloc[row]
    first = int(np.argmax(table["patient_id"] == patient))
    values = [str(name) for name in table if name not in ("patient_id", "place")]
    differing = [name for name in values if str(table[name].iloc[row]) != str(table[name].iloc[first])]
    remedy = _OF_SLIDES if table.attrs.get(WITHIN_PATIENTS) else "Keep one row per patient"
    contrast = f"with another {preview(differing)}" if differing else "with the same values"
    raise DataError(
        f"{table['place'].iloc[row]}: one row per patient is required. Found {patient} again (first: "
        f"{table['place'].iloc[first]}) {contrast}; {repeated.sum()} repeated row(s). {remedy}."
    )
