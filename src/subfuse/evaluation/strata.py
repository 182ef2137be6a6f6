"""Within strata: what a metric is among patients who are alike in a column, and which pairs make up a C-index."""

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.evaluation.bootstrap import BootstrapWeights, mean_over_folds, percentile_interval
from subfuse.evaluation.comparisons import holm_adjusted
from subfuse.evaluation.floors import LEAST_COMPARED
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
from subfuse.evaluation.regression.columns import observed_values, predicted_values
from subfuse.evaluation.weighted_metrics import weighted_auc, weighted_c_index, weighted_order, wins

_STRATUM_COLUMNS = (
    "task", "model", "column", "stratum", "metric", "value", "lower", "upper", "n_patients", "n_events", "n_pairs",
    "p_heterogeneity", "p_adjusted", "reason",
)  # fmt: skip
_PAIR_COLUMNS = ("task", "model", "column", "stratum", "other", "share", "c_index", "contribution", "n_pairs")
_UNKNOWN = "unknown"


def stratified_metrics(
    task: TaskPredictions, models: Sequence[str], columns: pd.DataFrame, *, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Returns the headline metric of models within every stratum of every column, with a test of heterogeneity.

    - `value`: for survival, the C-index from pairs within stratum and fold, as a mean over folds; for classes, the AUC
      over the classes that the stratum has, their probabilities divided by their sum, folds of a repeat pooled; for
      numbers, the concordance, folds of a repeat pooled.
    - `lower`, `upper`: as in `evaluate_predictions`; none with too few patients (`too_few`) where it is defined.
    - `p_heterogeneity`: of Cochran's Q between the strata of a column that have an interval and `LEAST_COMPARED` events
      (classes: patients of the rarest), with bootstrap variances (Cochran 1954); the same for all of these, and missing
      for others. `p_adjusted`: over the columns of a model (Holm 1979).

    Args:
        task: Rows of all models and splits.
        models: Those to measure.
        columns: Text columns by cohort and patient_id; missing where unknown, a stratum of its own.
        n_bootstrap: Replicates of the bootstrap.
        seed: Of the replicates.

    Returns:
        Columns `_STRATUM_COLUMNS`. A stratum without an event, or with one class, is undefined, with its reason.
    """
    bootstrap = BootstrapWeights.draw(task.tested, n_bootstrap, np.random.default_rng(seed))
    rows: list[dict[str, Any]] = []
    for model in models:
        tested = task.tested_by(model)
        tables = [_of_column(task, tested, columns, str(column), bootstrap) for column in columns]
        found = [[row["p_heterogeneity"] for row in table if np.isfinite(row["p_heterogeneity"])] for table in tables]
        adjusted = holm_adjusted(np.array([p_values[0] if p_values else np.nan for p_values in found]))
        rows += [
            {
                "task": task.name,
                "model": model,
                "metric": task.headline,
                **row,
                "p_adjusted": p_value if np.isfinite(row["p_heterogeneity"]) else np.nan,
            }
            for table, p_value in zip(tables, adjusted, strict=True)
            for row in table
        ]
    return pd.DataFrame(rows, columns=list(_STRATUM_COLUMNS))


def pair_decomposition(task: TaskPredictions, models: Sequence[str], columns: pd.DataFrame) -> pd.DataFrame:
    """Returns of which kinds of pairs a C-index is made: within each stratum, and between each two.

    `share` is that of the comparable pairs, `contribution` the share times the kind's own `c_index`: the mean of both
    over folds. Over all kinds of a column the shares add up to one and the contributions to the C-index, exactly.

    Args:
        task: Rows of all models and splits; of survival or regression.
        models: Those to measure.
        columns: As for `stratified_metrics`.

    Returns:
        Columns `_PAIR_COLUMNS`; `other` is the stratum itself for pairs within. No rows for a task of classes.
    """
    rows: list[dict[str, Any]] = []
    for model in models if task.outcome.kind != "classes" else ():
        tested = task.tested_by(model)
        for column in columns:
            strata = _strata(tested, columns[column])
            kinds = list(combinations_with_replacement(sorted(set(strata)), 2))
            folds = [_pairs_of_fold(task, fold, strata[fold.index], kinds) for _, fold in tested.groupby(FOLD)]
            parts = [counts for counts in folds if counts[:, 0].sum() > 0]
            if not parts:
                continue
            shares, contributions = (
                np.mean([counts[:, place] / counts[:, 0].sum() for counts in parts], axis=0) for place in (0, 1)
            )
            n_pairs = np.sum([counts[:, 0] for counts in parts], axis=0)
            rows += [
                {
                    "task": task.name, "model": model, "column": column, "stratum": first, "other": second,
                    "share": share, "c_index": part / share, "contribution": part, "n_pairs": int(n),
                }
                for (first, second), share, part, n in zip(kinds, shares, contributions, n_pairs, strict=True)
                if n
            ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(_PAIR_COLUMNS))


def _of_column(
    task: TaskPredictions, tested: pd.DataFrame, columns: pd.DataFrame, column: str, bootstrap: BootstrapWeights
) -> list[dict[str, Any]]:
    """Returns one row per stratum, largest first."""
    strata = _strata(tested, columns[column])
    rows, spread = [], {}
    for stratum in strata.value_counts().index:
        of_stratum = tested[strata == stratum]
        row, replicates = _within(task, of_stratum, bootstrap)
        rows.append({"column": column, "stratum": stratum, **row})
        few = task.outcome.too_few(of_stratum.drop_duplicates(PATIENT), LEAST_COMPARED)
        if np.isfinite(row["lower"]) and few is None:
            least = _least_variance(row["value"], row["n_patients"])
            spread[stratum] = row["value"], max(least, float(np.nanvar(replicates, ddof=1)))
    p_value = heterogeneity_p_value(list(spread.values()))
    return [{**row, "p_heterogeneity": p_value if row["stratum"] in spread else np.nan} for row in rows]


def _least_variance(value: float, n_patients: int) -> float:
    """Returns the variance of a share of as many patients, one right and one wrong added.

    Near 1 the replicates of few patients hardly vary, and any other subgroup would seem to differ.
    """
    share = (value * n_patients + 1) / (n_patients + 2)
    return share * (1 - share) / n_patients


def heterogeneity_p_value(values: Sequence[tuple[float, float]]) -> float:
    """Returns the p-value of Cochran's Q over values with their variances; NaN with fewer than two or no variance.

    Example:
        >>> round(heterogeneity_p_value([(0.6, 0.001), (0.8, 0.001)]), 4)
        0.0
        >>> heterogeneity_p_value([(0.6, 0.001), (0.6, 0.002)])
        1.0
    """
    known = [(value, variance) for value, variance in values if variance > 0]
    if len(known) < 2:
        return np.nan
    from scipy.stats import chi2  # slow to import

    value, weight = np.array([v for v, _ in known]), 1 / np.array([s for _, s in known])
    deviation = value - np.average(value, weights=weight)
    return float(chi2.sf((weight * deviation**2).sum(), df=len(known) - 1))


def _within(
    task: TaskPredictions, rows: pd.DataFrame, bootstrap: BootstrapWeights
) -> tuple[dict[str, Any], Float[np.ndarray, " replicate"]]:
    """Returns the metric of one stratum with its interval, and its replicates."""
    patients = rows.drop_duplicates(PATIENT)
    n_pairs: Any = pd.NA
    if task.classes is None:
        groups_of = [group for _, group in rows.groupby(task.outcome.scaled_by)]
        measured = [_in_order(task, group, bootstrap) for group in groups_of]
        n_pairs = sum(int(task.outcome.comparable(group).sum()) for group in groups_of)
        undefined = f"no comparable pair within a fold, or all have the same {task.outcome.words['predicted']}"
        if "event" in rows and not rows["event"].any():
            undefined = "nobody had an event"
    else:
        measured = list(_class_repeats(rows, task.classes, bootstrap))
        undefined = "all patients are of one class"
    defined = [(value, replicates) for value, replicates in measured if np.isfinite(value)]
    found: dict[str, Any] = {
        "value": float(np.mean([value for value, _ in defined])) if defined else np.nan,
        "lower": np.nan,
        "upper": np.nan,
        **task.outcome.counts(patients),
        "n_pairs": n_pairs,
        "reason": None,
    }
    nothing = np.full(len(bootstrap.weights), np.nan)
    if not defined:
        return found | {"reason": undefined}, nothing
    groups = zip(rows.groupby(task.outcome.scaled_by), measured, strict=True)
    counted = pd.concat([group for (_, group), (value, _) in groups if np.isfinite(value)]).drop_duplicates(PATIENT)
    few = task.outcome.too_few(patients) or task.outcome.too_few(counted)
    if few is not None:
        return found | {"reason": f"no interval: {few}"}, nothing
    replicates = [of_fold for _, of_fold in defined]
    lower, upper, note = percentile_interval(replicates)
    return found | {"lower": lower, "upper": upper, "reason": note}, mean_over_folds(replicates)[0]


def _in_order(
    task: TaskPredictions, rows: pd.DataFrame, bootstrap: BootstrapWeights
) -> tuple[float, Float[np.ndarray, " replicate"]]:
    """Returns C-index or concordance of patients who are ranked together, and its replicates."""
    weights = bootstrap.after_ones(pd.MultiIndex.from_frame(rows[PATIENT]))
    if task.outcome.kind == "survival":
        measured = weighted_c_index(times_days(rows), events(rows), risks(rows), weights)
    else:
        measured = weighted_order(observed_values(rows), predicted_values(rows), weights)
    return float(measured[0]), measured[1:]


def _class_repeats(
    rows: pd.DataFrame, classes: Sequence[str], bootstrap: BootstrapWeights
) -> Iterator[tuple[float, Float[np.ndarray, " replicate"]]]:
    present = [classes[index] for index in sorted(set(label_indices(rows, classes).tolist()))]
    if len(present) < 2:
        return
    for _, repeat in rows.groupby("repeat"):
        label, probabilities = label_indices(repeat, present), class_probabilities(repeat, present)
        total = probabilities.sum(axis=1, keepdims=True)
        given = np.divide(probabilities, total, out=np.full_like(probabilities, 1 / len(present)), where=total > 0)
        measured = weighted_auc(label, given, bootstrap.after_ones(pd.MultiIndex.from_frame(repeat[PATIENT])))
        yield float(measured[0]), measured[1:]


def _strata(rows: pd.DataFrame, column: pd.Series) -> pd.Series:
    """Returns the stratum of each row."""
    found = column.reindex(pd.MultiIndex.from_frame(rows[PATIENT]))
    return pd.Series(found.to_numpy(dtype=object), index=rows.index).fillna(_UNKNOWN).astype(str)


def _pairs_of_fold(
    task: TaskPredictions, rows: pd.DataFrame, strata: pd.Series, kinds: Sequence[tuple[str, str]]
) -> Float[np.ndarray, "kind 2"]:
    """Returns how many comparable pairs there are of each kind, and how many of these are ordered rightly."""
    ordered, score = task.outcome.comparable(rows)[0], task.outcome.scores(rows)[:, 0]
    names, won = strata.to_numpy(), ordered * wins(score[:, None] - score)
    counts = []
    for first, second in kinds:
        between = (names == first)[:, None] & (names == second)
        between |= between.T
        counts.append((float(ordered[between].sum()), float(won[between].sum())))
    return np.array(counts)
