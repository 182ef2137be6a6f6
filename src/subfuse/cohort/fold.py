"""A fold: who trains, validates and tests; and how its validation patients are drawn."""

import itertools
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, Shaped

from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.files import sha256_of_json

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

    def __reduce__(self) -> Any:
        """Sends the patients' names packed: every job of a run is sent its fold."""
        return _unpacked, (zlib.compress(json.dumps([self.train, self.validation, self.test]).encode()),)

    @property
    def development(self) -> tuple[str, ...]:
        """Everybody who is not tested, sorted."""
        return tuple(sorted(self.train + self.validation))

    @property
    def sha256(self) -> str:
        """Hash of its patients, by which results and models name the fold that they belong to."""
        return sha256_of_json([self.train, self.validation, self.test])


def _unpacked(packed: bytes) -> Fold:
    return Fold(*map(tuple, json.loads(zlib.decompress(packed))))


def strata_of(table: pd.DataFrame, stratify: Sequence[str], smallest: int) -> Int[np.ndarray, " patient"]:
    """Returns a stratum number per row; combinations with fewer than `smallest` patients share number 0.

    Raises:
        ConfigurationError: A column is missing.
    """
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


def with_validation(
    others: Shaped[np.ndarray, " other"],
    strata: Int[np.ndarray, " other"],
    share: float,
    random: np.random.Generator,
    test: Shaped[np.ndarray, " tested"],
) -> Fold:
    """Returns a fold whose validation patients are spread evenly over the strata of the patients not tested.

    Args:
        others: Identifiers of the patients not tested, at least two.
        strata: Their strata.
        share: Of them to validate with, rounded, at least one and not all.
        random: Draws the patients.
        test: Identifiers of those tested.
    """
    count = min(max(1, round(share * len(others))), len(others) - 1)
    order = np.concatenate([random.permutation(np.flatnonzero(strata == stratum)) for stratum in np.unique(strata)])
    spread = np.floor((np.arange(count) + random.random()) * len(others) / count).astype(np.int64)
    chosen = np.zeros(len(others), dtype=bool)
    chosen[order[spread]] = True
    return Fold(_sorted(others[~chosen]), _sorted(others[chosen]), _sorted(test))


def _sorted(patients: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(str(patient) for patient in patients))
