"""Is a model better than a linear one? What is not might as well be linear."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from subfuse.audit.findings import Finding, Level
from subfuse.audit.fusion import Comparisons, difference_text, verdict_of
from subfuse.audit.recommendation import headline_values, unfit
from subfuse.evaluation.predictions import TaskPredictions
from subfuse.training.models import MODELS, is_linear

CHECK = "linear baseline"
_WHY = "A linear model is quicker, has no settings to speak of, and every coefficient can be read."


def linear_pairs(task: TaskPredictions) -> list[tuple[str, str]]:
    """Returns every other model against the best linear one; none where no linear model has a result.

    Linear models are this package's `cox`, `logistic` and `clinical`. The best is the one with the highest mean
    headline metric on test patients: chosen after the fact, which favours it.
    """
    values = headline_values(task)
    measured = [model for model in task.models if is_linear(model) and np.isfinite(values[model])]
    if not measured:
        return []
    best = max(measured, key=values.__getitem__)
    return [(model, best) for model in task.models if not is_linear(model)]


def compare_with_linear(task: TaskPredictions, comparisons: Comparisons) -> list[Finding]:
    """Returns whether every other model is better than the best linear one, on the patients whom both predict.

    A model below it is a warning, also where the difference may be chance: with that many patients it has not earned
    its complexity.

    Args:
        task: Rows of all models and splits.
        comparisons: Of the task, which has the pairs of `linear_pairs`.
    """
    pairs = linear_pairs(task)
    linear = [model for model in task.models if is_linear(model)]
    if not pairs and len(linear) < len(task.models):
        missing = f"{task.headline} of {', '.join(linear)} is undefined" if linear else "there is none"
        known = ", ".join(sorted(filter(is_linear, MODELS)))
        found = f"cannot be checked: a linear model ({known}) is needed, and {missing}"
        remedy = "See `reason` in metrics.csv." if linear else "Run one on the same folds: it takes seconds."
        return [Finding("note", CHECK, found, _WHY, remedy, task.name)]
    return [_verdict(comparisons.row(model, best), task) for model, best in pairs]


def _verdict(row: Mapping[str, Any], predictions: TaskPredictions) -> Finding:
    task = predictions.name
    against = f"the best linear model, {row['reference']}"
    if np.isnan(row["difference"]):
        found = f"{row['model']} cannot be compared with {against}"
        remedy = f"Reason: {row['reason'] or 'the metric is undefined'}."
        return Finding("note", CHECK, found, _WHY, remedy, task, row["model"])
    if np.isnan(row["p_adjusted"]):
        found = f"{row['model']} is not tested against {against}: {row['reason'] or 'no interval'}"
        return Finding("note", CHECK, found, _WHY, "More patients are needed.", task, row["model"])
    evidence = difference_text(row)
    if verdict_of(lower=row["lower"], upper=row["upper"], p_adjusted=row["p_adjusted"]) == "better":
        found = f"{row['model']} is better than {against} ({evidence})"
        return Finding("ok", CHECK, found, task=task, model=row["model"])
    is_below = row["difference"] < 0
    level: Level = "warning" if is_below else "note"
    found = f"{row['model']} {'loses to' if is_below else 'is not shown to be better than'} {against} ({evidence})"
    flaw = unfit(predictions, row["reference"])
    otherwise = "else prefer the linear model" if flaw is None else f"the linear model is no alternative: {flaw}"
    remedy = f"See whether it is trained well (training curves, --search); {otherwise}."
    return Finding(level, CHECK, found, _WHY, remedy, task, row["model"])
