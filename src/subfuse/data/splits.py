"""Folds of patients: stratified, of whole sites, or given; written with a hash that is verified when they are read."""

import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from subfuse.data.barcodes import patient_of_barcode
from subfuse.data.cohort_file import TaskSpec
from subfuse.data.tables import is_missing, read_text_table, require_columns
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.files import sha256_of_json, write_json

SPLITS = Path("splits") / "default"  # in a prepared folder
SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Fold:
    """Patients of one fold, each tuple sorted. No patient is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]  # for choosing the model; drawn from the patients that are not tested
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for a, b in itertools.combinations(SIDES, 2):
            shared = set(getattr(self, a)) & set(getattr(self, b))
            if shared:
                raise DataError(f"a fold's {a} and {b} patients must differ. Found in both: {preview(sorted(shared))}.")
        for name in SIDES:
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


def site_folds(
    patients: pd.DataFrame, *, folds: int, validation: float, stratify: Sequence[str], seed: int
) -> tuple[Fold, ...]:
    """Returns folds in which every site is tested once and as a whole: its patients never train what tests them.

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
    strata = _strata(table, stratify, folds)
    random = np.random.default_rng(seed)
    test_fold = _deal_sites(pd.Categorical(sites).codes, strata, folds, random)
    for k in range(folds):
        if (test_fold != k).sum() < 2:
            raise DataError(f"fold {k}: two patients of other sites are required to train and validate. Found fewer.")
    return tuple(
        _with_validation(
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

    Args:
        patients: As for `stratified_folds` or `site_folds`.
        folds: Number of folds of each repeat.
        repeats: Number of repeats.
        validation: As for `stratified_folds`.
        stratify: As for `stratified_folds`.
        seed: Of all repeats.
        by: What is held out: patients, or whole sites.

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
    """Returns the columns whose mixture folds keep by default: the event, else the first label; of several cohorts too.

    Args:
        tasks: At least one task.
        patients: The patients to divide, with `cohort`.
    """
    columns = ["event" if task.column is None else task.column for task in tasks.values()]
    outcome = "event" if "event" in columns else columns[0]
    return ("cohort", outcome) if patients["cohort"].nunique() > 1 else (outcome,)


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
    """Writes one set of folds; see `write_repeats`."""
    write_repeats(folder, [folds])


def write_repeats(folder: Path, repeats: Sequence[Sequence[Fold]]) -> None:
    """Writes `fold_<k>.json` for the first repeat and `repeat_<r>/fold_<k>.json` for further ones.

    A file holds train, validation and test patients, its own place among all folds, and the SHA-256 of both. Files of
    an earlier run that are not overwritten are removed.
    """
    kept = set()
    for r, folds in enumerate(repeats):
        for k, fold in enumerate(folds):
            path = _fold_path(folder, r, k)
            content: dict[str, Any] = {name: list(getattr(fold, name)) for name in SIDES}
            content["place"] = {"fold": k, "folds": len(folds), "repeat": r, "repeats": len(repeats)}
            write_json(path, {**content, "sha256": sha256_of_json(content)})
            kept.add(path)
    for path in {*folder.glob("fold_*.json"), *folder.glob("repeat_*/fold_*.json")} - kept:
        path.unlink()
    for path in folder.glob("repeat_*"):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def read_folds(folder: Path) -> tuple[Fold, ...]:
    """Returns the folds of the first repeat, in order; see `read_repeats`."""
    return read_repeats(folder)[0]


def read_repeats(folder: Path) -> tuple[tuple[Fold, ...], ...]:
    """Returns the folds of every repeat, in order.

    Raises:
        DataError: No fold, one that is missing or in another's place, an unreadable file, or content that does not
            match its hash. Names the file.
    """
    first = _fold_path(folder, 0, 0)
    if not first.exists():
        raise DataError(f"{folder}: fold_0.json, fold_1.json, ... are required. Found none. Run `subfuse prepare`.")
    place = _read_fold(first)[1]
    shape = {name: place[name] for name in ("folds", "repeats")}
    repeats = []
    for r in range(shape["repeats"]):
        folds = []
        for k in range(shape["folds"]):
            fold, place = _read_fold(_fold_path(folder, r, k))
            if place != {"fold": k, "repeat": r, **shape}:
                raise DataError(
                    f"{_fold_path(folder, r, k)}: fold {k} of repeat {r} is required. Found another fold's patients: "
                    "the files were exchanged. Run `subfuse prepare` again."
                )
            folds.append(fold)
        repeats.append(tuple(folds))
    return tuple(repeats)


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


def _deal_sites(sites: np.ndarray, strata: np.ndarray, parts: int, random: np.random.Generator) -> np.ndarray:
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


def _fold_path(folder: Path, repeat: int, fold: int) -> Path:
    return (folder / f"repeat_{repeat}" if repeat else folder) / f"fold_{fold}.json"


def _read_fold(path: Path) -> tuple[Fold, dict[str, int]]:
    """Returns the fold and its place."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        recorded = content.pop("sha256")
        sides = [tuple(content[name]) for name in SIDES]
        place = {name: int(content["place"][name]) for name in ("fold", "folds", "repeat", "repeats")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: a complete fold file is required. Run `subfuse prepare` again.") from error
    if sha256_of_json(content) != recorded:
        raise DataError(f"{path}: the patients do not match the recorded hash: the file was changed. Prepare again.")
    return Fold(*sides), place
