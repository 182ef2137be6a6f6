"""Every model on identical folds: trained, predicted, measured and compared."""

import logging
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from subfuse.audit.disguised_outcomes import input_findings, suspicious_inputs
from subfuse.audit.findings import Finding, raise_for_failures
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.covariates import column_of
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.devices import gpus_of, processes_on
from subfuse.errors import ConfigurationError, DataError, meant, preview
from subfuse.execution import Attempts, Progress, failure_reason, require_scheduler, run_jobs
from subfuse.files import write_json, write_table
from subfuse.run_folder.cohort_copy import copy_cohort
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import claim_folder, read_config
from subfuse.run_folder.names import CHECKPOINT, FAILURES, HELD_OUT_SITES, LOG, PROVENANCE, SEARCH, TEACHER_PREDICTIONS
from subfuse.run_folder.tables import order_columns, stack_predictions
from subfuse.runs.distillation.teacher import find_teacher, teacher_predictions
from subfuse.runs.folds import choose_repeats, folds_of_sites
from subfuse.runs.job_inputs import begin_jobs, job_inputs
from subfuse.runs.job_model import load_job
from subfuse.runs.job_warnings import fold_warnings
from subfuse.runs.required_inputs import require_inputs
from subfuse.runs.results import write_results
from subfuse.training.fitted_model import FittedModel
from subfuse.training.models import MODELS, SITE, check_model_names, modalities_of, trained_on
from subfuse.training.settings import TrainingPlan

if TYPE_CHECKING:
    import lightning.fabric

    from subfuse.cohort.batches import KeptBags
    from subfuse.training.distillation.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CrossValidationResult:
    """Tables of a cross-validation; their columns are those of the files of the same name."""

    predictions: pd.DataFrame
    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    failures: pd.DataFrame  # task, model, repeat, fold, reason
    folder: Path


def cross_validate(
    cohort: Cohort,
    *,
    task: str | Sequence[str],
    models: Sequence[str],
    folds: int | Sequence[Fold] | None = None,
    repeats: int | None = None,
    plan: TrainingPlan | None = None,
    seed: int | None = None,
    out: Path | str | None = None,
    allow_inputs: Collection[str] = (),
    held_out_sites: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
    teachers: Path | None = None,
) -> CrossValidationResult:
    """Trains and tests models on the same patient-level folds.

    Finished folds are kept in `out` and skipped when the same call is repeated, and a neural model's training that was
    interrupted goes on after its last epoch, to the weights of an uninterrupted one. Folds whose patients, outcomes or
    inputs have changed since are done again. A failed job is reported and the rest goes on. The test patients of a fold
    are never seen by its training.

    The same call gives the same weights and predictions, bit for bit, on the same processor and versions with the same
    number of threads; workers share the cores, so their number decides that of threads (`OMP_NUM_THREADS=1` fixes it
    for one worker). Other numbers of threads add in another order: results of one and two differ by about 2e-7. GPUs
    differ more, and from run to run.

    Args:
        cohort: A prepared cohort.
        task: One task or several.
        models: Names of models; a linear model is left out of tasks of the other kind.
        folds: None for the cohort's own splits; a number draws that many folds unless the cohort's own splits have
            that number; or the folds themselves.
        repeats: How often all folds are drawn; None for as often as the cohort's own splits, else once.
        plan: How every model is trained; see `TrainingPlan`.
        seed: Instead of the plan's: decides initial weights, batch order and newly drawn folds.
        out: Run folder; a temporary one by default.
        allow_inputs: Genes or covariates that may be inputs although they look like the outcome; see `check_inputs`.
        held_out_sites: Whether the same models are also trained and tested on folds of whole hospitals, as a run of its
            own in the folder `held-out-sites` of `out`; the audit then tells what random folds promise beyond them.
        workers: Local processes.
        scheduler: Address of a running Dask scheduler, instead of local processes.
        progress: Called after each job, and before results are measured and audited.
        teachers: Folder of a run on the same folds that has the teachers of models that are taught.

    Raises:
        ConfigurationError: Unknown or repeated task or model, a number, device or tracker that cannot be, an unknown
            input that is allowed, `out` holds another configuration's results, or hospitals are to be held out that are
            not known.
        DataError: An input is the outcome in disguise, or no job could be done.
    """
    from subfuse.training.loggers import require_tracker
    from subfuse.training.processes import one_process

    tasks = [task] if isinstance(task, str) else list(task)
    plan = plan or TrainingPlan()
    plan = plan if seed is None else plan.with_seed(seed)
    check_tasks(tasks, cohort)
    check_model_names(models)
    _check_options(cohort, tasks, models, workers=workers)
    if scheduler is None:
        one_process(plan)  # the device is there
        processes_on(plan.device, workers)
        require_tracker(plan.training.logger)
    else:
        require_scheduler(scheduler)
    drawn = choose_repeats(cohort, folds, repeats=repeats, seed=plan.seed)
    of_sites = folds_of_sites(cohort, len(drawn[0]), seed=plan.seed) if held_out_sites else ()
    others = [model for model in models if modalities_of(model) != SITE]  # of held-out hospitals, `site` knows none
    refuse_disguised_outcomes(cohort, [*drawn[0], *of_sites], tasks, models, allow_inputs)
    out = Path(tempfile.mkdtemp(prefix="subfuse-run-")) if out is None else Path(out)
    description = run_description(cohort, tasks, models, drawn[0], plan)
    description |= {"repeats": len(drawn), "search": plan.search, "allow_inputs": sorted(allow_inputs)}
    claim_folder(out, description if teachers is None else description | {"teachers": str(teachers)})
    _remove_other_hospitals(out / HELD_OUT_SITES, cohort, len(drawn[0]), seed=plan.seed)
    fold_of = _folds_of_jobs(cohort, tasks, models, drawn)
    jobs = list(fold_of)
    open_jobs = begin_jobs(out, {job: job_inputs(cohort, fold, job, plan) for job, fold in fold_of.items()})
    for warning in fold_warnings(cohort, fold_of, plan.training):
        logger.warning(warning)
    copy_cohort(cohort, out)
    arguments = {job: (cohort, fold_of[job], job, out, plan, teachers) for job in open_jobs}
    gpus = [] if scheduler is not None else gpus_of(plan.device, min(workers, len(arguments)))
    failed = _run_open(arguments, len(jobs), workers=workers, scheduler=scheduler, gpus=gpus, progress=progress)
    if of_sites:
        with Attempts(on_failure=_warn).attempt("hospitals held out"):
            cross_validate(
                cohort, task=tasks, models=others, folds=of_sites, plan=plan, out=out / HELD_OUT_SITES,
                allow_inputs=allow_inputs, workers=workers, scheduler=scheduler, progress=_told_of_sites(progress),
            )  # fmt: skip
    if progress is not None:
        progress(len(jobs), len(jobs), "now metrics, comparisons and audit")
    return _summarise(out, jobs, failed, cohort.tasks, seed=plan.seed)


def _remove_other_hospitals(held_out: Path, cohort: Cohort, folds: int, *, seed: int) -> None:
    """Removes a run with hospitals held out, where patients are of others since; models of other folds read none."""
    if not held_out.exists():
        return
    try:
        now = [fold.sha256 for fold in folds_of_sites(cohort, folds, seed=seed)]
    except ConfigurationError:  # none are known any more
        now = []
    if read_config(held_out).get("folds") != now:
        logger.warning("%s is removed: patients are of other hospitals since. Hold them out again", held_out)
        shutil.rmtree(held_out)


def _folds_of_jobs(
    cohort: Cohort, tasks: Sequence[str], models: Sequence[str], repeats: Sequence[Sequence[Fold]]
) -> dict[Job, Fold]:
    """Returns every job, of the models that suit a task, with its fold; those of students last: teachers are there."""
    return {
        Job(task, model, index, repeat): fold
        for task in tasks
        for model in sorted(models, key=lambda model: MODELS[model].taught_by is not None)
        if MODELS[model].suits(cohort.tasks[task].predicts)
        for repeat, folds in enumerate(repeats)
        for index, fold in enumerate(folds)
    }


def _run_open(
    arguments: Mapping[Job, tuple],
    n_jobs: int,
    *,
    workers: int,
    scheduler: str | None,
    gpus: Sequence[str],
    progress: Progress | None,
) -> pd.DataFrame:
    """Runs the jobs that are not finished; returns task, model, repeat, fold and reason of those that failed."""
    open_jobs, failures = list(arguments), []
    of_all = run_jobs(run_job, list(arguments.values()), workers=workers, scheduler=scheduler, gpus=gpus)
    for done, (index, outcome) in enumerate(of_all, n_jobs - len(open_jobs) + 1):
        job = open_jobs[index]
        if isinstance(outcome, BaseException):
            failures.append((job.task, job.model, job.repeat, job.fold_index, failure_reason(outcome)))
        if progress is not None:
            progress(done, n_jobs, str(job))
    columns = ["task", "model", "repeat", "fold", "reason"]
    return pd.DataFrame(failures, columns=columns).sort_values(columns[:4])


def _warn(what: str, reason: str) -> None:
    logger.warning("%s: %s", what, reason)


def _told_of_sites(progress: Progress | None) -> Progress | None:
    return None if progress is None else lambda done, total, what: progress(done, total, f"hospitals held out: {what}")


def run_job(cohort: Cohort, fold: Fold, job: Job, out: Path, plan: TrainingPlan, teachers: Path | None = None) -> None:
    """Searches a job's settings where the run's plan asks for it, and trains it; see `train_job`."""
    plan = plan.with_seed(job.seed(plan.seed))
    teacher = None if job.is_trained(out) else find_teacher(cohort, fold, job, out, plan, teachers=teachers)
    if plan.search and not job.is_trained(out):
        from subfuse.training.search import search_settings

        found = search_settings(cohort, fold, task=job.task, model_name=job.model, plan=plan, teacher=teacher)
        plan = found.plan
        write_table(job.folder(out) / SEARCH, found.trials)
    train_job(cohort, fold, job, out, plan, teacher=teacher)


def train_job(
    cohort: Cohort,
    fold: Fold,
    job: Job,
    out: Path,
    plan: TrainingPlan,
    *,
    fabric: "lightning.fabric.Fabric | None" = None,
    progress: Progress | None = None,
    teacher: "Teacher | None" = None,
) -> None:
    """Trains one model on one fold, or goes on where it was interrupted, and writes its folder.

    `last.ckpt` holds the training after its last epoch until the model is complete; `provenance.json` says how long it
    took, since its last interruption; `predictions.csv` comes last of the other files and marks the job complete. A
    model that is complete without its predictions only predicts.

    Args:
        cohort: A prepared cohort.
        fold: Who trains, validates and is tested.
        job: Which model, task and fold.
        out: Run folder.
        plan: How to train, with the job's own seed (`Job.seed`) and without a search.
        fabric: Device and processes; the first process writes. This process alone by default.
        progress: Called after every epoch.
        teacher: Of a model that is taught, see `find_teacher`.
    """
    from subfuse.cohort.batches import KeptBags
    from subfuse.training.fitting import train_fold

    folder, start, is_trained = job.folder(out), time.monotonic(), job.is_trained(out)
    kept = KeptBags()
    if is_trained:
        fitted = load_job(job, out, read_config(out))
    else:
        fitted = train_fold(
            cohort,
            fold,
            task=job.task,
            model_name=job.model,
            plan=plan,
            log_path=folder / LOG,
            checkpoint_path=folder / CHECKPOINT,
            fabric=fabric,
            progress=progress,
            kept=kept,
            teacher=teacher,
        )
    if fabric is None or fabric.is_global_zero:
        if not is_trained and teacher is not None:
            write_table(folder / TEACHER_PREDICTIONS, teacher_predictions(teacher, cohort, fold, job))
        if not is_trained:
            fitted.save(folder)
            write_json(folder / PROVENANCE, {"training_seconds": round(time.monotonic() - start, 2)})
        job.write_predictions(out, predict_fold(fitted, cohort, fold, job, kept), provenance=job.provenance(out))
        job.finish(out)


def predict_fold(
    fitted: FittedModel, cohort: Cohort, fold: Fold, job: Job, kept: "KeptBags | None" = None
) -> pd.DataFrame:
    """Returns the predictions of a job's model for its training, validation and test patients.

    Args:
        fitted: The model.
        cohort: A prepared cohort.
        fold: Of the job.
        job: Which model, task and fold.
        kept: Bags that its training kept.
    """
    from subfuse.training.fitting import predict_sides

    table = predict_sides(fitted, cohort, fold, kept)
    return order_columns(table.assign(task=job.task, model=job.model, repeat=job.repeat, fold=job.fold_index))


def refuse_disguised_outcomes(
    cohort: Cohort, folds: Sequence[Fold], tasks: Sequence[str], models: Sequence[str], allow_inputs: Collection[str]
) -> None:
    """Raises a DataError if an input column is the outcome of a task in disguise; see `check_inputs`.

    Ordered are the patients whom any of the models trains on in any fold, as the audit of their run orders them.

    Raises:
        ConfigurationError: What is allowed is no input.
    """
    covariates = (*cohort.covariates, *map(column_of, cohort.covariates))
    known = {*cohort.genes, *covariates, *cohort.names_in_table.values()}
    unknown = [name for name in allow_inputs if name not in known]
    if unknown:
        raise ConfigurationError(
            f"--allow-inputs must name genes or covariates of the cohort. Not found: {preview(unknown)}."
            f"{meant(unknown[0], known)}"
        )
    findings: list[Finding] = []
    inputs: dict[str, None] = {}
    for task in tasks:
        table = suspicious_inputs(cohort, _seen_in_training(folds, cohort.tasks[task], models), task)
        findings += input_findings(table, cohort, task, allow=allow_inputs)
        names, sure = cohort.names_in_table, table.loc[table["is_sure"], "input"]
        inputs |= {name: None for name in sure if not {name, names.get(name), column_of(name)} & set(allow_inputs)}
    raise_for_failures(findings, all_of_them=list(inputs))


def _seen_in_training(folds: Sequence[Fold], task: TaskSpec, models: Sequence[str]) -> set[str]:
    """Returns everybody whom one of the models of a task trains on in some fold."""
    suited = [model for model in models if MODELS[model].suits(task.predicts)]
    return {patient for fold in folds for model in suited for patient in trained_on(model, fold)}


def run_description(
    cohort: Cohort,
    tasks: Sequence[str],
    models: Sequence[str],
    folds: Sequence[Fold],
    plan: TrainingPlan,
) -> dict[str, Any]:
    """Returns what decides a run's results, as it is written to `config.yaml`."""
    return {
        "cohort": cohort.name,
        "prepared": None if cohort.root is None else str(cohort.root.resolve()),
        "n_patients": len(cohort),
        "tasks": {name: cohort.tasks[name].model_dump(mode="json", exclude_none=True) for name in tasks},
        **({"covariates": list(cohort.covariates)} if cohort.covariates else {}),
        "models": list(models),
        "seed": plan.seed,
        "folds": [fold.sha256 for fold in folds],  # of repeat 0
        "training": plan.training.model_dump(mode="json"),
        "architecture": plan.architecture.model_dump(mode="json"),
    }


def _check_options(cohort: Cohort, tasks: Sequence[str], models: Sequence[str], *, workers: int) -> None:
    """Raises a ConfigurationError if a name is there twice or not at all, no model suits a task, or no worker works."""
    for what, names in (("tasks", tasks), ("models", models)):
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(f"{what} must be named once each, one at least. Found: {', '.join(names) or '-'}.")
    if not any(MODELS[model].suits(cohort.tasks[task].predicts) for task in tasks for model in models):
        found = f"{', '.join(models)}, for the other kind of task than {', '.join(tasks)}"
        raise ConfigurationError(f"models must suit a task. Found {found}. Choose other models.")
    require_inputs(models, cohort)
    if workers < 1:
        raise ConfigurationError(f"workers must be at least 1. Found {workers}.")


def check_tasks(tasks: Sequence[str], cohort: Cohort) -> None:
    """Raises a ConfigurationError that lists the cohort's tasks if one is unknown."""
    unknown = [name for name in tasks if name not in cohort.tasks]
    if unknown:
        raise ConfigurationError(
            f"tasks must be declared in the cohort file ({', '.join(cohort.tasks)}). Found: {', '.join(unknown)}."
        )


def _summarise(
    out: Path, jobs: Sequence[Job], failures: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, seed: int
) -> CrossValidationResult:
    tables = [table for job in jobs if (table := job.predictions(out)) is not None]
    write_table(out / FAILURES, failures)
    if not tables:
        first = failures.iloc[0]
        raise DataError(f"no model could be trained. First reason ({first.task}, {first.model}): {first.reason}")
    predictions = stack_predictions(tables)
    metrics, comparisons = write_results(out, predictions, tasks, seed=seed)
    return CrossValidationResult(predictions, metrics, comparisons, failures, out)
