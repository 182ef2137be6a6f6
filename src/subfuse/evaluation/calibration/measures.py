"""How far predicted probabilities of test patients are from true, as predicted and after recalibration."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from subfuse.evaluation.calibration.stages import (
    CurvesOfFold,
    by_repeat,
    class_stages,
    common_horizon,
    curves_by_fold,
    isotonic_stage,
    survival_stages,
)
from subfuse.evaluation.censoring import HORIZON_DAYS, SurvivalCurves
from subfuse.evaluation.floors import too_few_calibrated
from subfuse.evaluation.metrics import Metric, classification_metrics, metrics_of
from subfuse.evaluation.predictions import (
    PATIENT,
    TaskPredictions,
    class_probabilities,
    events,
    label_indices,
    read_tasks,
    stacked,
    times_days,
)
from subfuse.evaluation.ranked_patients import survival_sample
from subfuse.evaluation.recalibration import (
    scaling_of,
)
from subfuse.evaluation.survival.survival_calibration import calibration_groups, d_calibration, one_calibration
from subfuse.evaluation.weighted_metrics import CALIBRATION_BINS, bins_of

CALIBRATION_COLUMNS = (
    "task", "model", "measure", "horizon_days", "before", "p_before", "after", "method", "after_isotonic",
    "n_patients", "reason", "reason_isotonic", "reason_p",
)  # fmt: skip
_RELIABILITY_COLUMNS = ("task", "model", "group", "n_patients", "predicted", "observed")
_RELIABILITY_BINS = 10
_REPLICATES = 1000
_NO_ISOTONIC_CURVES = "isotonic regression is for classes only: who is censored has no observed outcome"


def calibration_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns how well probabilities of test patients are calibrated, as predicted and after recalibration.

    Recalibration is fitted on the validation patients of the same fold, never on those it is measured on: temperature
    for three classes or more, Platt's slope and intercept for two, level and slope of the hazards for survival. For
    classes, isotonic regression beside it (`after_isotonic`) where every fold has at least 200 validation patients, of
    every class some; else it is undefined, as `reason_isotonic` says. Neither is chosen by what is measured here.
    Probabilities, unlike risks, share their scale between folds, so test patients of a repeat are pooled, since
    single folds are too small; values are means over repeats.

    - Classification: `expected_calibration_error` and `brier`. The error is never 0 in a finite cohort; `p_before`, for
      it alone, is the share of replicates with as large an error when the predicted class is right as often as the
      model says (Bröcker and Smith 2007).
    - Survival: `integrated_brier` (mean over folds), and the p-values `one_calibration_p` at `horizon_days` (1095, or
      where the shortest curve ends) and `d_calibration_p`: small ones speak against the probabilities. For
      several repeats, twice the median p-value (Meinshausen 2009).

    Of fewer than 20 test patients, or 5 of the rarest class, there is no p-value; `reason_p` says so.

    Args:
        predictions: Columns of predictions.csv, with rows of split validation for recalibration.

    Returns:
        Columns `CALIBRATION_COLUMNS`. No rows for regression, which has no probabilities.

    Raises:
        DataError: Columns, outcomes or predictions are missing.
    """
    rows: list[dict[str, Any]] = []
    for task in (task for task in read_tasks(predictions) if task.outcome.kind != "regression"):
        for model in task.models:
            of_model = task.of_model(model)
            if not (of_model["split"] == "test").any():
                continue
            tested = of_model[of_model["split"] == "test"].drop_duplicates(PATIENT)
            few = _too_few(tested, task)
            measured = (
                _class_measures(of_model, task.classes, few)
                if task.classes is not None
                else _survival_measures(of_model, few)
            )
            of = {"task": task.name, "model": model, "n_patients": len(tested), "reason_p": few}
            rows += [of | row for row in measured]
    return pd.DataFrame(rows, columns=list(CALIBRATION_COLUMNS)).astype({"n_patients": "Int64"})


def reliability_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns predicted against observed probabilities in groups of test patients, first repeat, folds pooled.

    Classification: ten bins of equal width of the highest probability, against the accuracy. Survival: the groups of
    `calibration_groups`, probability of an event by the horizon.

    Returns:
        Columns task, model, group (from low to high), n_patients, predicted, observed.

    Raises:
        DataError: Columns, outcomes or predictions are missing.
    """
    tables = [pd.DataFrame(columns=list(_RELIABILITY_COLUMNS))]
    for task in (task for task in read_tasks(predictions) if task.outcome.kind != "regression"):
        for model in task.models:
            rows = task.of_model(model)
            tested = rows[(rows["split"] == "test") & (rows["repeat"] == rows["repeat"].min())]
            if len(tested):
                table = _class_bins(tested, task.classes) if task.classes is not None else _survival_groups(tested)
                tables.append(table.assign(task=task.name, model=model))
    return stacked(tables)[list(_RELIABILITY_COLUMNS)]


def _too_few(tested: pd.DataFrame, task: TaskPredictions) -> str | None:
    """Returns why calibration is not tested on these patients; the tests of curves count their events themselves."""
    return too_few_calibrated(len(tested)) or (None if task.classes is None else task.outcome.too_few(tested))


def _class_measures(rows: pd.DataFrame, classes: Sequence[str], few: str | None) -> Iterator[dict[str, Any]]:
    before, after, reason = class_stages(rows, classes)
    isotonic, reason_isotonic = isotonic_stage(rows, classes)
    for measure in ("expected_calibration_error", "brier"):
        values = [None if part is None else _pooled_class_metric(part, measure) for part in (before, after, isotonic)]
        is_tested = measure == "expected_calibration_error" and few is None
        p_before = _calibration_p_value(before, values[0]) if is_tested else np.nan
        yield _row(measure, values, scaling_of(classes).method, reason, reason_isotonic) | {"p_before": p_before}


def _survival_measures(rows: pd.DataFrame, few: str | None) -> Iterator[dict[str, Any]]:
    before, after, reason = survival_stages(rows)
    for measure in ("integrated_brier", "one_calibration_p", "d_calibration_p"):
        if before is None:
            yield _row(measure, [np.nan, None, None], "level and slope", reason, _NO_ISOTONIC_CURVES)
            continue
        horizon = common_horizon(before)
        is_tested = measure == "integrated_brier" or few is None
        found = [
            _survival_metric(f, measure, horizon) if f is not None and is_tested else Metric(np.nan, few)
            for f in (before, after)
        ]
        values = [*(metric.value for metric in found), None]
        row = _row(measure, values, "level and slope", found[0].reason or reason, _NO_ISOTONIC_CURVES)
        yield row | {"horizon_days": horizon if measure == "one_calibration_p" else np.nan}


def _calibration_p_value(table: pd.DataFrame, error: float | None) -> float:
    """Returns how often true probabilities have a calibration error as large as this one, first repeat only.

    Args:
        table: Class probabilities, then label_index and repeat_number, as made here.
        error: The calibration error.
    """
    rows = table[table["repeat_number"] == table["repeat_number"].min()]
    confidence = rows.iloc[:, :-2].to_numpy().max(axis=1)
    right = np.random.default_rng(0).random((_REPLICATES, len(confidence))) < confidence
    gaps = (right - confidence) @ np.eye(CALIBRATION_BINS)[bins_of(confidence, CALIBRATION_BINS)]
    errors = np.abs(gaps).sum(axis=1) / len(confidence)
    as_large = errors + 1e-9 >= error  # sums of the same terms in another order are equal
    return float((1 + as_large.sum()) / (1 + _REPLICATES))


def _pooled_class_metric(table: pd.DataFrame, measure: str) -> float:
    classes = table.columns[:-2]
    repeats = [
        classification_metrics(rows["label_index"].to_numpy(), rows[classes].to_numpy())[measure].value
        for _, rows in table.groupby("repeat_number")
    ]
    return float(np.mean(repeats))


def _survival_metric(folds: dict[Any, CurvesOfFold], measure: str, horizon_days: float) -> Metric:
    if measure == "integrated_brier":
        samples = (survival_sample(tested.rows, tested.train, tested.curves) for tested in folds.values())
        metrics = [metrics_of(sample)[measure] for sample in samples]
        values = [metric.value for metric in metrics if metric.is_defined]
        return Metric(float(np.mean(values))) if values else metrics[0]
    metrics = [_pooled_test(tested, measure, horizon_days) for tested in by_repeat(folds)]
    values = [metric.value for metric in metrics if metric.is_defined]
    if not values:
        return metrics[0]
    return Metric(values[0] if len(values) == 1 else min(1.0, 2 * float(np.median(values))))


def _pooled_test(folds: Sequence[CurvesOfFold], measure: str, horizon_days: float) -> Metric:
    rows = pd.concat([tested.rows for tested in folds])
    curves = _pooled_curves([tested.curves for tested in folds])
    if measure == "one_calibration_p":
        return one_calibration(times_days(rows), events(rows), curves, horizon_days=horizon_days)
    return d_calibration(times_days(rows), events(rows), curves)


def _pooled_curves(curves: Sequence[SurvivalCurves]) -> SurvivalCurves:
    """Returns all patients' curves at the days of any fold, up to the end of the shortest curve."""
    end = min(float(fold.days[-1]) for fold in curves)
    days = np.unique(np.concatenate([fold.days for fold in curves]))
    days = days[days <= end]
    survival = [np.stack([fold.at_horizon(day) for day in days], axis=1) for fold in curves]
    return SurvivalCurves(days, np.concatenate(survival))


def _class_bins(tested: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    probabilities = class_probabilities(tested, classes)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == label_indices(tested, classes)
    table = pd.DataFrame({"predicted": confidence, "observed": right.astype(float), "n_patients": 1})
    group = bins_of(confidence, _RELIABILITY_BINS)
    binned = table.groupby(group).agg({"n_patients": "sum", "predicted": "mean", "observed": "mean"})
    return binned.assign(group=np.arange(1, len(binned) + 1))


def _survival_groups(tested: pd.DataFrame) -> pd.DataFrame:
    folds = curves_by_fold(tested)
    if not folds:
        return pd.DataFrame(columns=list(_RELIABILITY_COLUMNS))
    curves = _pooled_curves([fold.curves for fold in folds.values()])
    rows = pd.concat([fold.rows for fold in folds.values()])
    horizon = min(HORIZON_DAYS, float(curves.days[-1]))
    groups = calibration_groups(times_days(rows), events(rows), curves, horizon_days=horizon)
    return groups.assign(group=np.arange(1, len(groups) + 1))


def _row(
    measure: str, values: Sequence[float | None], method: str, reason: str | None, reason_isotonic: str | None
) -> dict[str, Any]:
    known = {"measure": measure, "method": method, "reason": reason, "reason_isotonic": reason_isotonic}
    numbers = dict(zip(("before", "after", "after_isotonic"), values, strict=True))
    unknown = dict.fromkeys(("horizon_days", "p_before"), np.nan)
    return known | unknown | {name: np.nan if value is None else value for name, value in numbers.items()}
