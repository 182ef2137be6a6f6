"""The files of a run beside those of its jobs: configuration, results, the copy of the cohort."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from subfuse.cohort.cohort import Cohort, changed_patients, read_patients
from subfuse.cohort.task import TaskSpec
from subfuse.cohort.yaml_problems import read_yaml
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.files import atomic_path, holds_files, read_json, remove_parts, write_text
from subfuse.run_folder.tables import require_own_predictions

_COHORT_FILES = (
    "patients.csv",
    "exclusions.csv",
    "slides.csv",
    "slide_quality.csv",
    "gene_set_coverage.csv",
    "harmonisation.csv",
    "provenance.json",
)
FAILED_RESULTS = "failed_results.csv"  # what, reason: what could not be made of the predictions; absent where all was
EXPLANATIONS = "explanations"  # of the main model; of others in a folder of their own beside it
TRAIN_AGAIN = "Run `subfuse crossval` again, into another --out if the folds are others"
HELD_OUT_SITES = "held-out-sites"  # the same models cross-validated over folds of whole hospitals: a run of its own
_RESULT_FILES = ("predictions.csv", "metrics.csv", "comparisons.csv", "failures.csv", FAILED_RESULTS, "audit.json",
                 "provenance.json", "report.html", "MODEL_CARD.md")  # fmt: skip
_OF_PATIENTS = ("patients.csv", "cohort.yaml")  # of a prepared folder: told by patient, and what no model reads
_CONTACT_SHEETS = 6  # shown in the report


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
            why = f": {_why_folds_differ(out, description['prepared'])}" if "folds" in differing else ""
            raise ConfigurationError(
                f"{out} holds results of another configuration (differs in: {', '.join(differing)}){why}. "
                "Choose another --out, or remove the folder."
            )
        return
    if holds_files(out):
        raise ConfigurationError(f"{out} must be empty or a run folder. Found other files. Choose another --out.")
    write_text(path, yaml.safe_dump(stored, sort_keys=False, allow_unicode=True))


def _why_folds_differ(out: Path, prepared: str | None) -> str:
    """Returns which patients came, went or changed since the run copied them; else that folds are drawn otherwise."""
    before = read_run_patients(out)
    if before is None or prepared is None:
        return "the patients, their outcomes, or the rules by which folds are drawn have changed"
    told = changed_patients(before, read_patients(Path(prepared)))
    if not told:
        return "the same patients are divided by other rules (`splits` of the cohort file, --folds or --seed)"
    return f"patients have changed ({'; '.join(told)})"


def changed_since(run: Path, prepared: Path) -> str:
    """Returns what of a prepared cohort is not what the run was made from; empty where nothing is known to differ.

    Raises:
        DataError: A table of either cannot be read.
    """
    marks = [folder / "provenance.json" for folder in (run / "cohort", prepared)]
    if not all(mark.exists() for mark in marks):
        return ""
    before, now = (read_json(mark).get("files") for mark in marks)
    if not before or not now or before == now:
        return ""
    patients = read_run_patients(run)
    told = [] if patients is None else changed_patients(patients, read_patients(prepared))
    others = [name for name in {**before, **now} if name not in _OF_PATIENTS and before.get(name) != now.get(name)]
    others = list(dict.fromkeys("folds" if name.startswith("splits/") else name for name in others))
    return "; ".join([*told, *([f"other {preview(others)}"] if others else [])])


def _relative(prepared: str | None, out: Path) -> str | None:
    return None if prepared is None else Path(os.path.relpath(prepared, out.resolve())).as_posix()


def remove_results(out: Path, tasks: Collection[str]) -> None:
    """Removes what is made from the models of these tasks, before they or their patients change.

    These are the tables of the run, whose `predictions.csv` goes first and so marks it unfinished, its report, and the
    explanations of these tasks. Tables that explain single models are kept: they record what they were made from.
    """
    for name in _RESULT_FILES:
        (out / name).unlink(missing_ok=True)
    (out / HELD_OUT_SITES / "predictions.csv").unlink(missing_ok=True)
    explained = [path for path in out.glob(f"{EXPLANATIONS}*/*/*") if path.name in tasks]
    for path in (path for folder in explained for path in folder.iterdir() if path.is_file()):
        path.unlink()


def copy_cohort(cohort: Cohort, folder: Path) -> None:
    """Copies what a report tells about the cohort, so that a run folder can be read without the prepared one.

    What the cohort does not have any more is removed there.
    """
    if cohort.root is None:
        return
    contact_sheets = sorted(cohort.root.glob("wsi/*/contact_sheets/*.jpg"))[:_CONTACT_SHEETS]
    copies = {name: cohort.root / name for name in _COHORT_FILES} | {
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


def require_run(folder: Path) -> None:
    """Raises an error unless the folder is a run with results.

    Raises:
        ConfigurationError: It is none.
        DataError: Its predictions are not what was written.
    """
    lacks = [name for name in ("config.yaml", "predictions.csv") if not (folder / name).exists()]
    if lacks == ["predictions.csv"]:
        raise ConfigurationError(
            f"{folder} must be a finished run. Found no predictions.csv. Repeat the command that made the run: it "
            "writes the file again, and trains nothing that is trained."
        )
    if lacks:
        found = f"no {' and no '.join(lacks)}"
        raise ConfigurationError(
            f"{folder} must be a finished run with config.yaml and predictions.csv. Found {found}. "
            "Make one with `subfuse crossval`."
        )
    require_own_predictions(folder)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns what a run was asked for, as `RunConfig` reads it; empty where `config.yaml` is missing.

    Raises:
        ConfigurationError: It is no YAML, see `read_yaml`.
        DataError: An entry is of the wrong kind.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return {}
    value = read_yaml(path, what="what the run was asked for")[1] or {}
    try:
        config = RunConfig.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{path}: {_problem(error)}. Copy the run again from where it was made.") from error
    return config.model_dump(mode="json", exclude_unset=True)


def _problem(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "its content"
    return f"{where}: {' '.join(first['msg'].split())}"


def read_run_patients(folder: Path) -> pd.DataFrame | None:
    """Returns the patients of a run's cohort from the run's copy; None where there is none. See `read_patients`."""
    return read_patients(folder / "cohort") if (folder / "cohort" / "patients.csv").exists() else None
