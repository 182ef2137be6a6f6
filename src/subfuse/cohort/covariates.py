"""Covariates: columns of the patients, such as age and gender, as numbers beside expression."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.cells import DATE_REMEDY, is_date, number_hint
from subfuse.errors import DataError, preview
from subfuse.expression.table import ExpressionStandardiser

CovariateValues = Mapping[str, str | float]  # what is known of one patient: column -> value
WEIGHT = 5.0  # spreads: penalties, alike for all columns, would drown two covariates among many genes


@dataclass(frozen=True)
class CovariateCoding:
    """How a model reads covariates: the words that training knew, and mean and spread over training patients."""

    levels: Mapping[str, tuple[str, ...]]  # covariate -> words of training; none where it is a number, or not recorded
    scaler: ExpressionStandardiser  # of the coded values

    @property
    def names(self) -> tuple[str, ...]:
        """The covariates, in the order of the coded values."""
        return self.scaler.genes

    @classmethod
    def fit(cls, names: Sequence[str], patients: Sequence[CovariateValues]) -> "CovariateCoding":
        """Fits on training patients.

        Args:
            names: From `resolve_covariates`.
            patients: What is known of each patient: column -> value.

        Raises:
            DataError: A covariate is unknown for all of them, or a number is none.
        """
        values = np.array([[coded(name, known) for name in names] for known in patients], dtype=np.float32)
        scaler = _with_common_scales(ExpressionStandardiser.fit(values, tuple(names)))
        return cls({name: _words(name, patients) for name in names}, scaler)

    def encode(self, known: CovariateValues) -> Float[np.ndarray, " covariate"]:
        """Returns the coded values of one patient, NaN where unknown or a word that training never saw."""
        values = [np.nan if self._unseen(name, known) else coded(name, known) for name in self.names]
        return np.array(values, dtype=np.float32)

    def transform(self, known: CovariateValues) -> Float[np.ndarray, " covariate"]:
        """Returns the covariates of one patient as models read them; 0, that of the average patient, where unknown."""
        return self.scaler.transform(self.encode(known)) * np.float32(WEIGHT)

    def notes(self, patients: Mapping[str, CovariateValues]) -> list[str]:
        """Returns in words which covariates are unknown for whom: an average patient stands in.

        Args:
            patients: What is known of each patient, by identifier.
        """
        notes = []
        for column, name in {column_of(name): name for name in self.names}.items():
            unseen = [as_word(known[column]) for known in patients.values() if self._unseen(name, known)]
            if unseen:
                notes.append(
                    f"{column}: {preview(sorted(set(unseen)))} never occurred in training, which had "
                    f"{preview(self.levels[name])}; taken as unknown for {len(unseen)} of {len(patients)} patients. "
                    "If one means a word of training, write it so in the clinical table and prepare it again"
                )
        missing: dict[tuple[str, ...], list[str]] = {}  # patients -> what is unknown of them
        for column in dict.fromkeys(map(column_of, self.names)):
            whose = tuple(patient for patient, known in patients.items() if column not in known)
            missing.setdefault(whose, []).append(column)
        unknown = [
            f"{preview(columns)}: unknown for {len(whose)} of {len(patients)} patients ({preview(whose)}), taken as "
            "that of an average training patient. What is known belongs into the clinical table of a cohort"
            for whose, columns in missing.items()
            if whose
        ]
        return [*unknown, *notes]

    def _unseen(self, name: str, known: CovariateValues) -> bool:
        words = self.levels[name]
        return bool(words) and column_of(name) in known and as_word(known[column_of(name)]) not in words


def coded(name: str, known: CovariateValues) -> float:
    """Returns a covariate of one patient as a number, NaN where unknown.

    Raises:
        DataError: The covariate is a number, and the value is none.

    Example:
        >>> coded("gender=male", {"gender": "Male"}), coded("age", {"age": "61"})
        (1.0, 61.0)
    """
    column, has_word, word = name.partition("=")
    if column not in known:
        return float("nan")
    if has_word:
        return float(as_word(known[column]) == word)
    number = float(pd.to_numeric(known[column], errors="coerce"))
    if not np.isfinite(number):
        raise _no_number(name, known[column], "")
    return number


def check_values(names: Sequence[str], known: Mapping[str, CovariateValues]) -> None:
    """Refuses a numeric covariate whose value is not a finite number.

    Raises:
        DataError: Names the patient and the value.
    """
    for name in names:
        for patient, values in known.items():
            try:
                coded(name, values)
            except DataError:
                raise _no_number(name, values[name], f" for {patient}") from None


def _no_number(name: str, found: str | float, where: str) -> DataError:
    remedy = number_hint(str(found)) or (f" {DATE_REMEDY}" if is_date(str(found)) else " Correct or empty the cell.")
    return DataError(f"covariates: {name} must be a number. Found {found!r}{where}.{remedy}")


def known_values(names: Sequence[str], patients: pd.DataFrame) -> dict[str, CovariateValues]:
    """Returns for every patient the covariates that are known of it, by column."""
    columns = sorted({column_of(name) for name in names})
    rows = patients[["patient_id", *columns]].to_dict("records")
    return {row["patient_id"]: {name: row[name] for name in columns if not pd.isna(row[name])} for row in rows}


def numeric_names(names: Sequence[str], patients: pd.DataFrame) -> tuple[str, ...]:
    """Returns the covariates that are numbers for most patients: there, other values are typing errors."""
    return tuple(
        name
        for name in names
        if np.isfinite(pd.to_numeric(patients[column_of(name)].dropna(), errors="coerce")).mean() > 0.5
    )


def unseen_words(
    names: Sequence[str], trained: Iterable[CovariateValues], tested: Iterable[CovariateValues]
) -> dict[str, dict[str, int]]:
    """Returns for each column which words of tested patients no training patient has, and for how many patients."""
    trained, tested, found = list(trained), list(tested), {}
    for column in dict.fromkeys(column_of(name) for name in names if "=" in name):
        known = set(_words(f"{column}=", trained))
        words = Counter(as_word(values[column]) for values in tested if column in values)
        found[column] = {word: n for word, n in sorted(words.items()) if word not in known}
    return {column: words for column, words in found.items() if words}


def completeness(names: Sequence[str], patients: pd.DataFrame) -> dict[str, int]:
    """Returns for every covariate, one of several words by its column, how many patients it is known for."""
    columns = [column_of(name) for name in names]
    shown = [name if columns.count(column_of(name)) == 1 else column_of(name) for name in names]
    return {name: int(patients[column_of(name)].notna().sum()) for name in dict.fromkeys(shown)}


def column_of(name: str) -> str:
    """Returns the column behind a covariate.

    Example:
        >>> column_of("gender=male"), column_of("age")
        ('gender', 'age')
    """
    return name.partition("=")[0]


def level_names(column: str, values: Iterable[str | float | None]) -> tuple[str, ...]:
    """Returns one name `column=word` for every word of a column, in alphabetical order.

    Example:
        >>> level_names("site", ["CS", "DU", None, "cs"])
        ('site=cs', 'site=du')
    """
    return tuple(f"{column}={word}" for word in sorted({as_word(value) for value in values if value is not None}))


def _with_common_scales(scaler: ExpressionStandardiser) -> ExpressionStandardiser:
    """Returns the scaler with one scale for all words of a column, so that a penalty holds rare words back most.

    It is the root of half the sum of their variances: of two words, the spread of either.
    """
    columns = pd.Series([column_of(name) for name in scaler.genes])
    variance = pd.Series(
        np.where(scaler.mean == 0, 0.0, scaler.scale.astype(np.float64) ** 2)
    )  # 0: a word not in training
    several = columns.duplicated(keep=False)
    common = np.sqrt(variance.groupby(columns).transform("sum") / 2)
    scale = np.where(several & (common > 0), common, scaler.scale)
    return replace(scaler, scale=scale.astype(np.float32))


def _words(name: str, patients: Sequence[CovariateValues]) -> tuple[str, ...]:
    column = column_of(name)
    return tuple(sorted({as_word(known[column]) for known in patients if column in known})) if "=" in name else ()


def as_word(value: Any) -> str:
    """Returns how words of a column are compared: in lower case."""
    return str(value).strip().lower()
