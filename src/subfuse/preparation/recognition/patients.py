"""Who the patients of a folder are: the section `patients` of its draft."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from subfuse.clinical.columns import DAYS
from subfuse.clinical.gdc import read_gdc
from subfuse.clinical.plain import AMBIGUOUS_EVENT, OTHER_UNIT, PLAIN_EVENTS, canonical_event
from subfuse.errors import DataError, preview
from subfuse.preparation.recognition.kinds import (
    GDC_CLINICAL,
    PATIENTS,
    STUDY_PATIENTS,
    STUDY_SAMPLES,
    FoundTable,
    is_event,
    is_outcome,
    is_time,
    patient_column,
)
from subfuse.preparation.recognition.yaml_lines import (
    BLANK,
    QUESTION,
    asked,
    line,
    mapping,
    names_of,
    relative,
    remark,
    scalar,
)
from subfuse.tables import is_missing, read_text_table, usual_name

_EVENT_WORDS = {"dead": True, "deceased": True, "died": True, "alive": False, "living": False}
_MOST_EVENT_VALUES = 6
_LABELS = {  # our name: what a table may call it
    "site": ("hospital", "centre", "center", "institution", "tissuesourcesite", "site"),
    "grade": ("grade", "tumorgrade", "tumourgrade", "whograde", "histologicalgrade"),
    "diagnosis": ("diagnosis", "histologicaldiagnosis", "primarydiagnosis"),
    "age": ("age", "ageatdiagnosis", "ageyears", "ageatindex"),
    "gender": ("gender", "sex"),
    "idh": ("idh", "idhstatus", "idhmutation"),
    "codeletion_1p19q": ("codeletion1p19q", "1p19qcodeletion", "1p19q", "codel1p19q", "codel", "codeletion"),
    "cdkn2a": ("cdkn2a", "cdkn2agistic"),
}


def patients_lines(direct: Sequence[FoundTable], below: Sequence[FoundTable], base: Path) -> list[str]:
    """Returns the lines of the section: the one table that can be meant, or a question that names all of them.

    None where there is no table of patients.

    Args:
        direct: Tables directly in the folder.
        below: Tables of its subfolders, which count where none of patients is in the folder itself.
        base: The folder of the cohort file.
    """
    found = _sources(direct) or _sources(below)
    if not found:
        return []
    told = [source for source in found if source[0].kind != PATIENTS or _has_outcome(source[0])]
    chosen = found if len(found) == 1 else told
    if len(chosen) != 1:
        paths = [table.path for source in found for table in source]
        return ["patients:", asked("table", f"which is the table of patients, {names_of(paths, base)}?")]
    (source,) = chosen
    others = [table for each in found if each is not source for table in each]
    return ["patients:", *_lines_of(source, base), *_others(others, base)]


def _sources(tables: Sequence[FoundTable]) -> list[list[FoundTable]]:
    """Returns what could be the patients, each of one table or of several that belong together."""
    study = [table for kind in (STUDY_PATIENTS, STUDY_SAMPLES) for table in tables if table.kind == kind]
    of_portal = [table for table in tables if table.kind == GDC_CLINICAL]
    plain = [[table] for table in tables if table.kind == PATIENTS]
    together = [of_portal] if of_portal and _fit([t.path for t in of_portal]) else [[table] for table in of_portal]
    return [*([study] if study else []), *together, *plain]


def _fit(paths: Sequence[Path]) -> bool:
    """Returns whether files of the GDC are of different patients, and can stand below one another."""
    try:
        read_gdc(paths)
    except DataError:
        return len(paths) == 1
    return True


def _has_outcome(table: FoundTable) -> bool:
    return any(is_outcome(str(column)) for column in table.start)


def _others(others: Sequence[FoundTable], base: Path) -> list[str]:
    """Returns comments on further tables of patients, which may have labels of the same ones."""
    labels = [table for table in others if table.kind == PATIENTS]
    lines = [
        remark(f"not used: {relative(table.path, base)}, patients as well") for table in others if table not in labels
    ]
    for table in labels:
        names = [str(name) for name in table.start]
        columns = {"patient_id": patient_column(names)}
        columns |= _labels(names, ["patient_id", *(name for name in names if is_outcome(name))])
        section = {"table": relative(table.path, base), "columns": columns}
        lines += [
            remark(f"{QUESTION}does {section['table']} have labels of the same patients? Then:"),
            remark(f"labels: {scalar(section)}"),
        ]
    return lines


def _lines_of(source: Sequence[FoundTable], base: Path) -> list[str]:
    paths = [relative(table.path, base) for table in source]
    table = paths[0] if len(paths) == 1 else paths
    if source[0].kind == PATIENTS:
        return [line("table", table), *_columns(read_text_table(source[0].path))]
    format = "gdc" if source[0].kind == GDC_CLINICAL else "cbioportal"
    return [line("table", table), line("format", format)]


def _columns(table: pd.DataFrame) -> list[str]:
    """Returns the columns that are recognised by their names, and what their values leave open."""
    names = [str(name) for name in table]
    patient = patient_column(names)
    columns = {} if patient is None else {"patient_id": patient}
    lines, outcome = _outcome(table, names)
    columns |= outcome
    columns |= _labels(names, list(columns.values()))
    unused = [name for name in names if name not in columns.values()]
    if {"idh", "codeletion_1p19q"} <= set(columns):
        lines.append(remark("derive: {diagnosis: {rule: who2021}}    # diagnosis from the markers"))
    if unused:
        lines.append(remark(f"not used, unless columns name them: {preview(unused, 12)}"))
    return [*mapping("columns", columns), *lines]


def _labels(names: Sequence[str], taken: Sequence[str]) -> dict[str, str]:
    """Returns our names of labels to the columns that are called so, without columns that are taken."""
    free = {usual_name(name): name for name in reversed(names) if name not in taken}
    found = {label: next((free[usual] for usual in spelt if usual in free), None) for label, spelt in _LABELS.items()}
    return {label: column for label, column in found.items() if column is not None}


def _outcome(table: pd.DataFrame, names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Returns lines on the follow-up, and its columns: both or none."""
    known = {name: [cell for cell in table[name] if not is_missing(cell)] for name in names}
    times = [name for name in names if is_time(name) and not _is_binary(known[name])]
    events = [name for name in names if is_event(name)]
    if {"time_from", "time_to"} <= set(names) and len(events) == 1:
        lines, _ = _event(events[0], known[events[0]])
        return lines, {"time_from": "time_from", "time_to": "time_to", "event": events[0]}
    if len(times) != 1 or len(events) != 1:
        found = preview([*times, *events]) or "none"
        return [
            remark(
                f"{QUESTION}which columns are time_days (from diagnosis to the event or the last contact) and event? "
                f"Candidates: {found}. Without them there is no survival"
            )
        ], {}
    of_event, fits = _event(events[0], known[events[0]])
    if not fits:
        return of_event, {}
    return [*_unit(times[0], known[times[0]]), *of_event], {"time_days": times[0], "event": events[0]}


def _is_binary(cells: Sequence[str]) -> bool:
    return set(cells) <= {"0", "1", "0.0", "1.0"}


def _unit(column: str, cells: Sequence[str]) -> list[str]:
    if column == "time_days":
        return []
    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce").dropna()
    extent = f"{numbers.min():g} to {numbers.max():g}" if len(numbers) else "no number"
    name = usual_name(column)
    unit = "days" if "day" in name else None
    if OTHER_UNIT.search(column) and unit is None:
        unit = "years" if "year" in name or "yr" in name else "months"
    if unit is None:
        return [asked("time_unit", f"{', '.join(DAYS)}? {column} goes from {extent}", value=BLANK)]
    return [line("time_unit", unit, f"as the column's name says; {extent}")]


def _event(column: str, cells: Sequence[str]) -> tuple[list[str], bool]:
    """Returns lines on the meaning of an event's values, and whether the column can be one at all."""
    values = sorted(set(cells))
    if not AMBIGUOUS_EVENT.search(column) and {canonical_event(value) for value in values} <= set(PLAIN_EVENTS):
        n_observed = sum(PLAIN_EVENTS[canonical_event(cell)] for cell in cells)
        told = f"event: assumed that 1 in {column} means that it was observed, for {n_observed} of {len(cells)}"
        return [remark(told)] if cells and _is_binary(cells) else [], True
    if len(values) > _MOST_EVENT_VALUES:
        return [remark(f"{QUESTION}which column says whether the event was observed? {column} has other values")], False
    meanings = _meanings(values)
    if meanings:
        return [line("event_values", meanings, "true: the event was observed")], True
    blank = dict.fromkeys(values, BLANK)
    return [asked("event_values", "which of them mean that the event was observed: true or false", value=blank)], True


def _meanings(values: Sequence[str]) -> Mapping[str, bool]:
    """Returns what the values of an event mean where all of them are words that say it."""
    words = {value: _EVENT_WORDS.get(value.lower().removeprefix("1:").removeprefix("0:")) for value in values}
    meanings = {value: word for value, word in words.items() if word is not None}
    agree = all(
        not value.startswith(("0:", "1:")) or value.startswith("1:") == word for value, word in meanings.items()
    )
    return meanings if agree and len(meanings) == len(values) else {}
