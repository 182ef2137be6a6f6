"""Audit of predictions: leakage, fusion, linear baselines, calibration, labels; and, plainly, what was not checked."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.audit.any_origin.any_table import auditable
from subfuse.audit.calibration import calibration_findings, decision_findings, promise_findings
from subfuse.audit.comparison_family import check_modalities, compare_task, known_modalities
from subfuse.audit.confounding.confounders import CHECK as CONFOUNDING
from subfuse.audit.confounding.confounders import MeanFeatures, confounder_findings
from subfuse.audit.confounding.held_out_sites import held_out_findings
from subfuse.audit.confounding.strata import of_tested, require_groups, strata_of, stratum_findings
from subfuse.audit.disguised_outcomes import SUSPICIOUS_COLUMNS, input_findings, suspicious_inputs
from subfuse.audit.exchanged import SHUFFLE_NULL, interactions, modality_shuffles
from subfuse.audit.findings import Audit, Finding, sorted_findings
from subfuse.audit.fitting import check_fitting, check_selection, read_jobs
from subfuse.audit.fusion import fusion_benefit
from subfuse.audit.labels import label_findings
from subfuse.audit.leakage import check_expression, check_patients, check_slides
from subfuse.audit.nulls import SIGNIFICANCE, permute_labels
from subfuse.audit.recommendation import headline_values
from subfuse.audit.simple_baselines import compare_with_simple, what_is_added
from subfuse.cohort.cohort import Cohort, read_cohort
from subfuse.cohort.fold import Fold
from subfuse.errors import SubfuseError
from subfuse.evaluation.calibration import calibration_table, reliability_table
from subfuse.evaluation.predictions import FOLD, read_tasks, stacked
from subfuse.evaluation.survival.hazard_ratios import hazard_ratios
from subfuse.run_folder.layout import TRAIN_AGAIN, changed_since, read_config, read_run_patients, require_run
from subfuse.run_folder.tables import read_predictions
from subfuse.training.models import main_model

N_BOOTSTRAP = 1000
_NEEDS_RUN = {
    "slide leakage": "the slides",
    "expression leakage": "the expression",
    "outcome in disguise": "the inputs",
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
        patients: Table with patient_id and any of site, age, sex, grade, markers, and the strata.
        strata: Columns of that table within which results are shown too; see `strata_of`.
        n_bootstrap: Replicates of paired comparisons.
        seed: Of bootstrap and permutations.

    Returns:
        Findings, worst first, and tables `fusion`, `rescued`, `label_permutation`, `added_value`, `decision_curves`,
        `conformal`, `strata`, `pairs`, `calibration`, `reliability` and `hazard_ratios`.

    Raises:
        ConfigurationError: Modalities of a model that is not there, or strata that group no patients.
        DataError: The table lacks the columns above, or test patients.
    """
    require_groups(strata, patients)
    findings, tables, _ = _audit_table(
        predictions, modalities or {}, patients, strata, n_bootstrap=n_bootstrap, seed=seed
    )
    findings += [
        Finding(
            "note", check, f"cannot be checked from predictions alone: it needs {what}", "", "Audit the run folder."
        )
        for check, what in _NEEDS_RUN.items()
    ]
    findings += check_selection([], predictions if "split" in predictions else pd.DataFrame({"split": []}))
    return Audit(sorted_findings(findings), tables)


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
        exchanges: Among how many test patients of every fold slides and expression are exchanged, each with each, to
            tell what models of both have beyond their sum: as many predictions as its square, none for less than 3.
        n_bootstrap: Replicates of paired comparisons.
        seed: Of bootstrap, permutations and shuffling.

    Returns:
        As `audit_predictions`; the table `fusion` also has the shuffled modalities, `confounders` what hospital and
        batch explain, `held_out_sites` what random folds promise beyond whole hospitals, `interaction` (with exchanges)
        the shares of `variance_shares`, and `suspicious_inputs` names all inputs that order training patients almost
        perfectly.

    Raises:
        ConfigurationError: The folder is not a run, or modalities of a model that it does not have.
        DataError: Its predictions cannot be audited.
    """
    folder = Path(folder)
    require_run(folder)
    config, predictions = read_config(folder), read_predictions(folder / "predictions.csv")
    cohort, missing = _cohort(folder, config)
    patients, strata = read_run_patients(folder), () if cohort is None else cohort.strata
    findings, tables, table = _audit_table(
        predictions, modalities or {}, patients, strata, n_bootstrap=n_bootstrap, seed=seed
    )
    jobs = read_jobs(folder, predictions)
    findings += check_fitting(jobs, config, cohort)
    findings += check_selection(jobs, predictions)
    elsewhere, tables["held_out_sites"] = held_out_findings(folder, table, n_bootstrap=n_bootstrap, seed=seed)
    findings += elsewhere
    if cohort is None:
        findings += [
            Finding("note", check, f"cannot be checked: {missing}")
            for check in (*_NEEDS_RUN, "declared strata")
            if check != "fitted outside training"
        ]
        return Audit(sorted_findings(findings), tables)
    findings += _changes(folder, cohort)
    assignment = predictions[[*FOLD, "split", "patient_id"]].drop_duplicates()
    findings += check_slides(cohort, assignment)
    findings += check_expression(cohort, assignment)
    inputs, tables["suspicious_inputs"] = _input_findings(cohort, predictions, config.get("allow_inputs") or ())
    findings += inputs
    stands_behind, tables["confounders"] = _confounders(table, cohort, seed=seed)
    findings += stands_behind
    shuffles, shuffled = modality_shuffles(table, jobs, cohort, modalities or {}, n_bootstrap=n_bootstrap, seed=seed)
    tables["fusion"] = stacked([tables["fusion"], shuffled])
    together, tables["interaction"] = interactions(table, jobs, cohort, exchanges, seed=seed)
    return Audit(sorted_findings([*findings, *shuffles, *together]), tables)


def _audit_table(
    predictions: pd.DataFrame,
    given: Mapping[str, Collection[str]],
    patients: pd.DataFrame | None,
    declared: Sequence[str],
    *,
    n_bootstrap: int,
    seed: int,
) -> tuple[list[Finding], dict[str, pd.DataFrame], pd.DataFrame]:
    check_modalities(given, predictions["model"].unique() if "model" in predictions else ["model"])
    table, findings = auditable(predictions)
    table, leaks = check_patients(table)
    findings += leaks
    names = ("fusion", "rescued", "label_permutation", "added_value", "decision_curves", "conformal", "strata", "pairs")
    collected: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
    strata, columns = ([], None) if patients is None else strata_of(patients, declared)
    for task in read_tasks(table):
        modalities, values = known_modalities(task.models, given), headline_values(task)
        findings += label_findings(task, patients)
        permuted, null = permute_labels(task, values, np.random.default_rng(seed))
        contest, comparisons = compare_task(
            task, modalities, values, reference=main_model(list(table["model"])), n_bootstrap=n_bootstrap, seed=seed
        )
        unrelated = null.loc[null["p_value"] >= SIGNIFICANCE, "model"].tolist()
        benefit = fusion_benefit(contest, comparisons, unrelated)
        findings += [*permuted, *benefit.findings]
        findings += compare_with_simple(task, modalities, comparisons, values)
        adds, added = what_is_added(task, modalities, values, n_bootstrap=n_bootstrap, seed=seed)
        trivial = added["trivial"].iloc[0] if len(added) else None
        decides, curves = decision_findings(task, trivial, n_bootstrap=n_bootstrap, seed=seed)
        in_strata = pd.DataFrame() if columns is None else of_tested(task, columns[strata])
        promises, kept = promise_findings(task, in_strata)
        findings += [*adds, *decides, *promises]
        found = ([], pd.DataFrame(), pd.DataFrame()) if columns is None else (
            stratum_findings(task, strata, columns, values, n_bootstrap=n_bootstrap, seed=seed)
        )  # fmt: skip
        findings += found[0]
        parts = (benefit.differences, benefit.rescued, null, added, curves, kept, *found[1:])
        for name, part in zip(names, parts, strict=True):
            collected[name].append(part)
    tables = {name: stacked(parts) for name, parts in collected.items()}
    tables["calibration"] = calibration_table(table)
    tables["reliability"] = reliability_table(table)
    tables["hazard_ratios"] = hazard_ratios(table, patients=patients)
    findings += calibration_findings(tables["calibration"])
    return findings, tables, table


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
    if prepared is None:
        return None, "the run does not name its prepared cohort. Put the folder back where it was."
    try:
        return read_cohort((folder / prepared).resolve()), ""
    except SubfuseError as error:
        return None, str(error)


def _input_findings(
    cohort: Cohort, predictions: pd.DataFrame, allow: Collection[str]
) -> tuple[list[Finding], pd.DataFrame]:
    """Returns the findings of `check_inputs` for every task, over the folds of the first repeat, and what they name."""
    findings: list[Finding] = []
    tables = [pd.DataFrame(columns=list(SUSPICIOUS_COLUMNS))]
    for name, rows in predictions.groupby("task", sort=False):
        if str(name) not in cohort.tasks:
            continue
        train = rows[(rows["repeat"] == rows["repeat"].min()) & (rows["split"] == "train")]
        folds = [tuple(fold["patient_id"].drop_duplicates()) for _, fold in train.groupby("fold")]
        of_task = [suspicious_inputs(cohort, Fold(patients, (), ()), str(name)) for patients in folds]
        tables += of_task
        names = cohort.names_in_table
        found = (
            input_findings(pd.concat(of_task), str(name), allow=allow, in_table=names, covariates=cohort.covariates)
            if of_task
            else []
        )
        n_inputs = len(cohort.genes) + len(cohort.covariates)
        ok = f"none of {n_inputs} inputs is the outcome by name or orders the training patients of a fold alone"
        findings += found or [Finding("ok", "outcome in disguise", ok, task=str(name))]
    return findings, stacked(tables).drop_duplicates(["task", "input", "reason"])


def _confounders(table: pd.DataFrame, cohort: Cohort, *, seed: int) -> tuple[list[Finding], pd.DataFrame]:
    """Returns for every task whether hospital or batch stand behind its result."""
    findings, tables, means = [], [], MeanFeatures()
    for task in read_tasks(table):
        found, rows = confounder_findings(cohort, task, headline_values(task), means, seed=seed)
        findings += found
        tables.append(rows)
    return findings, stacked(tables)
