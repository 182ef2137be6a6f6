"""Columns of the patients that a cohort file declares: covariates, strata and batch, and whether they can be that."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from subfuse.cells import abbreviated, may_mean_unknown
from subfuse.clinical.columns import FIXED_COLUMNS, RESERVED
from subfuse.cohort.covariates import as_word, column_of, level_names
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.identifiers import spelt_otherwise
from subfuse.preparation.covariate_cells import numeric_cells, refuse_numbers_and_words

_LEAST_COUNTED = 10  # patients, of whom 1 to 10 is no measurement
_OLDEST = 120  # years: whole numbers in a row up to here may be ages of a small cohort
_AGE = re.compile(r"(?:.*[_ .-])?(?:age|alter)(?:[_ .-].*)?", re.IGNORECASE)
_RECORD_NUMBER = re.compile(
    r"(?:.*[_ .-])?(?:id|mrn|mrnum|nr|no|num|number|index|barcode|pid)|.*(?:recno|record).*", re.IGNORECASE
)


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
            of its own for every patient, with dates, with numbers and words or numbers in another writing, or a word
            that does not occur.
        DataError: Unknown for every patient.
    """
    outcomes = {column for task in tasks.values() for column in (*task.patient_columns, task.event) if column}
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
                f"covariates: {column!r} must be a column of the patients. They have "
                f"{preview(available, limit=12) or 'none'}"
                f"{spelt_otherwise([column], available).get(column, '')}. Name one of these, or add it to "
                "patients.columns."
            )
        known = patients.set_index("patient_id")[column].dropna().astype(str)
        names += _coded_names(entry, known, develops=develops)
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigurationError(f"covariates: {preview(repeated)} must be given once.")
    return tuple(names)


def doubtful_words(columns: Sequence[str], patients: pd.DataFrame) -> list[str]:
    """Returns a warning on each word of these columns that may mean nothing is known, or the same as another word.

    Args:
        columns: Names of covariates, as declared or resolved, and of strata.
        patients: Patients with their columns as text, None where unknown.
    """
    counts = {
        name: patients[name].dropna().astype(str).value_counts()
        for name in dict.fromkeys(map(column_of, columns))
        if name in patients
    }
    unknown = [
        f"{name}: {word!r} ({count} patients) is read as a value: where it means unknown, empty these cells"
        for name, words in counts.items()
        for word, count in words.items()
        if may_mean_unknown(str(word))
    ]
    apart = [
        f"{name}: {letter!r} and {word!r} are read as two groups: where they mean the same, write both alike"
        for name, words in counts.items()
        for letter, word in abbreviated(set(map(as_word, words.index))).items()
    ]
    return unknown + apart


def check_strata(
    strata: Sequence[str], patients: pd.DataFrame, tasks: Mapping[str, TaskSpec], *, develops: bool
) -> None:
    """Refuses strata that are no column of the patients, are the only outcome, or have no values that patients share.

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
                f"strata: {column!r} must be a column of the patients. They have "
                f"{preview(available, limit=12) or 'none'}"
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
        if develops and known.nunique() < 2:
            raise ConfigurationError(
                f"strata: {column} must differ between patients. Found {known.iloc[0]!r} for all. Remove it."
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


def _coded_names(entry: str, known: pd.Series, *, develops: bool) -> tuple[str, ...]:
    if known.empty and develops:
        raise DataError(
            f"covariates: {column_of(entry)} must be known for some patients. Found none. "
            "Remove it, or, if nobody trains on these patients, set `role: external`."
        )
    column, has_word, word = entry.partition("=")
    if has_word:
        found = sorted({as_word(cell) for cell in known})
        if develops and as_word(word) not in found:
            raise ConfigurationError(f"covariates: {word!r} must occur in {column}. Found {preview(found)}.")
        return (f"{column}={as_word(word)}",)
    numeric = numeric_cells(entry, known)
    if not develops:
        return (entry,)
    if known.map(as_word).nunique() == 1:
        raise ConfigurationError(
            f"covariates: {entry} must differ between patients to be learned from. Found {as_word(known.iloc[0])!r} "
            "for all. Remove it, or, if nobody trains on these patients, set `role: external`."
        )
    if numeric.all():
        _refuse_record_numbers(entry, known)
        return (entry,)
    names = level_names(entry, known)
    words = [name.partition("=")[2] for name in names]
    if numeric.any() and len(words) > 2:
        refuse_numbers_and_words(entry, known, numeric)
    if _names_patients(known.map(as_word)):
        raise ConfigurationError(
            f"covariates: {entry} must have words that patients share. Found {len(words)} for {len(known)} patients: "
            "it names patients or nearly so, and nothing could be learned of it. Remove it, or group its values."
        )
    return names[1:] if len(words) == 2 else names


def _refuse_record_numbers(entry: str, known: pd.Series) -> None:
    """Refuses whole numbers, another for every patient, that count patients or are called so; ages may be in a row."""
    values = pd.to_numeric(known)
    if len(values) < _LEAST_COUNTED or values.nunique() < len(values) or (values % 1 != 0).any():
        return
    in_a_row = values.max() - values.min() == len(values) - 1 and not _AGE.fullmatch(entry)
    in_order = values.is_monotonic_increasing or values.is_monotonic_decreasing  # of the patients
    counts = in_a_row and (values.min() <= 1 or values.max() > _OLDEST or in_order)
    if counts or _RECORD_NUMBER.fullmatch(entry):
        raise ConfigurationError(
            f"covariates: {entry} must be a measurement. Found another whole number for each of {len(values)} "
            f"patients, such as {known.iloc[0]}: it names patients, and nothing could be learned of it. Remove it."
        )


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
