"""Folds that a folder gives, as published ones are: one CSV per fold with the columns `train` and `val`."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.cohort.fold import Fold, strata_of, with_validation
from subfuse.errors import DataError, preview
from subfuse.identifiers import patient_of_barcode
from subfuse.tables import is_missing, read_text_table, require_columns


def given_folds(
    folder: Path,
    patient_ids: Collection[str],
    *,
    validation: float,
    seed: int,
    patients: pd.DataFrame,
    stratify: Sequence[str],
) -> tuple[Fold, ...]:
    """Returns folds that a folder gives: one CSV per fold with the columns `train` and `val`, in the order of names.

    `val` holds the fold's test patients: in published folds nothing else is held out. Validation patients are drawn
    from `train`. Identifiers that are not in the cohort are left out (see `unlisted_patients`).

    Args:
        folder: The folder.
        patient_ids: Patients of the cohort.
        validation: As for `stratified_folds`.
        seed: As for `stratified_folds`.
        patients: As for `stratified_folds`.
        stratify: Columns that the validation patients are stratified by.

    Raises:
        DataError: No CSV, a patient on both sides of a fold or tested in several folds, or a side without patients of
            the cohort. Names the file.
    """
    table = patients[patients["patient_id"].isin(set(patient_ids))].sort_values("patient_id")
    identifiers = table["patient_id"].to_numpy(dtype=str)
    random = np.random.default_rng(seed)
    folds: list[Fold] = []
    tested: dict[str, Path] = {}
    for path, (train, test) in _read_given(folder).items():
        shared = train & test
        again = sorted(patient for patient in test if patient in tested)
        if shared:
            raise DataError(f"{path}: train and val patients must differ. Found in both: {preview(sorted(shared))}.")
        if again:
            raise DataError(
                f"{path}: a patient is tested in one fold only. {preview(again)}: also in {tested[again[0]].name}."
            )
        tested |= dict.fromkeys(test, path)
        training, testing = np.isin(identifiers, sorted(train)), np.isin(identifiers, sorted(test))
        if training.sum() < 2 or not testing.any():
            raise DataError(
                f"{path}: at least two train and one val patient of the cohort are required. Found "
                f"{training.sum()} and {testing.sum()} among {len(identifiers)} patients of the cohort."
            )
        strata = strata_of(table[training], stratify, 2)
        folds.append(with_validation(identifiers[training], strata, validation, random, identifiers[testing]))
    return tuple(folds)


def unlisted_patients(folder: Path, patient_ids: Collection[str]) -> tuple[str, ...]:
    """Returns in words how given folds and the cohort differ: warnings, none if they agree.

    Args:
        folder: Folder of given folds.
        patient_ids: Patients of the cohort.
    """
    sides = _read_given(folder).values()
    listed = set().union(*(train | test for train, test in sides))
    tested = set().union(*(test for _, test in sides))
    unknown, never = sorted(listed - set(patient_ids)), sorted(set(patient_ids) - tested)
    warnings = []
    if unknown:
        warnings.append(
            f"{folder.name}: {len(unknown)} patients of the folds are not in the cohort ({preview(unknown)})"
        )
    if never:
        warnings.append(f"{folder.name}: {len(never)} patients of the cohort are never tested ({preview(never)})")
    return tuple(warnings)


def _read_given(folder: Path) -> dict[Path, tuple[set[str], set[str]]]:
    paths = sorted(folder.glob("*.csv"), key=lambda path: (len(path.name), path.name))  # splits_10 after splits_9
    if len(paths) < 2:
        raise DataError(
            f"{folder}: one CSV per fold, at least two, is required. Found {len(paths)}. Check splits.folder."
        )
    given = {}
    for path in paths:
        table = read_text_table(path)
        require_columns(table, {"train": "training patients", "val": "test patients"}, path)
        train, test = (
            {patient_of_barcode(cell) for cell in table[column] if not is_missing(cell)} for column in ("train", "val")
        )
        given[path] = (train, test)
    return given
