"""What is said of many jobs at once: one line a matter, with the tasks, models and folds that it concerns."""

from collections.abc import Iterable, Iterator, Mapping

from subfuse.cohort.bags import class_names
from subfuse.cohort.batches import make_target
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.errors import DataError, preview
from subfuse.objective.ranking import can_be_ranked
from subfuse.run_folder.job import Job
from subfuse.training.models import is_linear
from subfuse.training.selection import Selection

_MOST_NAMES = 12


def concerned(jobs: Iterable[Job]) -> str:
    """Returns jobs in few words: tasks, models and folds; a fold of a later repeat as `repeat.fold`.

    Example:
        >>> concerned([Job("grade", "snn", 0), Job("grade", "abmil", 0), Job("grade", "snn", 1)])
        'grade · snn · folds 0, 1; grade · abmil · fold 0'
    """
    folds: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        fold = f"{job.repeat}.{job.fold_index}" if job.repeat else str(job.fold_index)
        folds.setdefault((job.task, job.model), []).append(fold)
    models: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (task, model), names in folds.items():
        models.setdefault((task, tuple(names)), []).append(model)
    tasks: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (task, indices), of_task in models.items():
        tasks.setdefault((tuple(of_task), indices), []).append(task)
    return "; ".join(
        f"{preview(of, _MOST_NAMES)} · {preview(who, _MOST_NAMES)} · "
        f"fold{'s' if len(indices) > 1 else ''} {preview(indices, _MOST_NAMES)}"
        for (who, indices), of in tasks.items()
    )


def told_once(said: Iterable[tuple[Job, str]]) -> list[str]:
    """Returns every text once, after the jobs that it was said of."""
    jobs: dict[str, list[Job]] = {}
    for job, text in said:
        jobs.setdefault(text, []).append(job)
    return [f"{concerned(of)}: {text}" for text, of in jobs.items()]


def fold_warnings(cohort: Cohort, folds: Mapping[Job, Fold], *, selection: Selection) -> list[str]:
    """Returns what folds keep models from learning, or from being chosen by: known before anything is trained.

    Args:
        cohort: The cohort.
        folds: Of every job.
        selection: By what the epochs of neural models are to be chosen.
    """
    return told_once((job, text) for job, fold in folds.items() for text in _weaknesses(cohort, fold, job, selection))


def _weaknesses(cohort: Cohort, fold: Fold, job: Job, selection: Selection) -> Iterator[str]:
    from subfuse.training.fitting import assign

    task = cohort.tasks[job.task]
    try:
        parts = assign(cohort, fold, task, job.model)
    except DataError:  # the job itself fails by it
        return
    classes = class_names(cohort.patients, task)
    if classes:
        trained = {patient.labels[task.label_column] for patient in parts.train}
        missing = [name for name in classes if name not in trained]
        if missing:
            yield (
                f"no training patient has class {preview(missing)}, which cannot be predicted. Join it with another "
                f"class, use fewer folds, or set `splits.stratify: [{task.stratified_by}]` in the cohort file"
            )
    if selection == "loss" or is_linear(job.model):
        return
    if not can_be_ranked(make_target(parts.validation, task, classes)):
        why = "no comparable pair" if task.is_survival else "all of one class"
        yield (
            f"the validation patients cannot be ranked ({why}): the epoch is chosen by their loss. Raise "
            f"`splits.validation`, use fewer folds, or set `splits.stratify: [{task.stratified_by}]` in the cohort file"
        )
