"""Metrics with their uncertainty, from a table of predictions.

Patients are the unit. Models of different folds put their risks on different scales, so patients are ranked only
within a fold, and a metric is the mean over folds; it is resampled over patients within folds.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from subfuse.errors import preview
from subfuse.evaluation.bootstrap import BootstrapWeights, percentile_interval
from subfuse.evaluation.censoring import HORIZON_DAYS
from subfuse.evaluation.delong import mean_auc
from subfuse.evaluation.floors import too_few_at
from subfuse.evaluation.metrics import Metric
from subfuse.evaluation.predictions import FOLD, PATIENT, Outcome, TaskPredictions, read_tasks
from subfuse.evaluation.ranked_patients import RankedPatients, ranked_patients
from subfuse.evaluation.weighted_metrics import horizon_metric

METRIC_COLUMNS = (
    "task", "model", "metric", "value", "sd", "lower", "upper", "lower_delong", "upper_delong", "truncation_days",
    "n_patients", "n_events", "reason",
)  # fmt: skip
_TRUNCATED = ("uno_c_index", "integrated_brier")  # and the AUC at a horizon
_INFLATED = ("expected_calibration_error",)
POOLED = ("brier", "expected_calibration_error", "r2", "mae")  # over folds: of what is predicted, not of its order


def evaluate_predictions(
    predictions: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, ordinal: Collection[str] = ()
) -> pd.DataFrame:
    """Returns every metric of every model and task on its test patients, with standard deviation and 95 % interval.

    - `value`: mean over folds (and repeats) of the fold's metric; folds where it is undefined are left out and
      counted in `reason`. C-indices are therefore never computed over patients of different fold models. The errors of
      probabilities, `brier` and `expected_calibration_error`, are those of the pooled folds of a repeat, as in
      `calibration_table`: a fold has too few patients for the bins. So are those of numbers, `r2` and `mae`: of a few
      patients with like values, R² may be anything.
    - `sd`: standard deviation over folds, or over repeats where folds are pooled; NaN for fewer than two.
    - `lower`, `upper`: 2.5 and 97.5 % quantiles of the value over bootstrap replicates, which draw patients with
      replacement within folds. Models are not retrained: the interval is about patients, not about training.
      Resampled folds that are undefined are left out, and mentioned in `reason` from 5 % on; without a defined value
      in half of the replicates, there is no interval, nor with too few test patients in the folds where the metric is
      defined (`too_few`; of the AUC at a horizon, `too_few_at`), nor where all replicates are equal, as of a perfect
      order: an interval without width would say that it is known for sure. Drawing patients repeatedly inflates the
      calibration error, an absolute value of noisy gaps: its interval is moved down by the replicates' mean excess over
      `value`.
    - `lower_delong`, `upper_delong`: DeLong's 95 % interval of the AUC of two classes (see `delong`).
    - `truncation_days`: up to when the censoring-weighted survival metrics look, the earliest of the folds' truncation
      times (see `metrics.truncation_time`).

    In a small cohort folds may lack a class. Where this is so in more than half of a classification task's folds,
    all its metrics are computed over the pooled folds of a repeat instead, as `reason` then says: probabilities,
    unlike risks, share their scale between folds. The censoring-weighted survival metrics need the rows of training
    patients (split `train`) of the same model, repeat and fold.

    Args:
        predictions: Columns of predictions.csv.
        n_bootstrap: Replicates, one or more.
        seed: Of the replicates; each task starts anew, so tasks do not influence each other.
        ordinal: Tasks whose classes are declared to be ordered, as the `p_<class>` columns are; only these have a
            `quadratic_kappa`, which means nothing otherwise.

    Returns:
        Columns `METRIC_COLUMNS`; `n_events` is missing but for survival, `reason` where there is nothing to say.

    Raises:
        DataError: Columns, outcomes or predictions are missing.
    """
    rows: list[dict[str, Any]] = []
    for task in read_tasks(predictions):
        bootstrap = BootstrapWeights.draw(task.tested, n_bootstrap, np.random.default_rng(seed))
        by, note = grouping(task)
        for model in task.models:
            tested = task.tested_by(model).drop_duplicates(PATIENT)
            known = {"task": task.name, "model": model, **task.outcome.counts(tested)}
            few = partial(few_in, tested.set_index(PATIENT), task.outcome)
            groups = ranked_patients(task.of_model(model), task.outcome, by=by)
            measured = [group.weighted(bootstrap.of(group)) for group in groups]
            summaries = [s for s in _summaries(groups, measured, note, few) if s["metric"] not in POOLED]
            scaled_by = task.outcome.scaled_by
            pooled = groups if by == scaled_by else ranked_patients(task.of_model(model), task.outcome, by=scaled_by)
            errors = [g.weighted_errors(bootstrap.of(g)) for g in pooled if g.weighted_errors is not None]
            summaries += _summaries(pooled, errors, None, few)
            rows += [{**known, **s} for s in summaries if s["metric"] != "quadratic_kappa" or task.name in ordinal]
    return table_of(rows, METRIC_COLUMNS)


def headline_interval(task: TaskPredictions, model: str, *, n_bootstrap: int, seed: int) -> tuple[float, float]:
    """Returns the interval that `evaluate_predictions` gives a model's headline metric; NaN where it gives none.

    Args:
        task: Rows of all models of the task, which are resampled together.
        model: One of them.
        n_bootstrap: Replicates, one or more.
        seed: Of the replicates.
    """
    bootstrap = BootstrapWeights.draw(task.tested, n_bootstrap, np.random.default_rng(seed))
    by, note = grouping(task)
    groups = ranked_patients(task.of_model(model), task.outcome, by=by)
    measured = [{task.headline: group.weighted_headline(bootstrap.of(group))} for group in groups]
    tested = task.tested_by(model).drop_duplicates(PATIENT).set_index(PATIENT)
    (summary,) = _summaries(groups, measured, note, partial(few_in, tested, task.outcome))
    return summary["lower"], summary["upper"]


def grouping(task: TaskPredictions) -> tuple[list[str], str | None]:
    """Returns by which columns patients are ranked together, and the note where folds are pooled.

    Depends on labels only, so that every model of a task is evaluated in the same way.
    """
    is_complete = [task.outcome.is_complete(fold) for _, fold in task.tested.groupby(FOLD)]
    n_incomplete, n_folds = is_complete.count(False), len(is_complete)
    if n_incomplete * 2 <= n_folds or n_folds == 1:  # one fold, or another cohort: nothing is pooled
        return FOLD, None
    return task.outcome.scaled_by, f"folds pooled: {n_incomplete} of {n_folds} lack patients of a class"


def undefined_folds(metrics: Sequence[Metric]) -> str | None:
    """Returns why a metric is undefined, and in how many folds; each reason with its own number where they differ."""
    reasons = [metric.reason for metric in metrics if metric.reason is not None]
    if not reasons or len(metrics) == 1:
        return "".join(reasons) or None
    counts = Counter(cause for reason in reasons for cause in reason.split("; "))
    causes = [cause if n == len(reasons) else f"{cause} (in {n})" for cause, n in counts.items()]
    return f"undefined in {len(reasons)} of {len(metrics)} folds: {preview(causes)}"


def joined(*notes: str | None) -> str | None:
    """Returns notes as one reason; None without any."""
    return "; ".join(note for note in notes if note) or None


def table_of(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Returns rows as a table of these columns, with counts as whole numbers that may be missing."""
    table = pd.DataFrame(rows, columns=list(columns))
    counts = [column for column in ("n_patients", "n_events") if column in table]
    return table.astype(dict.fromkeys(counts, "Int64"))


def _summaries(
    groups: Sequence[RankedPatients],
    resampled: Sequence[Mapping[str, np.ndarray]],
    note: str | None,
    few: Callable[[str, Sequence[RankedPatients]], str | None],
) -> Iterator[dict[str, Any]]:
    """Yields one row per metric of the replicates; none for a model without test patients, no interval for too few."""
    for metric in resampled[0] if resampled else ():
        values = np.array([group.metrics[metric].value for group in groups])
        defined = np.flatnonzero(~np.isnan(values)).tolist()
        replicates = [resampled[index][metric] for index in defined]
        value = float(values[defined].mean()) if len(defined) else np.nan
        lower, upper, interval_note = percentile_interval(replicates, centre=value if metric in _INFLATED else None)
        lacking = few(metric, [groups[index] for index in defined] or groups)
        if lacking is None and lower == upper:  # as of a perfect order
            lacking = "every resample has the same value"
        if lacking is not None:
            lower, upper, interval_note = np.nan, np.nan, f"no interval: {lacking}"
        yield {
            "metric": metric,
            "value": value,
            "sd": values[defined].std(ddof=1) if len(defined) > 1 else np.nan,
            "lower": lower,
            "upper": upper,
            **(_delong_interval(groups) if metric == "auc" and lacking is None else {}),
            "truncation_days": _truncation(groups, metric),
            "reason": joined(note, undefined_folds([group.metrics[metric] for group in groups]), interval_note),
        }


def few_in(tested: pd.DataFrame, outcome: Outcome, metric: str, groups: Sequence[RankedPatients]) -> str | None:
    """Returns why patients of a task, or of some groups, are too few for an interval; None where they suffice.

    Args:
        tested: Test patients of the task by `PATIENT`, each once.
        outcome: Of the task.
        metric: Its name.
        groups: Where the metric is defined.
    """
    few = outcome.too_few(tested)
    rows = tested[tested.index.isin(set().union(*(group.patients for group in groups)))]
    if metric == horizon_metric(HORIZON_DAYS):
        return few or too_few_at(HORIZON_DAYS, rows)
    return few or outcome.too_few(rows)


def _delong_interval(groups: Sequence[RankedPatients]) -> dict[str, float]:
    """Returns DeLong's interval of the mean AUC over those folds that have one."""
    aucs = [group.delong for group in groups if group.delong is not None]
    lower, upper = np.clip(mean_auc(aucs).interval, 0.0, 1.0) if aucs else (np.nan, np.nan)
    return {"lower_delong": float(lower), "upper_delong": float(upper)}


def _truncation(groups: Sequence[RankedPatients], metric: str) -> float:
    if metric not in _TRUNCATED and metric != horizon_metric(HORIZON_DAYS):
        return np.nan
    return float(np.min([group.truncation_days for group in groups]))
