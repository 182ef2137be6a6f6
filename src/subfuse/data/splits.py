"""Folds of patients: stratified, or given; written with a hash that is verified when they are read."""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.data.barcodes import patient_of_barcode
from subfuse.data.tables import is_missing, read_text_table, require_columns
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.files import sha256_of_json, write_json


@dataclass(frozen=True)
class Fold:
    """Patients of one fold, each tuple sorted. No patient is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]  # for choosing the model; drawn from the patients that are not tested
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
            shared = set(getattr(self, a)) & set(getattr(self, b))
            if shared:
                raise DataError(f"a fold's {a} and {b} patients must differ. Found in both: {preview(sorted(shared))}.")
        for name in ("train", "validation", "test"):
            patients = getattr(self, name)
            if len(set(patients)) != len(patients):
                raise DataError(f"a fold's {name} patients must be listed once. Found {len(patients)} with repetition.")


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
        raise DataError(f"{folds} folds need at least {max(folds, 3)} patients. Found {len(identifiers)}.")
    strata = _strata(table, stratify, folds)
    random = np.random.default_rng(seed)
    test_fold = _deal(strata, folds, random)
    return tuple(
        _with_validation(
            identifiers[test_fold != k], strata[test_fold != k], validation, random, identifiers[test_fold == k]
        )
        for k in range(folds)
    )


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
        strata = _strata(table[training], stratify, 2)
        folds.append(_with_validation(identifiers[training], strata, validation, random, identifiers[testing]))
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


def write_folds(folder: Path, folds: Sequence[Fold]) -> None:
    """Writes `fold_<k>.json`: train, validation and test patients, and the SHA-256 of these lists.

    Files of further folds from an earlier run are removed, so that the folder holds one set of folds.
    """
    for k, fold in enumerate(folds):
        lists = {"train": list(fold.train), "validation": list(fold.validation), "test": list(fold.test)}
        write_json(folder / f"fold_{k}.json", {**lists, "sha256": sha256_of_json(lists)})
    for path in _fold_files(folder)[len(folds) :]:
        path.unlink()


def read_folds(folder: Path) -> tuple[Fold, ...]:
    """Returns the folds of a folder, in order.

    Raises:
        DataError: No fold, a gap in their numbers, an unreadable file, or lists that do not match their hash.
    """
    paths = _fold_files(folder)
    if not paths or [path.name for path in paths] != [f"fold_{k}.json" for k in range(len(paths))]:
        raise DataError(
            f"{folder}: fold_0.json, fold_1.json, ... are required. "
            f"Found {preview([path.name for path in paths]) or 'none'}. Run `subfuse prepare` again."
        )
    return tuple(_read_fold(path) for path in paths)


def _strata(table: pd.DataFrame, stratify: Sequence[str], smallest: int) -> np.ndarray:
    """Returns a stratum number per row; combinations with fewer than `smallest` patients share number 0."""
    missing = [column for column in stratify if column not in table]
    if missing:
        raise ConfigurationError(
            f"splits.stratify: {preview(missing)} must be a column of the patients. "
            f"They have {preview(table.columns, limit=20)}."
        )
    names = pd.Series("", index=table.index)
    for column in stratify:
        names = names + "\x1f" + table[column].astype(object).where(table[column].notna(), "unknown").astype(str)
    sizes = names.map(names.value_counts())
    return pd.Categorical(names.where(sizes >= smallest, "")).codes.astype(np.int64)


def _deal(strata: np.ndarray, parts: int, random: np.random.Generator) -> np.ndarray:
    """Returns a part per patient: shuffled within strata, dealt in turn over all strata."""
    order = np.concatenate([random.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata)])
    part = np.empty(len(strata), dtype=np.int64)
    part[order] = np.arange(len(strata)) % parts
    return part


def _with_validation(
    others: np.ndarray, strata: np.ndarray, share: float, random: np.random.Generator, test: np.ndarray
) -> Fold:
    """Returns a fold whose validation patients are spread evenly over the strata of the patients not tested."""
    count = min(max(1, round(share * len(others))), len(others) - 1)
    order = np.concatenate([random.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata)])
    spread = np.floor((np.arange(count) + random.random()) * len(others) / count).astype(np.int64)
    chosen = np.zeros(len(others), dtype=bool)
    chosen[order[spread]] = True
    return Fold(_sorted(others[~chosen]), _sorted(others[chosen]), _sorted(test))


def _sorted(patients: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(str(patient) for patient in patients))


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


def _fold_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("fold_*.json"), key=lambda path: (len(path.name), path.name))


def _read_fold(path: Path) -> Fold:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recorded = content.pop("sha256")
        fold = Fold(*(tuple(content[name]) for name in ("train", "validation", "test")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: a complete fold file is required. Run `subfuse prepare` again.") from error
    if sha256_of_json(content) != recorded:
        raise DataError(f"{path}: the patients do not match the recorded hash: the file was changed. Prepare again.")
    return fold
