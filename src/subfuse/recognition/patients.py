"""Who the patients of a folder are: the section `patients` of its draft."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from subfuse.cells import is_date, is_month
from subfuse.clinical.gdc import read_gdc
from subfuse.errors import DataError, preview
from subfuse.recognition.classes import class_columns
from subfuse.recognition.endpoints import endpoint_columns, endpoint_lines
from subfuse.recognition.follow_up import follow_up_lines, is_outcome
from subfuse.recognition.kinds import (
    CLASS,
    GDC_CLINICAL,
    GENE_SUFFIX,
    PATIENTS,
    SLIDES_OF_PATIENTS,
    STUDY_PATIENTS,
    STUDY_SAMPLES,
    FoundTable,
    patient_column,
)
from subfuse.recognition.yaml_lines import (
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

_STATUS, _MONTHS = "_STATUS", "_MONTHS"  # end the names of a follow-up's columns in cBioPortal
_PLAIN = (PATIENTS, SLIDES_OF_PATIENTS)
USUAL_LABELS = {  # our name: what a table may call it
    "site": ("hospital", "centre", "center", "institution", "tissuesourcesite", "site"),
    "grade": ("grade", "tumorgrade", "tumourgrade", "whograde", "histologicalgrade", "neoplasmhistologicgrade"),
    "diagnosis": ("diagnosis", "histologicaldiagnosis", "primarydiagnosis"),
    "age": ("age", "ageatdiagnosis", "ageyears", "ageatindex", "diagnosisage", "ageatinitialpathologicdiagnosis"),
    "gender": ("gender", "sex", "genderdemographic"),
    "idh": ("idh", "idhstatus", "idhmutation"),
    "codeletion_1p19q": ("codeletion1p19q", "1p19qcodeletion", "1p19q", "codel1p19q", "codel", "codeletion"),
    "cdkn2a": ("cdkn2a", "cdkn2agistic"),
    CLASS: (CLASS,),
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
    told = [source for source in found if source[0].kind not in _PLAIN or _has_outcome(source[0])]
    chosen = found if len(found) == 1 else told
    if len(chosen) != 1:
        paths = [table.path for source in found for table in source]
        kinds = {source[0].kind for source in found}
        pooled = ", or one of `cohorts` for each" if kinds == {STUDY_PATIENTS} else ""
        pooled += ", or several in a list, `[a, b]`, if their patients are others" if GDC_CLINICAL in kinds else ""
        return ["patients:", asked("table", f"which is the table of patients, {names_of(paths, base)}{pooled}?")]
    (source,) = chosen
    others = [table for each in found if each is not source for table in each]
    return ["patients:", *_lines_of(source, base), *_others(others, base)]


def _sources(tables: Sequence[FoundTable]) -> list[list[FoundTable]]:
    """Returns what could be the patients, each of one table or of several that belong together."""
    of_studies = [table for kind in (STUDY_PATIENTS, STUDY_SAMPLES) for table in tables if table.kind == kind]
    places = dict.fromkeys(table.path.parent for table in of_studies)
    studies = [[table for table in of_studies if table.path.parent == place] for place in places]
    of_portal = [table for table in tables if table.kind == GDC_CLINICAL]
    plain = [[table] for table in tables if table.kind == PATIENTS]
    if not any(_has_outcome(table) for (table,) in plain):
        plain += [[table] for table in tables if table.kind == SLIDES_OF_PATIENTS]
    together = [of_portal] if of_portal and _fit([t.path for t in of_portal]) else [[table] for table in of_portal]
    return [*studies, *together, *plain]


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
        columns |= _labels(table.start, ["patient_id", *(name for name in names if is_outcome(name))])
        columns |= {name: name for name in class_columns(table.start, list(filter(None, columns.values())))}
        section = {"table": relative(table.path, base), "columns": columns}
        if len(columns) == 1:
            lines.append(remark(f"not used: {section['table']}, with {preview(names, 6)}"))
            continue
        lines += [
            remark(f"{QUESTION}does {section['table']} have labels of the same patients? Then:"),
            remark(f"labels: {scalar(section)}"),
        ]
    return lines


def _lines_of(source: Sequence[FoundTable], base: Path) -> list[str]:
    paths = [relative(table.path, base) for table in source]
    table = paths[0] if len(paths) == 1 else paths
    if source[0].kind in _PLAIN:
        return [line("table", table), *_columns(read_text_table(source[0].path))]
    if source[0].kind == GDC_CLINICAL:
        return [line("table", table), line("format", "gdc")]
    return [line("table", table), line("format", "cbioportal"), *_endpoints_of_study(source)]


def _endpoints_of_study(tables: Sequence[FoundTable]) -> list[str]:
    """Returns the lines of the follow-ups of a study beside that of overall survival: DFS, PFS, DSS."""
    cells = pd.concat([read_text_table(table.path, comment="#") for table in tables])
    stems = sorted(str(name).removesuffix(_STATUS) for name in cells if str(name).endswith(_STATUS))
    pairs = {
        stem.lower(): (f"{stem}{_MONTHS}", f"{stem}{_STATUS}")
        for stem in stems
        if stem != "OS" and f"{stem}{_MONTHS}" in cells
    }
    lines, columns = endpoint_lines(cells.fillna(""), pairs)
    return [*(mapping("columns", columns) if columns else []), *lines]


def _columns(table: pd.DataFrame) -> list[str]:
    """Returns the columns that are recognised by their names, and what their values leave open."""
    names = [str(name) for name in table]
    patient = patient_column(names)
    columns = {} if patient is None else {"patient_id": patient}
    lines, outcome = follow_up_lines(table, names)
    columns |= outcome
    columns |= _labels(table, list(columns.values()))
    further, of_endpoints = endpoint_lines(table, endpoint_columns(names))
    columns |= of_endpoints
    columns |= {name: name for name in class_columns(table, list(columns.values()))}
    lines += further
    unused = [name for name in names if name not in columns.values() and usual_name(name) != "slideid"]
    if {"idh", "codeletion_1p19q"} <= set(columns):
        lines.append(remark("derive: {diagnosis: {rule: who2021}}    # diagnosis from the markers"))
    of_genes = [name for name in unused if name.endswith(GENE_SUFFIX)]
    if of_genes:
        told = (
            f"{len(of_genes)} columns are expression ({preview(of_genes, 3)}), which `expression` reads from this table"
        )
        lines.append(remark(f"{told} by `gene_suffix: {GENE_SUFFIX}`, `patient_column: {patient}`"))
        unused = [name for name in unused if name not in of_genes]
    if unused:
        lines.append(remark(f"not used, unless columns name them: {preview(unused, 12)}"))
    return [*mapping("columns", columns), *lines]


def _labels(table: pd.DataFrame, taken: Sequence[str]) -> dict[str, str]:
    """Returns our names of labels to the columns that are called so, without those that are taken or hold dates."""
    free = {usual_name(str(name)): str(name) for name in reversed(table.columns) if name not in taken}
    free = {usual: name for usual, name in free.items() if not _holds_dates(table[name])}
    found = {
        label: next((free[usual] for usual in spelt if usual in free), None) for label, spelt in USUAL_LABELS.items()
    }
    return {label: column for label, column in found.items() if column is not None}


def _holds_dates(cells: pd.Series) -> bool:
    known = [str(cell) for cell in cells if not is_missing(str(cell))]
    return bool(known) and all(is_date(cell) or is_month(cell) for cell in known)
