"""A run folder as a whole: whose it is, what it was asked for, whether it is finished, and what is told of it."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from subfuse.cohort.cohort import changed_patients, read_patients
from subfuse.cohort.task import TaskSpec
from subfuse.cohort.yaml_problems import read_yaml
from subfuse.errors import ConfigurationError, DataError
from subfuse.files import is_begun, read_json, read_sealed_json, require_place, write_json, write_text
from subfuse.run_folder import names
from subfuse.run_folder.cohort_copy import read_run_patients
from subfuse.run_folder.tables import require_own_predictions

TRAIN_AGAIN = "Run `subfuse crossval` again, into another --out if the folds are others"


class RunConfig(BaseModel):
    """What `config.yaml` of a run may say; it may be of an earlier version, which said less."""

    model_config = ConfigDict(extra="allow")  # of a later version, which says more

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


def require_run_place(out: Path) -> None:
    """Raises a ConfigurationError unless a folder is that of a run or can become one; for before long work."""
    is_begun(out, names.CONFIG, what="a run folder")
    require_place(out)


def claim_folder(out: Path, description: dict[str, Any]) -> None:
    """Writes `config.yaml` into a run folder, or checks that the one there is the same.

    Raises:
        ConfigurationError: The folder holds results of another configuration, or something else.
    """
    stored = {**description, "prepared": _relative(description["prepared"], out)}
    if is_begun(out, names.CONFIG, what="a run folder"):
        found = read_config(out)
        differing = sorted(key for key in stored.keys() | found.keys() if stored.get(key) != found.get(key))
        if differing:
            why = f": {_why_folds_differ(out, description['prepared'])}" if "folds" in differing else ""
            raise ConfigurationError(
                f"{out} holds results of another configuration (differs in: {', '.join(differing)}){why}. "
                "Choose another --out, or remove the folder."
            )
        return
    write_text(out / names.CONFIG, yaml.safe_dump(stored, sort_keys=False, allow_unicode=True))


def _why_folds_differ(out: Path, prepared: str | None) -> str:
    """Returns which patients came, went or changed since the run copied them; else that folds are drawn otherwise."""
    before = read_run_patients(out)
    if before is None or prepared is None:
        return "the patients, their outcomes, or the rules by which folds are drawn have changed"
    told = changed_patients(before, read_patients(Path(prepared)))
    if not told:
        return "the same patients are divided by other rules (`splits` of the cohort file, --folds or --seed)"
    return f"patients have changed ({'; '.join(told)})"


def _relative(prepared: str | None, out: Path) -> str | None:
    return None if prepared is None else Path(os.path.relpath(prepared, out.resolve())).as_posix()


def remove_results(out: Path, tasks: Collection[str]) -> None:
    """Removes what is made from the models of these tasks, before they or their patients change.

    These are the tables of the run, whose `predictions.csv` goes first and so marks it unfinished, its report, and the
    explanations of these tasks. Tables that explain single models are kept: they record what they were made from.
    """
    for name in names.RESULTS:
        (out / name).unlink(missing_ok=True)
    (out / names.HELD_OUT_SITES / names.PREDICTIONS).unlink(missing_ok=True)
    explained = [path for path in out.glob(f"{names.EXPLANATIONS}*/*/*") if path.name in tasks]
    for path in (path for folder in explained for path in folder.iterdir() if path.is_file()):
        path.unlink()


def require_run(folder: Path) -> None:
    """Raises an error unless the folder is a run with results.

    Raises:
        ConfigurationError: It is none.
        DataError: Its predictions are not what was written.
    """
    lacks = [name for name in (names.CONFIG, names.PREDICTIONS) if not (folder / name).exists()]
    if lacks == [names.PREDICTIONS]:
        raise ConfigurationError(
            f"{folder} must be a finished run. Found no {names.PREDICTIONS}. Repeat the command that made the run: it "
            "writes the file again, and trains nothing that is trained."
        )
    if lacks:
        found = f"no {' and no '.join(lacks)}"
        raise ConfigurationError(
            f"{folder} must be a finished run with {names.CONFIG} and {names.PREDICTIONS}. Found {found}. "
            "Make one with `subfuse crossval`."
        )
    require_own_predictions(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns what a run was asked for, as `RunConfig` reads it; empty where `config.yaml` is missing.

    Raises:
        DataError: It is no YAML, see `read_yaml`, empty, or an entry is of the wrong kind.
    """
    path = folder / names.CONFIG
    if not path.exists():
        return {}
    try:
        value = read_yaml(path, what="what the run was asked for")[1]
    except ConfigurationError as error:  # nobody wrote it by hand
        raise DataError(f"{error} Copy the run again from where it was made.") from error
    if not value:
        raise DataError(
            f"{path}: what the run was asked for is required. Found nothing. Copy the run again from where it was made."
        )
    try:
        config = RunConfig.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{path}: {_problem(error)}. Copy the run again from where it was made.") from error
    return config.model_dump(mode="json", exclude_unset=True)


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "its content"
    return f"{where}: {' '.join(first['msg'].split())}"


def read_provenance(folder: Path) -> dict[str, Any]:
    """Returns when, by what command and with which versions a run, or its copy of the cohort, was made; or nothing."""
    path = folder / names.PROVENANCE
    return read_json(path) if path.exists() else {}


def add_to_provenance(run: Path, facts: Mapping[str, Any]) -> None:
    """Adds facts to a run's `provenance.json`, where it has one."""
    if (run / names.PROVENANCE).exists():
        write_json(run / names.PROVENANCE, {**read_provenance(run), **facts})


def read_audit(run: Path) -> dict[str, Any] | None:
    """Returns an audit with its findings and tables; None where the run was not audited.

    Raises:
        DataError: It is damaged, or was changed since it was written.
    """
    path = run / names.AUDIT
    found = read_sealed_json(path) if path.exists() else {}
    if not found:
        return None
    findings, tables = found.get("findings"), found.get("tables")
    is_whole = isinstance(findings, list) and all(isinstance(row, dict) for row in findings)
    if not is_whole or not isinstance(tables, dict):
        raise DataError(f"{path}: an audit with its findings and tables is required. Run `subfuse audit` again.")
    return found
