"""What remains of a plan once its slides have been opened: patients, folds and expression without what failed."""

from collections.abc import Collection, Iterator
from dataclasses import replace

import pandas as pd

from subfuse.cohort.cohort_file import DrawnSplits
from subfuse.cohort.fold import Fold
from subfuse.errors import DataError
from subfuse.exclusions import NothingLeft, commonest_reasons, example_of, exclusion_table, join_exclusions
from subfuse.preparation.declared_folds import declared_folds
from subfuse.preparation.plan import CohortPlan
from subfuse.preparation.sources import restrict_expression

Repeats = tuple[tuple[Fold, ...], ...]


def remaining(plan: CohortPlan, failures: pd.DataFrame) -> CohortPlan:
    """Returns the plan without slides that failed, with these among its exclusions.

    A patient whose slides all failed and who has no expression is excluded, and leaves its fold; the others stay where
    they were, unless a drawn fold would lose all its training, validation or test patients: then all are drawn anew.

    Args:
        plan: What was planned.
        failures: Level, id and reason of the slides that cannot be used.

    Raises:
        NothingLeft: All slides of a cohort failed, nobody is left, or a fold loses all its training, validation or test
            patients and cannot be drawn anew.
    """
    failed = set(failures.loc[failures["level"] == "slide", "id"])
    slides = tuple(source for source in plan.slides if source.slide_id not in failed)
    counts = pd.Series([source.patient_id for source in slides], dtype=object).value_counts()
    patients = plan.patients.assign(n_slides=plan.patients["patient_id"].map(counts).fillna(0).astype(int))
    usable = (patients["n_slides"] > 0) | patients["has_expression"]
    lost = exclusion_table(
        ("patient", str(patient), "none of its slides could be prepared, and it has no expression")
        for patient in patients.loc[~usable, "patient_id"]
    )
    exclusions = join_exclusions([plan.exclusions, failures, lost])
    _require_slides(plan, patients, failures, exclusions)
    patients = patients[usable].reset_index(drop=True)
    kept = set(patients["patient_id"])
    left = replace(
        plan,
        patients=patients,
        slides=slides,
        expression=None if plan.expression is None else restrict_expression(plan.expression, kept)[0],
        exclusions=exclusions,
        warnings_of_tables=(*plan.warnings_of_tables, *_few_usable(plan.patients, patients, failures)),
    )
    try:
        return replace(left, repeats=_restricted_repeats(plan.repeats, kept, failures, exclusions))
    except NothingLeft:
        redrawn = _drawn_anew(left)
        if redrawn is None:
            raise
        return redrawn


def _drawn_anew(plan: CohortPlan) -> CohortPlan | None:
    """Returns a plan with folds drawn of the patients that it has; None where folds are given, or too few are left."""
    if not isinstance(plan.splits, DrawnSplits):
        return None
    try:
        repeats, _ = declared_folds(plan.splits, plan.developed, plan.stratify, plan.slides)
    except DataError:
        return None
    if not all(all((fold.train, fold.validation, fold.test)) for folds in repeats for fold in folds):
        return None
    told = (
        f"folds are drawn anew of the {len(plan.developed)} patients that remain: of those drawn before, one was empty"
    )
    return replace(plan, repeats=repeats, warnings_of_tables=(*plan.warnings_of_tables, told))


def _few_usable(before: pd.DataFrame, after: pd.DataFrame, failures: pd.DataFrame) -> Iterator[str]:
    """Yields a warning for each cohort of whose slides fewer than half can be used."""
    for cohort, rows in before.groupby("cohort", sort=False):
        listed = int(rows["n_slides"].sum())
        usable = int(after.loc[after["cohort"] == cohort, "n_slides"].sum())
        if 0 < 2 * usable < listed:
            yield f"{cohort}: only {usable} of {listed} slides can be used. {example_of(failures)}"


def _require_slides(plan: CohortPlan, patients: pd.DataFrame, failures: pd.DataFrame, exclusions: pd.DataFrame) -> None:
    """Checks that every cohort that has slides keeps one."""
    before = plan.patients.groupby("cohort")["n_slides"].sum()
    after = patients.groupby("cohort")["n_slides"].sum()
    for cohort in before.index[(before > 0) & (after == 0)]:
        of_cohort = set(plan.patients.loc[plan.patients["cohort"] == cohort, "patient_id"])
        names = {source.slide_id for source in plan.slides if source.patient_id in of_cohort}
        raise NothingLeft(
            f"{cohort}: a slide that can be used is required where `slides` is declared. Found {len(names)} and none "
            f"that can. Commonest reason: {commonest_reasons(failures[failures['id'].isin(names)], 1)}. "
            "Repair them, or remove `slides`.",
            exclusions,
        )


def _restricted_repeats(
    repeats: Repeats, kept: Collection[str], failures: pd.DataFrame, exclusions: pd.DataFrame
) -> Repeats:
    return tuple(
        tuple(
            _restricted(fold, kept, f"repeat {r}, fold {k}" if r else f"fold {k}", failures, exclusions)
            for k, fold in enumerate(folds)
        )
        for r, folds in enumerate(repeats)
    )


def _restricted(fold: Fold, kept: Collection[str], name: str, failures: pd.DataFrame, exclusions: pd.DataFrame) -> Fold:
    sides = [tuple(patient for patient in side if patient in kept) for side in (fold.train, fold.validation, fold.test)]
    if not all(sides):
        raise NothingLeft(
            f"{name}: patients to train on, validate with and test are required. After exclusions there are "
            f"{len(sides[0])}, {len(sides[1])} and {len(sides[2])}. Commonest reasons: {commonest_reasons(failures)}. "
            "Use fewer folds, or repair the excluded slides.",
            exclusions,
        )
    return Fold(*sides)
