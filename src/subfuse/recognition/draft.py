"""A draft of the cohort file of a folder: what is recognised, and what the user is asked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from pydantic import ValidationError

from subfuse.bounded_files import ZIPPED_TABLES
from subfuse.clinical.columns import FIXED_COLUMNS
from subfuse.clinical.reading import read_clinical
from subfuse.cohort.cohort_file import CohortFile
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError, SubfuseError, command_line, counted, preview
from subfuse.expression.matrices import description_beside
from subfuse.identifiers import is_plain_name
from subfuse.preparation.slides.slide_search import files_in_words
from subfuse.preparation.tasks import assumed_tasks, learnable_tasks
from subfuse.recognition.classes import class_columns
from subfuse.recognition.expression import expression_lines
from subfuse.recognition.follow_up import may_be_outcome
from subfuse.recognition.kinds import (
    CLASS,
    GENE_SETS,
    OTHER,
    XENA,
    FoundTable,
    find_tables,
    is_prepared,
    may_be_read,
    study_name,
)
from subfuse.recognition.overlap import overlap_lines
from subfuse.recognition.patients import USUAL_LABELS, patients_lines
from subfuse.recognition.slides import slides_lines
from subfuse.recognition.yaml_lines import PROBLEM, QUESTION, asked, line, relative, remark, scalar

_ROLES = ("develop", "external")
_FOLD = "splits_0.csv"  # in a folder of folds
_UNREADABLE = (".xls", ".xlsb", ".zip", ".bz2", ".xz", ".gct", ".sav", ".dta", ".rds", ".rdata", ".feather", ".loom")


@dataclass(frozen=True)
class Draft:
    """The text of a cohort file, and what is asked or wrong in it."""

    text: str
    questions: tuple[str, ...]  # with their lines


def draft_of_folder(folder: Path, base: Path) -> Draft:
    """Returns a draft of the cohort file of a folder.

    Args:
        folder: With tables, slides, features or expression as other tools leave them. Nothing in it is changed.
        base: The folder of the cohort file, which paths are relative to.

    Raises:
        ConfigurationError: There is no such folder.
        DataError: Nothing in it is recognised.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "none"
        raise ConfigurationError(f"{folder}: a folder of tables, slides or features is required. Found {found}.")
    if is_prepared(folder):
        remedy = f"Go on with: {command_line('crossval', folder, '--out', 'run')}"
        raise ConfigurationError(f"{folder}: data as they came are required. Found a prepared cohort. {remedy}")
    direct, below = find_tables(folder)
    patients = patients_lines(direct, below, base)
    slides = slides_lines(folder, direct, below, base)
    expression = expression_lines(folder, direct, below, base)
    if not patients and not slides and not expression:
        raise DataError(
            f"{folder}: a table of patients, expression, slides or features are required. Recognised none; found "
            f"{files_in_words(folder)}.{_reason(direct)} Run `subfuse init` without --from for a commented file."
        )
    if not patients:
        patients = ["patients:", asked("table", _question_of_patients([*direct, *below], base))]
    if not slides and not expression:
        slides = [remark(f"{QUESTION}where are slides, features or expression? At least one is required", indent=0)]
    head = [
        f"# Drafted from {scalar(_place(folder, base))}. Lines with QUESTION ask what no file tells, "
        "those with PROBLEM say what is to be corrected.",
        line("name", _name(folder), indent=0),
        line("role", "develop", "external: models are only evaluated on it", indent=0),
    ]
    folds = [table.path.parent for table in (*direct, *below) if table.path.name == _FOLD]
    splits = [remark(f"splits: {{folder: {scalar(relative(path, base))}}}", indent=0) for path in folds]
    table, endpoints = _patients("\n".join(["name: draft", *patients_lines(direct, below, folder)]), folder)
    tasks = [table] if isinstance(table, str) else []
    if isinstance(table, pd.DataFrame):
        tasks = _tasks(table, endpoints)
        joined = [part for lines in (slides_lines, expression_lines) for part in lines(folder, direct, below, folder)]
        tasks[1:1] = overlap_lines(table["patient_id"].tolist(), joined, folder)
    sections = [head, patients, slides, expression, tasks, splits, _told(folder, direct, base)]
    text = "\n\n".join("\n".join(section) for section in sections if section) + "\n"
    lines = enumerate(text.splitlines(), start=1)
    return Draft(
        text,
        tuple(f"line {number}: {words.strip()}" for number, words in lines if QUESTION in words or PROBLEM in words),
    )


def _name(folder: Path) -> str:
    name = re.sub(r"[^\w.-]+", "-", study_name(folder) or folder.resolve().name).strip("-._")
    return name if is_plain_name(name) and name not in _ROLES else "my-cohort"


def _place(folder: Path, base: Path) -> str:
    text = relative(folder, base)
    return folder.resolve().name if text in (".", "..") else text


def _reason(tables: Sequence[FoundTable]) -> str:
    """Returns why the first table of a folder is none that is known."""
    if not tables:
        return ""
    first = tables[0]
    return f" {first.problem}." if first.problem else f" {first.path.name} has the columns {preview(first.start, 5)}."


def _question_of_patients(tables: Sequence[FoundTable], base: Path) -> str:
    """Returns what is asked where no table is known as one of patients, with the one that can be meant."""
    asks = "which table has a row for each patient? None was recognised"
    candidates = [table for table in tables if any(may_be_outcome(str(column)) for column in table.start)]
    if len(candidates) != 1:
        return asks
    (table,) = candidates
    return (
        f"{asks}. Is it {relative(table.path, base)}, with {preview(table.start, 6)}? No column of it is named like an "
        "identifier: name it in the file, such as patient_id, or as patient_id in columns"
    )


def _patients(text: str, base: Path) -> tuple[pd.DataFrame | str | None, dict[str, TaskSpec]]:
    """Returns the patients of a draft, or the line of what is wrong with them, and their endpoints.

    None where questions are open.

    Args:
        text: A cohort file with patients alone.
        base: The folder that its paths are relative to.
    """
    try:
        section = CohortFile.model_validate(yaml.safe_load(text), context={"base": base.resolve()})
    except ValidationError:
        return None, {}
    assert section.patients is not None  # a draft has one cohort
    try:
        return read_clinical(section.patients).patients, section.endpoints
    except SubfuseError as error:
        return remark(f"{PROBLEM}{str(error).replace(f'{base.resolve()}/', '')}", indent=0), {}


def _tasks(patients: pd.DataFrame, endpoints: Mapping[str, TaskSpec]) -> list[str]:
    """Returns the tasks that the patients have the outcomes of; of others why not."""
    lines, reasons = [], learnable_tasks(patients, endpoints)[1]
    for name, task in assumed_tasks(patients, endpoints).items():
        described = {"time": task.time, "event": task.event} if task.is_survival else {"column": name}
        if name in reasons:
            lines.append(remark(f"{name}: {scalar(described)}    # {reasons[name]}"))
        else:
            lines.append(line(name, described))
    told = remark(f"{counted(len(patients), 'patient')} in all", indent=0)
    if CLASS in patients and patients[CLASS].nunique() > 1:
        lines.append(line(CLASS, {"column": CLASS}))
    return [told, *_with_classes(lines, class_columns(patients, (*FIXED_COLUMNS, *USUAL_LABELS)))]


def _with_classes(lines: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Returns the section of tasks with the only column of classes as a task, or a question which of several are.

    Args:
        lines: Of other tasks; comments on those that nothing can learn.
        columns: That tell molecular classes, any of which may be meant as input too.
    """
    tasks = {name: {"column": name} for name in columns}
    has_others = any(not words.lstrip().startswith("#") for words in lines)
    if len(tasks) == 1:
        return ["tasks:", *lines, *(line(name, task) for name, task in tasks.items())]
    which = f"which of {preview(columns)} are to be predicted?"
    if has_others:
        asks = [remark(f"{QUESTION}{which} Then their lines are tasks too:")] if tasks else []
        return ["tasks:", *lines, *asks, *(remark(f"{scalar(name)}: {scalar(task)}") for name, task in tasks.items())]
    unlearnt = [remark(words.strip(" #"), indent=0) for words in lines]
    if tasks:
        first = dict([next(iter(tasks.items()))])
        return [*unlearnt, asked("tasks", f"{which} For example {scalar(first)}", indent=0)]
    question = f"{QUESTION}which columns are outcomes? No task is recognised; without one, set `role: external`"
    return [*unlearnt, remark(question, indent=0)]


def _told(folder: Path, tables: Sequence[FoundTable], base: Path) -> list[str]:
    """Returns what is said of files directly in the folder that the draft does not use."""
    gene_sets = [table.path for table in tables if table.kind == GENE_SETS]
    lines = [
        remark(f"gene_sets: {{tumour: builtin, microenvironment: builtin, further: {relative(path, base)}}}", indent=0)
        for path in gene_sets[:1]
    ]
    unknown = [table.path.name for table in tables if table.kind == OTHER and not table.problem]
    described = {path.name for table in tables if table.kind == XENA and (path := description_beside(table.path))}
    unknown = [name for name in unknown if not name.startswith("meta_") and name not in described]
    if unknown:
        lines.append(remark(f"not recognised, and not used: {preview(unknown, 8)}", indent=0))
    lines += [remark(f"not read: {table.problem}", indent=0) for table in tables if table.problem]
    closed = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and not may_be_read(path)]
    lines += [remark(f"not read, since the system does not permit it: {preview(closed)}", indent=0)] if closed else []
    others = [path.name for path in sorted(folder.iterdir()) if _is_unreadable(path.name.lower())]
    if others:
        lines.append(remark(f"not read: {preview(others, 8)}. Save tables as .csv or .xlsx", indent=0))
    return lines


def _is_unreadable(name: str) -> bool:
    return name.endswith(_UNREADABLE) and not name.endswith(ZIPPED_TABLES)
