"""Input columns that are the outcome in disguise: by name, or because one alone orders the training patients."""

import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.audit.findings import Finding
from subfuse.cohort.bags import class_names
from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.covariates import coded, column_of
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.errors import preview
from subfuse.evaluation.censoring import known_orders
from subfuse.expression.gene_names import both_names

CHECK = "outcome in disguise"
_NEARLY_PERFECT = 0.99  # C-index or AUC of one column, in either direction
_BY_CHANCE = 0.01  # expected number of columns that order so few patients by chance; above it nothing is concluded
_OUTCOME_NAMES = frozenset(
    {
        "time_days", "event", "os", "os_days", "os_time", "os_months", "os_event", "os_status", "survival",
        "survival_time", "survival_days", "overall_survival", "days_to_death", "days_to_last_follow_up",
        "days_to_last_followup", "follow_up", "followup", "vital_status", "censored", "censoring", "censorship",
        "dead", "died", "death", "deceased", "is_dead", "status", "pfs", "pfs_days", "dss", "dfs",
    }
)  # fmt: skip
SUSPICIOUS_COLUMNS = ("task", "input", "reason", "share", "is_sure", "n_patients")  # share: C-index or AUC, or 1
_BLOCK = 4  # events compared at a time, before columns that can no longer be nearly perfect are dropped
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
    return input_findings(suspicious_inputs(cohort, fold, task), cohort, task, allow=allow)


def suspicious_inputs(cohort: Cohort, fold: Fold, task: str) -> pd.DataFrame:
    """Returns input columns that may be the outcome, one row per way, with `SUSPICIOUS_COLUMNS`.

    A column is a gene or covariate. It is named if its name is that of the outcome (the task's columns, for survival
    also common names of time and vital status), or if it alone orders the fold's training patients with a C-index or
    AUC of at least 0.99 or at most 0.01: survival by time and by event, classes one against the rest. Validation and
    test patients are not looked at.
    """
    spec = cohort.tasks[task]
    wanted = set(fold.train)
    patients = [p for p in cohort if p.patient_id in wanted and p.has_outcome(spec)]
    names = (*cohort.genes, *cohort.covariates)
    log_limit = math.log(_BY_CHANCE / max(1, len(names)))
    rows = [(name, reason, 1.0, True) for name, reason in _by_name(names, spec)] if patients else []
    rows += _by_order(cohort, patients, spec, log_limit=log_limit)
    table = pd.DataFrame([(task, *row, len(patients)) for row in rows], columns=list(SUSPICIOUS_COLUMNS))
    return table.astype({"share": float, "is_sure": bool, "n_patients": int})


def input_findings(table: pd.DataFrame, cohort: Cohort, task: str, *, allow: Collection[str]) -> list[Finding]:
    """Returns findings on suspicious inputs of one fold or several, strongest first, each input once.

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
        found = (
            f"{len(by_chance)} input(s) order the {by_chance['n_patients'].min()} training patients of a fold almost "
            f"perfectly, but with so few patients some columns do by chance. Strongest: {preview(shown, 3)}"
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
            for index in np.flatnonzero(ordering.share >= _NEARLY_PERFECT).tolist():
                share = math.floor(1000 * ordering.share[index]) / 1000
                reason = (
                    f"it alone orders the {len(known)} training patients of a fold ({ordering.meaning.format(share)})"
                )
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
    if not spec.is_survival:
        labels = np.array([patient.labels[spec.label_column] for patient in patients])
        for name in class_names(patients, spec):
            yield from _one_against_rest(values, labels == name, f"AUC {{}} of class {name}")
        return
    time_days = np.array([patient.time_days for patient in patients], dtype=np.float64)
    event = np.array([patient.event for patient in patients], dtype=bool)
    yield from _one_against_rest(values, event, "AUC {} of the event")
    later = known_orders(time_days, event)
    n_pairs = int(later.sum())
    if n_pairs:
        chance = _log_chance_of_order(later.sum(axis=1)[event], _allowed(n_pairs))
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
    chance = _log_chance_of_separation(n_cases, n_controls, _allowed(n_cases * n_controls))
    yield _Ordering(best_concordance(values, comparable), meaning, chance)


def best_concordance(
    values: Float[np.ndarray, "patient column"], comparable: Bool[np.ndarray, "patient patient"]
) -> Float[np.ndarray, " column"]:
    """Returns every column's concordance in its better direction, exact where it is at least 0.99, else 0.

    Ties count one half. A column is dropped as soon as the pairs that remain cannot make it nearly perfect, which for
    most columns takes a few patients, so that 20,000 genes of 500 patients take about a second.

    Args:
        values: Of every patient and column, nothing missing.
        comparable: True where the row's patient is compared with the column's.
    """
    cases = np.flatnonzero(comparable.any(axis=1))
    # those compared with most patients first: they decide soonest
    cases = cases[np.argsort(-comparable[cases].sum(axis=1), kind="stable")]
    n_pairs = int(comparable.sum())
    open_columns = np.arange(values.shape[1])
    balance = np.zeros(values.shape[1])  # pairs in rising order minus pairs in falling order
    n_seen = 0
    for start in range(0, len(cases), _BLOCK):
        remaining = values[:, open_columns]
        for case in cases[start : start + _BLOCK]:
            others = comparable[case]
            balance[open_columns] += np.sign(remaining[others] - remaining[case]).sum(axis=0, dtype=np.float64)
            n_seen += int(others.sum())
        reachable = np.abs(balance[open_columns]) + n_pairs - n_seen
        open_columns = open_columns[reachable >= (2 * _NEARLY_PERFECT - 1) * n_pairs - 1e-9]
        if not len(open_columns):
            break
    share = np.zeros(values.shape[1])
    share[open_columns] = 0.5 + np.abs(balance[open_columns]) / (2 * n_pairs)
    return share


def _allowed(n_pairs: int) -> int:
    """Returns how many pairs a nearly perfect column may have in the wrong order."""
    return math.floor((1 - _NEARLY_PERFECT) * n_pairs + 1e-9)


def _log_chance_of_separation(n_cases: int, n_controls: int, n_wrong: int) -> float:
    """Returns an upper bound of the log-probability that a random order separates two classes but for some pairs.

    Orders with j wrong pairs are at most the partitions of j, fewer than exp(pi sqrt(2 j / 3)), in either direction.
    """
    orders = math.log(2) + math.log(n_wrong + 1) + math.pi * math.sqrt(2 * n_wrong / 3)
    return orders - _log_choose(n_cases + n_controls, n_cases)


def _log_chance_of_order(n_later: Int[np.ndarray, " event"], n_wrong: int) -> float:
    """Returns an upper bound of the log-probability that a random order sorts all events but for some pairs.

    In a random order, the numbers of wrong pairs of the events are independent, each uniform from 0 to the number of
    later patients; at most C(events + wrong, events) combinations sum to no more than `n_wrong`, in either direction.
    """
    n_events = len(n_later)
    return math.log(2) + _log_choose(n_events + n_wrong, n_events) - float(np.log1p(n_later).sum())


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
