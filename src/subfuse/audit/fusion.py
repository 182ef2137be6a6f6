"""Does fusion help: against the best single modality, against late fusion, and for which patients."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.audit.findings import Finding, Level
from subfuse.errors import preview
from subfuse.evaluation.comparisons import compare_models, grouping
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    TaskPredictions,
    class_probabilities,
    events,
    label_indices,
    ranked_patients,
    risks,
    times_days,
)
from subfuse.evaluation.weighted_metrics import known_orders, wins

CHECK = "fusion benefit"
BENEFIT_COLUMNS = (
    "task", "model", "reference", "reference_is", "metric", "difference", "lower", "upper", "p_adjusted", "n_patients",
)  # fmt: skip
RESCUE_COLUMNS = ("task", "model", "reference", "cohort", "patient_id", "change")
SIGNIFICANCE = 0.05
_WHY = "Two modalities cost twice; the second is worth it only if it adds to the first."


@dataclass(frozen=True)
class FusionBenefit:
    """Findings of one task with the tables behind them."""

    findings: tuple[Finding, ...]
    differences: pd.DataFrame  # BENEFIT_COLUMNS; positive favours the model
    rescued: pd.DataFrame  # RESCUE_COLUMNS; one row per patient whom fusion rescues or loses


def fusion_benefit(
    task: TaskPredictions, modalities: Mapping[str, Collection[str]], *, n_bootstrap: int, seed: int
) -> FusionBenefit:
    """Compares every model of two modalities or more with the best single modality and with late fusion.

    The best single modality is the one-modality model with the highest mean headline metric on test patients: chosen
    after the fact, which favours it, so that a benefit of fusion is not owed to a weak opponent. Late fusion averages
    the best model of each modality without training: class probabilities, or ranks of risk within the fold's test
    patients.

    Args:
        task: Rows of all models and splits.
        modalities: Model to modalities; a model that is absent or has none is left out.
        n_bootstrap: Replicates of the paired bootstrap.
        seed: Of the replicates.
    """
    known = {model: frozenset(modalities.get(model, ())) for model in task.models}
    fused = [model for model in task.models if len(known[model]) > 1]
    single = [model for model in task.models if len(known[model]) == 1]
    unknown = [model for model in task.models if not known[model]]
    findings = []
    if unknown:
        found = f"models whose modalities are unknown are left out: {preview(unknown, 8)}"
        remedy = "Say which of slides and expression they read (--modalities)."
        findings.append(Finding("note", CHECK, found, _WHY, remedy, task.name))
    empty = pd.DataFrame(columns=list(BENEFIT_COLUMNS)), pd.DataFrame(columns=list(RESCUE_COLUMNS))
    values = headline_values(task)
    measured = [model for model in single if np.isfinite(values[model])]
    if not fused or not measured:
        found = "cannot be checked: it needs a model of two modalities and one of a single modality, both with a result"
        findings.append(Finding("note", CHECK, found, _WHY, "Run such models on the same folds.", task.name))
        return FusionBenefit(tuple(findings), *empty)
    best = max(measured, key=values.__getitem__)
    references = {best: "best single modality"}
    rows = task.rows
    fusible = frozenset[str]().union(*(known[model] for model in fused))
    late = late_fusion(task, {model: known[model] for model in measured if known[model] <= fusible}, values)
    if late is not None:
        rows = pd.concat([rows, late], ignore_index=True)
        references[str(late["model"].iloc[0])] = "late fusion"
    table = _differences(rows, [*fused, *references], references, n_bootstrap=n_bootstrap, seed=seed)
    findings += [_verdict(row, task.name) for row in table.to_dict("records")]
    rescued = []
    for model in fused:
        finding, patients = rescue(task, model, best)
        findings.append(finding)
        rescued.append(patients)
    return FusionBenefit(tuple(findings), table, pd.concat(rescued, ignore_index=True))


def headline_values(task: TaskPredictions) -> dict[str, float]:
    """Returns every model's headline metric, mean over folds as in `evaluate_predictions`; NaN where undefined."""
    by, _ = grouping(task)
    values = {}
    for model in task.models:
        found = [g.metrics[task.headline].value for g in ranked_patients(task.of_model(model), task.classes, by=by)]
        defined = [value for value in found if np.isfinite(value)]
        values[model] = float(np.mean(defined)) if defined else np.nan
    return values


def late_fusion(
    task: TaskPredictions, single: Mapping[str, Collection[str]], values: Mapping[str, float]
) -> pd.DataFrame | None:
    """Returns predictions of the mean of the best model of each modality; None with a single modality.

    Patients whom one of the models cannot predict are left out. Rows are those of predictions.csv with a model named
    `late fusion (a + b)`.
    """
    best: dict[frozenset[str], str] = {}
    for model in single:
        uses = frozenset(single[model])
        if uses not in best or values[model] > values[best[uses]]:
            best[uses] = model
    if len(best) < 2:
        return None
    key = [*FOLD, "split", *PATIENT]
    tables = [_comparable(task.of_model(model), task.classes).set_index(key) for model in best.values()]
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index)
    if common.empty:
        return None
    columns = ["risk"] if task.classes is None else [f"p_{name}" for name in task.classes]
    mean = tables[0].loc[common].copy()
    mean[columns] = np.mean([table.loc[common, columns].to_numpy(dtype=np.float64) for table in tables], axis=0)
    others = [name for name in map(str, mean.columns) if name.startswith(("survival_", "contribution_"))]
    mean[others] = np.nan
    return mean.reset_index().assign(model=f"late fusion ({' + '.join(best.values())})")


def rescue(task: TaskPredictions, model: str, reference: str) -> tuple[Finding, pd.DataFrame]:
    """Returns which test patients the model gets right and the reference wrong (rescued), and the reverse (lost).

    Right is the true class predicted; for survival, more than half of the patient's comparable pairs within the fold
    in the right order. First repeat only, patients predicted by both. The p-value is McNemar's, exact.
    """
    right = [_right(task.of_model(name), task.classes) for name in (model, reference)]
    common = right[0].index.intersection(right[1].index)
    ours, theirs = (series.loc[common].to_numpy() for series in right)
    change = np.select([ours & ~theirs, ~ours & theirs], ["rescued", "lost"], "")
    patients = common.to_frame(index=False)[PATIENT].assign(
        task=task.name, model=model, reference=reference, change=change
    )
    patients = patients[patients["change"] != ""][list(RESCUE_COLUMNS)]
    n_rescued, n_lost = int((change == "rescued").sum()), int((change == "lost").sum())
    from scipy.stats import binomtest

    p_value = binomtest(n_rescued, n_rescued + n_lost).pvalue if n_rescued + n_lost else 1.0
    what = "ranked" if task.classes is None else "classified"
    found = (
        f"{model} rescues {n_rescued} and loses {n_lost} of {len(common)} patients against {reference} "
        f"(rightly {what} by one of them only; p = {p_value:.2g})"
    )
    level: Level = "warning" if n_lost > n_rescued and p_value < SIGNIFICANCE else "note"
    return Finding(level, CHECK, found, "A mean gain may hide patients who lose.", "", task.name, model), patients


def _differences(
    rows: pd.DataFrame, models: Sequence[str], references: Mapping[str, str], *, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Returns how every fused model differs from each reference, and late fusion from the best single modality."""
    tables = []
    for reference, meaning in references.items():
        later = list(references)[list(references).index(reference) + 1 :]
        compared = [model for model in models if model not in references or model in later]
        chosen = rows[rows["model"].isin([*compared, reference])]
        table = compare_models(chosen, reference=reference, n_bootstrap=n_bootstrap, seed=seed)
        tables.append(table.assign(reference_is=meaning))
    return pd.concat(tables, ignore_index=True)[list(BENEFIT_COLUMNS)]


def difference_text(row: Mapping[Hashable, Any]) -> str:
    """Returns a row of `compare_models` in words: the difference, its interval and the adjusted p-value."""
    name = {"c_index": "C-index", "auc": "AUC"}[row["metric"]]
    return (
        f"{name} {row['difference']:+.3f}, 95 % interval {row['lower']:+.3f} to {row['upper']:+.3f}, "
        f"adjusted p = {row['p_adjusted']:.2g}"
    )


def _verdict(row: Mapping[Hashable, Any], task: str) -> Finding:
    against = (
        f"the {row['reference_is']}, {row['reference']}" if row["reference_is"] != "late fusion" else row["reference"]
    )
    if np.isnan(row["difference"]):
        found = f"{row['model']} cannot be compared with {against}"
        return Finding("note", CHECK, found, _WHY, "See `reason` in comparisons.csv.", task, row["model"])
    evidence = difference_text(row)
    is_clear = row["p_adjusted"] < SIGNIFICANCE
    if is_clear and row["lower"] > 0:
        found = f"{row['model']} is better than {against} ({evidence})"
        return Finding("ok", CHECK, found, task=task, model=row["model"])
    remedy = f"Prefer {row['reference']}, which is simpler, unless more patients show a benefit."
    if is_clear and row["upper"] < 0:
        found = f"fusion does not help: {row['model']} is worse than {against} ({evidence})"
        return Finding("warning", CHECK, found, _WHY, remedy, task, row["model"])
    found = f"fusion does not help here: {row['model']} is not shown to be better than {against} ({evidence})"
    return Finding("warning", CHECK, found, _WHY, remedy, task, row["model"])


def _comparable(rows: pd.DataFrame, classes: Sequence[str] | None) -> pd.DataFrame:
    """Returns the rows with risks as ranks from 0 to 1 within fold and split: models differ in their scale."""
    if classes is not None:
        return rows
    grouped = rows.groupby([*FOLD, "split"])["risk"]
    return rows.assign(risk=(grouped.rank() - 0.5) / grouped.transform("size"))


def _right(rows: pd.DataFrame, classes: Sequence[str] | None) -> pd.Series:
    """Returns whether each test patient of the first repeat is predicted rightly; unrankable patients are left out."""
    tested = rows[(rows["split"] == "test") & (rows["repeat"] == rows["repeat"].min())]
    parts = [_right_of_fold(fold, classes) for _, fold in tested.groupby("fold")]
    return pd.concat(parts) if parts else pd.Series(dtype=bool, index=pd.MultiIndex.from_tuples([], names=PATIENT))


def _right_of_fold(fold: pd.DataFrame, classes: Sequence[str] | None) -> pd.Series:
    index = pd.MultiIndex.from_frame(fold[["fold", *PATIENT]])
    if classes is not None:
        right = class_probabilities(fold, classes).argmax(axis=1) == label_indices(fold, classes)
        return pd.Series(right, index=index)
    share = ordered_share(times_days(fold), events(fold), risks(fold))
    is_known = np.isfinite(share)
    return pd.Series(share[is_known] > 0.5, index=index[is_known])


def ordered_share(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    risk: Float[np.ndarray, " patient"],
) -> Float[np.ndarray, " patient"]:
    """Returns the share of each patient's comparable pairs that are ordered rightly, ties one half; NaN without any."""
    ordered = known_orders(time_days, event)
    won = ordered * wins(risk[:, None] - risk)
    pairs = ordered.sum(axis=0) + ordered.sum(axis=1)
    return np.divide(won.sum(axis=0) + won.sum(axis=1), pairs, out=np.full(len(risk), np.nan), where=pairs > 0)
