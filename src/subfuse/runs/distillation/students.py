"""Students of the models of a run: a run of its own, for patients who have slides alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.errors import ConfigurationError, DataError, listed, preview
from subfuse.execution import Progress
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import TRAIN_AGAIN
from subfuse.runs.cross_validation import CrossValidationResult, cross_validate
from subfuse.runs.folds import choose_repeats
from subfuse.runs.job_inputs import job_inputs
from subfuse.runs.run import Run
from subfuse.training.settings import TrainingPlan

STUDENT, TEACHER = "distilled", "subspace"
_NOT_DATA = {"version", "settings"}  # of what a job was made from


def distil_run(
    run: Run,
    out: Path | str,
    *,
    cohort: Cohort | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> CrossValidationResult:
    """Trains a student of slides alone for every task, fold and repeat whose teacher the run has; tests all of them.

    The result is a run like that of `cross_validate` with the model `distilled`: it predicts, explains, exports and
    reports. Students are trained with the plan of the run, and on the same folds; repeating the call goes on.

    Args:
        run: A finished run with the model `subspace`.
        out: Another run folder.
        cohort: That of the run, where it has no folder.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        progress: Called after each job.

    Raises:
        ConfigurationError: The run has no such model, its folds cannot be drawn again, or `out` holds something else.
        DataError: The cohort has changed since, nobody has both modalities, or no student could be trained.
    """
    tasks = list(dict.fromkeys(job.task for job in _teachers(run)))
    cohort = run.cohort() if cohort is None else cohort
    plan = plan_of(run)
    repeats = _repeats(run, cohort, plan)
    _require_same_data(run, cohort, plan, repeats)
    return cross_validate(
        cohort,
        task=tasks,
        models=[STUDENT],
        folds=len(repeats[0]),
        repeats=len(repeats),
        plan=plan,
        out=out,
        allow_inputs=run.config.get("allow_inputs", []),
        workers=workers,
        scheduler=scheduler,
        progress=progress,
        teachers=run.folder,
    )


def plan_of(run: Run) -> TrainingPlan:
    """Returns how the models of a run were trained; settings that its version did not know have their defaults."""
    known: Mapping[str, Any] = {name: run.config[name] for name in TrainingPlan.model_fields if name in run.config}
    return TrainingPlan.model_validate({**known, "device": run.device})


def _teachers(run: Run) -> list[Job]:
    try:
        return list(run.jobs(model=TEACHER))
    except ConfigurationError as error:
        found = preview(sorted(set(run.predictions["model"])))
        raise ConfigurationError(
            f"{run.folder} needs the model {TEACHER}, which teaches. Found {found}. Run `subfuse crossval` with "
            f"--models {TEACHER}."
        ) from error


def _repeats(run: Run, cohort: Cohort, plan: TrainingPlan) -> tuple[tuple[Fold, ...], ...]:
    """Returns the folds of the run, drawn or read again."""
    listed_folds = run.config.get("folds", [])
    repeats = choose_repeats(cohort, len(listed_folds), repeats=run.config.get("repeats", 1), seed=plan.seed)
    if [fold.sha256 for fold in repeats[0]] != list(listed_folds):
        raise DataError(
            f"{run.folder}: the folds of its models are required. Found others: patients, outcomes or splits of "
            f"the cohort have changed since. {TRAIN_AGAIN}."
        )
    return repeats


def _require_same_data(run: Run, cohort: Cohort, plan: TrainingPlan, repeats: tuple[tuple[Fold, ...], ...]) -> None:
    """Raises a DataError where a teacher was made from other data than there is now."""
    changed: dict[str, None] = {}
    for job in _teachers(run):
        now = job_inputs(cohort, repeats[job.repeat][job.fold_index], job, plan)
        changed |= dict.fromkeys(name for name in job.changed_inputs(run.folder, now) if name not in _NOT_DATA)
    if changed:
        raise DataError(
            f"{run.folder}: teachers that were made from the cohort as it is are required. Changed since: "
            f"{listed(list(changed))}. {TRAIN_AGAIN}."
        )
