"""Paired comparisons of models on the patients whom both predict, from a table of predictions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.evaluation.bootstrap import (
    BootstrapWeights,
    bootstrap_p_value,
    mean_over_folds,
    percentile_interval,
    replicates_of_family,
)
from subfuse.evaluation.delong import mean_auc
from subfuse.evaluation.intervals import few_in, grouping, joined, table_of, undefined_folds
from subfuse.evaluation.predictions import FOLD, PATIENT, TaskPredictions, read_tasks, stacked
from subfuse.evaluation.ranked_patients import RankedPatients, ranked_patients

COMPARISON_COLUMNS = (
    "task", "metric", "model", "reference", "difference", "lower", "upper",
    "p_value", "p_adjusted", "p_value_t", "p_adjusted_t", "p_value_delong", "p_adjusted_delong",
    "n_patients", "reason",
)  # fmt: skip
_TESTS = {"p_value": "p_adjusted", "p_value_t": "p_adjusted_t", "p_value_delong": "p_adjusted_delong"}
_UNDEFINED = dict.fromkeys(("difference", "lower", "upper", *_TESTS), np.nan)


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
        Columns `COMPARISON_COLUMNS`; `n_patients` are predicted by both. No rows for a task with one model.

    Raises:
        DataError: Columns, outcomes or predictions are missing.
    """
    tables = [table_of([], COMPARISON_COLUMNS)]
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
    return table_of(rows, COMPARISON_COLUMNS)


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
        return ranked_patients(pd.concat(parts, ignore_index=True), self.task.outcome, by=self.by)

    def _test_rows(self, model: str) -> pd.DataFrame:
        if model not in self._tested:
            self._tested[model] = self.task.tested_by(model).set_index([*FOLD, *PATIENT], drop=False).sort_index()
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
    pairs = zip(groups, reference_groups, strict=True)
    defined = [a for a, b in pairs if a.metrics[task.headline].is_defined and b.metrics[task.headline].is_defined]
    few = few_in(patients.set_index(PATIENT), task.outcome, task.headline, defined or groups)
    if few is not None:
        unknown = dict.fromkeys(("lower", "upper", *_TESTS), np.nan)
        difference |= unknown | {"reason": joined(difference["reason"], f"no interval and no p-value: {few}")}
    if both.note is not None:
        difference["p_value_t"] = np.nan  # pooled: there are no folds to test over
    reason = joined(both.note, left_out, difference.pop("reason"))
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
    reason = undefined_folds(undefined)
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
        "reason": joined(reason, interval_note),
    }


def _delong_p_value(pairs: Sequence[tuple[RankedPatients, RankedPatients]]) -> float:
    differences = [a.delong.minus(b.delong) for a, b in pairs if a.delong is not None and b.delong is not None]
    return mean_auc(differences).p_value if differences else np.nan
