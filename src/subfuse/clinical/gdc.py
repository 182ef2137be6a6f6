"""Clinical files of the GDC portal: clinical.tsv, alone or in its archive, and clinical JSON of a cart or project."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.clinical.columns import DAYS, first_known, known_text, labels_of_portal, map_columns, parse_days
from subfuse.errors import DataError, preview
from subfuse.identifiers import patient_of_barcode
from subfuse.tables import archived_tables, is_missing, read_json, read_text_table, records_below, require_columns

_GDC_LABELS = {
    "grade": ("tumor_grade",),
    "diagnosis": ("primary_diagnosis",),
    "age": ("age_at_index", "age_at_diagnosis"),
    "gender": ("gender", "sex_at_birth"),
}
_FOLLOW_UP = {"vital_status": "Dead or Alive", "days_to_death": "days", "days_to_last_follow_up": "days"}
_PRIMARY = "diagnosis_is_primary_disease"  # of newer files; others list one diagnosis per patient
_CASE, _PLACE, _MAIN = "#case", "#place", "#main"  # among columns, none of which begins in this way
_OURS = (_CASE, _PLACE, _MAIN)
_EVENTS = {"dead": True, "alive": False}
_OWN_FIELDS = re.compile(r"^(submitter_id|state|.*_datetime)$")  # every entity of a JSON file has these
_ENTITY = re.compile(r"[_-](?:demographic|diagnosis|exposure)\d*$")


@dataclass(frozen=True)
class _Table:
    """One table of the portal: a file, a table in an archive, or the records of a JSON file as rows."""

    path: Path
    member: str  # name inside an archive, '' otherwise
    rows: pd.DataFrame  # cells as text under bare names, with `place` and `case`, the patient

    @property
    def name(self) -> str:
        """Name for notes."""
        return self.member or self.path.name

    @property
    def has_vital_status(self) -> bool:
        """True for the table of cases and diagnoses, False for those beside it (follow-up, exposure, ...)."""
        return "vital_status" in self.rows and "days_to_death" in self.rows


def read_gdc(
    paths: Sequence[Path], columns: Mapping[str, str] | None = None, *, derives_diagnosis: bool = False
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns one row per patient of every file, with `place`, and notes.

    GDC writes a row per treatment and diagnosis, and follow-ups, exposures and others into tables of their own. All
    tables of an archive are read, as are the other files. The latest follow-up counts, of everything
    else the first known value, and where a file says which diagnosis is the primary disease, labels are taken from
    that one. An age in days (`age_at_diagnosis`) becomes years. See `_outcome_of_rows` for what contradicts itself.

    Raises:
        ConfigurationError: A mapped column is missing, or one that the format defines.
        DataError: Not a clinical file of the portal, a time that cannot be read, or a patient in two files.
    """
    tables = [table for path in paths for table in _read(path)]
    used = [table for table in tables if _CASE in table.rows]
    main = [table for table in used if table.has_vital_status]
    if not main:
        path = paths[0]
        require_columns(tables[0].rows.drop(columns=_PLACE), {"case_submitter_id": "the patient", **_FOLLOW_UP}, path)
    _refuse_shared(main)
    raw = pd.concat([table.rows.assign(**{_MAIN: table.has_vital_status}) for table in used], ignore_index=True)
    raw = raw.astype(object).where(raw.notna(), "")
    raw.attrs["repeated"] = tuple(dict.fromkeys(n for table in used for n in table.rows.attrs.get("repeated", ())))
    require_columns(raw, _FOLLOW_UP, paths[0])
    found = [str(name) for name in raw if name not in _OURS]
    labels = labels_of_portal("gdc", _GDC_LABELS, found, columns, derives_diagnosis=derives_diagnosis)
    fixed = {"patient_id": _CASE, "place": _PLACE, **{name: name for name in _FOLLOW_UP}}
    cells = map_columns(raw, {**fixed, **labels}, paths[0], section="patients")
    for name in ("days_to_death", "days_to_last_follow_up"):
        cells[name] = parse_days(cells[name], cells["place"], name)
    notes = _ages_in_years(cells, labels)
    is_main = raw[_MAIN].astype(bool)
    if _PRIMARY in raw:
        is_primary = raw[_PRIMARY].str.lower() == "true"
        has_primary = is_primary.groupby(cells["patient_id"]).transform("any")
        cells.loc[is_main & has_primary & ~is_primary, list(labels)] = ""
    known = cells["patient_id"].isin(cells.loc[is_main, "patient_id"])
    table, notes_of_rows = _one_row_per_patient(cells[known], list(labels), ", ".join(table.name for table in main))
    others = cells.loc[~known, "patient_id"].unique()
    alone = f"{len(others)} case(s) without vital status are not used ({preview(others)})"
    return table, (*_notes_of_tables(tables, paths), *notes, *notes_of_rows, *([alone] if len(others) else []))


def is_clinical(columns: Sequence[str]) -> bool:
    """Returns whether a table with these columns is the portal's of cases, with their vital status.

    Example:
        >>> is_clinical(["cases.submitter_id", "demographic.vital_status", "demographic.days_to_death"])
        True
    """
    names = {_bare_name(column) for column in columns}
    return {"vital_status", "days_to_death"} <= names and bool({"case_submitter_id", "submitter_id"} & names)


def _read(path: Path) -> list[_Table]:
    """Returns the tables of a file, those of an archive with clinical.tsv first."""
    if ".json" in path.suffixes[-2:]:
        return [_named(path, "", _read_json(path))]
    if path.name.endswith((".tar.gz", ".tgz")):
        further = [name for name in archived_tables(path) if name != "clinical.tsv"]
        return [_named(path, name, read_text_table(path, member=name)) for name in ("clinical.tsv", *further)]
    return [_named(path, "", read_text_table(path))]


def _named(path: Path, member: str, rows: pd.DataFrame) -> _Table:
    """Returns a table under bare names, with the patient and the place of every row."""
    repeated = rows.attrs.get("repeated", ())
    rows = rows.set_axis(pd.Index(_bare_names(list(rows.columns))), axis="columns")
    identifier = next((name for name in ("case_submitter_id", "submitter_id") if name in rows), None)
    if member and identifier == "submitter_id":  # of the entity, not of the case
        identifier = None
    if identifier is not None:
        rows[_CASE] = rows[identifier].map(patient_of_barcode)
    where = f"{path}, {member} row" if member not in ("", "clinical.tsv") else f"{path}, row"
    is_json = ".json" in path.suffixes[-2:]
    rows[_PLACE] = [f"{path}, {case}" for case in rows[_CASE]] if is_json else [f"{where} {i + 2}" for i in rows.index]
    if "days_to_follow_up" in rows and "days_to_last_follow_up" not in rows:
        rows = rows.rename(columns={"days_to_follow_up": "days_to_last_follow_up"})
    rows.attrs["repeated"] = tuple(_bare_names(repeated))
    return _Table(path, member, rows)


def _refuse_shared(tables: Sequence[_Table]) -> None:
    """Refuses a patient that two files describe: two outcomes of one person."""
    first: dict[str, Path] = {}
    for table in tables:
        cases = dict.fromkeys(table.rows[_CASE], table.path)
        shared = [case for case in cases if first.get(case, table.path) != table.path]
        if shared:
            raise DataError(
                f"{table.path}: one row per patient is required. Found {preview(shared)} again (first: "
                f"{first[shared[0]]}). Keep each patient in one file."
            )
        first |= cases


def _notes_of_tables(tables: Sequence[_Table], paths: Sequence[Path]) -> tuple[str, ...]:
    """Returns what is known of the patients and is not read."""
    notes = [f"{table.name} does not name its cases: not used" for table in tables if _CASE not in table.rows]
    for path in dict.fromkeys(table.path for table in tables if table.has_vital_status and not table.member):
        beside = [file for file in _beside(path) if file.exists() and file not in paths]
        notes += [f"{file.name} lies beside {path.name} and is not read: list it in patients.table" for file in beside]
    return tuple(notes)


def _beside(path: Path) -> list[Path]:
    """Returns where the follow-ups of an unpacked archive would be."""
    return [path.with_name(path.name.replace("clinical", "follow_up", 1))] if path.name.startswith("clinical.") else []


def _bare_names(columns: Sequence[str]) -> list[str]:
    """Returns column names without the prefixes of newer files (`demographic.vital_status`)."""
    names: list[str] = []
    for column in columns:
        name = _bare_name(column)
        names.append(column if name in names else name)
    return names


def _bare_name(column: str) -> str:
    return "case_submitter_id" if column == "cases.submitter_id" else column.rsplit(".", 1)[-1]


def _ages_in_years(cells: pd.DataFrame, labels: Mapping[str, str]) -> tuple[str, ...]:
    in_days = [name for name, column in labels.items() if column == "age_at_diagnosis"]
    for name in in_days:
        years = parse_days(cells[name], cells["place"], "age_at_diagnosis") / DAYS["years"]
        cells[name] = ["" if pd.isna(age) else f"{age:.2f}" for age in years]
    return tuple(f"{name} is age_at_diagnosis, which GDC gives in days, in years" for name in in_days)


def _one_row_per_patient(
    cells: pd.DataFrame, labels: Sequence[str], source: str
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    cells = cells.assign(**{name: known_text(cells[name]) for name in ("vital_status", *labels)})
    table, notes = first_known(cells, [*labels, "days_to_death"], source)
    outcome, notes_of_outcome = _outcome_of_rows(cells.assign(vital_status=cells["vital_status"].str.lower()), source)
    table = table.drop(columns="days_to_death").join(outcome)
    table["place"] = cells.groupby("patient_id", sort=False)["place"].first()
    return table.reset_index(), (*notes, *notes_of_outcome)


def _outcome_of_rows(cells: pd.DataFrame, source: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns event and time_days per patient, and a note on each way in which rows contradict one another.

    Where some rows say alive and others dead, the later of death and last follow-up as alive decides; a death without
    date is the last. Who is alive is censored at the last follow-up, whatever date of death there is; who is dead died
    on that date, whatever follow-up there is. A date of death without vital status means dead.

    Args:
        cells: Rows with patient_id, vital_status (dead, alive, or missing), days_to_death and days_to_last_follow_up.
        source: The file, for notes.
    """
    status = cells["vital_status"].map(_EVENTS)  # missing where unknown
    patients = cells["patient_id"]
    grouped = cells.groupby("patient_id", sort=False)
    death, last = grouped["days_to_death"].first(), grouped["days_to_last_follow_up"].max()
    rows_dead, rows_alive = status.eq(True), status.eq(False)
    says_dead, says_alive = (rows.groupby(patients, sort=False).any() for rows in (rows_dead, rows_alive))
    last_alive = cells["days_to_last_follow_up"].where(rows_alive).groupby(patients, sort=False).max()
    both, unstated = says_dead & says_alive, ~says_dead & ~says_alive & death.notna()
    dead = (says_dead & ~(both & (last_alive > death))) | unstated
    event = pd.Series(pd.NA, index=death.index, dtype="boolean").mask(says_alive, False).mask(dead, True)
    alive_with_death = says_alive & ~says_dead & death.notna()
    unclear = cells.loc[status.isna() & cells["vital_status"].notna(), "patient_id"].unique()
    found: dict[str, pd.Series] = {
        "have rows as alive and as dead; the latest counts": both,
        "are alive with a date of death; they count as alive at their last follow-up": alive_with_death,
        "have a follow-up after their death; the date of death counts": dead & (last > death),
        "have a date of death without vital status; they count as dead": unstated,
        "have a vital status other than Dead and Alive; it is unknown": event.isna() & death.index.isin(unclear),
    }
    notes = tuple(
        f"{source}: {int(which.sum())} patient(s) {words} ({preview(death.index[which])})"
        for words, which in found.items()
        if which.any()
    )
    return pd.DataFrame({"time_days": death.where(dead, last), "event": event}), notes


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
    place = f"{path}, record {number}"
    demographics, diagnoses, exposures, relatives, follow_ups = (
        records_below(case, name, place)
        for name in ("demographic", "diagnoses", "exposures", "family_histories", "follow_ups")
    )
    demographic = demographics[0] if demographics else {}
    patient = {"case_submitter_id": _patient_of_case(case, [demographic, *diagnoses, *exposures], number, path)}
    for diagnosis in diagnoses or [{}]:
        yield patient | _fields(exposures[0] if exposures else {}) | _fields(diagnosis) | _fields(demographic)
    for further in (*exposures[1:], *relatives):
        yield patient | _fields(further)
    for follow_up in follow_ups:
        fields = _fields(follow_up)
        last = fields.pop("days_to_follow_up", None)
        yield patient | fields | ({} if last is None else {"days_to_last_follow_up": last})


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
