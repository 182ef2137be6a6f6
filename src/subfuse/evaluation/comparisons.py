"""Metrics with their uncertainty, and paired comparisons of models, from a table of predictions.

Patients are the unit. Models of different folds put their risks on different scales, so patients are ranked only
within a fold, and a metric is the mean over folds; it is resampled over patients within folds.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.errors import preview
from subfuse.evaluation.bootstrap import (
    BootstrapWeights,
    bootstrap_p_value,
    mean_over_folds,
    percentile_interval,
    replicates_of_family,
)
from subfuse.evaluation.delong import mean_auc
from subfuse.evaluation.floors import too_few
from subfuse.evaluation.metrics import Metric
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    RankedPatients,
    TaskPredictions,
    events,
    label_indices,
    ranked_patients,
    read_tasks,
    stacked,
)
from subfuse.evaluation.weighted_metrics import HORIZON_DAYS, horizon_metric

METRIC_COLUMNS = (
    "task", "model", "metric", "value", "sd", "lower", "upper", "lower_delong", "upper_delong", "truncation_days",
    "n_patients", "n_events", "reason",
)  # fmt: skip
COMPARISON_COLUMNS = (
    "task", "metric", "model", "reference", "difference", "lower", "upper",
    "p_value", "p_adjusted", "p_value_t", "p_adjusted_t", "p_value_delong", "p_adjusted_delong",
    "n_patients", "reason",
)  # fmt: skip
_TESTS = {"p_value": "p_adjusted", "p_value_t": "p_adjusted_t", "p_value_delong": "p_adjusted_delong"}
_UNDEFINED = dict.fromkeys(("difference", "lower", "upper", *_TESTS), np.nan)
_TRUNCATED = ("uno_c_index", "integrated_brier")  # and the AUC at a horizon
_INFLATED = ("expected_calibration_error",)
_OF_PROBABILITIES = ("brier", "expected_calibration_error")  # folds are pooled


def evaluate_predictions(
    predictions: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, ordinal: Collection[str] = ()
) -> pd.DataFrame:
    """Returns every metric of every model and task on its test patients, with standard deviation and 95 % interval.

    - `value`: mean over folds (and repeats) of the fold's metric; folds where it is undefined are left out and
      counted in `reason`. C-indices are therefore never computed over patients of different fold models. The errors of
      probabilities, `brier` and `expected_calibration_error`, are those of the pooled folds of a repeat, as in
      `calibration_table`: a fold has too few patients for the bins.
    - `sd`: standard deviation over folds, or over repeats where folds are pooled; NaN for fewer than two.
    - `lower`, `upper`: 2.5 and 97.5 % quantiles of the value over bootstrap replicates, which draw patients with
      replacement within folds. Models are not retrained: the interval is about patients, not about training.
      Resampled folds that are undefined are left out, and mentioned in `reason` from 5 % on; without a defined value
      in half of the replicates, there is no interval, nor with too few test patients (`too_few`).
      Drawing patients repeatedly inflates the calibration error, an
      absolute value of noisy gaps: its interval is moved down by the replicates' mean excess over `value`.
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
        Columns task, model, metric, value, sd, lower, upper, lower_delong, upper_delong, truncation_days, n_patients
        (tested), n_events (missing for classification), reason (missing where there is nothing to say).

    Raises:
        DataError: Columns, outcomes or predictions are missing.
    """
    rows: list[dict[str, Any]] = []
    for task in read_tasks(predictions):
        bootstrap = BootstrapWeights.draw(task.tested, n_bootstrap, np.random.default_rng(seed))
        by, note = grouping(task)
        for model in task.models:
            known = {"task": task.name, "model": model, **_patient_counts(task, model)}
            tested = task.tested[task.tested["model"] == model].drop_duplicates(PATIENT)
            few = too_few(tested, task.classes)
            groups = ranked_patients(task.of_model(model), task.classes, by=by)
            measured = [group.weighted(bootstrap.of(group)) for group in groups]
            summaries = [s for s in _summaries(groups, measured, note, few) if s["metric"] not in _OF_PROBABILITIES]
            if task.classes is not None:
                pooled = ranked_patients(task.of_model(model), task.classes, by=["repeat"])
                errors = [g.weighted_errors(bootstrap.of(g)) for g in pooled if g.weighted_errors is not None]
                summaries += _summaries(pooled, errors, None, few)
            rows += [{**known, **s} for s in summaries if s["metric"] != "quadratic_kappa" or task.name in ordinal]
    return _table(rows, METRIC_COLUMNS)


def compare_models(
    predictions: pd.DataFrame, *, reference: str = "subspace", n_bootstrap: int = 1000, seed: int = 0
) -> pd.DataFrame:
    r"""Returns, per task, how every other model's headline metric differs from the reference model's.

    The headline is the C-index for survival and the AUC for classification, averaged over folds (or pooled) as in
    `evaluate_predictions`, on the patients whom both models predict in the same fold.

    - `difference`: the model's metric minus the reference's; negative means that the reference is better.
    - `lower`, `upper`: 95 % percentile interval of the paired bootstrap: both models are evaluated on the same draws.
    - `p_value`: two-sided, from that bootstrap: twice the smaller share of replicates on either side of zero, each
      counted with one added.
    - `p_value_t`: corrected resampled t-test (Nadeau and Bengio 2003) over the J folds of all repeats (Bouckaert and
      Frank 2004): with their differences d, :math:`t = \bar d / \sqrt{(1/J + n_{test}/n_{train})\, s_d^2}` with J - 1
      degrees of freedom. It includes the variation from training, which the bootstrap does not. NaN without rows of
      training patients.
    - `p_value_delong`: DeLong's test of two AUCs on the same patients, for two classes; a patient who is tested in
      several repeats counts once.
    - `p_adjusted`, `p_adjusted_t`, `p_adjusted_delong`: adjusted over the models of the task (Holm 1979).

    Args:
        predictions: Columns of predictions.csv.
        reference: Model to compare with. A task that lacks it has undefined rows that say so.
        n_bootstrap: Replicates for up to five pairs, one or more; see `replicates_of_family`.
        seed: Of the replicates.

    Returns:
        Columns task, metric, model, reference, difference, lower, upper, p_value, p_adjusted, p_value_t, p_adjusted_t,
        p_value_delong, p_adjusted_delong, n_patients (predicted by both), reason. No rows for a task with one model.

    Raises:
        DataError: Columns, outcomes or predictions are missing.
    """
    tables = [_table([], COMPARISON_COLUMNS)]
    for task in read_tasks(predictions):
        pairs = [(model, reference) for model in task.models if model != reference]
        tables.append(compare_pairs(task, pairs, n_bootstrap=n_bootstrap, seed=seed))
    return stacked(tables)


def compare_pairs(
    task: TaskPredictions, pairs: Sequence[tuple[str, str]], *, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Returns the rows of `compare_models` for pairs of a model and its reference, p-values adjusted over all of them.

    Args:
        task: Rows of all models.
        pairs: Each once.
        n_bootstrap: Replicates for up to five pairs, one or more; see `replicates_of_family`.
        seed: Of the replicates.
    """
    n_replicates = replicates_of_family(len(pairs), n_bootstrap)
    bootstrap = BootstrapWeights.draw(task.tested, n_replicates, np.random.default_rng(seed))
    both = _InCommon(task)
    rows = [_comparison(both, model, reference, bootstrap) for model, reference in pairs]
    for test, column in _TESTS.items():
        adjusted = holm_adjusted(np.array([row[test] for row in rows], dtype=np.float64))
        rows = [{**row, column: p_value} for row, p_value in zip(rows, adjusted, strict=True)]
    return _table(rows, COMPARISON_COLUMNS)


def holm_adjusted(p_values: Float[np.ndarray, " test"]) -> Float[np.ndarray, " test"]:
    """Returns p-values adjusted for the number of tests (Holm 1979); undefined ones stay NaN and do not count.

    Example:
        >>> holm_adjusted(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values)[: np.count_nonzero(~np.isnan(p_values))]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted


def resampled_t_test(difference: Float[np.ndarray, " fold"], test_to_train: float) -> float:
    """Returns the two-sided p-value of the corrected resampled t-test (Nadeau and Bengio 2003).

    NaN for fewer than two folds, for equal differences, and where the ratio is unknown (NaN).

    Args:
        difference: Of the metric, per fold.
        test_to_train: Test patients divided by training patients; corrects for training sets that overlap.
    """
    from scipy.stats import t  # slow to import

    if len(difference) < 2 or np.isnan(test_to_train) or np.ptp(difference) == 0:
        return np.nan
    variance = (1 / len(difference) + test_to_train) * difference.var(ddof=1)
    return float(2 * t.sf(abs(difference.mean()) / np.sqrt(variance), df=len(difference) - 1))


def grouping(task: TaskPredictions) -> tuple[list[str], str | None]:
    """Returns by which columns patients are ranked together, and the note where folds are pooled.

    Depends on labels only, so that every model of a task is evaluated in the same way.
    """
    if task.classes is None:
        return FOLD, None
    folds = [set(label_indices(fold, task.classes).tolist()) for _, fold in task.tested.groupby(FOLD)]
    n_incomplete = sum(len(present) < len(task.classes) for present in folds)
    if n_incomplete * 2 <= len(folds) or len(folds) == 1:  # one fold, or another cohort: nothing is pooled
        return FOLD, None
    return ["repeat"], f"folds pooled: {n_incomplete} of {len(folds)} lack patients of a class"


def _patient_counts(task: TaskPredictions, model: str) -> dict[str, Any]:
    tested = task.tested[task.tested["model"] == model].drop_duplicates(PATIENT)
    return {"n_patients": len(tested), "n_events": int(events(tested).sum()) if task.classes is None else pd.NA}


def _summaries(
    groups: Sequence[RankedPatients],
    resampled: Sequence[Mapping[str, np.ndarray]],
    note: str | None,
    few: str | None,
) -> Iterator[dict[str, Any]]:
    """Yields one row per metric of the replicates; none for a model without test patients, no interval for too few."""
    for metric in resampled[0] if resampled else ():
        values = np.array([group.metrics[metric].value for group in groups])
        defined = np.flatnonzero(~np.isnan(values)).tolist()
        replicates = [resampled[index][metric] for index in defined]
        value = float(values[defined].mean()) if len(defined) else np.nan
        lower, upper, interval_note = percentile_interval(replicates, centre=value if metric in _INFLATED else None)
        if few is not None:
            lower, upper, interval_note = np.nan, np.nan, f"no interval: {few}"
        yield {
            "metric": metric,
            "value": value,
            "sd": values[defined].std(ddof=1) if len(defined) > 1 else np.nan,
            "lower": lower,
            "upper": upper,
            **(_delong_interval(groups) if metric == "auc" and few is None else {}),
            "truncation_days": _truncation(groups, metric),
            "reason": _joined(note, _undefined_folds([group.metrics[metric] for group in groups]), interval_note),
        }


def _delong_interval(groups: Sequence[RankedPatients]) -> dict[str, float]:
    """Returns DeLong's interval of the mean AUC over those folds that have one."""
    aucs = [group.delong for group in groups if group.delong is not None]
    lower, upper = np.clip(mean_auc(aucs).interval, 0.0, 1.0) if aucs else (np.nan, np.nan)
    return {"lower_delong": float(lower), "upper_delong": float(upper)}


def _truncation(groups: Sequence[RankedPatients], metric: str) -> float:
    if metric not in _TRUNCATED and metric != horizon_metric(HORIZON_DAYS):
        return np.nan
    return float(np.min([group.truncation_days for group in groups]))


def _undefined_folds(metrics: Sequence[Metric]) -> str | None:
    """Returns why a metric is undefined, and in how many folds; each reason with its own number where they differ."""
    reasons = [metric.reason for metric in metrics if metric.reason is not None]
    if not reasons or len(metrics) == 1:
        return "".join(reasons) or None
    counts = Counter(cause for reason in reasons for cause in reason.split("; "))
    causes = [cause if n == len(reasons) else f"{cause} (in {n})" for cause, n in counts.items()]
    return f"undefined in {len(reasons)} of {len(metrics)} folds: {preview(causes)}"


class _InCommon:
    """The patients whom two models of a task predict in the same folds; what several pairs share is ranked once."""

    def __init__(self, task: TaskPredictions) -> None:
        self.task = task
        self.by, self.note = grouping(task)
        self._tested: dict[str, pd.DataFrame] = {}
        self._ranked: dict[str, list[RankedPatients]] = {}  # with all their patients

    def of(self, model: str, reference: str) -> tuple[pd.DataFrame, int]:
        """Returns the first model's test rows of patients whom both predict, and how many patients are left out."""
        tested = [self._test_rows(name) for name in (model, reference)]
        kept = tested[0].loc[tested[0].index.intersection(tested[1].index)]
        everybody = tested[0].index.union(tested[1].index).droplevel(FOLD)
        return kept, everybody.nunique() - kept.index.droplevel(FOLD).nunique()

    def ranked(self, model: str, common: pd.Index) -> list[RankedPatients]:
        """Returns a model's groups of those patients, each in the order of the index."""
        if len(common) < len(self._test_rows(model)):
            return self._rank(model, common)
        if model not in self._ranked:
            self._ranked[model] = self._rank(model, common)
        return self._ranked[model]

    def _rank(self, model: str, common: pd.Index) -> list[RankedPatients]:
        rows = self.task.of_model(model)
        parts = [self._test_rows(model).loc[common], rows[rows["split"] == "train"]]
        return ranked_patients(pd.concat(parts, ignore_index=True), self.task.classes, by=self.by)

    def _test_rows(self, model: str) -> pd.DataFrame:
        if model not in self._tested:
            rows = self.task.of_model(model)
            key = [*FOLD, *PATIENT]
            self._tested[model] = rows[rows["split"] == "test"].set_index(key, drop=False).sort_index()
        return self._tested[model]


def _comparison(both: _InCommon, model: str, reference: str, bootstrap: BootstrapWeights) -> dict[str, Any]:
    """Returns the row of one model against the reference, without the adjusted p-value."""
    task = both.task
    known = {"task": task.name, "metric": task.headline, "model": model, "reference": reference}
    common, n_left_out = both.of(model, reference)
    if common.empty:
        found = "no patient is predicted by both models in the same fold"
        return {**known, **_UNDEFINED, "n_patients": 0, "reason": found}
    groups, reference_groups = (both.ranked(name, common.index) for name in (model, reference))
    left_out = f"patients left out, as only one of the models predicts them: {n_left_out}" if n_left_out else None
    difference = _difference(groups, reference_groups, task.headline, bootstrap)
    patients = common.reset_index(drop=True).drop_duplicates(PATIENT)
    few = too_few(patients, task.classes)
    if few is not None:
        unknown = dict.fromkeys(("lower", "upper", *_TESTS), np.nan)
        difference |= unknown | {"reason": _joined(difference["reason"], f"no interval and no p-value: {few}")}
    if both.note is not None:
        difference["p_value_t"] = np.nan  # pooled: there are no folds to test over
    reason = _joined(both.note, left_out, difference.pop("reason"))
    return {**known, **difference, "n_patients": len(patients), "reason": reason}


def _difference(
    groups: Sequence[RankedPatients],
    reference_groups: Sequence[RankedPatients],
    metric: str,
    bootstrap: BootstrapWeights,
) -> dict[str, Any]:
    pairs = list(zip(groups, reference_groups, strict=True))
    both = [(a, b) for a, b in pairs if a.metrics[metric].is_defined and b.metrics[metric].is_defined]
    undefined = [b.metrics[metric] if a.metrics[metric].is_defined else a.metrics[metric] for a, b in pairs]
    reason = _undefined_folds(undefined)
    if not both:
        return {**_UNDEFINED, "reason": reason}
    difference = np.array([a.metrics[metric].value - b.metrics[metric].value for a, b in both])
    drawn = [(a, b, bootstrap.of(a)) for a, b in both]
    replicates = [a.weighted_headline(weights) - b.weighted_headline(weights) for a, b, weights in drawn]
    lower, upper, interval_note = percentile_interval(replicates)
    test_to_train = np.mean([len(b.patients) / b.n_train if b.n_train else np.nan for _, b in both])
    return {
        "difference": difference.mean(),
        "lower": lower,
        "upper": upper,
        "p_value": np.nan if np.isnan(lower) else bootstrap_p_value(mean_over_folds(replicates)[0]),
        "p_value_t": resampled_t_test(difference, float(test_to_train)),
        "p_value_delong": _delong_p_value(both),
        "reason": _joined(reason, interval_note),
    }


def _delong_p_value(pairs: Sequence[tuple[RankedPatients, RankedPatients]]) -> float:
    differences = [a.delong.minus(b.delong) for a, b in pairs if a.delong is not None and b.delong is not None]
    return mean_auc(differences).p_value if differences else np.nan


def _joined(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


def _table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(columns))
    counts = [column for column in ("n_patients", "n_events") if column in table]
    return table.astype(dict.fromkeys(counts, "Int64"))
