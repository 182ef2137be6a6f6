"""Does fusion help: against the best single modality, against late fusion, and for which patients."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.audit.audited_task import AuditedTask, headline_value
from subfuse.audit.findings import SIGNIFICANCE, Finding, Level
from subfuse.audit.recommendation import unfit
from subfuse.errors import preview
from subfuse.evaluation.metrics import metric_title, number, p_text, signed_interval
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    Outcome,
    TaskPredictions,
    class_probabilities,
    columns_with,
    label_indices,
)
from subfuse.evaluation.weighted_metrics import wins
from subfuse.training.models import COLUMNS, model_title

CHECK = "fusion benefit"
_BENEFIT_COLUMNS = (
    "task", "model", "reference", "reference_is", "metric", "difference", "lower", "upper", "p_adjusted", "n_patients",
    "reason",
)  # fmt: skip
_RESCUE_COLUMNS = ("task", "model", "reference", "cohort", "patient_id", "change")
Verdict = Literal["better", "worse", "open", "untested"]
_WHY = "Two modalities cost twice; the second is worth it only if it adds to the first."


@dataclass(frozen=True)
class FusionBenefit:
    """Findings of one task with the tables behind them."""

    findings: tuple[Finding, ...]
    differences: pd.DataFrame  # _BENEFIT_COLUMNS; positive favours the model
    rescued: pd.DataFrame  # _RESCUE_COLUMNS; one row per patient whom fusion rescues or loses


@dataclass(frozen=True)
class Comparisons:
    """All paired comparisons of a task: one family of p-values, so that a pair has one adjusted p everywhere."""

    table: pd.DataFrame  # columns of `compare_models`; each pair once, in either direction

    def row(self, model: str, reference: str) -> dict[str, Any]:
        """Returns the comparison of a model with a reference, turned round where the family has the reverse.

        Raises:
            KeyError: The pair is not of the family.
        """
        for record in self.table.to_dict("records"):
            row = {str(name): value for name, value in record.items()}
            if (row["model"], row["reference"]) == (model, reference):
                return row
            if (row["reference"], row["model"]) == (model, reference):
                turned = {"difference": -row["difference"], "lower": -row["upper"], "upper": -row["lower"]}
                return {**row, **turned, "model": model, "reference": reference}
        raise KeyError(f"{model} and {reference} are not compared.")

    def against(self, reference: str, models: Sequence[str]) -> pd.DataFrame:
        """Returns the comparisons of models with one reference."""
        rows = [self.row(model, reference) for model in models if model != reference]
        return pd.DataFrame(rows, columns=list(self.table.columns))


@dataclass(frozen=True)
class Contest:
    """Who is compared in a task to tell whether fusion helps."""

    task: AuditedTask  # with the rows of late fusion
    fused: tuple[str, ...]  # models of two modalities or more
    references: Mapping[str, str]  # model -> what it stands for; empty where nothing can be compared
    unknown: tuple[str, ...]  # models whose modalities are unknown
    alone_missing: tuple[str, ...] = ()  # modalities of fused models that no model reads alone

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every fused model against each reference, and late fusion against the best single modality."""
        references = list(self.references)
        later = [(other, references[0]) for other in references[1:]]
        return [(model, reference) for reference in references for model in self.fused] + later


def fusion_contest(task: AuditedTask) -> Contest:
    """Returns who is compared: every model of two modalities, the best single modality and late fusion.

    The best single modality is the model of slides or of expression with the highest mean headline metric on test
    patients: chosen after the fact, which favours it, so that a benefit of fusion is not owed to a weak opponent. Late
    fusion averages the best model of each modality without training: class probabilities, numbers, or ranks of risk
    within the fold's test patients. Models whose modalities are unknown are left out.
    """
    known, values = task.modalities, task.values
    fused = tuple(model for model in task.models if len(known[model]) > 1)
    unknown = tuple(model for model in task.models if not known[model])
    single = [model for model in task.models if len(known[model]) == 1 and model not in task.trivial]
    measured = [model for model in single if np.isfinite(values[model])]
    if not fused or not measured:
        return Contest(task, fused, {}, unknown)
    best = max(measured, key=values.__getitem__)
    references = {best: "best single modality"}
    fusible = frozenset[str]().union(*(known[model] for model in fused))
    late = late_fusion(task, [model for model in measured if known[model] <= fusible])
    if late is not None:
        name = str(late["model"].iloc[0])
        task = replace(task, rows=pd.concat([task.rows, late], ignore_index=True))
        task = replace(task, values={**values, name: headline_value(task, name)})
        references[name] = "late fusion"
    alone = frozenset[str]().union(*(known[model] for model in measured))
    return Contest(task, fused, references, unknown, tuple(sorted(fusible - alone - COLUMNS)))


def fusion_benefit(contest: Contest, comparisons: Comparisons, unrelated: Collection[str] = ()) -> FusionBenefit:
    """Returns whether fusion helps: the verdict of every pair of the contest, and whom fusion rescues or loses.

    Args:
        contest: Who is compared.
        comparisons: Of the task, which has the pairs of the contest.
        unrelated: Models not shown to be related to the outcome, which nobody is told to prefer.
    """
    task, findings = contest.task, []
    if contest.unknown:
        found = f"models whose modalities are unknown are left out: {preview(contest.unknown, 8)}"
        remedy = "Say which of slides and expression they read (--modalities)."
        findings.append(Finding("note", CHECK, found, _WHY, remedy, task.name))
    if not contest.references:
        found = "cannot be checked: it needs a model of two modalities and one of a single modality, both with a result"
        findings.append(Finding("note", CHECK, found, _WHY, "Run such models on the same folds.", task.name))
        empty = pd.DataFrame(columns=list(_BENEFIT_COLUMNS)), pd.DataFrame(columns=list(_RESCUE_COLUMNS))
        return FusionBenefit(tuple(findings), *empty)
    rows = [
        {**comparisons.row(model, reference), "reference_is": contest.references[reference]}
        for model, reference in contest.pairs
    ]
    findings += [_finding(row, task, unrelated) for row in rows]
    best = next(iter(contest.references))
    rescued = []
    for model in contest.fused:
        finding, patients = rescue(task, model, best)
        findings.append(finding)
        rescued.append(patients)
    if contest.alone_missing:
        found = (
            f"no model of {preview(contest.alone_missing)} alone is compared: the best single modality may be missing"
        )
        findings.append(Finding("note", CHECK, found, _WHY, "Run one on the same folds.", task.name))
    table = pd.DataFrame(rows)[list(_BENEFIT_COLUMNS)]
    return FusionBenefit(tuple(findings), table, pd.concat(rescued, ignore_index=True))


def late_fusion(task: AuditedTask, single: Sequence[str]) -> pd.DataFrame | None:
    """Returns predictions of the mean of the best model of each modality; None with a single modality.

    Patients whom one of the models cannot predict are left out. Rows are those of predictions.csv with a model named
    `mean of A and B`, the models' titles.
    """
    best: dict[frozenset[str], str] = {}
    for model in single:
        uses = task.modalities[model]
        if uses not in best or task.values[model] > task.values[best[uses]]:
            best[uses] = model
    if len(best) < 2:
        return None
    key = [*FOLD, "split", *PATIENT]
    tables = [_comparable(task.of_model(model), task.outcome).set_index(key) for model in best.values()]
    common = tables[0].index
    for table in tables[1:]:
        common = common.intersection(table.index)
    if common.empty:
        return None
    mean = tables[0].loc[common].copy()
    columns = task.outcome.predicted
    mean[columns] = np.mean([table.loc[common, columns].to_numpy(dtype=np.float64) for table in tables], axis=0)
    mean[columns_with(mean, "survival_", "contribution_")] = np.nan
    return mean.reset_index().assign(model=f"mean of {' and '.join(map(model_title, best.values()))}")


def rescue(task: TaskPredictions, model: str, reference: str) -> tuple[Finding, pd.DataFrame]:
    """Returns which test patients the model gets right and the reference wrong (rescued), and the reverse (lost).

    Right is the true class predicted; for survival and numbers, more than half of the patient's comparable pairs within
    the fold in the right order. First repeat only, patients predicted by both. The p-value is McNemar's, exact; of too
    few patients, of the rarest class or with an event, there is none.
    """
    right = [_right(task.of_model(name), task.outcome) for name in (model, reference)]
    common = right[0].index.intersection(right[1].index)
    ours, theirs = (series.loc[common].to_numpy() for series in right)
    change = np.select([ours & ~theirs, ~ours & theirs], ["rescued", "lost"], "")
    patients = common.to_frame(index=False)[PATIENT].assign(
        task=task.name, model=model, reference=reference, change=change
    )
    patients = patients[patients["change"] != ""][list(_RESCUE_COLUMNS)]
    n_rescued, n_lost = int((change == "rescued").sum()), int((change == "lost").sum())
    from scipy.stats import binomtest

    few = task.outcome.too_few(task.tested_by(model).drop_duplicates(PATIENT))
    p_value = binomtest(n_rescued, n_rescued + n_lost).pvalue if n_rescued + n_lost else 1.0
    found = (
        f"{model_title(model)} rescues {n_rescued} and loses {n_lost} of {len(common)} patients against "
        f"{model_title(reference)} "
        f"(rightly {task.outcome.words['judged']} by one of them only; {few or p_text(p_value)})"
    )
    level: Level = "warning" if few is None and n_lost > n_rescued and p_value < SIGNIFICANCE else "note"
    return Finding(level, CHECK, found, "A mean gain may hide patients who lose.", "", task.name, model), patients


def difference_text(row: Mapping[str, Any]) -> str:
    """Returns a row of `compare_models` in words: the difference, its interval and the adjusted p-value."""
    return (
        f"{metric_title(row['metric'])} {number(row['difference'], signed=True)}, "
        f"95 % interval {signed_interval(row['lower'], row['upper'])}, "
        f"{_adjusted_p_text(row['lower'], row['upper'], row['p_adjusted'])}"
    )


def _adjusted_p_text(lower: float, upper: float, p_adjusted: float) -> str:
    """Returns an adjusted p-value, and why the interval beside it may say otherwise: it is adjusted for nothing.

    Example:
        >>> _adjusted_p_text(-0.1, 0.3, 0.4), _adjusted_p_text(0.02, 0.3, 0.12)
        ('adjusted p = 0.400', 'adjusted p = 0.120 (several tests; the interval counts this one alone)')
    """
    is_beside_zero = lower > 0 or upper < 0
    why = (
        " (several tests; the interval counts this one alone)" if is_beside_zero and p_adjusted >= SIGNIFICANCE else ""
    )
    return f"adjusted {p_text(p_adjusted)}{why}"


def verdict_of(*, lower: float, upper: float, p_adjusted: float) -> Verdict:
    """Returns `better` or `worse` if interval and adjusted p-value agree on a difference, else `open`.

    The one place where it is decided whether a model is better than another; `untested` where a number is undefined.

    Args:
        lower: End of the 95 % interval of the difference; positive favours the model.
        upper: The other end.
        p_adjusted: Of the comparison, within its family.
    """
    if np.isnan([lower, upper, p_adjusted]).any():
        return "untested"
    if p_adjusted >= SIGNIFICANCE:
        return "open"
    if lower > 0:
        return "better"
    return "worse" if upper < 0 else "open"


def settled(row: Mapping[str, Any], against: str, *, check: str, why: str) -> tuple[Verdict, Finding | None]:
    """Returns the verdict, and the finding where a comparison is untested or the model is better; None elsewhere.

    Args:
        row: Of `compare_models`.
        against: The reference in words.
        check: Name of the check.
        why: Why the check matters.
    """
    title, of = model_title(row["model"]), {"task": row["task"], "model": row["model"]}
    verdict = verdict_of(lower=row["lower"], upper=row["upper"], p_adjusted=row["p_adjusted"])
    if np.isnan(row["difference"]):
        remedy = f"Reason: {row['reason'] or 'the metric is undefined'}."
        return verdict, Finding("note", check, f"{title} cannot be compared with {against}", why, remedy, **of)
    if verdict == "untested":
        found = f"{title} is not tested against {against}: {row['reason'] or 'no interval'}"
        return verdict, Finding("note", check, found, why, "More patients are needed.", **of)
    if verdict == "better":
        return verdict, Finding("ok", check, f"{title} is better than {against} ({difference_text(row)})", **of)
    return verdict, None


def _finding(row: Mapping[str, Any], task: AuditedTask, unrelated: Collection[str]) -> Finding:
    model, reference = model_title(row["model"]), model_title(row["reference"])
    against = f"the {reference}" if row["reference_is"] == "late fusion" else f"the {row['reference_is']}, {reference}"
    verdict, finding = settled(row, against, check=CHECK, why=_WHY)
    if finding is not None:
        return finding
    flaw = unfit(task, row["reference"], unrelated)
    remedy = f"Prefer {reference}, which is simpler, unless more patients show a benefit."
    if row["reference_is"] == "late fusion" and verdict != "worse":
        remedy = "More patients would tell."
    elif flaw is not None:
        remedy = f"{reference} is no alternative: {flaw}. See whether the models are trained well."
    found = f"fusion is not shown to help: {model} is not shown to be better than {against}"
    if verdict == "worse":
        found = f"fusion does not help: {model} is worse than {against}"
    return Finding("warning", CHECK, f"{found} ({difference_text(row)})", _WHY, remedy, row["task"], row["model"])


def _comparable(rows: pd.DataFrame, outcome: Outcome) -> pd.DataFrame:
    """Returns the rows with risks as ranks from 0 to 1 within fold and split: models differ in their scale."""
    if outcome.kind != "survival":
        return rows
    grouped = rows.groupby([*FOLD, "split"])["risk"]
    return rows.assign(risk=(grouped.rank() - 0.5) / grouped.transform("size"))


def _right(rows: pd.DataFrame, outcome: Outcome) -> pd.Series:
    """Returns whether each test patient of the first repeat is predicted rightly; unrankable patients are left out."""
    tested = rows[(rows["split"] == "test") & (rows["repeat"] == rows["repeat"].min())]
    parts = [_right_of_fold(fold, outcome) for _, fold in tested.groupby("fold")]
    return pd.concat(parts) if parts else pd.Series(dtype=bool, index=pd.MultiIndex.from_tuples([], names=PATIENT))


def _right_of_fold(fold: pd.DataFrame, outcome: Outcome) -> pd.Series:
    index = pd.MultiIndex.from_frame(fold[["fold", *PATIENT]])
    if outcome.classes is not None:
        right = class_probabilities(fold, outcome.classes).argmax(axis=1) == label_indices(fold, outcome.classes)
        return pd.Series(right, index=index)
    share = ordered_share(outcome.comparable(fold)[0], outcome.scores(fold)[:, 0])
    is_known = np.isfinite(share)
    return pd.Series(share[is_known] > 0.5, index=index[is_known])


def ordered_share(
    comparable: Bool[np.ndarray, "patient patient"], score: Float[np.ndarray, " patient"]
) -> Float[np.ndarray, " patient"]:
    """Returns the share of each patient's comparable pairs that are ordered rightly, ties one half; NaN without any."""
    won = comparable * wins(score[:, None] - score)
    pairs = comparable.sum(axis=0) + comparable.sum(axis=1)
    return np.divide(won.sum(axis=0) + won.sum(axis=1), pairs, out=np.full(len(score), np.nan), where=pairs > 0)
