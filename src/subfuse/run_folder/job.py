"""One job of a run: its folder, its files, and what they were made from."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd

from subfuse.errors import DataError
from subfuse.files import csv_text, read_json, read_sealed_json, write_json, write_text
from subfuse.run_folder.names import (
    CHECKPOINT,
    INPUTS,
    LOG,
    MODEL,
    PREDICTIONS,
    PROVENANCE,
    SEARCH,
    TEACHER_PREDICTIONS,
    WEIGHTS,
)
from subfuse.run_folder.tables import (
    PREDICTIONS_SHA256,
    has_changed_predictions,
    read_optional,
    read_predictions,
    require_own_predictions,
)

_MODEL_FILES = (MODEL, WEIGHTS)
_JOB_FILES = (
    PREDICTIONS,
    CHECKPOINT,
    *_MODEL_FILES,
    LOG,
    SEARCH,
    TEACHER_PREDICTIONS,
    PROVENANCE,
)  # the first marks the job complete


@dataclass(frozen=True)
class Job:
    """One model, one task, one fold of one repeat."""

    task: str
    model: str
    fold_index: int
    repeat: int = 0

    @property
    def fold_name(self) -> str:
        """The fold, for readers; `repeat.fold` in a later repeat."""
        return f"{self.repeat}.{self.fold_index}" if self.repeat else str(self.fold_index)

    def folder(self, out: Path) -> Path:
        """Returns where the job's files go."""
        model = out / self.task / self.model
        return (model / f"repeat_{self.repeat}" if self.repeat else model) / f"fold_{self.fold_index}"

    def log(self, out: Path) -> pd.DataFrame:
        """Returns `log.csv`, one row per epoch or penalty; empty where there is none."""
        return read_optional(self.folder(out) / LOG)

    def description(self, out: Path) -> dict[str, Any] | None:
        """Returns `model.json`; None where the model is not there."""
        path = self.folder(out) / MODEL
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
                f"{self.folder(out) / MODEL}: the model of {self} is required. Found another one, which differs "
                f"in {', '.join(differing)}: folders of the run were exchanged. Copy the run again from where it was "
                "made."
            )

    def is_finished(self, out: Path) -> bool:
        """True once `predictions.csv`, which comes last, is there, and while the model that made it is."""
        return not self.missing_files(out)

    def missing_files(self, out: Path) -> list[Path]:
        """Returns the files of a finished job that are not there."""
        files = [self.folder(out) / name for name in (PREDICTIONS, *_MODEL_FILES)]
        return [path for path in files if not path.exists()]

    def is_trained(self, out: Path) -> bool:
        """True once the model is complete, whether its predictions are there or not."""
        return all((self.folder(out) / name).exists() for name in (*_MODEL_FILES, PROVENANCE))

    def write_predictions(self, out: Path, table: pd.DataFrame, *, provenance: Mapping[str, Any]) -> None:
        """Writes `provenance.json`, which holds their hash, then `predictions.csv`, which marks the job complete."""
        folder, text = self.folder(out), csv_text(table)
        digest = hashlib.sha256(text.encode()).hexdigest()
        write_json(folder / PROVENANCE, {**provenance, PREDICTIONS_SHA256: digest})
        write_text(folder / PREDICTIONS, text)

    def provenance(self, out: Path) -> dict[str, Any]:
        """Returns `provenance.json`; empty where there is none that can be read."""
        try:
            return read_json(self.folder(out) / PROVENANCE)
        except DataError:
            return {}

    def predictions(self, out: Path) -> pd.DataFrame | None:
        """Returns `predictions.csv`, see `read_predictions`; None where it is not there.

        Raises:
            DataError: It cannot be read, or is not what was written.
        """
        path = self.folder(out) / PREDICTIONS
        if not path.exists():
            return None
        require_own_predictions(path.parent)
        return read_predictions(path)

    def remove_changed_predictions(self, out: Path) -> bool:
        """Removes `predictions.csv` where it is not what was written; returns whether it was."""
        try:
            changed = has_changed_predictions(self.folder(out))
        except DataError:  # nothing says what was written
            changed = True
        if changed:
            (self.folder(out) / PREDICTIONS).unlink(missing_ok=True)
        return changed

    def changed_inputs(self, out: Path, inputs: Mapping[str, str]) -> tuple[str, ...]:
        """Returns by name what the job's files were made from and is different now; none if there are no files."""
        path = self.folder(out) / INPUTS
        if not path.exists() and not self.is_finished(out) and not self.is_trained(out):
            return ()
        try:
            found = read_json(path)
        except DataError:
            return ("no record of its inputs",)
        return tuple(name for name in {**inputs, **found} if inputs.get(name) != found.get(name))

    def begin(self, out: Path, inputs: Mapping[str, str]) -> None:
        """Removes files that were made from other inputs, then writes `inputs.json`, which comes before all others."""
        if self.changed_inputs(out, inputs):
            self.remove_files(out)
            for path in sorted(self.folder(out).rglob(INPUTS)):  # last: it says what the others were made from
                path.unlink()
        if not (self.folder(out) / INPUTS).exists():
            write_json(self.folder(out) / INPUTS, dict(inputs))

    def remove_files(self, out: Path) -> None:
        """Removes what was made of the job's inputs."""
        for name in _JOB_FILES:
            for path in sorted(self.folder(out).rglob(name)):
                path.unlink()

    def finish(self, out: Path) -> None:
        """Removes what only an unfinished training needs."""
        for checkpoint in sorted(self.folder(out).rglob(CHECKPOINT)):
            checkpoint.unlink()

    def seed(self, seed: int) -> int:
        """Returns the seed of this job's weights and batch order, given that of the run."""
        return seed + 1000 * self.fold_index + 1_000_000 * self.repeat

    def __str__(self) -> str:
        repeat = f" · repeat {self.repeat}" if self.repeat else ""
        return f"{self.task} · {self.model}{repeat} · fold {self.fold_index}"


def jobs_of(predictions: pd.DataFrame) -> list[tuple[Job, pd.DataFrame]]:
    """Returns every job with its rows, in the order of the predictions."""
    found = []
    for key, rows in predictions.groupby(["task", "model", "fold", "repeat"], sort=False):
        task, model, fold, repeat = cast(tuple[str, str, int, int], key)
        found.append((Job(str(task), str(model), int(fold), int(repeat)), rows))
    return found


def lost_of_jobs(out: Path, predictions: pd.DataFrame) -> list[Path]:
    """Returns the files of the jobs with these predictions that are absent; none where all are.

    A run without any job's model was copied without them, evaluates another run, or is of other tools.
    """
    missing = [job.missing_files(out) for job, _ in jobs_of(predictions)]
    has_models = any(len(files) <= len(_MODEL_FILES) for files in missing)
    return [path for files in missing for path in files] if has_models else []


def chosen_by(log: pd.DataFrame) -> str:
    """Returns the column of a training log that chose its epoch or penalty: a ranking where there is one, or the loss.

    Example:
        >>> chosen_by(pd.DataFrame({"epoch": [0], "validation_loss": [0.7], "validation_auc": [0.6]}))
        'validation_auc'
    """
    return next((name for name in ("validation_c_index", "validation_auc") if name in log), "validation_loss")
