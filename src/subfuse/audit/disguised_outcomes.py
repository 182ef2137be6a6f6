"""Input columns that are the outcome in disguise: by name, or because one alone orders the training patients."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.audit.findings import Finding
from subfuse.cohort.bags import class_names
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.covariates import coded, column_of
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import counted, preview
from subfuse.evaluation.censoring import known_orders
from subfuse.evaluation.perfect_order import (
    NEARLY_PERFECT,
    best_concordance,
    log_chance_of_order,
    log_chance_of_separation,
)
from subfuse.expression.gene_names import both_names

CHECK = "outcome in disguise"
_BY_CHANCE = 0.01  # expected number of columns that order so few patients by chance; above it nothing is concluded
_OUTCOME_NAMES = frozenset(
    {
        "time_days", "event", "os", "os_days", "os_time", "os_months", "os_event", "os_status", "survival",
        "survival_time", "survival_days", "overall_survival", "days_to_death", "days_to_last_follow_up",
        "days_to_last_followup", "follow_up", "followup", "vital_status", "censored", "censoring", "censorship",
        "dead", "died", "death", "deceased", "is_dead", "status", "pfs", "pfs_days", "dss", "dfs",
    }
)  # fmt: skip
SUSPICIOUS_COLUMNS = (
    "task",
    "input",
    "reason",
    "share",
    "is_sure",
    "n_patients",
)  # share: C-index, AUC or concordance, or 1
_WHY = (
    "A model that reads its own outcome, or a batch that goes with it (cohorts scaled separately), is measured on "
    "knowledge that no new patient brings."
)


@dataclass(frozen=True)
class _Ordering:
    """How well every column alone orders patients, in the better direction."""

    share: Float[np.ndarray, " column"]  # see `best_concordance`
    meaning: str  # for readers, with a place for the share
    log_chance: float  # log of the probability that a column without any relation is nearly perfect


def check_inputs(cohort: Cohort, fold: Fold, task: str, *, allow: Collection[str] = ()) -> list[Finding]:
    """Returns a failure for every input column that is the outcome of the task in disguise; see `suspicious_inputs`.

    Where so few patients are compared that such a column is expected by chance (more than 0.01 among all columns),
    this is noted instead, once for all of them.

    Args:
        cohort: The cohort.
        fold: Its training patients are ordered.
        task: Name of the task.
        allow: Columns that are known to be legitimate; they are noted.
    """
    return input_findings(suspicious_inputs(cohort, fold.train, task), cohort, task, allow=allow)


def suspicious_inputs(cohort: Cohort, trained: Collection[str], task: str) -> pd.DataFrame:
    """Returns input columns that may be the outcome, one row per way, with `SUSPICIOUS_COLUMNS`.

    A column is a gene or covariate. It is named if its name is that of the outcome (the task's columns, for survival
    also common names of time and vital status), or if it alone orders the training patients with a C-index or AUC of
    at least 0.99 or at most 0.01: survival by time and by event, classes one against the rest, numbers
    by their order.

    Args:
        cohort: The cohort.
        trained: Training patients, those of all folds together: a gene that tells much, with an AUC of 0.9 among all,
            orders some small fold perfectly, while a copy of the outcome orders everybody. Others are not looked at.
        task: Name of the task.
    """
    spec = cohort.tasks[task]
    wanted = set(trained)
    patients = [p for p in cohort if p.patient_id in wanted and p.has_outcome(spec)]
    names = (*cohort.genes, *cohort.covariates)
    log_limit = math.log(_BY_CHANCE / max(1, len(names)))
    rows = [(name, reason, 1.0, True) for name, reason in _by_name(names, spec)] if patients else []
    rows += _by_order(cohort, patients, spec, log_limit=log_limit)
    table = pd.DataFrame([(task, *row, len(patients)) for row in rows], columns=list(SUSPICIOUS_COLUMNS))
    return table.astype({"share": float, "is_sure": bool, "n_patients": int})


def input_findings(table: pd.DataFrame, cohort: Cohort, task: str, *, allow: Collection[str]) -> list[Finding]:
    """Returns findings on suspicious inputs, strongest first, each input once.

    Args:
        table: Rows of `suspicious_inputs`.
        cohort: Says which inputs are no genes, and which genes have another name in the user's table.
        task: Name of the task.
        allow: Columns that are known to be legitimate, by either name; they are noted.
    """
    in_table = cohort.names_in_table
    order = table.sort_values(["is_sure", "share"], ascending=False, kind="stable")
    strongest = order.drop_duplicates("input")
    sure, by_chance = strongest[strongest["is_sure"]], strongest[~strongest["is_sure"]]
    findings = [
        _finding(str(name), in_table.get(str(name)), str(reason), task, allow, is_gene=name not in cohort.covariates)
        for name, reason in zip(sure["input"], sure["reason"], strict=True)
    ]
    if len(by_chance):
        shown = [
            f"{both_names(str(name), in_table.get(str(name)))} ({reason})"
            for name, reason in zip(by_chance["input"], by_chance["reason"], strict=True)
        ]
        n_inputs, n_patients = counted(len(by_chance), "input"), by_chance["n_patients"].min()
        found = (
            f"{n_inputs} alone order the {n_patients} training patients almost perfectly, but with so few patients "
            f"some columns do by chance. Strongest: {preview(shown, 3)}"
        )
        remedy = "Look at these columns (suspicious_inputs in audit.json); more patients would settle it."
        findings.append(Finding("note", CHECK, found, _WHY, remedy, task))
    return findings


def _finding(
    name: str, in_table: str | None, reason: str, task: str, allow: Collection[str], *, is_gene: bool
) -> Finding:
    shown = both_names(name, in_table)
    if {name, in_table, column_of(name)} & set(allow):
        return Finding(
            "note", CHECK, f"input {shown} is allowed by name although {reason}", _WHY, "", task, short=shown
        )
    leave_out = f"Name {name} in `expression.exclude`" if is_gene else f"Remove {column_of(name)} from `covariates`"
    remedy = f"{leave_out} of the cohort file, or allow it with --allow-inputs if it is known before the outcome."
    return Finding("failure", CHECK, f"input {shown}: {reason}", _WHY, remedy, task)


def _by_name(names: Sequence[str], spec: TaskSpec) -> Iterator[tuple[str, str]]:
    outcome = set(_OUTCOME_NAMES) if spec.is_survival else {_canonical(spec.label_column)}
    for name in names:
        if _canonical(name.split("=")[0]) in outcome:  # a category is a column named gender=male
            yield name, "it has the name of the outcome"


def _canonical(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _by_order(
    cohort: Cohort, patients: Sequence[Patient], spec: TaskSpec, *, log_limit: float
) -> Iterator[tuple[str, str, float, bool]]:
    """Yields columns that are nearly perfect: name, how, how well, and whether chance is ruled out."""
    for names, values, known in _columns(cohort, patients):
        for ordering in _orderings(values, known, spec):
            for index in np.flatnonzero(ordering.share >= NEARLY_PERFECT).tolist():
                share = math.floor(1000 * ordering.share[index]) / 1000
                reason = f"it alone orders {len(known)} training patients ({ordering.meaning.format(share)})"
                yield names[index], reason, share, ordering.log_chance < log_limit


def _columns(
    cohort: Cohort, patients: Sequence[Patient]
) -> Iterator[tuple[Sequence[str], Float[np.ndarray, "known column"], list[Patient]]]:
    """Yields columns that are known for the same patients: all genes, then each covariate."""
    measured = [patient for patient in patients if patient.expression is not None]
    if measured:
        values = np.stack([patient.expression for patient in measured if patient.expression is not None])
        yield cohort.genes, values, measured
    for name in cohort.covariates:
        column = np.array([coded(name, patient.covariates) for patient in patients])
        known = np.flatnonzero(~np.isnan(column))
        yield (name,), column[known, None], [patients[place] for place in known.tolist()]


def _orderings(
    values: Float[np.ndarray, "patient column"], patients: Sequence[Patient], spec: TaskSpec
) -> Iterator[_Ordering]:
    if not patients or values.shape[1] == 0:
        return
    if spec.is_regression:
        number = np.array([patient.outcome(spec)[0] for patient in patients], dtype=np.float64)
        higher = number[:, None] > number
        if higher.any():
            chance = log_chance_of_order(higher.sum(axis=1)[higher.any(axis=1)])
            yield _Ordering(best_concordance(values, higher), "concordance {} with the value", chance)
        return
    if not spec.is_survival:
        labels = np.array([patient.labels[spec.label_column] for patient in patients])
        for name in class_names(patients, spec):
            yield from _one_against_rest(values, labels == name, f"AUC {{}} of class {name}")
        return
    time_days = np.array([patient.outcome(spec)[0] for patient in patients], dtype=np.float64)
    event = np.array([patient.outcome(spec)[1] for patient in patients], dtype=bool)
    yield from _one_against_rest(values, event, "AUC {} of the event")
    later = known_orders(time_days, event)
    if later.any():
        chance = log_chance_of_order(later.sum(axis=1)[event])
        yield _Ordering(best_concordance(values, later), "C-index {} of survival", chance)


def _one_against_rest(
    values: Float[np.ndarray, "patient column"], is_case: Bool[np.ndarray, " patient"], meaning: str
) -> Iterator[_Ordering]:
    n_cases, n_controls = int(is_case.sum()), int((~is_case).sum())
    if not n_cases or not n_controls:
        return
    comparable = np.zeros((len(is_case), len(is_case)), dtype=bool)
    if n_cases <= n_controls:  # the direction does not matter, and fewer rows are faster
        comparable[np.ix_(is_case, ~is_case)] = True
    else:
        comparable[np.ix_(~is_case, is_case)] = True
    chance = log_chance_of_separation(n_cases, n_controls)
    yield _Ordering(best_concordance(values, comparable), meaning, chance)
