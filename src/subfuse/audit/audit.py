"""Audit of predictions: leakage, fusion, linear baselines, calibration, labels; and, plainly, what was not checked."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from subfuse.audit.any_origin.any_table import auditable
from subfuse.audit.any_origin.trivial_models import TrivialModels, fit_trivial_models
from subfuse.audit.audited_task import N_BOOTSTRAP, AuditedTask, audited_tasks, check_modalities
from subfuse.audit.calibration import (
    calibration_findings,
    decision_findings,
    promise_findings,
    without_probabilities,
)
from subfuse.audit.comparison_family import compare_task
from subfuse.audit.confounding.confounders import CHECK as CONFOUNDING
from subfuse.audit.confounding.confounders import MeanFeatures, confounder_findings
from subfuse.audit.confounding.embeddings import embeddings_of_tested
from subfuse.audit.confounding.held_out_sites import held_out_findings
from subfuse.audit.confounding.strata import of_tested, require_groups, strata_of, stratum_findings
from subfuse.audit.disguised_outcomes import CHECK as DISGUISED
from subfuse.audit.disguised_outcomes import SUSPICIOUS_COLUMNS, input_findings, suspicious_inputs
from subfuse.audit.findings import SIGNIFICANCE, Audit, Finding, sorted_findings
from subfuse.audit.fitting import check_fitting, check_selection, read_jobs
from subfuse.audit.fusion import fusion_benefit
from subfuse.audit.labels import label_findings
from subfuse.audit.leakage import check_expression, check_patients, check_slides
from subfuse.audit.modalities.available import by_available_modality
from subfuse.audit.modalities.exchanged import SHUFFLE_NULL, interactions, modality_shuffles
from subfuse.audit.nulls import permute_labels
from subfuse.audit.simple_baselines import added_to_clinical, compare_with_simple, what_is_added
from subfuse.cohort.cohort import Cohort, read_cohort
from subfuse.cohort.fold import Fold
from subfuse.errors import SubfuseError
from subfuse.evaluation.calibration.measures import calibration_table, reliability_table
from subfuse.evaluation.calibration_slopes import slope_table
from subfuse.evaluation.predictions import FOLD, stacked
from subfuse.evaluation.survival.hazard_ratios import hazard_ratios
from subfuse.run_folder.cohort_copy import changed_since, read_run_patients
from subfuse.run_folder.layout import TRAIN_AGAIN, read_config, require_run
from subfuse.run_folder.names import PREDICTIONS
from subfuse.run_folder.tables import read_predictions
from subfuse.training.models import compared_in, main_model

_OF_TASKS = (  # tables, in the order of audit.json; those that only a run has follow
    "fusion", "rescued", "label_permutation", "added_value", "decision_curves", "conformal", "strata", "pairs",
)  # fmt: skip
_NEEDS_RUN = {
    "slide leakage": "the slides",
    "expression leakage": "the expression",
    DISGUISED: "the inputs",
    "fitted outside training": "the fitted models",
    CONFOUNDING: "the inputs",
    SHUFFLE_NULL: "the fitted models and their inputs",
}


def audit_predictions(
    predictions: pd.DataFrame,
    *,
    modalities: Mapping[str, Collection[str]] | None = None,
    patients: pd.DataFrame | None = None,
    strata: Sequence[str] = (),
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Audit:
    """Audits any table of predictions, made by this package or not.

    Needs `patient_id`, and `time_days`, `event` and `risk` (survival) or `label` and `p_<class>` (classification).
    The other columns of predictions.csv allow more checks; findings of level note say what could not be checked.

    Args:
        predictions: One row per patient, and per task, model, repeat, fold and split where there are several.
        modalities: Model to the modalities it reads, for models that this package does not know.
        patients: Table with patient_id and any of site, batch, age, sex, grade, markers, and the strata. The trivial
            models that the predictions lack are fitted on these columns; see `fit_trivial_models`.
        strata: Columns of that table within which results are shown too; see `strata_of`.
        n_bootstrap: Replicates of paired comparisons.
        seed: Of bootstrap and permutations.

    Returns:
        Findings, worst first, and tables `fusion`, `rescued`, `label_permutation`, `added_value`, `decision_curves`,
        `conformal`, `strata`, `pairs`, `calibration`, `calibration_slopes`, `reliability` and `hazard_ratios`.

    Raises:
        ConfigurationError: Modalities of a model that is not there, or strata that group no patients.
        DataError: The table lacks the columns above, or test patients.
    """
    require_groups(strata, patients)
    audited, _ = _audit_table(
        predictions, modalities or {}, patients, strata, fits=True, n_bootstrap=n_bootstrap, seed=seed
    )
    audited.add(
        Finding(
            "note", check, f"cannot be checked from predictions alone: it needs {what}", "", "Audit the run folder."
        )
        for check, what in _NEEDS_RUN.items()
        if not audited.holds(check)
    )
    audited.add(check_selection([], predictions if "split" in predictions else pd.DataFrame({"split": []})))
    return audited.audit()


def audit_run(
    folder: Path,
    *,
    modalities: Mapping[str, Collection[str]] | None = None,
    exchanges: int = 0,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> Audit:
    """Audits a run folder: its predictions, its fitted models and, where it still is, its prepared cohort.

    Args:
        folder: Run folder with config.yaml and predictions.csv.
        modalities: As for `audit_predictions`.
        exchanges: Number of test patients of every fold among whom slides and expression are exchanged, each with each,
            to tell what models of both have beyond their sum. That takes as many predictions as its square; below 3,
            nothing is exchanged.
        n_bootstrap: Replicates of paired comparisons.
        seed: Of bootstrap, permutations and shuffling.

    Returns:
        As `audit_predictions`; the table `fusion` also has the shuffled modalities, `confounders` what hospital and
        batch explain, `held_out_sites` what random folds promise beyond whole hospitals, `available` what models of
        both modalities are worth with one of them hidden, `interaction` (with exchanges) the shares of
        `variance_shares`, and `suspicious_inputs` names all inputs that order training patients almost perfectly.

    Raises:
        ConfigurationError: The folder is not a run, or modalities of a model that it does not have.
        DataError: Its predictions cannot be audited.
    """
    folder = Path(folder)
    require_run(folder)
    config, predictions = read_config(folder), read_predictions(folder / PREDICTIONS)
    cohort, missing = _cohort(folder, config)
    patients, strata = read_run_patients(folder), () if cohort is None else cohort.strata
    runnable = [] if cohort is None else compared_in(cohort, _folds(predictions))
    audited, tasks = _audit_table(
        predictions, modalities or {}, patients, strata, runnable=runnable, n_bootstrap=n_bootstrap, seed=seed
    )
    jobs = read_jobs(folder, predictions)
    audited.add(check_fitting(jobs, config, cohort))
    audited.add(check_selection(jobs, predictions))
    audited.add(*held_out_findings(folder, tasks), table="held_out_sites")
    if cohort is None:
        checks = [check for check in (*_NEEDS_RUN, "declared strata") if check != "fitted outside training"]
        audited.add(Finding("note", check, f"cannot be checked: {missing}") for check in checks)
        return audited.audit()
    audited.add(_changes(folder, cohort))
    assignment = predictions[[*FOLD, "split", "patient_id"]].drop_duplicates()
    audited.add(check_slides(cohort, assignment))
    audited.add(check_expression(cohort, assignment))
    audited.add(*_input_findings(cohort, predictions, config.get("allow_inputs") or ()), table="suspicious_inputs")
    means = MeanFeatures()
    for task in tasks:
        embeddings = partial(embeddings_of_tested, task, jobs, cohort)
        audited.add(*confounder_findings(cohort, task, means, embeddings), table="confounders")
    for task in tasks:
        audited.add(*modality_shuffles(task, jobs, cohort), table="fusion")
    for task in tasks:
        audited.add([], by_available_modality(task, jobs, cohort), table="available")
    for task in tasks:
        audited.add(*interactions(task, jobs, cohort, exchanges), table="interaction")
    return audited.audit()


class _Audited:
    """Findings, and the rows of their tables, as the checks of several tasks yield them."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._rows: dict[str, list[pd.DataFrame]] = {name: [] for name in _OF_TASKS}

    def add(self, findings: Iterable[Finding], rows: pd.DataFrame | None = None, *, table: str = "") -> None:
        """Adds what a check found, and the rows behind it to the table of that name."""
        self._findings += findings
        if rows is not None:
            self._rows.setdefault(table, []).append(rows)

    def holds(self, check: str) -> bool:
        """Returns whether a check has found something."""
        return any(finding.check == check for finding in self._findings)

    def audit(self) -> Audit:
        """Returns all of it, findings worst first."""
        tables = {name: stacked(rows or [pd.DataFrame()]) for name, rows in self._rows.items()}
        return Audit(sorted_findings(dict.fromkeys(self._findings)), tables)  # each once, of several models too


def _audit_table(
    predictions: pd.DataFrame,
    given: Mapping[str, Collection[str]],
    patients: pd.DataFrame | None,
    declared: Sequence[str],
    *,
    runnable: Sequence[str] = (),
    fits: bool = False,
    n_bootstrap: int,
    seed: int,
) -> tuple[_Audited, list[AuditedTask]]:
    check_modalities(given, predictions["model"].unique() if "model" in predictions else ["model"])
    table, findings = auditable(predictions)
    table, leaks = check_patients(table)
    trivial = TrivialModels() if patients is None or not fits else fit_trivial_models(table, patients, given)
    table = stacked([table, trivial.rows]) if len(trivial.rows) else table
    fitted_here = {*trivial.rows.get("model", ())}  # no claims of anybody
    audited = _Audited()
    audited.add([*findings, *leaks, *trivial.findings])
    strata, columns = ([], None) if patients is None else strata_of(patients, declared)
    tasks = audited_tasks(table, given, n_bootstrap=n_bootstrap, seed=seed)
    for task in tasks:
        audited.add(label_findings(task, patients))
        permuted, null = permute_labels(task)
        audited.add((f for f in permuted if f.model not in fitted_here), null, table="label_permutation")
        contest, comparisons = compare_task(task, reference=main_model(list(table["model"])))
        unrelated = null.loc[null["p_value"] >= SIGNIFICANCE, "model"].tolist()
        benefit = fusion_benefit(contest, comparisons, unrelated)
        audited.add(benefit.findings, benefit.differences, table="fusion")
        audited.add([], benefit.rescued, table="rescued")
        unfitted = trivial.unfitted.get(task.name)
        audited.add(compare_with_simple(task, comparisons, unrelated=unrelated, runnable=runnable, unfitted=unfitted))
        adds, added = what_is_added(task)
        audited.add(adds, added, table="added_value")
        of_clinical, added_beside = added_to_clinical(task, comparisons)
        audited.add(of_clinical, added_beside, table="added_value")
        instead = next((str(rows["trivial"].iloc[0]) for rows in (added_beside, added) if len(rows)), None)
        if task.outcome.kind == "regression":
            audited.add(without_probabilities(task))
        others = [model for model in task.models if fits and model not in (task.main, *task.trivial)]
        for led in (task, *(replace(task, led_by=model) for model in others)):
            _audit_lead(audited, led, instead, trivial.cohorts.get(task.name), strata, columns)
    calibration, slopes = calibration_table(table), slope_table(table)
    audited.add(
        (f for f in calibration_findings(calibration, slopes) if f.model not in fitted_here),
        calibration,
        table="calibration",
    )
    audited.add([], slopes, table="calibration_slopes")
    audited.add([], reliability_table(table), table="reliability")
    audited.add([], hazard_ratios(table, patients=patients), table="hazard_ratios")
    return audited, tasks


def _audit_lead(
    audited: _Audited,
    task: AuditedTask,
    instead: str | None,
    tabled: Cohort | None,
    strata: Sequence[str],
    columns: pd.DataFrame | None,
) -> None:
    """Adds what is asked of one model: whether it is worth acting on, confounded, keeps its promises, and for whom."""
    if task.outcome.kind != "regression":
        audited.add(*decision_findings(task, instead), table="decision_curves")
    if tabled is not None:
        audited.add(*confounder_findings(tabled, task, MeanFeatures(), dict), table="confounders")
    if task.outcome.kind != "regression":
        in_strata = pd.DataFrame() if columns is None else of_tested(task, columns[[*strata]])
        audited.add(*promise_findings(task, in_strata), table="conformal")
    if columns is not None:
        found, within, pairs = stratum_findings(task, strata, columns)
        audited.add(found, within, table="strata")
        audited.add([], pairs, table="pairs")


def _folds(predictions: pd.DataFrame) -> list[Fold]:
    """Returns who trained and who was tested in the folds of the first repeat; who did both is tested."""
    first = predictions[predictions["repeat"] == predictions["repeat"].min()]
    sides = (
        {side: set(rows["patient_id"]) for side, rows in fold.groupby("split")} for _, fold in first.groupby("fold")
    )
    empty: set[str] = set()
    return [
        Fold(tuple(side.get("train", empty) - side.get("test", empty)), (), tuple(side.get("test", empty)))
        for side in sides
    ]


def _changes(folder: Path, cohort: Cohort) -> list[Finding]:
    """Returns whether the run's own cohort is what the run was made from."""
    changed = "" if cohort.root is None else changed_since(folder, cohort.root)
    if not changed:
        return []
    found = f"the prepared cohort has changed since the run was made from it: {changed}"
    why = "What is recomputed from it is not what the models were trained on."
    return [Finding("warning", "prepared again", found, why, f"{TRAIN_AGAIN}.")]


def _cohort(folder: Path, config: Mapping[str, Any]) -> tuple[Cohort | None, str]:
    prepared = config.get("prepared")
    if prepared is None and config.get("trained"):
        return None, "these patients are not those of development. Audit the run that they evaluate."
    if prepared is None:
        return None, "the run does not name its prepared cohort. Put the folder back where it was."
    try:
        return read_cohort((folder / prepared).resolve()), ""
    except SubfuseError as error:
        return None, str(error)


def _input_findings(
    cohort: Cohort, predictions: pd.DataFrame, allow: Collection[str]
) -> tuple[list[Finding], pd.DataFrame]:
    """Returns the findings of `check_inputs` for every task, over all who train in the first repeat, and their rows."""
    findings: list[Finding] = []
    tables = [pd.DataFrame(columns=list(SUSPICIOUS_COLUMNS))]
    for name, rows in predictions.groupby("task", sort=False):
        if str(name) not in cohort.tasks:
            continue
        train = rows[(rows["repeat"] == rows["repeat"].min()) & (rows["split"] == "train")]
        of_task = suspicious_inputs(cohort, set(train["patient_id"]), str(name))
        tables.append(of_task)
        found = input_findings(of_task, cohort, str(name), allow=allow)
        n_inputs = len(cohort.genes) + len(cohort.covariates)
        ok = f"none of {n_inputs} inputs is the outcome by name or orders the training patients alone"
        findings += found or [Finding("ok", DISGUISED, ok, task=str(name))]
    return findings, stacked(tables).drop_duplicates(["task", "input", "reason"])
