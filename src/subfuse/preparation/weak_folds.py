"""What folds cannot train, test or choose models by, known before anything is trained: rare classes, few events."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import preview
from subfuse.evaluation.weighted_metrics import known_orders

_MOST_FOLDS = 10  # named


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
    column = "event" if task.column is None else task.column
    remedy = "use fewer folds" + ("" if column in stratify else f", or set `splits.stratify: [{column}]`")
    if task.column is not None:
        labels = table[column]
        for label, count in labels.value_counts().sort_index().items():
            having = set(labels.index[labels == label])
            untrained = [k for k, fold in enumerate(folds) if having.isdisjoint(fold.train)]
            untested = [k for k, fold in enumerate(folds) if having.isdisjoint(fold.test)]
            sides = (("train on", untrained), ("test", untested))
            lacking = [f"to {verb} in fold {preview(of, _MOST_FOLDS)}" for verb, of in sides if of]
            if lacking:
                yield (
                    f"tasks.{name}: class {label} has {count} patient(s), and none {' and none '.join(lacking)}. Merge "
                    f"it with another class, {remedy}"
                )
    unranked = [k for k, fold in enumerate(folds) if not _ranks(table.loc[list(fold.validation)], task)]
    if unranked:
        what = "are all of one class" if task.column is not None else "have no comparable pair of follow-ups"
        yield (
            f"tasks.{name}: validation patients with a known outcome {what} in fold {preview(unranked, _MOST_FOLDS)}: "
            f"models are chosen by their loss there. Raise `splits.validation`, {remedy}"
        )


def _ranks(validation: pd.DataFrame, task: TaskSpec) -> bool:
    if task.column is not None:
        return validation[task.column].nunique() > 1
    known = validation.dropna(subset=["time_days", "event"])
    time_days = known["time_days"].to_numpy(dtype=np.float64)
    return bool(known_orders(time_days, known["event"].to_numpy(dtype=bool)).any())
