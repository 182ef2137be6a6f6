"""The folder of a run: the only place that knows where its files lie and what its tables hold."""

import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import yaml

from subfuse.cohort.cohort import Cohort, read_patients
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError
from subfuse.files import atomic_path, read_table, write_text

COHORT_FILES = (
    "patients.csv",
    "exclusions.csv",
    "slides.csv",
    "slide_quality.csv",
    "gene_set_coverage.csv",
    "harmonisation.csv",
    "provenance.json",
)
CONTACT_SHEETS = 6  # shown in the report


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
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

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
    path = out / "config.yaml"
    stored = {**description, "prepared": _relative(description["prepared"], out)}
    if path.exists():
        found = read_config(out)
        differing = sorted(key for key in stored.keys() | found.keys() if stored.get(key) != found.get(key))
        if differing:
            raise ConfigurationError(
                f"{out} holds results of another configuration (differs in: {', '.join(differing)}). "
                "Choose another --out, or remove the folder."
            )
        return
    # Hidden files may be those that another process is writing, or that a killed one left
    if out.exists() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise ConfigurationError(f"{out} must be empty or a run folder. Found other files. Choose another --out.")
    write_text(path, yaml.safe_dump(stored, sort_keys=False, allow_unicode=True))


def _relative(prepared: str | None, out: Path) -> str | None:
    return None if prepared is None else Path(os.path.relpath(prepared, out.resolve())).as_posix()


def copy_cohort(cohort: Cohort, folder: Path) -> None:
    """Copies what a report tells about the cohort, so that a run folder can be read without the prepared one."""
    if cohort.root is None:
        return
    contact_sheets = sorted(cohort.root.glob("wsi/*/contact_sheets/*.jpg"))[:CONTACT_SHEETS]
    copies = {name: cohort.root / name for name in COHORT_FILES} | {
        f"contact_sheets/{p.name}": p for p in contact_sheets
    }
    for name, source in copies.items():
        if source.exists():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(source, temporary)


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
    """Returns what a run was asked for; empty where `config.yaml` is missing."""
    path = folder / "config.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def read_predictions(path: Path) -> pd.DataFrame:
    """Returns a `predictions.csv` with events as True, False or unknown; see `read_table`.

    Raises:
        DataError: There is no such table, or an event is neither True nor False.
    """
    table = read_table(path, text=["event"])
    if "event" in table:
        unknown = table["event"].notna() & ~table["event"].isin(["True", "False"])
        if unknown.any():
            raise DataError(
                f"{path}, line {int(np.flatnonzero(unknown)[0]) + 2}: event must be True, False or empty. Found "
                f"{table.loc[unknown, 'event'].iloc[0]!r}. Correct it."
            )
        table["event"] = table["event"].map({"True": True, "False": False}).astype("boolean")
    return table


def read_run_patients(folder: Path) -> pd.DataFrame | None:
    """Returns the patients of a run's cohort from the run's copy; None where there is none. See `read_patients`."""
    return read_patients(folder / "cohort") if (folder / "cohort" / "patients.csv").exists() else None


def read_optional(path: Path) -> pd.DataFrame:
    """Returns a table, empty where it was not written; see `read_table`."""
    return read_table(path) if path.exists() else pd.DataFrame()


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
    table["time_days"] = [patient.time_days if task.is_survival else None for patient in patients]
    table["event"] = [patient.event if task.is_survival else None for patient in patients]
    table["label"] = [None if task.is_survival else patient.labels.get(task.column) for patient in patients]
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
