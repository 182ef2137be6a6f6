"""Is a model better than a simple one, a linear model or one that knows no biology at all, or does it add to it?"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.findings import Finding, Level
from subfuse.audit.fusion import Comparisons, difference_text, settled, verdict_of
from subfuse.audit.recommendation import unfit
from subfuse.evaluation.benefit.added_value import WEIGHTLESS, added_value
from subfuse.evaluation.metrics import CHANCE, metric_title, number, p_text, signed_interval
from subfuse.evaluation.predictions import TaskPredictions
from subfuse.training.models import COVARIATES, MODELS, is_linear, is_trivial, main_model, model_title

ADDED_VALUE = "added value"
AGAINST_CLINICAL = "clinical model"
TRIVIAL_BASELINE = "trivial baseline"
WHY_TRIVIAL = "What age, sex, markers, the hospital or the project tell needs neither slides nor genes."
_WHY_ADDED = "A model that adds nothing to what age, sex, markers or the hospital tell is not worth its inputs."
_UNTOLD = "what is added cannot be told"
_Simplicity = Literal["linear", "trivial"]


@dataclass(frozen=True)
class _Words:
    check: str
    why: str
    best: str
    lacking: str  # what to do where there is none
    instead: str


_WORDS: dict[_Simplicity, _Words] = {
    "trivial": _Words(
        TRIVIAL_BASELINE,
        WHY_TRIVIAL,
        "the best trivial baseline",
        "Declare `covariates` and `batch`, and map `site`, in the cohort file; of files, give age, sex, markers and "
        "site with `--patients`.",
        "the trivial one",
    ),
    "linear": _Words(
        "linear baseline",
        "A linear model is quicker, has no settings to speak of, and every coefficient can be read.",
        "the best linear model",
        "Run one on the same folds: it takes seconds.",
        "the linear model",
    ),
}


def simple_pairs(task: AuditedTask) -> dict[_Simplicity, list[tuple[str, str]]]:
    """Returns the main model against the best trivial one, and every other model against the best linear one.

    Trivial models read columns of the patients alone: covariates, site or batch; they do not count as linear models
    here. The best is the one with the highest mean headline metric on test patients: chosen after the fact, which
    favours it. Against a trivial one the main model alone is asked: one question, which leaves the family small.
    """
    simple, values = _simple_models(task), task.values
    pairs: dict[_Simplicity, list[tuple[str, str]]] = {kind: [] for kind in _WORDS}
    for kind, models in simple.items():
        measured = [model for model in models if np.isfinite(values[model])]
        others = [model for model in task.models if model not in (*models, *simple["trivial"])]
        asked = [model for model in others if kind == "linear" or model == main_model(others)]
        if measured:
            pairs[kind] = [(model, max(measured, key=values.__getitem__)) for model in asked]
    return pairs


def clinical_pairs(task: AuditedTask) -> list[tuple[str, str]]:
    """Returns the main model against the best one of covariates alone; none where no other trivial one is better."""
    values = task.values
    clinical = [model for model in task.trivial if task.modalities[model] == COVARIATES and np.isfinite(values[model])]
    return [
        (main, max(clinical, key=values.__getitem__))
        for main, best in simple_pairs(task)["trivial"]
        if clinical and best not in clinical
    ]


def compare_with_simple(
    task: AuditedTask,
    comparisons: Comparisons,
    *,
    unrelated: Collection[str] = (),
    runnable: Collection[str] = (),
    unfitted: Finding | None = None,
) -> Iterator[Finding]:
    """Yields whether the main model is better than the best trivial one, and every other than the best linear one.

    Compared are patients whom both predict. A model below a linear one is a warning, also where the difference may be
    chance, which the words then say: with that many patients it has not earned its complexity. One above it that is not
    shown to be better is a note.

    Args:
        task: Predictions of the task.
        comparisons: Of the task, which has the pairs of `simple_pairs`.
        unrelated: Models not shown to be related to the outcome, which nobody is told to prefer.
        runnable: Models whose inputs the cohort has, where it is known: those that are missed are named.
        unfitted: Why no trivial model could be fitted on the patients' table, which is said where there is none.
    """
    simple = _simple_models(task)
    for simplicity, pairs in simple_pairs(task).items():
        if not pairs and set(task.models) - {*simple["trivial"], *simple[simplicity]}:
            why_none = unfitted if simplicity == "trivial" else None
            yield why_none or _unchecked(simplicity, task, simple[simplicity], runnable)
        yield from (_verdict(simplicity, comparisons.row(model, best), task, unrelated) for model, best in pairs)


def what_is_added(task: AuditedTask) -> tuple[list[Finding], pd.DataFrame]:
    """Returns whether the main model adds to the best trivial one, and `added_value` of every other model.

    No finding without a trivial model, of which `compare_with_simple` tells. The main model, of which
    one question is asked, is judged by its own p-value, the others by p-values adjusted over all.
    """
    pairs = simple_pairs(task)["trivial"]
    if not pairs:
        return [], pd.DataFrame()
    ((main, trivial),) = pairs
    row, table = _added_by_all(task, trivial, main)
    return [_added(row, task)], table


def added_to_clinical(task: AuditedTask, comparisons: Comparisons) -> tuple[list[Finding], pd.DataFrame]:
    """Returns how the main model compares with the clinical one and what it adds, and `added_value` of every model.

    Nothing without a pair of `clinical_pairs`: of a clinical model that is the best trivial one `what_is_added` tells.

    Args:
        task: Predictions of the task.
        comparisons: Of the task, which has the pair.
    """
    pairs = clinical_pairs(task)
    if not pairs:
        return [], pd.DataFrame()
    ((main, clinical),) = pairs
    row, table = _added_by_all(task, clinical, main)
    return [_against_clinical(row, comparisons.row(main, clinical), task)], table


def _added_by_all(task: AuditedTask, trivial: str, main: str) -> tuple[dict[Any, Any], pd.DataFrame]:
    """Returns what every model that is not trivial adds to a trivial one: the main model's row, and all of them."""
    others = [model for model in task.models if model not in _simple_models(task)["trivial"]]
    table = added_value(task, trivial, others, n_bootstrap=task.n_bootstrap, seed=task.seed)
    (row,) = table[table["model"] == main].to_dict("records")
    return row, table


def _against_clinical(added: Mapping[Any, Any], instead: Mapping[str, Any], task: AuditedTask) -> Finding:
    """Returns the finding of what is added with the clinical model's value and the difference of both models."""
    finding, value = _added(added, task), number(task.values[added["trivial"]])
    detail, change = difference_text(instead), _change(instead)
    if np.isnan(instead["lower"]):
        detail = change = f"not tested, {instead['reason'] or 'no interval'}"
    combined = f"combined {_change(added)}"
    if np.isnan(added["lower"]) or finding.short == _UNTOLD:
        combined = finding.short.replace(model_title(added["trivial"]), "it")
    found = f"{finding.found}; instead of it ({metric_title(task.headline)} {value}): {detail}"
    short = f"{value}, difference {change}; {combined}"
    return replace(finding, check=AGAINST_CLINICAL, found=found, short=short)


def _added(row: Mapping[Any, Any], task: AuditedTask) -> Finding:
    model, trivial = model_title(row["model"]), model_title(row["trivial"])
    if row["reason"] == WEIGHTLESS:
        found = f"{model} adds nothing to {trivial}: combined by weights from {row['fitted_on']}, {WEIGHTLESS}"
        short = f"nothing beside {trivial}: {WEIGHTLESS}"
        return Finding("note", ADDED_VALUE, found, _WHY_ADDED, "", row["task"], row["model"], short)
    if np.isnan(row["lower"]) or np.isnan(row["p_value"]):
        found = f"cannot be told whether {model} adds to {trivial}: {row['reason'] or 'no interval'}"
        remedy, short = "More patients would tell.", _UNTOLD
        return Finding("note", ADDED_VALUE, found, _WHY_ADDED, remedy, row["task"], row["model"], short)
    if task.values[row["trivial"]] <= CHANCE:
        found = f"cannot be told what {model} adds: {_orders_nobody(task, row['trivial'])}"
        return Finding("note", ADDED_VALUE, found, _WHY_ADDED, "", row["task"], row["model"], _UNTOLD)
    verdict = verdict_of(lower=row["lower"], upper=row["upper"], p_adjusted=row["p_value"])
    numbers = (
        f"{metric_title(row['metric'])} {number(row['difference'], signed=True)}, "
        f"95 % interval {signed_interval(row['lower'], row['upper'])}, weights from {row['fitted_on']}"
    )
    verb = {"better": "adds to", "worse": "takes from"}.get(verdict, "is not shown to add to")
    found, short = f"{model} {verb} {trivial} ({numbers})", f"{verb} {trivial}: {_change(row)}"
    if verdict == "better":
        return Finding("ok", ADDED_VALUE, found, task=row["task"], model=row["model"], short=short)
    return Finding("note", ADDED_VALUE, found, _WHY_ADDED, "Quote what it adds.", row["task"], row["model"], short)


def _orders_nobody(task: AuditedTask, simple: str) -> str:
    """Returns in words that the best of the simple models orders nobody."""
    metric, value = metric_title(task.headline), number(task.values[simple])
    return f"{metric} of {model_title(simple)}, the best of its kind here, is not above chance ({value})"


def _change(row: Mapping[Any, Any]) -> str:
    return f"{number(row['difference'], signed=True)} ({signed_interval(row['lower'], row['upper'])})"


def _simple_models(task: AuditedTask) -> dict[_Simplicity, list[str]]:
    linear = [name for name in task.models if is_linear(name) and name not in task.trivial]
    return {"trivial": list(task.trivial), "linear": linear}


def _unchecked(
    simplicity: _Simplicity, task: TaskPredictions, simple: Collection[str], runnable: Collection[str]
) -> Finding:
    words = _WORDS[simplicity]
    of_simple = f"{metric_title(task.headline)} of {', '.join(map(model_title, simple))} is undefined"
    known = [
        name
        for name, entry in sorted(MODELS.items())
        if entry.is_linear and is_trivial(name) == (simplicity == "trivial") and entry.suits(task.outcome.kind)
    ]
    lack = of_simple if simple else "there is none"
    found = f"cannot be checked: a {simplicity} model ({', '.join(known)}) is needed, and {lack}"
    missed = " ".join(name for name in known if name in runnable)
    remedy = f"The cohort has the inputs: add `--models ... {missed}`, on the same folds."
    if simple or not missed:
        remedy = "See `reason` in metrics.csv." if simple else words.lacking
    return Finding("note", words.check, found, words.why, remedy, task.name)


def _verdict(simplicity: _Simplicity, row: Mapping[str, Any], task: AuditedTask, unrelated: Collection[str]) -> Finding:
    words = _WORDS[simplicity]
    against = f"{words.best}, {model_title(row['reference'])}"
    verdict, finding = settled(row, against, check=words.check, why=words.why)
    verb = {"better": "is better than", "worse": "is worse than"}.get(verdict, "is not shown to be better than")
    short = "" if verdict == "untested" else f"{verb} {model_title(row['reference'])}: {_change(row)}"
    if verdict == "open" and not row["lower"] <= 0 <= row["upper"]:  # what keeps it open is said
        short += f", adjusted {p_text(row['p_adjusted'])}"
    if finding is not None and verdict == "better" and task.values[row["reference"]] <= CHANCE:
        found = f"{finding.found}, which says nothing: {_orders_nobody(task, row['reference'])}"
        short = f"{model_title(row['reference'])} alone is not above chance"
        return replace(finding, level="note", found=found, why=words.why, short=short)
    if finding is not None:
        return replace(finding, short=short)
    found = f"{model_title(row['model'])} {verb} {against} ({difference_text(row)})"
    flaw = unfit(task, row["reference"], unrelated)
    otherwise = f"else prefer {words.instead}" if flaw is None else f"the {simplicity} model is no alternative: {flaw}"
    remedy = f"See whether {model_title(row['model'])} is trained well (training curves, --search); {otherwise}."
    level: Level = "warning" if row["difference"] < 0 else "note"
    return Finding(level, words.check, found, words.why, remedy, row["task"], row["model"], short)
