"""What is said of many jobs at once: one line a matter, with the tasks, models and folds that it concerns."""

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from subfuse.cohort.bags import class_names
from subfuse.cohort.cohort import Cohort
from subfuse.cohort.covariates import column_of, unseen_words
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError, counted, preview
from subfuse.preparation.weak_folds import RARE_CLASS, fewer_folds, fold_lacks
from subfuse.run_folder.job import Job
from subfuse.training.models import is_linear, is_trivial
from subfuse.training.settings import TrainingSettings

_MOST_NAMES = 12


def concerned(jobs: Iterable[Job]) -> str:
    """Returns jobs in few words: tasks, models and folds; a fold of a later repeat as `repeat.fold`.

    Example:
        >>> concerned([Job("grade", "snn", 0), Job("grade", "abmil", 0), Job("grade", "snn", 1)])
        'grade · snn · folds 0, 1; grade · abmil · fold 0'
    """
    folds: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        folds.setdefault((job.task, job.model), []).append(job.fold_name)
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


def told_once(said: Iterable[tuple[Job, str]], *, everyone: Iterable[Job] = ()) -> list[str]:
    """Returns every text once, after the jobs that it was said of; these are not named where they are everyone.

    Example:
        >>> told_once([(Job("grade", "snn", 0), "a"), (Job("grade", "snn", 1), "a")], everyone=[Job("grade", "snn", 0)])
        ['grade · snn · folds 0, 1: a']
    """
    all_jobs = set(everyone)
    jobs: dict[str, list[Job]] = {}
    for job, text in said:
        jobs.setdefault(text, []).append(job)
    return [text if set(of) == all_jobs else f"{concerned(of)}: {text}" for text, of in jobs.items()]


def fold_warnings(cohort: Cohort, folds: Mapping[Job, Fold], settings: TrainingSettings) -> list[str]:
    """Returns what folds keep models from learning, or from being chosen by: known before anything is trained.

    Args:
        cohort: The cohort.
        folds: Of every job.
        settings: Of neural models: what judges their epochs, and whether they have a linear path.
    """
    outcomes = {name: _outcomes(cohort, cohort.tasks[name]) for name in {job.task for job in folds}}
    return told_once(
        (job, text)
        for job, fold in folds.items()
        for text in _weaknesses(cohort, outcomes[job.task], fold, job, settings)
    )


def _outcomes(cohort: Cohort, task: TaskSpec) -> pd.DataFrame:
    known = {patient.patient_id: patient.outcome(task) for patient in cohort}
    return pd.DataFrame.from_dict(known, orient="index", columns=list(task.patient_columns))


def _weaknesses(
    cohort: Cohort, outcomes: pd.DataFrame, fold: Fold, job: Job, settings: TrainingSettings
) -> Iterator[str]:
    from subfuse.training.problem import assign, covariates_read, too_few_for_a_line

    task = cohort.tasks[job.task]
    try:
        parts = assign(cohort, fold, task, job.model)
    except DataError:  # the job itself fails by it
        return
    used = Fold(*(tuple(p.patient_id for p in side) for side in (parts.train, parts.validation, parts.test)))
    names = covariates_read(cohort, job.model)
    unseen = unseen_words(names, [p.columns for p in parts.train], [p.columns for p in parts.test])
    yield from (
        f"{column} {preview(words)} never occurs in training: taken as unknown for "
        f"{counted(sum(words.values()), 'test patient')}"
        for column, words in unseen.items()
    )
    if is_trivial(job.model):
        columns = list(dict.fromkeys(map(column_of, names)))
        tested = [p for p in cohort if p.patient_id in fold.test and p.has_outcome(task)]
        known = [p for p in tested if any(column in p.columns for column in columns)]
        if len(known) > len(parts.test):
            yield (
                f"{len(known) - len(parts.test)} of {len(known)} test patients have a {' or '.join(columns)} that "
                "never occurs in training: they are not predicted"
            )
    lacks = fold_lacks(outcomes, used, task, class_names(cohort.patients, task))
    if lacks.untrained:
        yield (
            f"no training patient has class {preview(lacks.untrained)}, which cannot be predicted. {RARE_CLASS}, "
            f"{fewer_folds(task)} in the cohort file"
        )
    if is_linear(job.model):
        return
    few = too_few_for_a_line((*parts.train, *parts.validation), task) if settings.linear_path else ""
    if few:
        yield f"{few}: there is no linear path, the network is trained alone"
    if lacks.unranked and settings.selection != "loss":
        yield (
            f"the validation patients cannot be ranked (they {lacks.unranked}): their loss decides when to stop. "
            f"Raise `splits.validation`, {fewer_folds(task)} in the cohort file"
        )
