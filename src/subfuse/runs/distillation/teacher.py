"""The teacher of a job whose model is taught by another one: that of the run, or one that the job trains."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.execution import Progress
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import read_config
from subfuse.run_folder.names import CHECKPOINT, LOG, MODEL, TEACHER
from subfuse.run_folder.tables import order_columns, prediction_table
from subfuse.runs.job_model import load_job
from subfuse.training.models import MODELS
from subfuse.training.settings import TrainingPlan

if TYPE_CHECKING:
    import lightning.fabric

    from subfuse.training.distillation.teacher import Teacher
    from subfuse.training.fitted_model import FittedModel

WITHOUT_EXPRESSION = "subspace-without-expression"  # a teacher from whom the expression of test patients is hidden


def find_teacher(
    cohort: Cohort,
    fold: Fold,
    job: Job,
    out: Path,
    plan: TrainingPlan,
    *,
    teachers: Path | None = None,
    fabric: "lightning.fabric.Fabric | None" = None,
    progress: Progress | None = None,
) -> "Teacher | None":
    """Returns the teacher of a job; None where its model has none.

    It is the model of the same task, fold and repeat in the run folder, or in that of another run. Where that is not
    there, or not yet, the job trains it, with the same seed and so to the same weights, and keeps it in its own folder.

    Args:
        cohort: A prepared cohort.
        fold: Who trains and validates.
        job: Of the student.
        out: Run folder.
        plan: How to train, with the job's own seed; a search is of both.
        teachers: Another run folder, to look in.
        fabric: Device and processes; the first process writes. This process alone by default.
        progress: Called after every epoch.
    """
    from subfuse.training.distillation.teacher import Teacher
    from subfuse.training.stored_model import load_fitted

    taught_by = MODELS[job.model].taught_by
    if taught_by is None:
        return None
    of_run, own = replace(job, model=taught_by), job.folder(out) / TEACHER
    for run in (out, *([] if teachers is None else [teachers])):
        if of_run.is_trained(run):
            return Teacher(load_job(of_run, run, read_config(run)))
    if (own / MODEL).exists():  # the last of its files
        return Teacher(load_fitted(own))
    fitted = _trained(cohort, fold, of_run, own, plan, fabric=fabric, progress=progress)
    if fabric is None or fabric.is_global_zero:
        fitted.save(own)
    return Teacher(fitted)


def teacher_predictions(teacher: "Teacher", cohort: Cohort, fold: Fold, job: Job) -> pd.DataFrame:
    """Returns what a teacher says of the test patients of its student, with and without their expression.

    Args:
        teacher: Of the job.
        cohort: A prepared cohort.
        fold: Of the job.
        job: Of the student.
    """
    from subfuse.training.problem import assign

    fitted, spec = teacher.fitted, cohort.tasks[job.task]
    patients = assign(cohort, fold, spec, job.model).test
    hidden = [replace(patient, expression=None) for patient in patients]
    tables = [
        prediction_table(fitted.predict(seen), patients, spec).assign(model=name)
        for name, seen in ((fitted.recipe.name, patients), (WITHOUT_EXPRESSION, hidden))
    ]
    table = pd.concat(tables, ignore_index=True)
    return order_columns(table.assign(task=job.task, repeat=job.repeat, fold=job.fold_index, split="test"))


def _trained(
    cohort: Cohort,
    fold: Fold,
    job: Job,
    folder: Path,
    plan: TrainingPlan,
    *,
    fabric: "lightning.fabric.Fabric | None",
    progress: Progress | None,
) -> "FittedModel":
    from subfuse.training.fitting import train_fold
    from subfuse.training.search import search_settings

    if plan.search:
        plan = search_settings(cohort, fold, task=job.task, model_name=job.model, plan=plan).plan
    return train_fold(
        cohort,
        fold,
        task=job.task,
        model_name=job.model,
        plan=plan,
        log_path=folder / LOG,
        checkpoint_path=folder / CHECKPOINT,
        fabric=fabric,
        progress=progress,
    )
