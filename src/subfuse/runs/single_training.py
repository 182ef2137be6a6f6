"""One model on one fold, on one process or several: a run folder like that of a cross-validation."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.errors import ConfigurationError, SubfuseError, listed
from subfuse.execution import Progress
from subfuse.run_folder.cohort_copy import copy_cohort
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import claim_folder, remove_results
from subfuse.run_folder.names import CHECKPOINT, PREDICTIONS
from subfuse.run_folder.tables import stack_predictions
from subfuse.runs.cross_validation import check_tasks, refuse_disguised_outcomes, run_description, train_job
from subfuse.runs.distillation.teacher import find_teacher
from subfuse.runs.folds import choose_folds
from subfuse.runs.job_inputs import begin_jobs, job_inputs
from subfuse.runs.job_warnings import fold_warnings
from subfuse.runs.results import write_results
from subfuse.training.models import MODELS, check_model_names
from subfuse.training.settings import TrainingPlan

if TYPE_CHECKING:
    import lightning.fabric

logger = logging.getLogger(__name__)


def train_model(
    cohort: Cohort,
    *,
    task: str,
    model: str,
    out: Path,
    fold: int = 0,
    plan: TrainingPlan | None = None,
    devices: int = 1,
    nodes: int = 1,
    resume: bool = False,
    allow_inputs: Collection[str] = (),
    progress: Progress | None = None,
) -> pd.DataFrame | None:
    """Trains one model on one of the cohort's own folds; returns the metrics of all folds in `out` so far.

    Writes what `cross_validate` writes for the same fold and seed, so that a run can be predicted with, explained and
    reported; with the same weights, on the same machine and number of threads. Other folds of the same task and model
    may be trained into the same folder. Until the model is complete, `last.ckpt` in the fold's folder holds the
    training after its last epoch. Other folds that were trained before patients, outcomes or inputs changed are named,
    and left out of the metrics until they are trained again.

    Args:
        cohort: A prepared cohort with splits of its own.
        task: One of its tasks.
        model: Name of the model.
        out: Run folder, on a file system that all processes see.
        fold: Number of the fold.
        plan: How to train, as for `cross_validate`, but without a search.
        devices: Processes per machine; see `start_processes`.
        nodes: Machines.
        resume: Go on where an earlier call was interrupted, or begin again where patients, outcomes or inputs have
            changed since; without it, a begun or finished fold is an error.
        allow_inputs: Genes or covariates that may be inputs although they look like the outcome; see `check_inputs`.
        progress: Called after every epoch.

    Returns:
        The columns of `metrics.csv`; None on processes other than the first, which write nothing.

    Raises:
        ConfigurationError: Unknown task, model, fold, tracker or input that is allowed, a search, another
            configuration's folder, or an unwanted resumption.
        DataError: An input is the outcome in disguise, or the fold's patients do not suffice.
    """
    from subfuse.training.loggers import require_tracker
    from subfuse.training.processes import start_processes

    plan = plan or TrainingPlan()
    folds = _checked_folds(cohort, task, model, fold, plan)
    job = Job(task, model, fold)
    require_tracker(plan.training.logger)
    refuse_disguised_outcomes(cohort, folds, [task], [model], allow_inputs)
    with start_processes(plan, devices=devices, nodes=nodes) as fabric:
        description = {
            "command": "train",
            **run_description(cohort, [task], [model], folds, plan),
            "processes": fabric.world_size,
            "allow_inputs": sorted(allow_inputs),
        }
        inputs = {
            one: job_inputs(cohort, of_fold, one, plan)
            for one, of_fold in ((Job(task, model, index), of_fold) for index, of_fold in enumerate(folds))
        }
        _on_first(fabric, lambda: _claim(out, description, job, inputs, cohort, resume=resume))
        if fabric.is_global_zero:
            for warning in fold_warnings(cohort, {job: folds[fold]}, plan.training):
                logger.warning(warning)
        if not job.is_finished(out):
            own = plan.with_seed(job.seed(plan.seed))
            teacher = find_teacher(cohort, folds[fold], job, out, own, fabric=fabric, progress=progress)
            train_job(cohort, folds[fold], job, out, own, fabric=fabric, progress=progress, teacher=teacher)
        if not fabric.is_global_zero:
            return None
    tables = [one.predictions(out) for one, now in inputs.items() if not one.changed_inputs(out, now)]
    predictions = stack_predictions([table for table in tables if table is not None])
    return write_results(out, predictions, cohort.tasks, seed=plan.seed)[0]


def _on_first(fabric: "lightning.fabric.Fabric", act: Callable[[], None]) -> None:
    """Lets the first process act while the others wait; an error of its is raised by all, so that none waits forever.

    Args:
        fabric: Connects the processes.
        act: What to do.
    """
    error: SubfuseError | None = None
    if fabric.is_global_zero:
        try:
            act()
        except SubfuseError as raised:
            error = raised
    error = fabric.broadcast(error)
    if error is not None:
        raise error


def _checked_folds(cohort: Cohort, task: str, model: str, fold: int, plan: TrainingPlan) -> tuple[Fold, ...]:
    if plan.search:
        raise ConfigurationError(f"search must be 0 to train one model. Found {plan.search}. Use cross_validate.")
    check_tasks([task], cohort)
    check_model_names([model])
    if not MODELS[model].suits(cohort.tasks[task].predicts):
        raise ConfigurationError(f"model {model} is for the other kind of task than {task}. Choose another model.")
    folds = choose_folds(cohort, None, seed=plan.seed)
    if not 0 <= fold < len(folds):
        raise ConfigurationError(f"--fold must be between 0 and {len(folds) - 1}. Found {fold}.")
    return folds


def _claim(
    out: Path,
    description: dict[str, Any],
    job: Job,
    inputs: Mapping[Job, Mapping[str, str]],
    cohort: Cohort,
    *,
    resume: bool,
) -> None:
    claim_folder(out, description)
    folder = job.folder(out)
    begun = [name for name in (CHECKPOINT, PREDICTIONS) if (folder / name).exists()]
    if begun and not resume:
        is_finished = begun[-1] == PREDICTIONS
        state, use = ("finished", "keep it, which trains nothing") if is_finished else ("begun", "go on with it")
        raise ConfigurationError(f"{folder} holds a {state} training. Add --resume to {use}, or choose another --out.")
    outdated = [one for one, now in inputs.items() if one != job and one.changed_inputs(out, now)]
    if outdated:
        remove_results(out, {job.task})
    for one in outdated:
        changed = listed(one.changed_inputs(out, inputs[one]))
        logger.warning(
            "%s is left out: changed since it was trained: %s. Train it again: `--fold %d --resume`",
            one, changed, one.fold_index,
        )  # fmt: skip
    begin_jobs(out, {job: inputs[job]})
    copy_cohort(cohort, out)
