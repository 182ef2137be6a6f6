"""Covariates: columns of the patients, such as age and gender, as numbers beside expression."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.clinical.columns import FIXED_COLUMNS, RESERVED
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.expression.table import ExpressionStandardiser
from subfuse.identifiers import spelt_otherwise
from subfuse.tables import decimal_hint

CovariateValues = Mapping[str, str | float]  # what is known of one patient: column -> value
_WITH_UNIT = r"\s*[+-]?\d+(?:\.\d+)?\s*[^\W\d_]+\.?\s*"  # 61 y, 1.5cm
WEIGHT = 5.0  # spreads: penalties, alike for all columns, would drown two covariates among many genes


def resolve_covariates(
    declared: Sequence[str], patients: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, develops: bool
) -> tuple[str, ...]:
    """Returns the names of the covariates, which say how each is coded.

    A column of numbers keeps its name. A column of two words becomes `column=word`, after the alphabetically later
    word, which is coded 1: `gender` with the values female and male becomes `gender=male`. A column of more words
    becomes one such name per word (one-hot). A name that is declared in this form stays, so that cohorts prepared
    apart can be coded alike; every other known value is then 0.

    Args:
        declared: `covariates` of the cohort file.
        patients: Patients with their columns as text, None where unknown.
        tasks: Tasks, whose outcomes cannot be covariates.
        develops: True where models are trained on these patients; only then must a covariate be known for some, and a
            word that is coded 1 occur. Elsewhere a column of words keeps its name: trained models know their coding.

    Raises:
        ConfigurationError: Not a column of the patients, an outcome, given twice, a column with one word, with a word
            of its own for every patient or with numbers and words, or a word that does not occur.
        DataError: Unknown for every patient.
    """
    outcomes = {column for task in tasks.values() for column in (task.time, task.event, task.column) if column}
    names: list[str] = []
    for entry in declared:
        column = column_of(entry)
        if column in outcomes:
            raise ConfigurationError(
                f"covariates: {column} is an outcome, which a model must not see. Remove it, or the task that predicts "
                f"it. Tasks: {preview(tasks)}."
            )
        _refuse_own_names("covariates", column)
        available = [name for name in _columns(patients) if name not in outcomes]
        if column not in available:
            raise ConfigurationError(
                f"covariates: {column!r} must be a column of the patients. They have {preview(available, limit=12)}"
                f"{spelt_otherwise([column], available).get(column, '')}. Name one of these, or add it to "
                "patients.columns."
            )
        known = patients.set_index("patient_id")[column].dropna().astype(str)
        names += _coded_names(entry, known, develops=develops)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigurationError(f"covariates: {preview(repeated)} must be given once.")
    return tuple(names)


def check_strata(
    strata: Sequence[str], patients: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, develops: bool
) -> None:
    """Refuses strata that are no column of the patients, the only outcome, unknown for all, or name patients or nearly.

    Raises:
        ConfigurationError: Names the column and what it holds.
    """
    available = ["cohort", "site", *_columns(patients)]
    predicted = [{task.time, task.event, task.column} for task in tasks.values()]
    for column in strata:
        if column in ("time_days", "event") or (predicted and all(column in outcome for outcome in predicted)):
            raise ConfigurationError(f"strata: {column} is the outcome: patients of a stratum would not differ in it. "
                                     "Name another column.")  # fmt: skip
        if column not in available:
            raise ConfigurationError(
                f"strata: {column!r} must be a column of the patients. They have {preview(available, limit=12)}"
                f"{spelt_otherwise([column], available).get(column, '')}. Name one of these, or add it to "
                "patients.columns."
            )
        known = patients[column].dropna().astype(str)
        if known.empty and develops:
            raise ConfigurationError(f"strata: {column} must be known for some patients. Found none. Fill it in, or "
                                     "remove it.")  # fmt: skip
        if _names_patients(known):
            raise ConfigurationError(
                f"strata: {column} must have values that patients share. Found {known.nunique()} for {len(known)} "
                "patients. Group its values, or remove it."
            )


def check_batch(column: str | None, patients: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, develops: bool) -> None:
    """Refuses a batch that is no column of the patients, an outcome, or, where models are trained, tells nobody apart.

    Raises:
        ConfigurationError: Names the column and what it holds.
    """
    if column is None:
        return
    _refuse_own_names("batch", column)
    outcomes = {task.column for task in tasks.values()}
    available = ["cohort", *(name for name in _columns(patients) if name not in outcomes)]
    if column not in available:
        raise ConfigurationError(
            f"batch: {column!r} must be a column of the patients and no outcome. They have "
            f"{preview(available, limit=12)}{spelt_otherwise([column], available).get(column, '')}. Name one of these, "
            "or add it to patients.columns."
        )
    words = patients[column].dropna().astype(str)
    if develops and (words.nunique() < 2 or _names_patients(words)):
        raise ConfigurationError(
            f"batch: {column} must have at least two values that patients share. Found {words.nunique()} for "
            f"{len(words)} patients. Name the column of projects, scanners or sequencing runs, or remove `batch`."
        )


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

    def notes(self, patients: Sequence[CovariateValues]) -> list[str]:
        """Returns in words for how many patients a covariate is taken as that of the average training patient."""
        notes = []
        for column, name in {column_of(name): name for name in self.names}.items():
            unseen = [_canonical(known[column]) for known in patients if self._unseen(name, known)]
            if unseen:
                notes.append(
                    f"{column}: {preview(sorted(set(unseen)))} never occurred in training, which had "
                    f"{preview(self.levels[name])}; taken as unknown for {len(unseen)} of {len(patients)} patients"
                )
        missing: dict[tuple[int, ...], list[str]] = {}  # patients -> what is unknown of them
        for column in dict.fromkeys(map(column_of, self.names)):
            missing.setdefault(tuple(i for i, known in enumerate(patients) if column not in known), []).append(column)
        unknown = [
            f"{preview(columns)}: unknown for {len(places)} of {len(patients)} patients, taken as that of an average "
            "training patient; a cohort has them as columns of its clinical table"
            for places, columns in missing.items()
            if places
        ]
        return [*unknown, *notes]

    def _unseen(self, name: str, known: CovariateValues) -> bool:
        words = self.levels[name]
        return bool(words) and column_of(name) in known and _canonical(known[column_of(name)]) not in words


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
        return float(_canonical(known[column]) == word)
    number = float(pd.to_numeric(known[column], errors="coerce"))
    if not np.isfinite(number):
        raise DataError(f"covariates: {name} must be a number. Found {known[column]!r}. Correct or empty the cell.")
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
                remedy = decimal_hint(str(values[name])) or " Correct or empty the cell."
                raise DataError(
                    f"covariates: {name} must be a number. Found {values[name]!r} for {patient}.{remedy}"
                ) from None


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
    return tuple(f"{column}={word}" for word in sorted({_canonical(value) for value in values if value is not None}))


def _coded_names(entry: str, known: pd.Series, *, develops: bool) -> tuple[str, ...]:
    if known.empty and develops:
        raise DataError(
            f"covariates: {column_of(entry)} must be known for some patients. Found none. "
            "Remove it, or, if nobody trains on these patients, set `role: external`."
        )
    column, has_word, word = entry.partition("=")
    if has_word:
        found = sorted({_canonical(cell) for cell in known})
        if develops and _canonical(word) not in found:
            raise ConfigurationError(f"covariates: {word!r} must occur in {column}. Found {preview(found)}.")
        return (f"{column}={_canonical(word)}",)
    numeric = np.isfinite(pd.to_numeric(known, errors="coerce"))
    if numeric.all() or not develops:
        return (entry,)
    names = level_names(entry, known)
    words = [name.partition("=")[2] for name in names]
    if len(words) == 1:
        raise ConfigurationError(
            f"covariates: {entry} must differ between patients to be learned from. Found {words[0]!r} for all. "
            "Remove it, or, if nobody trains on these patients, set `role: external`."
        )
    if numeric.any() and len(words) > 2:
        shown = sorted({_canonical(cell) for cell in known[~numeric]})
        is_measured = known[numeric].nunique() > 2  # fewer are codes, as words are
        remedy = decimal_hint(shown[0]) or (
            " Correct or empty the cells."
            if is_measured
            else f" Correct the column, or name the value that is coded 1, such as `{entry}={shown[-1]}`."
        )
        raise ConfigurationError(
            f"covariates: {entry} must hold numbers or words, not both. Found {int(numeric.sum())} numbers, and "
            f"{preview(shown)} (of {preview(known.index[~numeric], limit=3)}).{remedy}"
        )
    with_unit = known[known.str.fullmatch(_WITH_UNIT)]
    if 2 * len(with_unit) > len(known):
        raise ConfigurationError(
            f"covariates: {entry} must hold numbers without a unit. Found {with_unit.iloc[0]!r} of "
            f"{with_unit.index[0]} ({len(with_unit)} such cells). Remove the unit."
        )
    if _names_patients(known.map(_canonical)):
        raise ConfigurationError(
            f"covariates: {entry} must have words that patients share. Found {len(words)} for {len(known)} patients: "
            "it names patients or nearly so, and nothing could be learned of it. Remove it, or group its values."
        )
    return names[1:] if len(words) == 2 else names


def _refuse_own_names(section: str, column: str) -> None:
    """Refuses a column that every cohort has with a meaning of its own; `batch` may be the cohort."""
    if column not in (*FIXED_COLUMNS, *RESERVED) or (section, column) == ("batch", "cohort"):
        return
    what = "is read by the model `site` alone" if column == "site" else "has a meaning of its own in a cohort"
    raise ConfigurationError(
        f"{section}: {column} {what}. To use it here too, map its column in patients.columns under another name too."
    )


def _columns(patients: pd.DataFrame) -> list[str]:
    """Returns the columns of the patients that are declared: all but those that every table has."""
    return [str(name) for name in patients if name not in (*FIXED_COLUMNS, *RESERVED)]


def _names_patients(known: pd.Series) -> bool:
    """Returns whether a column has nearly as many values as patients who have one, so that few share any."""
    return known.nunique() > max(2, len(known) // 2)


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
    return tuple(sorted({_canonical(known[column]) for known in patients if column in known})) if "=" in name else ()


def _canonical(value: Any) -> str:
    return str(value).strip().lower()
