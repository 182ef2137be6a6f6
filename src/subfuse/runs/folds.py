"""Which folds a run uses: the cohort's own, newly drawn ones, or those it is given."""

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from subfuse.cohort.cohort import Cohort, read_resolved
from subfuse.cohort.cohort_file import DrawnSplits
from subfuse.cohort.drawn_folds import default_stratification, repeated_folds
from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import SPLITS, read_repeats
from subfuse.errors import ConfigurationError


def choose_folds(cohort: Cohort, folds: int | Sequence[Fold] | None, *, seed: int) -> tuple[Fold, ...]:
    """Returns the folds of a run without repetition; see `choose_repeats`."""
    return choose_repeats(cohort, folds, repeats=1, seed=seed)[0]


def choose_repeats(
    cohort: Cohort, folds: int | Sequence[Fold] | None, *, repeats: int | None = None, seed: int
) -> tuple[tuple[Fold, ...], ...]:
    """Returns the folds of every repeat of a run.

    Repeats beyond the cohort's own are drawn by the rules of its cohort file, and do not change when their number
    grows, so that a run can be extended.

    Args:
        cohort: The cohort.
        folds: None for the cohort's own splits; a number draws that many folds unless the cohort's own splits have
            that number; or the folds themselves.
        repeats: How often; None for as often as the cohort's own splits have been drawn, else once.
        seed: Of newly drawn folds.

    Raises:
        ConfigurationError: No number of folds for a cohort without its own splits, or repeats of folds that are given.
        DataError: Fold files were changed, or there are too few patients or sites.
    """
    if repeats is not None and repeats < 1:
        raise ConfigurationError(f"repeats must be at least 1. Found {repeats}.")
    if folds is not None and not isinstance(folds, int):
        if repeats not in (None, 1):
            raise ConfigurationError(f"repeats: folds that are given are used once. Found {repeats}.")
        return (tuple(folds),)
    own = () if cohort.root is None or not (cohort.root / SPLITS).exists() else read_repeats(cohort.root / SPLITS)
    if folds is None and not own:
        if not cohort.tasks:
            raise ConfigurationError(
                f"cohort {cohort.name!r} has no outcomes to train on. Predict its patients with `subfuse predict`."
            )
        raise ConfigurationError(
            f"cohort {cohort.name!r} has no folds, as one that is external or was not prepared. Predict its patients "
            "with `subfuse predict`, or give a number of folds to train on it."
        )
    n_folds = len(own[0]) if folds is None else folds
    if own and n_folds != len(own[0]):
        own = ()
    n_repeats = repeats or len(own) or 1
    if n_repeats <= len(own):
        return own[:n_repeats]
    return own + _draw(cohort, n_folds, repeats=n_repeats, seed=seed)[len(own) :]


def folds_of_sites(cohort: Cohort, folds: int, *, seed: int) -> tuple[Fold, ...]:
    """Returns folds of whole hospitals: as many as given, or one for each hospital where there are fewer.

    Raises:
        ConfigurationError: Fewer than two hospitals are known, or the cohort's own folds are of whole hospitals.
        DataError: A fold without two patients to train on and validate with.
    """
    n_sites = len({patient.site for patient in cohort} - {None})
    if n_sites < 2:
        raise ConfigurationError(
            f"folds of whole hospitals need patients of two hospitals or more. Found {n_sites}. Map `site` in "
            "patients.columns."
        )
    if _rules(cohort).by == "site":
        raise ConfigurationError(
            "splits: the folds are of whole hospitals already (`by: site`). Draw folds of patients to compare with."
        )
    return _draw(cohort, min(folds, n_sites), repeats=1, seed=seed, by="site")[0]


def _rules(cohort: Cohort) -> DrawnSplits:
    """Returns how a cohort's folds are drawn; where they are given, how further ones are."""
    if cohort.root is None:
        return DrawnSplits()
    splits = read_resolved(cohort.root).splits
    if isinstance(splits, DrawnSplits):
        return splits
    return DrawnSplits(validation=splits.validation, stratify=splits.stratify, seed=splits.seed)


def _draw(
    cohort: Cohort, folds: int, *, repeats: int, seed: int, by: Literal["patient", "site"] | None = None
) -> tuple[tuple[Fold, ...], ...]:
    if folds < 2:
        raise ConfigurationError(f"folds must be at least 2. Found {folds}.")
    rules = _rules(cohort)
    patients = pd.DataFrame(
        [{"patient_id": p.patient_id, "cohort": p.cohort, "site": p.site, "event": p.event, **p.labels} for p in cohort]
    )
    stratify = rules.stratify if rules.stratify is not None else default_stratification(cohort.tasks, patients)
    return repeated_folds(
        patients,
        folds=folds,
        repeats=repeats,
        validation=rules.validation,
        stratify=[column for column in stratify if column in patients],
        seed=seed,
        by=by or rules.by,
    )
