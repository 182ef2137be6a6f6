"""Every model on identical folds: trained, predicted, measured and compared."""

import logging
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from subfuse.data.cohort import Cohort
from subfuse.data.cohort_file import TaskSpec
from subfuse.data.splits import Fold, read_folds, stratified_folds
from subfuse.errors import ConfigurationError, DataError, SubfuseError
from subfuse.evaluation.uncertainty import compare_models, evaluate_predictions
from subfuse.execution import Progress, run_jobs
from subfuse.files import atomic_path, sha256_of_json, write_json, write_table, write_text
from subfuse.training.checkpoint import FittedModel
from subfuse.training.recipe import check_model_names, suits_task
from subfuse.training.settings import ArchitectureSettings, TrainingSettings

COHORT_FILES = ("patients.csv", "exclusions.csv", "slides.csv", "gene_set_coverage.csv", "provenance.json")
CONTACT_SHEETS = 6  # shown in the report

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidationResult:
    """Tables of a cross-validation; their columns are those of the files of the same name."""

    predictions: pd.DataFrame
    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    failures: pd.DataFrame  # task, model, fold, reason
    folder: Path


@dataclass(frozen=True)
class Job:
    """One model, one task, one fold."""

    task: str
    model: str
    fold_index: int

    def folder(self, out: Path) -> Path:
        """Returns where the job's files go."""
        return out / self.task / self.model / f"fold_{self.fold_index}"


def cross_validate(
    cohort: Cohort,
    *,
    task: str | Sequence[str],
    models: Sequence[str],
    folds: int | Sequence[Fold] | None = None,
    seed: int = 0,
    out: Path | None = None,
    training: TrainingSettings | None = None,
    architecture: ArchitectureSettings | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> CrossValidationResult:
    """Trains and tests models on the same patient-level folds.

    Finished folds are kept in `out` and skipped when the same call is repeated; a failed job is reported and the rest
    goes on. The test patients of a fold are never seen by its training.

    Args:
        cohort: A prepared cohort.
        task: One task or several.
        models: Names of models; a linear model is left out of tasks of the other kind.
        folds: None for the cohort's own splits; a number draws that many stratified folds unless the cohort's own
            splits have that number; or the folds themselves.
        seed: Decides initial weights, batch order and newly drawn folds.
        out: Run folder; a temporary one by default.
        training: Training settings, the same for every neural model.
        architecture: Sizes of the neural models.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        progress: Called after each job.

    Raises:
        ConfigurationError: Unknown task or model, or `out` holds another configuration's results.
        DataError: No job could be done.
    """
    tasks = [task] if isinstance(task, str) else list(task)
    training, architecture = training or TrainingSettings(), architecture or ArchitectureSettings()
    check_tasks(tasks, cohort)
    check_model_names(models)
    fold_list = choose_folds(cohort, folds, seed=seed)
    out = Path(tempfile.mkdtemp(prefix="subfuse-run-")) if out is None else Path(out)
    claim_folder(out, run_description(cohort, tasks, models, fold_list, seed, training, architecture))
    copy_cohort(cohort, out / "cohort")
    jobs = [
        Job(task_name, model, index)
        for task_name in tasks
        for model in models
        if suits_task(model, is_survival=cohort.tasks[task_name].is_survival)
        for index in range(len(fold_list))
    ]
    open_jobs = [job for job in jobs if not (job.folder(out) / "predictions.csv").exists()]
    arguments = [(cohort, fold_list[job.fold_index], job, out, training, architecture, seed) for job in open_jobs]
    failures, done = [], len(jobs) - len(open_jobs)
    for index, outcome in run_jobs(run_job, arguments, workers=workers, scheduler=scheduler):
        job, done = open_jobs[index], done + 1
        if isinstance(outcome, BaseException):
            failures.append((job.task, job.model, job.fold_index, _reason(outcome)))
        if progress is not None:
            progress(done, len(jobs), f"{job.task} · {job.model} · fold {job.fold_index}")
    failed = pd.DataFrame(failures, columns=["task", "model", "fold", "reason"]).sort_values(["task", "model", "fold"])
    return _summarise(out, jobs, failed, seed=seed)


def run_job(
    cohort: Cohort,
    fold: Fold,
    job: Job,
    out: Path,
    training: TrainingSettings,
    architecture: ArchitectureSettings,
    seed: int,
) -> None:
    """Trains one model on one fold and writes its folder; `predictions.csv` comes last and marks it complete."""
    from subfuse.training.fitting import train_fold

    folder = job.folder(out)
    fitted = train_fold(
        cohort,
        fold,
        task=job.task,
        model_name=job.model,
        settings=training,
        architecture=architecture,
        seed=seed + 1000 * job.fold_index,
        log_path=folder / "log.csv",
    )
    fitted.save(folder)
    write_table(folder / "predictions.csv", predict_fold(fitted, cohort, fold, job))


def predict_fold(fitted: FittedModel, cohort: Cohort, fold: Fold, job: Job) -> pd.DataFrame:
    """Returns the predictions of a job's model for its training, validation and test patients."""
    from subfuse.training.fitting import assign

    parts = assign(cohort, fold, cohort.tasks[job.task], job.model)
    tables = [
        prediction_table(fitted.predict(patients), patients, cohort.tasks[job.task]).assign(split=split)
        for split, patients in (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
    ]
    return order_columns(pd.concat(tables).assign(task=job.task, model=job.model, repeat=0, fold=job.fold_index))


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
LAST_COLUMNS = ("has_slides", "has_expression")


def order_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with the columns of `predictions.csv` in their documented order."""
    named = [*FIRST_COLUMNS, *LAST_COLUMNS]
    middle = [column for column in table.columns if column not in named]
    middle.sort(key=lambda column: ("survival_", "p_", "contribution_").index(_prefix(column)))
    return table.reindex(columns=[*FIRST_COLUMNS, *middle, *LAST_COLUMNS])


def stack_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns tables of several tasks and models below one another; columns that one lacks are empty there."""
    filled = [table.dropna(axis=1, how="all") for table in tables]  # all-empty columns would decide the type
    return order_columns(pd.concat(filled, ignore_index=True))


def _prefix(column: str) -> str:
    return next(prefix for prefix in ("survival_", "p_", "contribution_") if column.startswith(prefix))


def choose_folds(cohort: Cohort, folds: int | Sequence[Fold] | None, *, seed: int) -> tuple[Fold, ...]:
    """Returns the folds of a run; see `cross_validate`."""
    if folds is not None and not isinstance(folds, int):
        return tuple(folds)
    own = () if cohort.root is None else read_folds(cohort.root / "splits" / "default")
    if folds is None and not own:
        raise ConfigurationError(f"cohort {cohort.name!r} is not in a folder with splits. Give a number of folds.")
    if own and folds in (None, len(own)):
        return own
    patients = pd.DataFrame([{"patient_id": p.patient_id, "event": p.event, **p.labels} for p in cohort])
    assert isinstance(folds, int)
    return stratified_folds(patients, folds=folds, validation=0.15, stratify=("event",), seed=seed)


def run_description(
    cohort: Cohort,
    tasks: Sequence[str],
    models: Sequence[str],
    folds: Sequence[Fold],
    seed: int,
    training: TrainingSettings,
    architecture: ArchitectureSettings,
) -> dict[str, Any]:
    """Returns what decides a run's results, as it is written to `config.yaml`."""
    return {
        "cohort": cohort.name,
        "prepared": None if cohort.root is None else str(cohort.root.resolve()),
        "n_patients": len(cohort),
        "tasks": {name: cohort.tasks[name].model_dump(mode="json", exclude_none=True) for name in tasks},
        "models": list(models),
        "seed": seed,
        "folds": [sha256_of_json([fold.train, fold.validation, fold.test]) for fold in folds],
        "training": training.model_dump(mode="json"),
        "architecture": architecture.model_dump(mode="json"),
    }


def claim_folder(out: Path, description: dict[str, Any]) -> None:
    """Writes `config.yaml` into a run folder, or checks that the one there is the same.

    Raises:
        ConfigurationError: The folder holds results of another configuration, or something else.
    """
    path = out / "config.yaml"
    stored = {**description, "prepared": _relative(description["prepared"], out)}
    if path.exists():
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in stored.keys() | found.keys() if stored.get(key) != found.get(key))
        if differing:
            raise ConfigurationError(
                f"{out} holds results of another configuration (differs in: {', '.join(differing)}). "
                "Choose another --out, or remove the folder."
            )
        return
    if out.exists() and any(out.iterdir()):
        raise ConfigurationError(f"{out} must be empty or a run folder. Found other files. Choose another --out.")
    write_text(path, yaml.safe_dump(stored, sort_keys=False, allow_unicode=True))


def _relative(prepared: str | None, out: Path) -> str | None:
    return None if prepared is None else Path(os.path.relpath(prepared, out.resolve())).as_posix()


def check_tasks(tasks: Sequence[str], cohort: Cohort) -> None:
    """Raises a ConfigurationError that lists the cohort's tasks if one is unknown."""
    unknown = [name for name in tasks if name not in cohort.tasks]
    if unknown:
        raise ConfigurationError(
            f"tasks must be declared in the cohort file ({', '.join(cohort.tasks)}). Found: {', '.join(unknown)}."
        )


def _reason(error: BaseException) -> str:
    if isinstance(error, SubfuseError):
        return str(error)
    logger.error("a job failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _summarise(out: Path, jobs: Sequence[Job], failures: pd.DataFrame, *, seed: int) -> CrossValidationResult:
    files = [job.folder(out) / "predictions.csv" for job in jobs]
    tables = [read_predictions(path) for path in files if path.exists()]
    write_table(out / "failures.csv", failures)
    if not tables:
        first = failures.iloc[0]
        raise DataError(f"no model could be trained. First reason ({first.task}, {first.model}): {first.reason}")
    predictions = stack_predictions(tables)
    metrics = evaluate_predictions(predictions, seed=seed)
    reference = "subspace" if "subspace" in set(predictions["model"]) else str(predictions["model"].iloc[0])
    comparisons = compare_models(predictions, reference=reference, seed=seed)
    write_table(out / "predictions.csv", predictions)
    write_table(out / "metrics.csv", metrics)
    write_table(out / "comparisons.csv", comparisons)
    write_json(out / "provenance.json", provenance(predictions))
    return CrossValidationResult(predictions, metrics, comparisons, failures, out)


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


def read_predictions(path: Path) -> pd.DataFrame:
    """Returns a `predictions.csv` with names as text whatever they look like, and events as True, False or unknown."""
    return pd.read_csv(path, dtype={"patient_id": str, "label": str, "cohort": str, "event": "boolean"})
