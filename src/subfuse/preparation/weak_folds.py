"""What folds cannot train, test or choose models by, known before anything is trained: rare classes, few events."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import preview
from subfuse.evaluation.censoring import known_orders

_MOST_FOLDS = 10  # named
RARE_CLASS = "Merge it with another class, leave it out (empty its cells), collect more patients"


@dataclass(frozen=True)
class Lacks:
    """What a fold lacks for one task."""

    untrained: tuple[str, ...]  # classes without training patients
    untested: tuple[str, ...]
    unranked: str  # why predictions of the validation patients cannot be ranked; empty where they can


def fold_lacks(outcomes: pd.DataFrame, fold: Fold, task: TaskSpec, classes: Sequence[str]) -> Lacks:
    """Returns the classes that a fold cannot train or test, and whether its validation patients can choose a model.

    Args:
        outcomes: Columns of time and event, or the label column, by patient; unknown ones may be empty.
        fold: Of patients that are all listed there.
        task: What is predicted.
        classes: Of the task; none for survival and regression.
    """
    train, validation, test = (outcomes.loc[list(ids)].dropna() for ids in (fold.train, fold.validation, fold.test))
    if task.is_survival:
        time, event = task.patient_columns
        time_days = validation[time].to_numpy(dtype=np.float64)
        orders = known_orders(time_days, validation[event].to_numpy(dtype=bool))
        return Lacks((), (), "" if orders.any() else "have no comparable pair of follow-ups")
    column = task.label_column
    if task.is_regression:
        return Lacks((), (), "" if validation[column].nunique() > 1 else "have all the same value")
    untrained, untested = (tuple(c for c in classes if c not in set(rows[column])) for rows in (train, test))
    return Lacks(untrained, untested, "" if validation[column].nunique() > 1 else "are all of one class")


def fewer_folds(task: TaskSpec, stratify: Collection[str] = ()) -> str:
    """Returns what to do about folds that lack something: fewer of them, or folds that keep the mixture of outcomes."""
    column = task.stratified_by
    return "use fewer folds" + (
        "" if column in stratify or task.is_regression else f", or set `splits.stratify: [{column}]`"
    )


def weak_folds(
    tasks: Mapping[str, TaskSpec], patients: pd.DataFrame, folds: Sequence[Fold], stratify: Collection[str]
) -> list[str]:
    """Returns one line per class that a fold lacks in training or testing, and per task whose validation ranks nobody.

    Args:
        tasks: With their columns.
        patients: One row per patient, with the columns of the tasks.
        folds: Of one repeat.
        stratify: Columns whose mixture the folds keep already.
    """
    table = patients.set_index("patient_id")
    return [line for name, task in tasks.items() for line in _of_task(name, task, table, folds, stratify)]


def _of_task(
    name: str, task: TaskSpec, table: pd.DataFrame, folds: Sequence[Fold], stratify: Collection[str]
) -> Iterator[str]:
    outcomes = task.outcomes(table)
    counts: dict[str, int] = {}
    if task.predicts == "classes":
        counts = {str(label): int(n) for label, n in outcomes[task.label_column].value_counts().sort_index().items()}
    lacks = [fold_lacks(outcomes, fold, task, list(counts)) for fold in folds]
    for label, count in counts.items():
        untrained = [k for k, found in enumerate(lacks) if label in found.untrained]
        untested = [k for k, found in enumerate(lacks) if label in found.untested]
        sides = (("train on", untrained), ("test", untested))
        lacking = [f"to {verb} in fold {preview(of, _MOST_FOLDS)}" for verb, of in sides if of]
        if lacking:
            yield (
                f"tasks.{name}: class {label} has {count} patient(s), and none {' and none '.join(lacking)}. "
                f"{RARE_CLASS}, {fewer_folds(task, stratify)}"
            )
    unranked = [k for k, found in enumerate(lacks) if found.unranked]
    if unranked:
        yield (
            f"tasks.{name}: validation patients with a known outcome {lacks[unranked[0]].unranked} in fold "
            f"{preview(unranked, _MOST_FOLDS)}: models are chosen by their loss there. Raise `splits.validation`, "
            f"{fewer_folds(task, stratify)}"
        )
