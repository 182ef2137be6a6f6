"""Clinical files of the GDC portal: clinical.tsv, alone or in its archive, and clinical JSON of a cart or project."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.data.clinical_columns import DAYS, first_known, known_text, labels_of_portal, map_columns, parse_days
from subfuse.data.cohort_file import PatientsSection
from subfuse.data.tables import is_missing, read_json, read_text_table, require_columns
from subfuse.errors import DataError, preview

GDC_LABELS = {
    "grade": ("tumor_grade",),
    "diagnosis": ("primary_diagnosis",),
    "age": ("age_at_index", "age_at_diagnosis"),
    "gender": ("gender", "sex_at_birth"),
}
_FOLLOW_UP = {"vital_status": "Dead or Alive", "days_to_death": "days", "days_to_last_follow_up": "days"}
_PRIMARY = "diagnosis_is_primary_disease"  # of newer files; others list one diagnosis per patient
_EVENTS = {"dead": True, "alive": False}
_OWN_FIELDS = re.compile(r"^(submitter_id|state|.*_datetime)$")  # every entity of a JSON file has these
_ENTITY = re.compile(r"[_-](?:demographic|diagnosis|exposure)\d*$")


def read_gdc(section: PatientsSection) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns one row per patient of every file, with `place`, and notes.

    GDC writes a row per treatment and diagnosis. The latest follow-up counts, of everything else the first known
    value, and where a file says which diagnosis is the primary disease, labels are taken from that one. An age in days
    (`age_at_diagnosis`) becomes years.

    Raises:
        ConfigurationError: A mapped column is missing, or one that the format defines.
        DataError: Not a clinical file of the portal, or a time that cannot be read.
    """
    parts, notes = zip(*(_read(path, section) for path in section.table), strict=True)
    return pd.concat(parts, ignore_index=True), sum(notes, ())


def _read(path: Path, section: PatientsSection) -> tuple[pd.DataFrame, tuple[str, ...]]:
    is_json = ".json" in path.suffixes[-2:]
    raw = _read_json(path) if is_json else read_text_table(path)
    raw.columns = pd.Index(_bare_names(list(raw.columns)))
    identifier = "case_submitter_id" if "case_submitter_id" in raw else "submitter_id"
    require_columns(raw, {identifier: "the patient", **_FOLLOW_UP}, path)
    labels = labels_of_portal(section, GDC_LABELS, [str(name) for name in raw])
    cells = map_columns(
        raw, {"patient_id": identifier, **{name: name for name in _FOLLOW_UP}, **labels}, path, section="patients"
    )
    where = cells["patient_id"] if is_json else [f"row {row + 2}" for row in cells.index]
    cells["place"] = [f"{path}, {place}" for place in where]
    for name in ("days_to_death", "days_to_last_follow_up"):
        cells[name] = parse_days(cells[name], cells["place"], name)
    notes = _ages_in_years(cells, labels)
    if _PRIMARY in raw:
        is_primary = raw[_PRIMARY].str.lower() == "true"
        has_primary = is_primary.groupby(cells["patient_id"]).transform("any")
        cells.loc[has_primary & ~is_primary, list(labels)] = ""
    return _one_row_per_patient(cells, list(labels), path, notes)


def _bare_names(columns: Sequence[str]) -> list[str]:
    """Returns column names without the prefixes of newer files (`demographic.vital_status`)."""
    names: list[str] = []
    for column in columns:
        name = "case_submitter_id" if column == "cases.submitter_id" else column.rsplit(".", 1)[-1]
        names.append(column if name in names else name)
    return names


def _ages_in_years(cells: pd.DataFrame, labels: Mapping[str, str]) -> tuple[str, ...]:
    in_days = [name for name, column in labels.items() if column == "age_at_diagnosis"]
    for name in in_days:
        years = parse_days(cells[name], cells["place"], "age_at_diagnosis") / DAYS["years"]
        cells[name] = ["" if pd.isna(age) else f"{age:.2f}" for age in years]
    return tuple(f"{name} is age_at_diagnosis, which GDC gives in days, in years" for name in in_days)


def _one_row_per_patient(
    cells: pd.DataFrame, labels: Sequence[str], path: Path, notes: tuple[str, ...]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    text = ["vital_status", *labels]
    for name in text:
        cells[name] = known_text(cells[name])
    table, notes_of_values = first_known(cells, [*text, "days_to_death"], path.name)
    grouped = cells.groupby("patient_id", sort=False)
    table["place"] = grouped["place"].first()
    status = table["vital_status"].str.lower()
    table["event"] = status.map(_EVENTS).astype("boolean")  # anything else is unknown
    table["time_days"] = table["days_to_death"].where(status == "dead", grouped["days_to_last_follow_up"].max())
    return table.drop(columns=["vital_status", "days_to_death"]).reset_index(), (*notes, *notes_of_values)


# --- JSON ------------------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> pd.DataFrame:
    """Returns the rows that clinical.tsv would have: one per diagnosis and follow-up of a case, cells as text."""
    content = read_json(path)
    if isinstance(content, dict):  # an answer of the portal's API
        data = content.get("data")
        content = data.get("hits") if isinstance(data, dict) else None
    is_clinical = isinstance(content, list) and all(isinstance(case, dict) for case in content)
    if not is_clinical or not any("demographic" in case or "diagnoses" in case for case in content):
        raise DataError(
            f"{path}: clinical JSON of the GDC portal is required, a list of cases with demographic and diagnoses. "
            "Found other JSON. In the portal's cart choose Clinical, then JSON."
        )
    table = pd.DataFrame([row for number, case in enumerate(content, 1) for row in _rows_of_case(case, number, path)])
    needed = dict.fromkeys(name for name in _FOLLOW_UP if name not in table)  # absent where nobody has it
    return table.assign(**needed).astype(object).where(lambda cells: cells.notna(), "")


def _rows_of_case(case: Mapping[str, Any], number: int, path: Path) -> Iterator[dict[str, str]]:
    demographic, exposures = case.get("demographic") or {}, case.get("exposures") or []
    diagnoses = case.get("diagnoses") or [{}]
    patient = {"case_submitter_id": _patient_of_case(case, [demographic, *diagnoses, *exposures], number, path)}
    for diagnosis in diagnoses:
        yield patient | _fields(exposures[0] if exposures else {}) | _fields(diagnosis) | _fields(demographic)
    for follow_up in case.get("follow_ups") or []:
        if not is_missing(str(follow_up.get("days_to_follow_up") or "")):
            yield patient | {"days_to_last_follow_up": str(follow_up["days_to_follow_up"])}


def _fields(entity: Mapping[str, Any]) -> dict[str, str]:
    """Returns the known values of an entity, without the lists below it and what is not about the patient."""
    return {
        name: str(value).strip()
        for name, value in entity.items()
        if isinstance(value, str | int | float) and not is_missing(str(value)) and not _OWN_FIELDS.match(name)
    }


def _patient_of_case(case: Mapping[str, Any], entities: Sequence[Mapping[str, Any]], number: int, path: Path) -> str:
    """Returns a case's submitter identifier; files of 2017 have it only in front of those of its entities."""
    identifiers = [case.get("submitter_id"), *(entity.get("submitter_id") for entity in entities)]
    known = [_ENTITY.sub("", str(identifier)) for identifier in identifiers if identifier]
    if not known:
        raise DataError(
            f"{path}, record {number}: a submitter_id is required. Found {preview(case, limit=8)}. Load the file again."
        )
    return known[0]
