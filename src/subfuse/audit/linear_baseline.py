"""Is a model better than a linear one? What is not might as well be linear."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from subfuse.audit.findings import Finding, Level
from subfuse.audit.fusion import Comparisons, difference_text, settled, verdict_of
from subfuse.audit.recommendation import unfit
from subfuse.evaluation.metrics import metric_title
from subfuse.evaluation.predictions import TaskPredictions
from subfuse.training.models import MODELS, is_linear, model_title

CHECK = "linear baseline"
_WHY = "A linear model is quicker, has no settings to speak of, and every coefficient can be read."


def linear_pairs(task: TaskPredictions, values: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns every other model against the best linear one; none where no linear model has a result.

    The best is the one with the highest mean headline metric on test patients: chosen after the fact, which favours it.

    Args:
        task: Rows of all models and splits.
        values: Of every model, see `headline_values`.
    """
    measured = [model for model in task.models if is_linear(model) and np.isfinite(values[model])]
    if not measured:
        return []
    best = max(measured, key=values.__getitem__)
    return [(model, best) for model in task.models if not is_linear(model)]


def compare_with_linear(task: TaskPredictions, comparisons: Comparisons, values: Mapping[str, float]) -> list[Finding]:
    """Returns whether every other model is better than the best linear one, on the patients whom both predict.

    A model below it is a warning, also where the difference may be chance, which the words then say: with that many
    patients it has not earned its complexity.

    Args:
        task: Rows of all models and splits.
        comparisons: Of the task, which has the pairs of `linear_pairs`.
        values: Of every model, see `headline_values`.
    """
    pairs = linear_pairs(task, values)
    linear = [model for model in task.models if is_linear(model)]
    if not pairs and len(linear) < len(task.models):
        of_linear = f"{metric_title(task.headline)} of {', '.join(map(model_title, linear))} is undefined"
        missing = of_linear if linear else "there is none"
        known = ", ".join(sorted(filter(is_linear, MODELS)))
        found = f"cannot be checked: a linear model ({known}) is needed, and {missing}"
        remedy = "See `reason` in metrics.csv." if linear else "Run one on the same folds: it takes seconds."
        return [Finding("note", CHECK, found, _WHY, remedy, task.name)]
    return [_verdict(comparisons.row(model, best), task) for model, best in pairs]


def _verdict(row: Mapping[str, Any], predictions: TaskPredictions) -> Finding:
    against = f"the best linear model, {model_title(row['reference'])}"
    finding = settled(row, against, check=CHECK, why=_WHY)
    if finding is not None:
        return finding
    verdict = verdict_of(lower=row["lower"], upper=row["upper"], p_adjusted=row["p_adjusted"])
    words = "is worse than" if verdict == "worse" else "is not shown to be better than"
    found = f"{model_title(row['model'])} {words} {against} ({difference_text(row)})"
    flaw = unfit(predictions, row["reference"])
    otherwise = "else prefer the linear model" if flaw is None else f"the linear model is no alternative: {flaw}"
    remedy = f"See whether it is trained well (training curves, --search); {otherwise}."
    level: Level = "warning" if row["difference"] < 0 else "note"
    return Finding(level, CHECK, found, _WHY, remedy, row["task"], row["model"])
