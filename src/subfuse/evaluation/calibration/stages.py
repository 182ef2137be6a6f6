"""Probabilities and survival curves of test patients, as predicted and as recalibrated by validation patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from subfuse.evaluation.censoring import HORIZON_DAYS, SurvivalCurves
from subfuse.evaluation.floors import LEAST_ISOTONIC, LEAST_VALIDATION
from subfuse.evaluation.predictions import (
    FOLD,
    RECALIBRATED,
    class_probabilities,
    columns_with,
    events,
    label_indices,
    survival_curves,
    times_days,
)
from subfuse.evaluation.recalibration import (
    HazardRecalibration,
    IsotonicScaling,
    PlattScaling,
    TemperatureScaling,
    scaling_of,
)


@dataclass(frozen=True)
class CurvesOfFold:
    """Test patients of one fold with their curves, before or after recalibration."""

    rows: pd.DataFrame
    train: pd.DataFrame
    curves: SurvivalCurves


def class_stages(rows: pd.DataFrame, classes: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame | None, str | None]:
    """Returns test patients' probabilities as predicted, and after recalibration or why there is none.

    Recalibrated probabilities in the rows themselves come first: the mean of several models has no validation patients.

    Args:
        rows: One model's rows of one task, all splits.
        classes: Of the task.

    Returns:
        Tables with a column for each class, then `label_index` and `repeat_number`.
    """
    tested, validation = _sides(rows)
    before = pd.concat([_as_probabilities(fold, classes) for fold in tested.values()])
    given = [f"{RECALIBRATED}p_{name}" for name in classes]
    if set(given) <= set(rows) and rows.loc[before.index, given].notna().all(axis=None):
        return (
            before,
            before.assign(**dict(zip(classes, rows.loc[before.index, given].to_numpy().T, strict=True))),
            None,
        )
    reason = _few(validation, tested, "patients")
    return before, None if reason else _recalibrated(tested, validation, classes, scaling_of(classes)), reason


def isotonic_stage(rows: pd.DataFrame, classes: Sequence[str]) -> tuple[pd.DataFrame | None, str | None]:
    """Returns test patients' probabilities after isotonic regression, as `class_stages` does, or why there are none."""
    tested, validation = _sides(rows)
    reason = _unfit_for_isotonic(validation, tested, classes)
    return None if reason else _recalibrated(tested, validation, classes, IsotonicScaling), reason


def survival_stages(
    rows: pd.DataFrame,
) -> tuple[dict[Any, CurvesOfFold] | None, dict[Any, CurvesOfFold] | None, str | None]:
    """Returns test patients' curves by fold as predicted, and after recalibration; None with the reason without any.

    Recalibrated curves in the rows themselves come first, see `class_stages`.

    Args:
        rows: One model's rows of one survival task, all splits.
    """
    before = curves_by_fold(rows)
    if before is None:
        return None, None, "its predictions hold no survival curve"
    given = rows.drop(columns=columns_with(rows, "survival_"))
    given = given.rename(columns={name: name.removeprefix(RECALIBRATED) for name in columns_with(given, RECALIBRATED)})
    own = curves_by_fold(given)
    if own is not None:
        return before, own, None
    validation = {
        key: fold
        for key, fold in rows[rows["split"] == "validation"].groupby(FOLD)
        if events(fold).sum() >= LEAST_VALIDATION
    }
    known = {key: curves for key, fold in validation.items() if (curves := survival_curves(fold)) is not None}
    reason = _few(validation, before, "events")
    if reason is None and before.keys() - known.keys():
        reason = "not recalibrated: validation patients of a fold have no survival curve"
    if reason is not None:
        return before, None, reason
    after = {key: _recalibrated_curves(tested, known[key], validation[key]) for key, tested in before.items()}
    return before, after, None


def curves_by_fold(rows: pd.DataFrame) -> dict[Any, CurvesOfFold] | None:
    """Returns the test patients of every fold; None if a fold's model predicts no curve."""
    folds = {}
    for key, fold in rows.groupby(FOLD):
        tested = fold[fold["split"] == "test"]
        if tested.empty:
            continue
        curves = survival_curves(tested)
        if curves is None:
            return None
        folds[key] = CurvesOfFold(tested, fold[fold["split"] == "train"], curves)
    return folds


def common_horizon(folds: Mapping[Any, CurvesOfFold]) -> float:
    """Returns the day at which calibration is measured: 1095, or where the shortest curve ends."""
    return min([HORIZON_DAYS, *(float(tested.curves.days[-1]) for tested in folds.values())])


def by_repeat(folds: Mapping[Any, CurvesOfFold]) -> list[list[CurvesOfFold]]:
    """Returns the folds of each repeat, whose patients are pooled."""
    repeats: dict[Any, list[CurvesOfFold]] = {}
    for (repeat, _), tested in folds.items():
        repeats.setdefault(repeat, []).append(tested)
    return list(repeats.values())


def _sides(rows: pd.DataFrame) -> tuple[dict[Any, pd.DataFrame], dict[Any, pd.DataFrame]]:
    """Returns test and validation rows by fold."""
    tested, validation = (dict(list(rows[rows["split"] == side].groupby(FOLD))) for side in ("test", "validation"))
    return tested, validation


def _as_probabilities(rows: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(class_probabilities(rows, classes), columns=list(classes), index=rows.index)
    return table.assign(label_index=label_indices(rows, classes), repeat_number=rows["repeat"])


def _recalibrated(
    tested: Mapping[Any, pd.DataFrame],
    validation: Mapping[Any, pd.DataFrame],
    classes: Sequence[str],
    scaling: type[PlattScaling] | type[TemperatureScaling] | type[IsotonicScaling],
) -> pd.DataFrame:
    """Returns all test patients, those of each fold by what was fitted on the validation patients of the fold."""
    tables = []
    for key, fold in tested.items():
        known = validation[key]
        fitted = scaling.fit(class_probabilities(known, classes), label_indices(known, classes))
        table = _as_probabilities(fold, classes)
        table[list(classes)] = fitted.apply(class_probabilities(fold, classes))
        tables.append(table)
    return pd.concat(tables)


def _unfit_for_isotonic(
    validation: Mapping[Any, pd.DataFrame], tested: Mapping[Any, pd.DataFrame], classes: Sequence[str]
) -> str | None:
    few = _few(validation, tested, "patients", least=LEAST_ISOTONIC)
    if few is None and any(validation[key]["label"].nunique() < len(classes) for key in tested):
        return "not recalibrated: a fold has no validation patients of a class"
    return few


def _recalibrated_curves(tested: CurvesOfFold, known: SurvivalCurves, validation: pd.DataFrame) -> CurvesOfFold:
    fitted = HazardRecalibration.fit(known, times_days(validation), events(validation))
    return replace(tested, curves=fitted.apply(tested.curves))


def _few(
    validation: Mapping[Any, pd.DataFrame], tested: Mapping[Any, Any], what: str, *, least: int = LEAST_VALIDATION
) -> str | None:
    """Returns why recalibration cannot be fitted in every fold, None if it can."""
    if any(key not in validation or len(validation[key]) < least for key in tested):
        return f"not recalibrated: a fold has fewer than {least} validation {what}"
    return None
