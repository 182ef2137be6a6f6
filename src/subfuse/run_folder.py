"""The folder of a run: the only place that knows where its files lie and what its tables hold."""

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, Field, ValidationError

from subfuse.cohort.cohort import Cohort, read_patients
from subfuse.cohort.task import TaskSpec
from subfuse.cohort.yaml_problems import read_yaml
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.files import (
    atomic_path,
    holds_files,
    read_sealed_json,
    read_table,
    remove_parts,
    write_json,
    write_text,
)
from subfuse.identifiers import NAME_RULE, is_plain_name

COHORT_FILES = (
    "patients.csv",
    "exclusions.csv",
    "slides.csv",
    "slide_quality.csv",
    "gene_set_coverage.csv",
    "harmonisation.csv",
    "provenance.json",
)
JOB_FILES = (
    "predictions.csv",
    "last.ckpt",
    "model.json",
    "model.safetensors",
    "log.csv",
    "search.csv",
    "provenance.json",
    "inputs.json",  # last: it says what the others were made from
)
FAILED_RESULTS = "failed_results.csv"  # what, reason: what could not be made of the predictions; absent where all was
RESULT_FILES = ("predictions.csv", "metrics.csv", "comparisons.csv", "failures.csv", FAILED_RESULTS, "audit.json",
                "provenance.json", "report.html", "MODEL_CARD.md")  # fmt: skip
CONTACT_SHEETS = 6  # shown in the report


class RunConfig(BaseModel):
    """What `config.yaml` of a run may say; it may be of an earlier version, which said less."""

    cohort: str = ""
    prepared: str | None = None
    n_patients: int = Field(0, ge=0)
    tasks: dict[str, TaskSpec] = {}
    covariates: list[str] = []
    models: list[str] = []
    seed: int = 0
    folds: list[str] = []
    training: dict[str, Any] = {}
    architecture: dict[str, Any] = {}
    repeats: int = Field(1, ge=1)
    search: int = Field(0, ge=0)
    allow_inputs: list[str] = []
    trained: str | None = None
    evaluated: str | None = None


@dataclass(frozen=True)
class Job:
    """One model, one task, one fold of one repeat."""

    task: str
    model: str
    fold_index: int
    repeat: int = 0

    def folder(self, out: Path) -> Path:
        """Returns where the job's files go."""
        model = out / self.task / self.model
        return (model / f"repeat_{self.repeat}" if self.repeat else model) / f"fold_{self.fold_index}"

    def log(self, out: Path) -> pd.DataFrame:
        """Returns `log.csv`, one row per epoch or penalty; empty where there is none."""
        return read_optional(self.folder(out) / "log.csv")

    def description(self, out: Path) -> dict[str, Any] | None:
        """Returns `model.json`; None where the model is not there."""
        path = self.folder(out) / "model.json"
        return read_sealed_json(path) if path.exists() else None

    def check_model(self, out: Path, config: Mapping[str, Any], *, task: str, model: str, details: Mapping) -> None:
        """Raises a DataError unless the model in the job's folder is that of this job: folders may be exchanged.

        Args:
            out: Run folder.
            config: Of the run: its seed, and the hashes of the first repeat's folds.
            task: What the model was trained for.
            model: Its name.
            details: What was recorded when it was trained.
        """
        folds = config.get("folds", [])
        listed = folds[self.fold_index] if self.repeat == 0 and self.fold_index < len(folds) else None
        expected = {"task": self.task, "model": self.model, "split_sha256": listed}
        if "seed" in config:
            expected["seed"] = self.seed(config["seed"])
        found = {"task": task, "model": model, **{name: details.get(name) for name in ("split_sha256", "seed")}}
        differing = [name for name, value in expected.items() if value is not None and value != found[name]]
        if differing:
            raise DataError(
                f"{self.folder(out) / 'model.json'}: the model of {self} is required. Found another one, which differs "
                f"in {', '.join(differing)}: folders of the run were exchanged. Copy the run again from where it was "
                "made."
            )

    def is_finished(self, out: Path) -> bool:
        """True once `predictions.csv`, which comes last, is there."""
        return (self.folder(out) / "predictions.csv").exists()

    def changed_inputs(self, out: Path, inputs: Mapping[str, str]) -> tuple[str, ...]:
        """Returns by name what the job's files were made from and is different now; none if there are no files."""
        path = self.folder(out) / "inputs.json"
        if not path.exists() and not self.is_finished(out):
            return ()
        try:
            found = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return ("no record of its inputs",)
        return tuple(name for name in {**inputs, **found} if inputs.get(name) != found.get(name))

    def begin(self, out: Path, inputs: Mapping[str, str]) -> None:
        """Removes files that were made from other inputs, then writes `inputs.json`, which comes before all others."""
        folder = self.folder(out)
        if self.changed_inputs(out, inputs):
            for name in JOB_FILES:  # predictions first: they mark the job complete
                for path in sorted(folder.rglob(name)):
                    path.unlink()
        if not (folder / "inputs.json").exists():
            write_json(folder / "inputs.json", dict(inputs))

    def finish(self, out: Path) -> None:
        """Removes what only an unfinished training needs."""
        for checkpoint in sorted(self.folder(out).rglob("last.ckpt")):
            checkpoint.unlink()

    def seed(self, seed: int) -> int:
        """Returns the seed of this job's weights and batch order, given that of the run."""
        return seed + 1000 * self.fold_index + 1_000_000 * self.repeat

    def __str__(self) -> str:
        repeat = f" · repeat {self.repeat}" if self.repeat else ""
        return f"{self.task} · {self.model}{repeat} · fold {self.fold_index}"


def claim_folder(out: Path, description: dict[str, Any]) -> None:
    """Writes `config.yaml` into a run folder, or checks that the one there is the same.

    Raises:
        ConfigurationError: The folder holds results of another configuration, or something else.
    """
    remove_parts(out)
    path = out / "config.yaml"
    stored = {**description, "prepared": _relative(description["prepared"], out)}
    if path.exists():
        found = read_config(out)
        differing = sorted(key for key in stored.keys() | found.keys() if stored.get(key) != found.get(key))
        if differing:
            why = (
                ""
                if differing != ["folds"]
                else ": the patients, or the outcomes by which folds are drawn, have changed"
            )
            raise ConfigurationError(
                f"{out} holds results of another configuration (differs in: {', '.join(differing)}){why}. "
                "Choose another --out, or remove the folder."
            )
        return
    if holds_files(out):
        raise ConfigurationError(f"{out} must be empty or a run folder. Found other files. Choose another --out.")
    write_text(path, yaml.safe_dump(stored, sort_keys=False, allow_unicode=True))


def _relative(prepared: str | None, out: Path) -> str | None:
    return None if prepared is None else Path(os.path.relpath(prepared, out.resolve())).as_posix()


def remove_results(out: Path, tasks: Collection[str]) -> None:
    """Removes what is made from the models of these tasks, before they or their patients change.

    These are the tables of the run, whose `predictions.csv` goes first and so marks it unfinished, its report, and the
    explanations of these tasks. What single models were explained with knows its own inputs, and is kept.
    """
    for name in RESULT_FILES:
        (out / name).unlink(missing_ok=True)
    explained = [path for path in (out / "explanations").glob("*/*") if path.name in tasks]
    for path in (path for folder in explained for path in folder.iterdir() if path.is_file()):
        path.unlink()


def copy_cohort(cohort: Cohort, folder: Path) -> None:
    """Copies what a report tells about the cohort, so that a run folder can be read without the prepared one.

    What the cohort does not have any more is removed there.
    """
    if cohort.root is None:
        return
    contact_sheets = sorted(cohort.root.glob("wsi/*/contact_sheets/*.jpg"))[:CONTACT_SHEETS]
    copies = {name: cohort.root / name for name in COHORT_FILES} | {
        f"contact_sheets/{p.name}": p for p in contact_sheets
    }
    for path in folder.glob("contact_sheets/*.jpg"):
        if f"contact_sheets/{path.name}" not in copies:
            path.unlink()
    for name, source in copies.items():
        if source.exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(source, temporary)
        else:
            (folder / name).unlink(missing_ok=True)


def provenance(predictions: pd.DataFrame) -> dict[str, Any]:
    """Returns when, by what command and with which versions the predictions came about."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["subfuse", *sys.argv[1:]]) if Path(sys.argv[0]).stem == "subfuse" else "Python",
        "versions": {name: version(name) for name in ("subfuse", "torch", "lightning", "lifelines", "scikit-learn")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "n_predictions": len(predictions),
    }


def is_run(folder: Path) -> bool:
    """True if the folder is a run with results."""
    return (folder / "config.yaml").exists() and (folder / "predictions.csv").exists()


def read_config(folder: Path) -> dict[str, Any]:
    """Returns what a run was asked for; empty where `config.yaml` is missing.

    Raises:
        ConfigurationError: It is no YAML, see `read_yaml`.
        DataError: An entry is of the wrong kind.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return {}
    value = read_yaml(path, what="what the run was asked for")[1] or {}
    try:
        RunConfig.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{path}: {_problem(error)}. Copy the run again from where it was made.") from error
    return value


def read_predictions(path: Path) -> pd.DataFrame:
    """Returns a `predictions.csv` with events as True, False or unknown; see `read_table`.

    Raises:
        DataError: There is no such table, it lacks a column that every one has, a job is named as no run names one, a
            number is none, or an event is neither True nor False.
    """
    table = read_table(path, text=["event"])
    _check_jobs(path, table)
    numeric = [c for c in map(str, table) if c in ("time_days", "risk", "risk_percentile") or c.startswith(PREFIXES)]
    _require(path, table, {name: pd.api.types.is_numeric_dtype(table[name]) for name in numeric}, "numbers")
    if "event" in table:
        unknown = table["event"].notna() & ~table["event"].isin(["True", "False"])
        if unknown.any():
            raise DataError(
                f"{path}, line {int(np.flatnonzero(unknown)[0]) + 2}: event must be True, False or empty. Found "
                f"{table.loc[unknown, 'event'].iloc[0]!r}. Correct it."
            )
        table["event"] = table["event"].map({"True": True, "False": False}).astype("boolean")
    return table


def _check_jobs(path: Path, table: pd.DataFrame) -> None:
    """Raises a DataError unless every row names its patient, a side of the split, and a job whose folder is its own."""
    required = ("patient_id", "task", "model", "repeat", "fold", "split")
    missing = [name for name in required if name not in table]
    if missing:
        raise DataError(f"{path}: the columns {preview(required, 6)} are required. Missing: {preview(missing)}.")
    _require(path, table, {name: bool(table[name].notna().all()) for name in required}, "values in every row")
    _require(path, table, {name: _counts(table[name]) for name in ("repeat", "fold")}, "whole numbers from 0")
    plain = {name: all(map(is_plain_name, table[name].astype(str).unique())) for name in ("task", "model")}
    _require(path, table, plain, f"names ({NAME_RULE})")


def _require(path: Path, table: pd.DataFrame, kept: Mapping[str, bool], what: str) -> None:
    broken = [name for name, is_kept in kept.items() if not is_kept]
    if broken and len(table):
        raise DataError(f"{path}: {what} are required in {preview(broken)}. Found others. Make the table again.")


def _counts(column: pd.Series) -> bool:
    return pd.api.types.is_integer_dtype(column) and bool((column >= 0).all()) and bool((column < 10**6).all())


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "its content"
    return f"{where}: {' '.join(first['msg'].split())}"


def read_run_patients(folder: Path) -> pd.DataFrame | None:
    """Returns the patients of a run's cohort from the run's copy; None where there is none. See `read_patients`."""
    return read_patients(folder / "cohort") if (folder / "cohort" / "patients.csv").exists() else None


def read_optional(path: Path) -> pd.DataFrame:
    """Returns a table, empty where it was not written; see `read_table`."""
    return read_table(path) if path.exists() else pd.DataFrame()


def read_columns(path: Path, *, text: Sequence[str], numbers: Sequence[str] = ()) -> pd.DataFrame:
    """Returns a table like `read_optional` that has these columns, with names in every row of the first two.

    Raises:
        DataError: It lacks a column, or holds something else in one.
    """
    table = read_optional(path)
    if table.empty:
        return table
    missing = [name for name in (*text, *numbers) if name not in table]
    if missing:
        raise DataError(f"{path}: the column {missing[0]} is required. Found {preview(table.columns)}.")
    _require(path, table, {name: bool(table[name].notna().all()) for name in text[:2]}, "names")
    _require(path, table, {name: pd.api.types.is_numeric_dtype(table[name]) for name in numbers}, "numbers")
    return table


def jobs_of(predictions: pd.DataFrame) -> list[tuple[Job, pd.DataFrame]]:
    """Returns every job with its rows, in the order of the predictions."""
    found = []
    for key, rows in predictions.groupby(["task", "model", "fold", "repeat"], sort=False):
        task, model, fold, repeat = cast(tuple[str, str, int, int], key)
        found.append((Job(str(task), str(model), int(fold), int(repeat)), rows))
    return found


def prediction_table(predicted: pd.DataFrame, patients: Sequence, task: TaskSpec) -> pd.DataFrame:
    """Returns predictions with cohort and outcome of the patients beside them; unknown outcomes are empty."""
    table = predicted.copy()
    table["cohort"] = [patient.cohort for patient in patients]
    outcomes = [dict(zip(task.outcome_columns, patient.outcome(task), strict=True)) for patient in patients]
    for column in ("time_days", "event", "label"):
        table[column] = [outcome.get(column) for outcome in outcomes]
    return table


FIRST_COLUMNS = ("patient_id", "cohort", "task", "model", "repeat", "fold", "split", "time_days", "event", "label",
                 "risk")  # fmt: skip
PREFIXES = ("survival_", "p_", "contribution_")
LAST_COLUMNS = ("has_slides", "has_expression")
OPTIONAL_COLUMNS = ("n_models", "reason")  # of predictions of new patients; so is risk_percentile, beside risk


def order_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with the columns of `predictions.csv` in their documented order."""
    middle = [column for column in map(str, table) if column.startswith(PREFIXES)]
    middle.sort(key=lambda column: next(i for i, prefix in enumerate(PREFIXES) if column.startswith(prefix)))
    percentile = [column for column in ("risk_percentile",) if column in table]
    optional = [column for column in OPTIONAL_COLUMNS if column in table]
    return table.reindex(columns=[*FIRST_COLUMNS, *percentile, *middle, *LAST_COLUMNS, *optional])


def stack_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns tables of several tasks and models below one another; columns that one lacks are empty there."""
    filled = [table.dropna(axis=1, how="all") for table in tables]  # all-empty columns would decide the type
    columns = dict.fromkeys(column for table in tables for column in table)
    return order_columns(pd.concat(filled, ignore_index=True).reindex(columns=list(columns)))
