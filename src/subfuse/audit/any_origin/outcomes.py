"""The outcome of every patient, where several files and a table of the patients may know it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.audit.any_origin.cells import class_of
from subfuse.audit.findings import Finding
from subfuse.errors import DataError, and_more, preview
from subfuse.evaluation.predictions import ClassOutcome, SurvivalOutcome, holds_risks, predicted_classes
from subfuse.evaluation.regression.columns import VALUE, holds_values
from subfuse.evaluation.regression.outcome import NumberOutcome
from subfuse.identifiers import describe_mismatch

CHECK = "patients of files"
_ALIKE_DAYS, _ALIKE_SHARE = 1.0, 0.02  # times that differ by rounding, or by the length of a month

_TO_LABEL = """ If Y holds them: --columns '{"Y": "label"}'."""  # as CLAM calls it


def has_outcomes(tables: Mapping[Path, pd.DataFrame]) -> bool:
    """Returns whether any of the files has the columns of an outcome."""
    kinds = (SurvivalOutcome, ClassOutcome, NumberOutcome)
    return any({*kind.columns} <= {*table.columns} for table in tables.values() for kind in kinds)


def one_row_each(rows: pd.DataFrame, path: Path | None, columns: Iterable[str]) -> pd.DataFrame:
    """Returns one row per patient, with what any of its rows knows.

    Args:
        rows: With the column `patient_id`.
        path: Their file, for messages.
        columns: Those that are read, in which the rows of a patient must agree.

    Raises:
        DataError: Rows of a patient disagree; names file, column and values.
    """
    if not rows["patient_id"].duplicated().any():
        return rows
    for name in [column for column in columns if column in rows]:
        values = rows.dropna(subset=[name]).groupby("patient_id")[name].unique()
        several = values[values.map(len) > 1]
        if len(several):
            raise DataError(
                f"{path}: rows of one patient must agree. Found {name} "
                f"{preview(several.iloc[0], 3)} for patient {several.index[0]}"
                f"{and_more(len(several) - 1, 'such patient')}. Keep the right row of each."
            )
    return rows.groupby("patient_id", sort=False).first().reset_index()


def with_outcomes(
    tables: Mapping[Path, pd.DataFrame], people: pd.DataFrame | None, patients: Path | None
) -> tuple[dict[Path, pd.DataFrame], list[Finding]]:
    """Returns the files with the same outcome for a patient in all of them, from the first source that knows it.

    A task without any outcome is left out where another has some.
    """
    tables, findings, known = dict(tables), [], {}
    tasks = {(str(task), outcome_columns(rows)) for table in tables.values() for task, rows in table.groupby("task")}
    for task, wanted in sorted(tasks):
        sources = [] if people is None else [(patients, people)]
        sources += [(path, table[table["task"] == task]) for path, table in tables.items()]
        sources = [(path, rows) for path, rows in sources if {*wanted} <= {*rows.columns}]
        if wanted == ClassOutcome.columns:
            of_task = pd.concat([table[table["task"] == task] for table in tables.values()])
            classes = predicted_classes(of_task)
            sources = [(path, rows.assign(label=_named(rows["label"], classes))) for path, rows in sources]
        known[task] = _agreed(wanted, sources)
    for task, outcomes in known.items():
        names = list(outcomes.columns)
        if outcomes.empty and any(len(others) for others in known.values()):
            tables = {path: table[table["task"] != task] for path, table in tables.items()}
            text = f"task {task} is left out: neither the files nor --patients have its {' and '.join(names)}"
            why = "Without an outcome a prediction cannot be judged."
            findings.append(Finding("note", CHECK, text, why, "Give the outcomes with --patients."))
            continue
        for path, table in tables.items():
            tables[path] = _with_known(path, table, task, outcomes)
    return {path: table for path, table in tables.items() if len(table)}, findings


def outcome_columns(rows: pd.DataFrame) -> tuple[str, ...]:
    """Returns the columns of the outcome of a task."""
    if holds_values(rows):
        return NumberOutcome.columns
    return SurvivalOutcome.columns if holds_risks(rows) else ClassOutcome.columns


def _agreed(wanted: Sequence[str], sources: Sequence[tuple[Path | None, pd.DataFrame]]) -> pd.DataFrame:
    """Returns the outcome of every patient, from the first source that has it.

    Raises:
        DataError: Two sources contradict each other; names both, the patient and both outcomes.
    """
    agreed, origin = pd.DataFrame(columns=list(wanted), dtype=object), pd.Series(dtype=object)
    for path, rows in sources:
        own = one_row_each(rows[["patient_id", *wanted]].dropna(), path, wanted).set_index("patient_id")
        common = own.index.intersection(agreed.index)
        ours, theirs = own.loc[common], agreed.loc[common]
        differ = ~pd.DataFrame({name: _alike(name, ours[name], theirs[name]) for name in wanted}).all(axis=1)
        if differ.any():
            patient = str(differ.index[differ][0])
            raise DataError(
                f"{path} and {origin[patient]}: the same outcome is required for a patient. Found "
                f"{preview(ours.loc[patient])} and {preview(theirs.loc[patient])} ({', '.join(wanted)}) for "
                f"{patient}{and_more(int(differ.sum()) - 1, 'such patient')}. Correct it, or leave out the outcome of "
                "one file; files of different tasks need a column task."
            )
        new = own.index.difference(agreed.index)
        agreed = pd.concat([part for part in (agreed, own.loc[new].astype(object)) if len(part)] or [agreed])
        origin = pd.concat([origin, pd.Series([path] * len(new), index=new, dtype=object)])
    return agreed


def _alike(name: str, ours: pd.Series, theirs: pd.Series) -> pd.Series:
    if name == VALUE:
        return pd.Series(np.isclose(ours.astype(float), theirs.astype(float)), ours.index)
    if name != "time_days":
        return ours.astype(str) == theirs.astype(str)
    first, second = ours.astype(float), theirs.astype(float)
    return (first - second).abs() <= (_ALIKE_SHARE * second).clip(lower=_ALIKE_DAYS)


def _with_known(path: Path, table: pd.DataFrame, task: str, outcomes: pd.DataFrame) -> pd.DataFrame:
    """Returns a file with the known outcomes of a task.

    Raises:
        DataError: None is known of its patients.
    """
    chosen, wanted = table["task"] == task, list(map(str, outcomes))
    found = outcomes.reindex(table.loc[chosen, "patient_id"])
    if chosen.any() and found.isna().any(axis=1).all():
        ids = table.loc[chosen, "patient_id"].unique()
        mismatch = describe_mismatch(list(ids), {"outcomes": list(outcomes.index)}, of_ours="predictions")
        raise DataError(
            f"{path}: outcomes of task {task} are required ({', '.join(wanted)}), in the file or in --patients. "
            f"Found none for its patients ({mismatch}). Give them, or check the identifiers."
            f"{_TO_LABEL if 'label' in wanted and 'Y' in table else ''}"
        )
    for name in wanted:
        filled = table[name].astype(object) if name in table else pd.Series(None, table.index, dtype=object)
        filled[chosen] = found[name].to_numpy(dtype=object)
        table = table.assign(**{name: filled})
    return table


def _named(labels: pd.Series, classes: Sequence[str]) -> pd.Series:
    return pd.Series([class_of(label, classes) for label in labels], labels.index, dtype=object)
