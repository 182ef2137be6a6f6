"""Folds that are drawn: stratified by outcome, or of whole sites."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Int

from subfuse.cohort.fold import Fold, strata_of, with_validation
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError, preview


def stratified_folds(
    patients: pd.DataFrame, *, folds: int, validation: float, stratify: Sequence[str], seed: int
) -> tuple[Fold, ...]:
    """Returns folds in which every patient is tested once, with the strata's mixture kept equal.

    A stratum is a combination of the values of `stratify`; unknown is a value of its own. Strata with fewer patients
    than `folds` are merged into one. Patients of a stratum are shuffled and dealt to the folds in turn, continuing
    where the stratum before stopped, so that fold sizes differ by at most one. The result depends on the set of
    patients and the seed, not on the order of rows.

    Args:
        patients: One row per patient, with `patient_id` and the columns of `stratify`.
        folds: Number of folds, at least 2.
        validation: Share of the patients that are not tested that is kept for model selection, rounded, at least one.
        stratify: Columns; none for folds at random.
        seed: Of the shuffling.

    Raises:
        ConfigurationError: A stratification column is missing.
        DataError: Too few patients: every fold needs one to train on, to validate with and to test.
    """
    table = patients.sort_values("patient_id")
    identifiers = table["patient_id"].to_numpy(dtype=str)
    if len(identifiers) < max(folds, 3):
        raise DataError(
            f"{folds} folds need at least {max(folds, 3)} patients. Found {len(identifiers)}. Use fewer folds."
        )
    strata = strata_of(table, stratify, folds)
    random = np.random.default_rng(seed)
    test_fold = _deal(strata, folds, random)
    return tuple(
        with_validation(
            identifiers[test_fold != k], strata[test_fold != k], validation, random, identifiers[test_fold == k]
        )
        for k in range(folds)
    )


def site_folds(
    patients: pd.DataFrame, *, folds: int, validation: float, stratify: Sequence[str], seed: int
) -> tuple[Fold, ...]:
    """Returns folds in which every site is tested once and as a whole, by a model that was trained on none of it.

    Sites are dealt to the folds from large to small, each to the fold where it adds least to what is there already,
    in number of patients and in the strata's mixture; a fold is therefore never without a site. The order of sites of
    similar size is drawn. Patients of unknown site count as one site. Validation patients come from all sites that
    are not tested.

    Args:
        patients: One row per patient, with `patient_id`, `site` (None where unknown) and the columns of `stratify`.
        folds: Number of folds, at least 2 and at most the number of sites.
        validation: As for `stratified_folds`.
        stratify: Columns whose mixture is kept as equal as whole sites allow.
        seed: Of the order of sites and of the validation patients.

    Raises:
        ConfigurationError: A stratification column is missing.
        DataError: Fewer sites than folds, or a fold without two patients to train on and validate with.
    """
    table = patients.sort_values("patient_id")
    identifiers = table["patient_id"].to_numpy(dtype=str)
    sites = table["site"].astype(object).where(table["site"].notna(), "unknown").astype(str)
    if sites.nunique() < folds:
        raise DataError(
            f"{folds} folds of whole sites need at least {folds} sites. Found {sites.nunique()} "
            f"({preview(sorted(sites.unique()))}). Use fewer folds, or map `site` in patients.columns."
        )
    strata = strata_of(table, stratify, folds)
    random = np.random.default_rng(seed)
    test_fold = _deal_sites(pd.Categorical(sites).codes, strata, folds, random)
    for k in range(folds):
        if (test_fold != k).sum() < 2:
            raise DataError(f"fold {k}: two patients of other sites are required to train and validate. Found fewer.")
    return tuple(
        with_validation(
            identifiers[test_fold != k], strata[test_fold != k], validation, random, identifiers[test_fold == k]
        )
        for k in range(folds)
    )


def repeated_folds(
    patients: pd.DataFrame,
    *,
    folds: int,
    repeats: int,
    validation: float,
    stratify: Sequence[str],
    seed: int,
    by: Literal["patient", "site"] = "patient",
) -> tuple[tuple[Fold, ...], ...]:
    """Returns several independent draws of folds; the first is what the seed draws without repetition.

    Arguments as for `stratified_folds`; by `site`, `site_folds`.

    Raises:
        ConfigurationError: A stratification column is missing.
        DataError: Too few patients or sites.
    """
    draw = site_folds if by == "site" else stratified_folds
    further = np.random.SeedSequence(seed).generate_state(repeats - 1)
    return tuple(
        draw(patients, folds=folds, validation=validation, stratify=stratify, seed=int(each))
        for each in (seed, *further)
    )


def default_stratification(tasks: Mapping[str, TaskSpec], patients: pd.DataFrame) -> tuple[str, ...]:
    """Returns the columns whose mixture folds keep by default: the event, else the first label; also the cohort.

    Numbers, of which hardly two patients have the same, make no mixture.
    """
    columns = [task.stratified_by for task in tasks.values() if not task.is_regression]
    outcome = ("event",) if "event" in columns else tuple(columns[:1])
    return ("cohort", *outcome) if patients["cohort"].nunique() > 1 else outcome


def _deal(strata: Int[np.ndarray, " patient"], parts: int, random: np.random.Generator) -> Int[np.ndarray, " patient"]:
    """Returns a part per patient: shuffled within strata, dealt in turn over all strata."""
    order = np.concatenate([random.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata)])
    part = np.empty(len(strata), dtype=np.int64)
    part[order] = np.arange(len(strata)) % parts
    return part


def _deal_sites(
    sites: Int[np.ndarray, " patient"], strata: Int[np.ndarray, " patient"], parts: int, random: np.random.Generator
) -> Int[np.ndarray, " patient"]:
    """Returns a part per patient, the same for all patients of a site: greedily, large sites first."""
    members = pd.crosstab(sites, strata).to_numpy(dtype=float)  # site x stratum
    members = np.column_stack([members, members.sum(axis=1)])  # the number of patients counts like a stratum
    filled = np.zeros((parts, members.shape[1]))
    part_of_site = np.zeros(len(members), dtype=np.int64)
    share = members / members.sum(axis=0)
    for site in np.argsort(-members[:, -1] * random.uniform(0.5, 1.0, size=len(members)), kind="stable"):
        part_of_site[site] = np.argmin(filled @ share[site])  # 0 for an empty part
        filled[part_of_site[site]] += members[site]
    return part_of_site[sites]
