"""Clinical tables: plain ones with a column mapping and those of the GDC portal; event and time in one meaning."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.data.barcodes import patient_of_barcode, site_of_barcode
from subfuse.data.cohort_file import PatientsSection
from subfuse.data.exclusions import exclusion_table
from subfuse.data.tables import is_missing, read_text_table
from subfuse.errors import ConfigurationError, DataError, preview

FIXED_COLUMNS = ("patient_id", "site", "time_days", "event")
RESERVED = ("cohort", "n_slides", "has_expression")  # of patients.csv, written by us
GDC_LABELS = {"grade": "tumor_grade", "diagnosis": "primary_diagnosis", "age": "age_at_index", "gender": "gender"}
_AMBIGUOUS_EVENT = re.compile(r"censor|vital|status", re.IGNORECASE)
_PLAIN_EVENTS = {"1": True, "0": False, "true": True, "false": False}
_GDC_EVENTS = {"dead": True, "alive": False}


@dataclass(frozen=True)
class ClinicalTable:
    """What is known about the patients of a cohort."""

    patients: pd.DataFrame  # patient_id, site, time_days (float), event (boolean), labels (text); unknown is missing
    exclusions: pd.DataFrame  # level, id, reason
    warnings: tuple[str, ...]


def read_clinical(section: PatientsSection) -> ClinicalTable:
    """Returns the clinical table that a cohort file declares, one row per patient, sorted by identifier.

    TCGA barcodes of any length are matched by their patient prefix, and give the site where no column does. Time and
    event are known together or not at all. Empty cells and words such as `not reported` are unknown. A patient with a
    negative time is excluded, with the reason. `outcome_warnings` judges the patients that are used in the end.

    Raises:
        ConfigurationError: A mapped column is not in the table, a reserved name, or an event column whose meaning
            must be declared.
        DataError: Unreadable table, a patient that occurs twice, an event or time that cannot be read. Names file,
            row and value.
    """
    read = _read_gdc if section.format == "gdc" else _read_plain
    parts, notes = zip(*(read(path, section) for path in section.table), strict=True)
    table = pd.concat(parts, ignore_index=True)
    notes_of_ids = _match_barcodes(table)
    _refuse_repeated_patients(table)
    table, note_of_choice = _included(table, section)
    if "site" not in table:
        table["site"] = None
    table["site"] = [
        site or site_of_barcode(i) for site, i in zip(_labels(table["site"]), table["patient_id"], strict=True)
    ]
    table, note_of_pairs = _pair_outcome(table)
    negative = table["time_days"] < 0
    exclusions = exclusion_table(
        ("patient", str(patient), f"time_days is negative ({time:g})")
        for patient, time in table.loc[negative, ["patient_id", "time_days"]].to_numpy()
    )
    labels = [name for name in table if name not in (*FIXED_COLUMNS, "place")]
    for name in labels:
        table[name] = _labels(table[name])
    patients = table.loc[~negative, [*FIXED_COLUMNS, *labels]].sort_values("patient_id").reset_index(drop=True)
    warnings = (*sum(notes, ()), *notes_of_ids, *note_of_choice, *note_of_pairs)
    return ClinicalTable(patients, exclusions, warnings)


def _included(table: pd.DataFrame, section: PatientsSection) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the patients that the cohort file asks for, and a note on how many others the table has."""
    if section.include is None:
        return table, ()
    missing = sorted(set(section.include) - set(table["patient_id"]))
    if missing:
        raise DataError(f"patients.include: {preview(missing)} must be in {preview(section.table)}. Not found.")
    chosen = table["patient_id"].isin(section.include)
    note = f"patients.include: {chosen.sum()} of {len(table)} patients of the table are used"
    return table[chosen].reset_index(drop=True), (note,)


def outcome_warnings(patients: pd.DataFrame) -> tuple[str, ...]:
    """Returns what looks wrong with time and event: another unit, hardly any censoring, or a flipped event.

    Args:
        patients: Columns `time_days` and `event`.
    """
    known = patients.dropna(subset=["time_days", "event"])
    if known.empty:
        return ()
    time, event = known["time_days"].to_numpy(dtype=float), known["event"].to_numpy(dtype=bool)
    warnings = []
    if time.max() < 400 and np.median(time) < 60:
        warnings.append(
            f"time_days looks like months: median {np.median(time):g}, maximum {time.max():g}. It must be in days."
        )
    if event.mean() > 0.95:
        warnings.append(
            f"event is true for {event.mean():.0%} of the patients. Check that true means an observed event."
        )
    if not event.any():
        warnings.append("event is false for every patient: survival cannot be learned. Check that true means an event.")
    if min(event.sum(), (~event).sum()) >= 10 and np.median(time[event]) > 2 * np.median(time[~event]):
        warnings.append(
            f"event may be flipped: median time is {np.median(time[event]):g} days with and "
            f"{np.median(time[~event]):g} without an event. Check that true means an observed event."
        )
    return tuple(warnings)


# --- plain tables ----------------------------------------------------------------------------------------------------


def _read_plain(path: Path, section: PatientsSection) -> tuple[pd.DataFrame, tuple[str, ...]]:
    raw = read_text_table(path)
    table = _map_columns(raw, section.columns or {str(name): str(name) for name in raw}, path)
    if ("time_days" in table) != ("event" in table):
        raise ConfigurationError(
            f"patients.columns: time_days and event are declared together. Found only "
            f"{'time_days' if 'time_days' in table else 'event'} for {path}."
        )
    table["place"] = [f"{path}, row {row + 2}" for row in range(len(table))]
    if "event" in table:
        table["time_days"] = _days(table["time_days"], table["place"], "time_days")
        source = (section.columns or {}).get("event", "event")
        table["event"] = _events(table["event"], source, section.event_values, path)
    return table, ()


def _map_columns(raw: pd.DataFrame, columns: Mapping[str, str], path: Path) -> pd.DataFrame:
    columns = columns if "patient_id" in columns else {"patient_id": "patient_id", **columns}
    reserved = [name for name in columns if name in RESERVED]
    if reserved:
        raise ConfigurationError(
            f"patients.columns: {preview(reserved)} are names that subfuse gives. Map the column of {path} to another."
        )
    for name, column in columns.items():
        if column not in raw:
            raise ConfigurationError(
                f"patients.columns.{name}: column {column!r} is not in {path}. It has {preview(raw.columns, limit=20)}."
            )
    return pd.DataFrame({name: raw[column] for name, column in columns.items()})


def _days(cells: pd.Series, places: pd.Series, name: str) -> pd.Series:
    unknown = cells.map(is_missing)
    days = pd.to_numeric(cells.mask(unknown), errors="coerce").astype(float)
    bad = ~unknown & ~np.isfinite(days)
    if bad.any():
        row = bad.idxmax()
        raise DataError(
            f"{places[row]}: {name} must be a number of days. Found {cells[row]!r}. Correct or empty the cell; if the "
            "row's cells are shifted, load the file again or remove the row."
        )
    return days


def _events(cells: pd.Series, column: str, event_values: Mapping[str, bool] | None, path: Path) -> pd.Series:
    known = cells[~cells.map(is_missing)]
    found = sorted(known.unique())
    if event_values is None and _AMBIGUOUS_EVENT.search(column):
        example = ", ".join(f"{value}: {'true' if i else 'false'}" for i, value in enumerate(found[:2]))
        raise ConfigurationError(
            f"patients.event_values: the name of column {column!r} does not say which value is an observed event. "
            f"Found {preview(found)} in {path}. Declare it, for example `event_values: {{{example}}}`."
        )
    meaning = {_canonical(key): value for key, value in (event_values or _PLAIN_EVENTS).items()}
    unclear = [value for value in found if _canonical(value) not in meaning]
    if unclear:
        wanted = preview(event_values) if event_values else "true, false, 1 or 0"
        raise DataError(
            f"{path}, column {column}: {wanted} are required. Found {preview(found)}. Declare the meaning of each in "
            "patients.event_values."
        )
    return known.map(lambda value: meaning[_canonical(value)]).reindex(cells.index).astype("boolean")


def _canonical(value: str) -> str:
    """Returns the text by which event values are compared: lower case, 1.0 as 1."""
    return re.sub(r"^([01])\.0*$", r"\1", value.strip().lower())


# --- GDC -------------------------------------------------------------------------------------------------------------


def _read_gdc(path: Path, section: PatientsSection) -> tuple[pd.DataFrame, tuple[str, ...]]:
    fixed = sorted(set(section.columns or {}) & set(FIXED_COLUMNS) - {"site"})
    if fixed:
        raise ConfigurationError(f"patients.columns: format gdc defines {preview(fixed)} itself. Map only labels.")
    raw = read_text_table(path)
    raw.columns = pd.Index(_gdc_names(list(raw.columns)))
    identifier = "case_submitter_id" if "case_submitter_id" in raw else "submitter_id"
    labels = {name: column for name, column in GDC_LABELS.items() if column in raw} | dict(section.columns or {})
    follow_up = {name: name for name in ("vital_status", "days_to_death", "days_to_last_follow_up")}
    cells = _map_columns(raw, {"patient_id": identifier, **follow_up, **labels}, path)
    cells["place"] = [f"{path}, row {row + 2}" for row in range(len(cells))]
    table, notes = _one_row_per_patient(cells, list(labels), path)
    status = table["vital_status"].str.lower()
    table["event"] = status.map(_GDC_EVENTS).astype("boolean")  # anything else is unknown
    table["time_days"] = table["days_to_death"].where(status == "dead", table["days_to_last_follow_up"])
    return table.drop(columns=["vital_status", "days_to_death", "days_to_last_follow_up"]), notes


def _gdc_names(columns: Sequence[str]) -> list[str]:
    """Returns column names without the prefixes of newer GDC files (`demographic.vital_status`)."""
    names: list[str] = []
    for column in columns:
        name = "case_submitter_id" if column == "cases.submitter_id" else column.rsplit(".", 1)[-1]
        names.append(column if name in names else name)
    return names


def _one_row_per_patient(
    cells: pd.DataFrame, labels: Sequence[str], path: Path
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Collapses the rows that GDC writes per treatment: latest follow-up, and the first known value of the rest."""
    for name in ("days_to_death", "days_to_last_follow_up"):
        cells[name] = _days(cells[name], cells["place"], name)
    text = ["vital_status", *labels]
    cells[text] = cells[text].mask(cells[text].map(is_missing))
    grouped = cells.groupby("patient_id", sort=False)
    table = grouped.first()  # the first value that is not missing
    table["days_to_last_follow_up"] = grouped["days_to_last_follow_up"].max()
    differing = grouped[[*text, "days_to_death"]].nunique() > 1
    notes = [
        f"{path.name}: {int(differing[name].sum())} patient(s) have several values of {name}; the first is used "
        f"({preview(differing.index[differing[name]])})"
        for name in differing
        if differing[name].any()
    ]
    return table.reset_index(), tuple(notes)


# --- shared ----------------------------------------------------------------------------------------------------------


def _labels(cells: pd.Series) -> pd.Series:
    values = [None if pd.isna(cell) or is_missing(str(cell)) else str(cell) for cell in cells]
    return pd.Series(values, index=cells.index, dtype=object)


def _match_barcodes(table: pd.DataFrame) -> tuple[str, ...]:
    empty = table["patient_id"].map(is_missing)
    if empty.any():
        raise DataError(f"{table.loc[empty.idxmax(), 'place']}: a patient identifier is required. Found none.")
    matched = table["patient_id"].map(patient_of_barcode)
    changed = int((matched != table["patient_id"]).sum())
    table["patient_id"] = matched
    return (
        (f"{changed} patient identifiers are TCGA barcodes, matched by their first 12 characters",) if changed else ()
    )


def _refuse_repeated_patients(table: pd.DataFrame) -> None:
    repeated = table["patient_id"].duplicated()
    if repeated.any():
        row = repeated.idxmax()
        patient = table.loc[row, "patient_id"]
        first = table.loc[table["patient_id"] == patient, "place"].iloc[0]
        raise DataError(
            f"{table.loc[row, 'place']}: one row per patient is required. Found {patient} again (first: {first}); "
            f"{repeated.sum()} repeated row(s). Keep one row per patient."
        )


def _pair_outcome(table: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Makes time and event unknown where only one of them is known."""
    if "event" not in table:
        return table.assign(time_days=np.nan, event=pd.array([pd.NA] * len(table), dtype="boolean")), ()
    half = table["time_days"].isna() != table["event"].isna()
    table = table.assign(time_days=table["time_days"].mask(half), event=table["event"].mask(half))
    note = f"{half.sum()} patient(s) have only one of time and event; their follow-up is unknown"
    return table, (f"{note} ({preview(table.loc[half, 'patient_id'])})",) if half.any() else ()
