"""Null models: what predictions are when outcomes, or one modality, are dealt out at random."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.audit.findings import Finding, Level
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.evaluation.benefit.interaction import INTERACTION as INTERACTION_PART
from subfuse.evaluation.benefit.interaction import variance_shares
from subfuse.evaluation.comparisons import compare_models, grouping
from subfuse.evaluation.floors import too_few
from subfuse.evaluation.metrics import metric_title, number, p_text, signed_interval
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    TaskPredictions,
    class_probabilities,
    events,
    label_indices,
    risks,
    times_days,
)
from subfuse.evaluation.weighted_metrics import known_orders, wins
from subfuse.training.models import is_trivial, model_title

if TYPE_CHECKING:
    import subfuse.training.fitted_model

_LABEL_NULL = "label permutation"
SHUFFLE_NULL = "modality shuffle"
INTERACTION = "interaction"
_EXCHANGED = ("slides", "expression")
_WHY_INTERACTION = "A fusion model whose modalities only add up does no more than the sum of two simpler models."
_TELLING = 0.05  # a loss of C-index or AUC that would matter: an interval that holds it does not rule out a use
_N_PERMUTATIONS = 200
_TINY = 1e-7
SIGNIFICANCE = 0.05
_REVERSED = 0.4  # C-index or AUC below which predictions may be the wrong way round
# Held-out predictions of noise lie below chance more often than above: training lacks what is tested
_REVERSED_SDS = 4.0


@dataclass(frozen=True)
class _Pairs:
    """Comparable pairs of one fold by outcome, and which of them the predictions order rightly, per class."""

    comparable: Float[np.ndarray, "class patient patient"]
    wins: Float[np.ndarray, "class patient patient"]  # 1, 0, or one half, for every pair

    def headline(self, order: np.ndarray) -> float:
        """Returns C-index or macro AUC with the predictions dealt out in this order; NaN where undefined."""
        dealt = self.wins[:, order][:, :, order]
        total = self.comparable.sum(axis=(1, 2))
        if not total.all():
            return np.nan
        return float(((self.comparable * dealt).sum(axis=(1, 2)) / total).mean())


def permute_labels(
    task: TaskPredictions, values: Mapping[str, float], generator: np.random.Generator
) -> tuple[list[Finding], pd.DataFrame]:
    """Returns whether models are better than the same predictions dealt out at random among a fold's test patients.

    Tests whether test predictions are related to outcomes at all. The models stay as they are: whoever was tested took
    no part in training them, so that without a relation any order of a fold's test patients is as probable as theirs,
    and the p-value is exact (Ojala and Garriga 2010, J Mach Learn Res 11: 1833-1863). What models trained again on
    permuted outcomes would show beside that, whether the procedure makes results out of nothing, holds for the package
    and not for one run: its tests train on permuted outcomes. It does not show how much a model can memorise, and it
    sees no leak that helps test patients: see the other checks.

    Args:
        task: Rows of all models and splits.
        values: Of the models to test, see `headline_values`.
        generator: Of the permutations.

    Returns:
        Findings, and a table with task, model, metric, value, null_mean, null_upper (95 % quantile), p_value.
    """
    by, _ = grouping(task)
    findings, rows = [], []
    for model, value in values.items():
        tested = task.of_model(model)
        tested = tested[tested["split"] == "test"]
        alike = _alike_finding(task, model, tested)
        findings += [] if alike is None else [alike]
        if alike is not None and alike.level == "warning":
            continue
        few = too_few(tested.drop_duplicates(PATIENT), task.classes)
        if few is not None:
            findings.append(
                Finding("note", _LABEL_NULL, f"{model_title(model)}: not tested, {few}", task=task.name, model=model)
            )
            continue
        folds = [_pairs(fold, task.classes) for _, fold in tested.groupby(by)]
        null = _null(folds, generator)
        if not np.isfinite(value) or not len(null):
            found = f"{model_title(model)}: cannot be checked, its {metric_title(task.headline)} is undefined"
            findings.append(Finding("note", _LABEL_NULL, found, task=task.name, model=model))
            continue
        p_value = (1 + (null >= value - 1e-12).sum()) / (1 + len(null))
        rows.append((task.name, model, task.headline, value, null.mean(), np.quantile(null, 0.95), p_value))
        findings.append(_label_finding(task, model, value, null, p_value))
    columns = ["task", "model", "metric", "value", "null_mean", "null_upper", "p_value"]
    return findings, pd.DataFrame(rows, columns=columns)


def shuffled_predictions(
    fitted: "subfuse.training.fitted_model.FittedModel",
    cohort: Cohort,
    test_ids: Sequence[str],
    modality: str,
    generator: np.random.Generator,
) -> pd.DataFrame:
    """Returns a fitted model's predictions of test patients with one modality exchanged among those who have it.

    Covariates stay with their patient: they are not part of the measured expression.

    Args:
        fitted: The model of one fold.
        cohort: The prepared cohort.
        test_ids: The fold's test patients.
        modality: `slides` or `expression`.
        generator: Of the exchange.
    """
    patients = list(fitted.align(cohort.select(test_ids)))
    owners = [i for i, patient in enumerate(patients) if _has(patient, modality)]
    givers = generator.permutation(owners)
    changed = list(patients)
    for taker, giver in zip(owners, givers, strict=True):
        changed[taker] = _exchanged(patients[taker], patients[giver], modality)
    return fitted.predict(changed)


def exchanged_grid(
    fitted: "subfuse.training.fitted_model.FittedModel", cohort: Cohort, patient_ids: Sequence[str]
) -> Float[np.ndarray, "patient patient output"]:
    """Returns predictions from the slides of each patient (rows) with the expression of each (columns).

    Risks, or log probabilities of the classes. Covariates stay with the patient of the slides.

    Args:
        fitted: Anything with `align` and `predict`.
        cohort: The prepared cohort.
        patient_ids: Patients who have both.
    """
    patients = list(fitted.align(cohort.select(patient_ids)))
    n = len(patients)
    rows = np.arange(n)
    grid = None
    for shift in range(n):
        givers = (rows + shift) % n
        exchanged = [
            _exchanged(patient, patients[j], "expression") for patient, j in zip(patients, givers, strict=True)
        ]
        predicted = fitted.predict(exchanged)
        classes = [name for name in map(str, predicted) if name.startswith("p_")]
        values = predicted[classes or ["risk"]].to_numpy(dtype=np.float64)
        values = np.log(np.maximum(values, _TINY)) if classes else values
        grid = np.empty((n, n, values.shape[1])) if grid is None else grid
        grid[rows, givers] = values
    return np.empty((0, 0, 1)) if grid is None else grid


def interaction_finding(
    task: str, model: str, grids: Sequence[Float[np.ndarray, "patient patient output"]]
) -> tuple[Finding, pd.DataFrame]:
    """Returns how much of a model's predictions is neither modality alone, and the table of `variance_shares`."""
    table = variance_shares(grids, modalities=_EXCHANGED).assign(task=task, model=model)
    told = table.set_index("part")
    title = model_title(model)
    if told["share"].isna().any():
        found = f"{title}: cannot be told, predictions do not change with the modalities of a fold"
        return Finding("note", INTERACTION, found, _WHY_INTERACTION, task=task, model=model), table
    of_slides, of_expression, together = (
        f"{told.loc[part, 'share']:.0%} ({told.loc[part, 'lower']:.0%} to {told.loc[part, 'upper']:.0%})"
        for part in (*_EXCHANGED, INTERACTION_PART)
    )
    found = (
        f"{title}: with modalities exchanged between patients, {of_slides} of the variance of its predictions is of "
        f"slides, {of_expression} of expression and {together} of both together only "
        f"(grids of {', '.join(str(len(grid)) for grid in grids)} patients)"
    )
    return Finding("note", INTERACTION, found, _WHY_INTERACTION, task=task, model=model), table


def shuffle_finding(
    task: TaskPredictions, model: str, shuffled: pd.DataFrame, modality: str, *, n_bootstrap: int, seed: int
) -> tuple[Finding, pd.DataFrame]:
    """Returns whether a model is worse when one modality is exchanged between test patients.

    Args:
        task: Rows of all models and splits.
        model: The model.
        shuffled: Its test rows as predicted from exchanged inputs, with the columns of predictions.csv.
        modality: What was exchanged.
        n_bootstrap: Replicates of the paired bootstrap.
        seed: Of the replicates.

    Returns:
        A finding, and one row in the columns of `compare_models`.
    """
    name = f"{model}, {modality} shuffled"
    rows = pd.concat([task.of_model(model), shuffled.assign(model=name)], ignore_index=True)
    table = compare_models(rows, reference=model, n_bootstrap=n_bootstrap, seed=seed)
    row = table.iloc[0]
    if np.isnan(row["lower"]):
        found = (
            f"{model_title(model)}: shuffling {modality} cannot be judged, {row['reason'] or 'the metric is undefined'}"
        )
        return Finding("note", SHUFFLE_NULL, found, task=task.name, model=model), table
    change, interval = number(row["difference"], signed=True), signed_interval(row["lower"], row["upper"])
    evidence = f"{metric_title(task.headline)} changes by {change}, 95 % interval {interval}"
    if row["upper"] < 0:
        found = f"{model_title(model)} uses {modality}: exchanged between patients, {evidence}"
        return Finding("ok", SHUFFLE_NULL, found, task=task.name, model=model), table
    why = f"The result is hardly worse with anybody's {modality}."
    if row["lower"] < -_TELLING:
        found = f"{model_title(model)} is not shown to use {modality}: exchanged between patients, {evidence}"
        return Finding("note", SHUFFLE_NULL, found, "", "More patients would tell.", task.name, model), table
    found = f"{model_title(model)} does not visibly use {modality}: exchanged between patients, {evidence}"
    remedy = f"Compare with a model without {modality}."
    return Finding("warning", SHUFFLE_NULL, found, why, remedy, task.name, model), table


def _alike_finding(task: TaskPredictions, model: str, tested: pd.DataFrame) -> Finding | None:
    """Returns in which folds a model predicts the same of all test patients; None where it tells them apart in all."""
    columns = ["risk"] if task.classes is None else [f"p_{name}" for name in task.classes]
    folds = [fold[columns].to_numpy(dtype=np.float64) for _, fold in tested.groupby(FOLD) if len(fold) > 1]
    n_alike = sum(bool((fold == fold[0]).all()) for fold in folds)
    if not n_alike:
        return None
    what = "risk" if task.classes is None else "probabilities"
    where = "every fold" if n_alike == len(folds) else f"{n_alike} of {len(folds)} folds"
    found = f"{model_title(model)} predicts the same {what} for all patients" + f" of {where}" * (len(folds) > 1)
    why = "Predictions that do not differ order no patients."
    remedy = "Check that the right column was given and that the model was trained."
    level: Level = "warning" if n_alike == len(folds) and not is_trivial(model) else "note"
    return Finding(level, _LABEL_NULL, found, why, remedy, task.name, model)


def _label_finding(
    task: TaskPredictions, model: str, value: float, null: Float[np.ndarray, " permutation"], p_value: float
) -> Finding:
    text = (
        f"{model_title(model)}: {metric_title(task.headline)} {value:.3f}; with the outcomes of the test patients "
        f"permuted, and the models as they are, {null.mean():.3f} on average ({p_text(p_value)})"
    )
    if p_value < SIGNIFICANCE:
        return Finding("ok", _LABEL_NULL, text, task=task.name, model=model)
    is_below, is_far = bool((null > value).all()), null.mean() - value > _REVERSED_SDS * null.std()
    right_way = "A higher risk must be worse, p_<class> must be of its class, and event true where it was observed."
    if value < _REVERSED and is_below and is_far:
        what = "risk" if task.classes is None else "order of the classes"
        found = f"the {what} is reversed: {text}, every one of them higher"
        why = "The predictions order patients against their outcomes."
        return Finding("failure", _LABEL_NULL, found, why, right_way, task.name, model)
    if is_below:
        found = f"below chance: {text}, every one of them higher"
        why = "The predictions may be reversed, or of noise: where patients are few, such lie below chance too."
        level: Level = "note" if is_trivial(model) else "warning"
        return Finding(level, _LABEL_NULL, found, why, right_way, task.name, model)
    if is_trivial(model):  # that hospital, batch or covariates tell nothing speaks for the result
        return Finding("ok", _LABEL_NULL, text, task=task.name, model=model)
    why = "The predictions are not shown to be related to the outcome."
    remedy = "Do not read anything into differences between models."
    return Finding("warning", _LABEL_NULL, text, why, remedy, task.name, model)


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


def _pairs(fold: pd.DataFrame, classes: Sequence[str] | None) -> _Pairs:
    if classes is None:
        ordered = known_orders(times_days(fold), events(fold))
        return _Pairs(ordered[None].astype(np.float64), _wins(risks(fold)[:, None]))
    label, probabilities = label_indices(fold, classes), class_probabilities(fold, classes)
    is_class = label[None] == np.arange(len(classes))[:, None]  # (class, patient)
    comparable = is_class[:, :, None] & ~is_class[:, None, :]
    return _Pairs(comparable.astype(np.float64), _wins(probabilities))


def _wins(scores: Float[np.ndarray, "patient class"]) -> Float[np.ndarray, "class patient patient"]:
    return wins(scores.T[:, :, None] - scores.T[:, None, :])


def _has(patient: Patient, modality: str) -> bool:
    return bool(patient.slides) if modality == "slides" else patient.expression is not None


def _exchanged(taker: Patient, giver: Patient, modality: str) -> Patient:
    return replace(taker, slides=giver.slides) if modality == "slides" else replace(taker, expression=giver.expression)
