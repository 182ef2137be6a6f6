"""Whether outcomes can carry a claim: enough patients of each kind, plausible times, no site that gives them away."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.audit.findings import Finding, Level
from subfuse.errors import listed, preview
from subfuse.evaluation.floors import LEAST_EVENTS, LEAST_OF_CLASS, LEAST_OF_SITE
from subfuse.evaluation.metrics import duration, p_text
from subfuse.evaluation.predictions import FOLD, PATIENT, TaskPredictions, events
from subfuse.evaluation.regression.columns import observed_values
from subfuse.evaluation.regression.target_range import of_patients, other_range
from subfuse.identifiers import site_of_barcode

_EVENT_SHARE_RANGE = 0.25  # between folds
_CONFOUNDED = 0.3  # Cramér's V, corrected for chance
_STRICT = 0.01  # of a p-value: chi-squared is inexact where sites have few patients
_LONGEST_DAYS = 365.25 * 50
_MONTHS_OR_YEARS = 400.0  # a longest follow-up below it is not in days


def label_findings(task: TaskPredictions, patients: pd.DataFrame | None) -> list[Finding]:
    """Returns findings on the outcomes of one task's test patients.

    Args:
        task: Rows of all models and splits.
        patients: Table with patient_id and site; None: sites from TCGA barcodes.
    """
    tested = task.tested.drop_duplicates(PATIENT)
    findings = [*_contradictions(task)]
    if task.classes is not None:
        findings += _class_findings(task, task.classes, tested)
    else:
        findings += _survival_findings(task, tested) if task.outcome.kind == "survival" else _values(task, tested)
    return [*findings, *_site_findings(task, tested, patients)]


def _cramers_v(table: Float[np.ndarray, "row column"]) -> tuple[float, float]:
    """Returns Cramér's V corrected for chance (Bergsma 2013) and the p-value of the chi-squared test of the counts."""
    from scipy.stats import chi2_contingency

    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    rows, columns = table.shape
    if min(rows, columns) < 2:
        return np.nan, np.nan
    total = table.sum()
    statistic, p_value, _, _ = chi2_contingency(table, correction=False)
    phi = max(0.0, statistic / total - (rows - 1) * (columns - 1) / (total - 1))
    smaller = min(rows - (rows - 1) ** 2 / (total - 1), columns - (columns - 1) ** 2 / (total - 1)) - 1
    return float(np.sqrt(phi / smaller)) if smaller > 0 else np.nan, float(p_value)


def _contradictions(task: TaskPredictions) -> Iterator[Finding]:
    differing = (task.rows.groupby(PATIENT)[[*task.outcome.columns]].nunique() > 1).any(axis=1)
    if differing.any():
        which = preview(differing[differing].index.get_level_values("patient_id"), 3)
        yield Finding(
            "failure",
            "labels",
            f"{differing.sum()} patients have different outcomes in different rows ({which})",
            "Models were trained or tested on different answers to the same question.",
            "Find the right outcome and train again.",
            task.name,
        )


def _class_findings(task: TaskPredictions, classes: Sequence[str], tested: pd.DataFrame) -> Iterator[Finding]:
    counts = tested["label"].value_counts().reindex(list(classes), fill_value=0)
    few = counts[counts < LEAST_OF_CLASS]
    text = listed(f"{name}: {count}" for name, count in counts.items())
    if len(few):
        yield Finding(
            "warning",
            "labels",
            f"fewer than {LEAST_OF_CLASS} test patients of class {preview(few.index, 5)} ({text})",
            "An average over classes hangs on the few patients of the rarest.",
            "Collect more patients, join such a class with another or leave it out, or read the intervals alone.",
            task.name,
        )
    else:
        yield Finding("ok", "labels", f"test patients by class: {text}", task=task.name)
    folds = [set(fold["label"]) for _, fold in task.tested.groupby(FOLD)]
    n_lacking = sum(len(present) < len(classes) for present in folds)
    if n_lacking:
        yield Finding(
            "note",
            "labels",
            f"{n_lacking} of {len(folds)} folds lack test patients of a class",
            "Averages over classes are undefined there.",
            "Stratify the folds by this label, or use fewer.",
            task.name,
        )


def _survival_findings(task: TaskPredictions, tested: pd.DataFrame) -> Iterator[Finding]:
    time_days, event = tested["time_days"].to_numpy(dtype=np.float64), events(tested)
    share = event.mean()
    observed = duration(float(np.median(time_days)))
    text = f"{event.sum()} events among {len(tested)} test patients, median observed time {observed}"
    if event.sum() < LEAST_EVENTS:
        why = "A C-index of few events says little, whatever its value."
        yield Finding("warning", "labels", text, why, "Follow up longer or pool cohorts.", task.name)
    else:
        yield Finding("ok", "labels", text, task=task.name)
    if share > 0.95:
        remedy = "Check that true means an observed event."
        yield Finding("warning", "labels", f"an event for {share:.0%} of the patients", "Unusual for follow-up of "
                      "patients; time of the dead only is another question.", remedy, task.name)  # fmt: skip
    yield from _time_findings(task, time_days)
    per_fold = [events(fold.drop_duplicates(PATIENT)).mean() for _, fold in task.tested.groupby(FOLD)]
    if np.ptp(per_fold) > _EVENT_SHARE_RANGE:
        yield Finding(
            "note",
            "labels",
            f"the share of events goes from {min(per_fold):.0%} to {max(per_fold):.0%} over folds",
            "Folds then differ in difficulty.",
            "Stratify the folds by event.",
            task.name,
        )


def _values(task: TaskPredictions, tested: pd.DataFrame) -> Iterator[Finding]:
    value = observed_values(tested)
    text = (
        f"values from {value.min():g} to {value.max():g} among {len(value)} test patients, median {np.median(value):g}"
    )
    if len(value) < LEAST_EVENTS:
        why = "A concordance of few patients says little, whatever its value."
        yield Finding("warning", "labels", text, why, "Collect more patients or pool cohorts.", task.name)
    else:
        yield Finding("ok", "labels", text, task=task.name)
    trained = of_patients(task.rows[task.rows["split"] == "train"])
    if found := other_range(trained, of_patients(tested)):
        why = "Errors are of the unit that training had, and a model cannot be right in another."
        yield Finding("warning", "labels", found, why, "Give the values in the unit of training.", task.name)


def _time_findings(task: TaskPredictions, time_days: Float[np.ndarray, " patient"]) -> Iterator[Finding]:
    longest = time_days.max()
    if len(time_days) > 1 and np.ptp(time_days) == 0:
        found = f"the follow-up of every patient is {longest:g} days"
        yield Finding("warning", "labels", found, "A C-index then tells events from the others alone, whenever they "
                      "were.", "Give the days to death or last contact.", task.name)  # fmt: skip
    if longest < _MONTHS_OR_YEARS and not {"time_months", "time_years"} & {*task.rows}:  # whose days are converted
        found = f"the longest follow-up is {longest:g}: months or years rather than days"
        yield Finding("warning", "labels", found, "Horizons and curves are in days.", "Convert time_days.", task.name)
    if longest > _LONGEST_DAYS:
        found = f"the longest follow-up is {longest / 365.25:.0f} years"
        yield Finding("warning", "labels", found, "Longer than a study lasts.", "Check time_days.", task.name)
    n_zero = int((time_days == 0).sum())
    if n_zero:
        found, why = f"{n_zero} patients have a follow-up of 0 days", "They carry no information on survival."
        yield Finding("note", "labels", found, why, "Check whether 0 stands for unknown.", task.name)


def _site_findings(task: TaskPredictions, tested: pd.DataFrame, patients: pd.DataFrame | None) -> Iterator[Finding]:
    site = _sites(tested, patients)
    common = site.map(site.value_counts()) >= LEAST_OF_SITE
    check = "site and label"
    if site[common].nunique() < 2:
        found = f"{check}: cannot be checked, fewer than two sites with {LEAST_OF_SITE} patients are known"
        yield Finding("note", check, found, "A model may recognise the hospital instead of the disease.",
                      "Give `site` in the patients' table.", task.name)  # fmt: skip
        return
    outcome = tested[task.outcome.columns[-1]]
    if task.outcome.kind == "regression":  # thirds of the patients
        outcome = pd.cut(outcome.rank(pct=True), 3, labels=["low", "middle", "high"])
    outcome = outcome.astype(str)
    value, p_value = _cramers_v(pd.crosstab(site[common], outcome[common]).to_numpy(dtype=np.float64))
    text = f"Cramér's V of {site[common].nunique()} sites and the outcome is {value:.2f} ({p_text(p_value)})"
    if value >= _CONFOUNDED and p_value < _STRICT:
        yield Finding(
            "warning",
            check,
            text,
            "Sites have their own stain and scanner: a model that recognises the site predicts the outcome.",
            "Also test on sites that were not trained on.",
            task.name,
        )
    else:
        level: Level = "note" if p_value < _STRICT else "ok"
        yield Finding(level, check, f"{text}; a warning from {_CONFOUNDED} on", task=task.name)


def _sites(tested: pd.DataFrame, patients: pd.DataFrame | None) -> pd.Series:
    """Returns the site of every tested patient, None where unknown."""
    if patients is None or "site" not in patients or patients["site"].isna().all():
        return tested["patient_id"].map(site_of_barcode)
    known = patients.drop_duplicates("patient_id").set_index(patients["patient_id"].astype(str))["site"]
    return tested["patient_id"].map(known.to_dict())
