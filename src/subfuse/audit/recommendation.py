"""Whether a model is fit to be recommended in place of another."""

from collections.abc import Collection

import numpy as np

from subfuse.audit.audited_task import AuditedTask
from subfuse.errors import preview
from subfuse.evaluation.metrics import CHANCE, metric_title
from subfuse.evaluation.predictions import FOLD, class_probabilities


def unfit(task: AuditedTask, model: str, unrelated: Collection[str] = ()) -> str | None:
    """Returns why a model should not be recommended, whatever its headline metric; None where nothing speaks against.

    One whose headline metric is not above chance orders no patients. A model that predicts one class, risk
    or number in every fold tells patients apart by traces at best; of one that never predicts a class, precision and F1
    are undefined.

    Args:
        task: Predictions of the task.
        model: Who would be recommended.
        unrelated: Models not shown to be related to the outcome, which nobody is told to prefer.
    """
    flaw = _flaw(task, model)
    return "it is not shown to be related to the outcome" if flaw is None and model in unrelated else flaw


def _flaw(task: AuditedTask, model: str) -> str | None:
    below = f"its {metric_title(task.headline)} is not above chance" if task.values[model] <= CHANCE else None
    tested = task.tested_by(model)
    folds = [fold for _, fold in tested.groupby(FOLD)]
    if task.classes is None:
        same = all(np.ptp(task.outcome.scores(fold)) == 0 for fold in folds)
        what = task.outcome.words["predicted"]
        return f"it predicts the same {what} for every patient of a fold" if same else below
    predicted = [set(class_probabilities(fold, task.classes).argmax(axis=1).tolist()) for fold in folds]
    if all(len(found) == 1 for found in predicted):
        return "it predicts one class in every fold"
    missing = [name for index, name in enumerate(task.classes) if not any(index in found for found in predicted)]
    missing = [name for name in missing if (tested["label"] == name).any()]
    return f"it never predicts class {preview(missing)}" if missing else below
