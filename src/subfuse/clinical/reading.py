"""Clinical tables, plain or of a portal: one row per patient, event and time in one meaning, labels, diagnosis."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from subfuse.clinical.cbioportal import read_cbioportal
from subfuse.clinical.columns import (
    FIXED_COLUMNS,
    known_text,
    map_columns,
    match_barcodes,
    note_of_read_commas,
    note_of_repeated,
    refuse_repeated_patients,
    without_empty_rows,
)
from subfuse.clinical.follow_up_dates import DATE_COLUMNS
from subfuse.clinical.follow_ups import paired, read_endpoints, without_negative_times
from subfuse.clinical.gdc import read_gdc
from subfuse.clinical.glioma import derive_diagnosis
from subfuse.clinical.plain import read_plain
from subfuse.clinical.source import (
    CbioportalPatients,
    GdcPatients,
    LabelsSection,
    PatientsSection,
    PlainPatients,
    cause_column,
)
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.exclusions import exclusion_table
from subfuse.identifiers import composed, describe_mismatch, site_of_barcode, spelt_otherwise
from subfuse.tables import read_text_table


@dataclass(frozen=True)
class ClinicalTable:
    """What is known about the patients of a cohort."""

    patients: pd.DataFrame  # patient_id, site, time_days (float), event (boolean), labels (text); unknown is missing
    exclusions: pd.DataFrame  # level, id, reason
    warnings: tuple[str, ...]


def read_clinical(section: PatientsSection) -> ClinicalTable:
    """Returns the clinical table that a cohort file declares, one row per patient, sorted by identifier.

    TCGA barcodes of any length are matched by their patient prefix, and give the site where no column does. Time and
    event are known together or not at all. Empty cells and words such as `not reported` are unknown, and so is a
    follow-up whose time is negative. `outcome_warnings` judges the patients that are used in the end.

    Raises:
        ConfigurationError: A mapped column is not in the table, a reserved name, or an event column or a time column
            whose meaning must be declared.
        DataError: Unreadable or empty table, a patient that occurs twice, an event, time or marker that cannot be
            read. Names file, row and value.
    """
    table, notes, left_out = _read(section)
    if table.empty:
        raise DataError(
            f"{preview(section.table)}: at least one patient is required. Found no row below the header. Give the "
            "table that has the patients."
        )
    notes = (*notes, *match_barcodes(table))
    refuse_repeated_patients(table)
    table, note_of_choice = _included(table, section.include, section.table)
    table, note_of_labels = _join_labels(table, section.labels)
    if "site" not in table:
        table["site"] = None
    table["site"] = [
        site or site_of_barcode(i) for site, i in zip(known_text(table["site"]), table["patient_id"], strict=True)
    ]
    table, note_of_endpoints = read_endpoints(table, section)
    table, note_of_pairs = paired(table)
    labels = [str(name) for name in table if name not in (*FIXED_COLUMNS, "place")]
    for name in labels:
        table[name] = _whole_numbers(known_text(table[name]))
    table, note_of_negative = without_negative_times(table)
    if (causes := cause_column("event")) in table:
        table[causes] = known_text(table[causes].mask(table["event"].isna()))
    patients = table[[*FIXED_COLUMNS, *labels]].sort_values("patient_id").reset_index(drop=True)
    notes = (*notes, *note_of_choice, *note_of_labels, *note_of_pairs, *note_of_negative, *note_of_endpoints)
    if section.derive is not None:
        patients, note_of_diagnosis = derive_diagnosis(patients, section.derive.diagnosis)
        notes = (*notes, *note_of_diagnosis)
    return ClinicalTable(patients, left_out, notes)


def _read(section: PatientsSection) -> tuple[pd.DataFrame, tuple[str, ...], pd.DataFrame]:
    """Returns the table of a source with `place`, notes, and what of it is not used."""
    paths, columns, derives = section.table, section.columns, section.derive is not None
    match section:
        case CbioportalPatients():
            return read_cbioportal(paths, columns, derives_diagnosis=derives)
        case GdcPatients():
            table, notes = read_gdc(paths, columns, derives_diagnosis=derives)
        case PlainPatients():
            table, notes = read_plain(paths, columns, event_values=section.event_values, time_unit=section.time_unit)
    return table, notes, exclusion_table()


def _whole_numbers(cells: pd.Series) -> pd.Series:
    """Returns `2.0` as `2` where a column holds whole numbers alone: so programs write one that has an empty cell."""
    known = cells.dropna()
    if known.empty or not known.str.fullmatch(r"-?\d+\.0+").all():
        return cells
    return cells.map(lambda cell: None if cell is None else cell.partition(".")[0])


def _included(
    table: pd.DataFrame, include: Sequence[str] | None, paths: Sequence[Path]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the patients that the cohort file asks for, and a note on how many others the table has."""
    if include is None:
        return table, ()
    wanted = set(map(composed, include))
    missing = sorted(wanted - set(table["patient_id"]))
    if missing:
        like = spelt_otherwise(missing, table["patient_id"].tolist())
        shown = preview([name + like.get(name, "") for name in sorted(missing, key=lambda name: name not in like)])
        raise DataError(f"patients.include: patients of {preview(paths)} are required. Not found: {shown}.")
    chosen = table["patient_id"].isin(wanted)
    note = f"patients.include: {chosen.sum()} of {len(table)} patients of the table are used"
    return table[chosen].reset_index(drop=True), (note,)


def _join_labels(table: pd.DataFrame, section: LabelsSection | None) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the patients with the columns of the further table, and a note on whom it does not list."""
    if section is None:
        return table, ()
    raw = read_text_table(section.table)
    columns = section.columns or {str(name): str(name) for name in raw}
    further = map_columns(raw, columns, section.table, section="patients.labels")
    notes = (
        *note_of_read_commas(raw, columns, section.table),
        *(() if section.columns else note_of_repeated(raw, section.table)),
    )
    given = (*table, *FIXED_COLUMNS, *DATE_COLUMNS)
    taken = [name for name in further if name != "patient_id" and name in given]
    if taken:
        raise ConfigurationError(
            f"patients.labels.columns: {preview(taken)} is a column of patients.table already or gives the follow-up. "
            "Map it to another name, or to the columns of one table only."
        )
    further["place"] = [f"{section.table}, row {row + 2}" for row in range(len(further))]
    further, note_of_empty = without_empty_rows(further, raw)
    notes = (*note_of_empty, *notes)
    match_barcodes(further)
    refuse_repeated_patients(further)
    found = table["patient_id"].isin(further["patient_id"])
    if not found.any():
        places = {f"in {section.table.name}": set(further["patient_id"])}
        raise DataError(
            f"{section.table}: patients of patients.table are required. Found {len(further)} others. "
            f"{describe_mismatch(set(table['patient_id']), places, of_ours='patients')}. Correct the identifiers, or "
            "map the column that holds them to patient_id in patients.labels.columns."
        )
    joined = table.merge(further.drop(columns="place"), on="patient_id", how="left")
    if found.all():
        return joined, notes
    like = spelt_otherwise(further["patient_id"], table["patient_id"].tolist())
    note = f"patients.labels: {found.sum()} of {len(table)} patients are in {section.table.name}"
    absent = f"not {preview(table.loc[~found, 'patient_id'])}"
    spelt = preview([f"{name} is not a patient{words}" for name, words in like.items()], 3)
    return joined, (*notes, "; ".join(part for part in (note, absent, spelt) if part))
