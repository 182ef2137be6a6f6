"""Folds that a folder gives, as published ones are: one CSV per fold with the columns `train`, `val` and `test`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.cohort.fold import Fold, strata_of, with_validation
from subfuse.errors import DataError, preview
from subfuse.files import write_table
from subfuse.identifiers import describe_mismatch, patient_of_barcode, spelt_otherwise
from subfuse.tables import is_missing, read_text_table, require_columns


def given_folds(
    folder: Path,
    patients: pd.DataFrame,
    *,
    validation: float,
    stratify: Sequence[str],
    seed: int,
    owners: Mapping[str, str] | None = None,
) -> tuple[Fold, ...]:
    """Returns folds that a folder gives: one CSV per fold with the columns `train`, `val` and `test`, by name.

    With a column `test` that names patients, these are tested and `val` validates. Without, `val` holds the test
    patients, as in published folds that hold out nothing else. Where nothing validates, validation patients are drawn
    from `train`. Identifiers that are not in the cohort are left out (see `unlisted_patients`). The files
    `*_bool.csv` and `*_descriptor.csv`, which CLAM writes beside its splits, say the same again and are not read.

    Arguments as for `stratified_folds`; `stratify` is for the validation patients, and `owners` gives the patient of
    each slide, for folds that name slides, as those of CLAM.

    Raises:
        DataError: No CSV, a patient on both sides of a fold or tested in several folds, or a side without patients of
            the cohort. Names the file.
    """
    table = patients.sort_values("patient_id")
    identifiers = table["patient_id"].to_numpy(dtype=str)
    random = np.random.default_rng(seed)
    folds: list[Fold] = []
    tested: dict[str, Path] = {}
    for path, given in _read_given(folder, owners or {}).items():
        again = sorted(patient for patient in given.test if patient in tested)
        if again:
            raise DataError(
                f"{path}: a patient is tested in one fold only. {preview(again)}: also in {tested[again[0]].name}. "
                "Splits that are each drawn anew, as CLAM's can be, are no folds: leave out splits.folder to draw some."
            )
        tested |= dict.fromkeys(given.test, path)
        sides = (given.train, given.validation, given.test)
        training, validating, testing = (np.isin(identifiers, sorted(side)) for side in sides)
        if training.sum() < 2 or not testing.any() or (given.validation and not validating.any()):
            listed = {path.name: set().union(*sides)}
            raise DataError(
                f"{path}: at least two train patients of the cohort, one to test and, where it names some, one to "
                f"validate are required. Found {training.sum()}, {testing.sum()} and {validating.sum()} among "
                f"{len(identifiers)} patients of the cohort. "
                f"{describe_mismatch(identifiers.tolist(), listed, of_ours='patients')}. Correct the identifiers."
            )
        if validating.any():
            folds.append(Fold(*(tuple(identifiers[side].tolist()) for side in (training, validating, testing))))
        else:
            strata = strata_of(table[training], stratify, 2)
            folds.append(with_validation(identifiers[training], strata, validation, random, identifiers[testing]))
    return tuple(folds)


def write_given_folds(folder: Path, folds: Sequence[Fold]) -> None:
    """Writes folds as `given_folds` reads them, and removes those that were written there before."""
    for path in folder.glob("fold_*.csv"):
        path.unlink()
    for k, fold in enumerate(folds):
        sides = {"train": fold.train, "val": fold.validation, "test": fold.test}
        write_table(folder / f"fold_{k}.csv", pd.DataFrame({name: pd.Series(ids) for name, ids in sides.items()}))


def unlisted_patients(
    folder: Path, patient_ids: Collection[str], owners: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Returns in words how given folds and the cohort differ: warnings, none if they agree."""
    sides = _read_given(folder, owners or {}).values()
    listed = set().union(*(given.train | given.validation | given.test for given in sides))
    tested = set().union(*(given.test for given in sides))
    unknown, never = sorted(listed - set(patient_ids)), sorted(set(patient_ids) - tested)
    warnings = []
    if unknown:
        like = [name + words for name, words in spelt_otherwise(unknown, patient_ids).items()]
        shown = preview(like or unknown, 1 if like else 5)
        warnings.append(f"{folder.name}: {len(unknown)} patients of the folds are not in the cohort ({shown})")
    if never:
        warnings.append(f"{folder.name}: {len(never)} patients of the cohort are never tested ({preview(never)})")
    return tuple(warnings)


@dataclass(frozen=True)
class _Given:
    """The patients that a file names, in the cohort or not."""

    train: frozenset[str]
    validation: frozenset[str]  # none where they are to be drawn
    test: frozenset[str]


def _read_given(folder: Path, owners: Mapping[str, str]) -> dict[Path, _Given]:
    files = [path for path in folder.glob("*.csv") if not path.stem.endswith(("_bool", "_descriptor"))]
    paths = sorted(files, key=lambda path: (len(path.name), path.name))  # splits_10 after splits_9
    if len(paths) < 2:
        raise DataError(
            f"{folder}: one CSV per fold, at least two, is required. Found {len(paths)}. Check splits.folder."
        )
    return {path: _read_file(path, owners) for path in paths}


def _read_file(path: Path, owners: Mapping[str, str]) -> _Given:
    table = read_text_table(path)
    tests = "test" in table and not table["test"].map(is_missing).all()
    needed = {"train": "training patients", **({} if tests else {"val": "test patients"})}
    require_columns(table, needed, path, optional=("val", "test"))
    train, val, test = (_patients(table, name, owners) for name in ("train", "val", "test"))
    given = _Given(train, val if tests else frozenset(), test if tests else val)
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = _patients(table, first, owners) & _patients(table, second, owners)
        if shared:
            raise DataError(
                f"{path}: {first} and {second} patients must differ. Found in both: {preview(sorted(shared))}."
            )
    return given


def _patients(table: pd.DataFrame, column: str, owners: Mapping[str, str]) -> frozenset[str]:
    cells = table.get(column, pd.Series(dtype=str))
    return frozenset(owners.get(cell, patient_of_barcode(cell)) for cell in cells if not is_missing(cell))
