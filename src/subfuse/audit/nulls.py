"""Label permutation: what predictions are worth when outcomes are dealt out at random."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.findings import SIGNIFICANCE, Finding, Level
from subfuse.evaluation.intervals import grouping, headline_interval
from subfuse.evaluation.metrics import CHANCE, metric_title, number, p_text
from subfuse.evaluation.predictions import FOLD, PATIENT, Outcome
from subfuse.evaluation.weighted_metrics import wins
from subfuse.training.models import model_title

LABEL_NULL = "label permutation"
_N_PERMUTATIONS = 200
_REVERSED = 0.4  # C-index, AUC or concordance below which predictions may be the wrong way round
# Held-out predictions of noise lie below chance more often than above: training lacks what is tested
_REVERSED_SDS = 4.0
_CHECK_DIRECTION = "Check the sign of the risk, or the order of the classes."


@dataclass(frozen=True)
class _Pairs:
    """Comparable pairs of one fold by outcome, and which of them the predictions order rightly, per class."""

    comparable: Float[np.ndarray, "class patient patient"]
    wins: Float[np.ndarray, "class patient patient"]  # 1, 0, or one half, for every pair

    def headline(self, order: np.ndarray) -> float:
        """Returns the headline metric with the predictions dealt out in this order; NaN where undefined."""
        dealt = self.wins[:, order][:, :, order]
        total = self.comparable.sum(axis=(1, 2))
        if not total.all():
            return np.nan
        return float(((self.comparable * dealt).sum(axis=(1, 2)) / total).mean())


def permute_labels(task: AuditedTask) -> tuple[list[Finding], pd.DataFrame]:
    """Returns whether models are better than the same predictions dealt out at random among a fold's test patients.

    Tests whether test predictions are related to outcomes at all. The models stay as they are: whoever was tested took
    no part in training them, so that without a relation any order of a fold's test patients is as probable as theirs,
    and the p-value is exact (Ojala and Garriga 2010, J Mach Learn Res 11: 1833-1863). What models trained again on
    permuted outcomes would show beside that, whether the procedure makes results out of nothing, holds for the package
    and not for one run: its tests train on permuted outcomes. It does not show how much a model can memorise, and it
    sees no leak that helps test patients: see the other checks.

    Returns:
        Findings, and a table with task, model, metric, value, null_mean, null_upper (95 % quantile), p_value.
    """
    by, _ = grouping(task)
    generator = np.random.default_rng(task.seed)
    findings, rows = [], []
    for model, value in task.values.items():
        tested = task.tested_by(model)
        alike = _alike_finding(task, model, tested)
        findings += [] if alike is None else [alike]
        if alike is not None and alike.level == "warning":
            continue
        few = task.outcome.too_few(tested.drop_duplicates(PATIENT))
        if few is not None:
            findings.append(Finding.of_model("note", LABEL_NULL, f"not tested, {few}", task=task.name, model=model))
            continue
        folds = [_pairs(fold, task.outcome) for _, fold in tested.groupby(by)]
        null = _null(folds, generator)
        if not np.isfinite(value) or not len(null):
            detail = f"cannot be checked, its {metric_title(task.headline)} is undefined"
            findings.append(Finding.of_model("note", LABEL_NULL, detail, task=task.name, model=model))
            continue
        p_value = (1 + (null >= value - 1e-12).sum()) / (1 + len(null))
        rows.append((task.name, model, task.headline, value, null.mean(), np.quantile(null, 0.95), p_value))
        findings.append(_label_finding(task, model, value, null, p_value))
    columns = ["task", "model", "metric", "value", "null_mean", "null_upper", "p_value"]
    return findings, pd.DataFrame(rows, columns=columns)


def _alike_finding(task: AuditedTask, model: str, tested: pd.DataFrame) -> Finding | None:
    """Returns in which folds a model predicts the same of all test patients; None where it tells them apart in all."""
    columns, what = task.outcome.predicted, task.outcome.words["predicted"]
    folds = [fold[columns].to_numpy(dtype=np.float64) for _, fold in tested.groupby(FOLD) if len(fold) > 1]
    n_alike = sum(bool((fold == fold[0]).all()) for fold in folds)
    if not n_alike:
        return None
    where = "every fold" if n_alike == len(folds) else f"{n_alike} of {len(folds)} folds"
    found = f"{model_title(model)} predicts the same {what} for all patients" + f" of {where}" * (len(folds) > 1)
    why = "Predictions that do not differ order no patients."
    remedy = "Check that the right column was given and that the model was trained."
    level: Level = "warning" if n_alike == len(folds) and model not in task.trivial else "note"
    return Finding(level, LABEL_NULL, found, why, remedy, task.name, model)


def _label_finding(
    task: AuditedTask, model: str, value: float, null: Float[np.ndarray, " permutation"], p_value: float
) -> Finding:
    text = (
        f"{model_title(model)}: {metric_title(task.headline)} {value:.3f}; with the outcomes of the test patients "
        f"permuted, and the models as they are, {null.mean():.3f} on average ({p_text(p_value)})"
    )
    if p_value < SIGNIFICANCE:
        return Finding("ok", LABEL_NULL, text, task=task.name, model=model)
    is_below, is_far = bool((null > value).all()), null.mean() - value > _REVERSED_SDS * null.std()
    right_way = "A higher risk must be worse, p_<class> must be of its class, and event true where it was observed."
    if task.outcome.kind == "regression":
        right_way = "A higher prediction must mean a higher value: check its sign."
    if value < _REVERSED and is_below and is_far:
        found = f"the {task.outcome.words['order']} is reversed: {text}, every one of them higher"
        why = "The predictions order patients against their outcomes."
        return Finding("failure", LABEL_NULL, found, why, right_way, task.name, model)
    level: Level = "note" if model in task.trivial else "warning"
    found = f"below chance: {text}{', every one of them higher' * is_below}"
    lower, upper = _interval_below_chance(task, model, value)
    if upper < CHANCE:
        interval = f"the 95 % interval of the {metric_title(task.headline)}, {number(lower)} to {number(upper)}"
        found += f"; the direction seems reversed: {interval}, lies below {CHANCE}"
        check = "" if task.outcome.kind == "regression" else f" {_CHECK_DIRECTION}"
        why = "Patients seem to be ordered against their outcomes, which noise can do too where they are few."
        return Finding(level, LABEL_NULL, found, why, f"{right_way}{check}", task.name, model)
    if is_below:
        why = "The predictions may be reversed, or of noise: where patients are few, such lie below chance too."
        return Finding(level, LABEL_NULL, found, why, right_way, task.name, model)
    if model in task.trivial:  # that hospital, batch or covariates tell nothing speaks for the result
        return Finding("ok", LABEL_NULL, text, task=task.name, model=model)
    why = "The predictions are not shown to be related to the outcome."
    remedy = "Do not read anything into differences between models."
    return Finding("warning", LABEL_NULL, text, why, remedy, task.name, model)


def _interval_below_chance(task: AuditedTask, model: str, value: float) -> tuple[float, float]:
    """Returns the 95 % interval of a headline metric below chance; NaN of another, which is not asked."""
    if value >= CHANCE:
        return np.nan, np.nan
    return headline_interval(task, model, n_bootstrap=task.n_bootstrap, seed=task.seed)


def _null(folds: Sequence[_Pairs], generator: np.random.Generator) -> Float[np.ndarray, " permutation"]:
    """Returns the mean headline over folds for permuted predictions; empty where no fold is defined."""
    defined = [fold for fold in folds if np.isfinite(fold.headline(np.arange(fold.wins.shape[1])))]
    if not defined:
        return np.empty(0)
    return np.array(
        [
            np.mean([fold.headline(generator.permutation(fold.wins.shape[1])) for fold in defined])
            for _ in range(_N_PERMUTATIONS)
        ]
    )


def _pairs(fold: pd.DataFrame, outcome: Outcome) -> _Pairs:
    scores = outcome.scores(fold).T  # (class, patient)
    return _Pairs(outcome.comparable(fold).astype(np.float64), wins(scores[:, :, None] - scores[:, None, :]))
