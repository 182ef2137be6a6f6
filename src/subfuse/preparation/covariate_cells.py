"""Which cells of a covariate are numbers, and what to do about dates and about numbers in another writing."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from subfuse.cells import DATE_REMEDY, TIME_WORDS, OtherWriting, are_months, is_date, other_writing
from subfuse.cohort.covariates import as_word
from subfuse.errors import ConfigurationError, preview

_COMPACT_DATE = r"(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])"  # 20190502
_RANGE_OF_SHARES = r"\d[^%]*%?\s*[-–]\s*\d[^%]*%"  # 1-49%
_GROUP_OF_SHARES = rf"[<>≤≥]=?\s*\d.*%|{_RANGE_OF_SHARES}"  # <1%, 1-49%
_FEW = 2  # values that may be codes of groups
_FEW_SHARES = 4  # that may be, beside a range of them: 0 %, 1-49 %, 50 %, 100 %
_FEW_SIZES = 3  # whole numbers with their unit, such as doses (50mg) and times (3m), that may be
_MEASURED = frozenset({*TIME_WORDS["years"], "kg", "cm", "mm"})  # units of no group


def numeric_cells(entry: str, known: pd.Series) -> pd.Series:
    """Returns which cells of a covariate are numbers; the others are words.

    Args:
        entry: Name of the covariate.
        known: Its known cells as text, by patient.

    Raises:
        ConfigurationError: There is a date, or most cells are numbers and some of them in another writing, such as
            `61,5`, `10%` or `61 y`. Names the first such cell, its patient and what to do.
    """
    _refuse_dates(entry, known)
    is_plain = np.isfinite(pd.to_numeric(known, errors="coerce"))
    written = {patient: other for patient, cell in known[~is_plain].items() if (other := other_writing(cell))}
    certain = _certain_numbers(written, known, any_plain=bool(is_plain.any()))
    numeric = is_plain | known.index.isin(certain)
    if certain and 2 * int(numeric.sum()) > len(known):
        _refuse_other_writing(entry, known, {patient: written[patient] for patient in certain})
    return numeric


def refuse_numbers_and_words(entry: str, known: pd.Series, numeric: pd.Series) -> None:
    """Refuses a covariate some of whose cells are numbers and others words.

    Args:
        entry: Name of the covariate.
        known: Its known cells as text, by patient.
        numeric: See `numeric_cells`.

    Raises:
        ConfigurationError: Names the words, their patients and what to do.
    """
    words = known[~numeric]
    shown = sorted({as_word(cell) for cell in words})
    written = [other for other in map(other_writing, words) if other]
    if known[numeric].nunique() > _FEW:
        remedy = f" {written[0].remedy}" if written else " Correct or empty the cells."
    else:
        limit = next((other for other in written if other.kind == "limit"), None)
        numbers = f"all as numbers (such as {limit.number})" if limit else "all as numbers"
        remedy = f" Write {numbers} or all as words, or name the value that is coded 1, such as `{entry}={shown[-1]}`."
    raise ConfigurationError(
        f"covariates: {entry} must hold numbers or words, not both. Found {int(numeric.sum())} numbers, and "
        f"{preview(shown)} (of {preview(words.index, limit=3)}).{remedy}"
    )


def _refuse_dates(entry: str, known: pd.Series) -> None:
    are_dates = known.nunique() > _FEW and (known.str.fullmatch(_COMPACT_DATE).all() or are_months(known))
    dates = known if are_dates else known[known.map(is_date).astype(bool)]
    if len(dates):
        raise ConfigurationError(
            f"covariates: {entry} must hold numbers or words. Found the date {dates.iloc[0]!r} of {dates.index[0]} "
            f"({len(dates)} such cells). {DATE_REMEDY}"
        )


def _certain_numbers(written: Mapping[str, OtherWriting], known: pd.Series, *, any_plain: bool) -> list[str]:
    """Returns the patients whose cell is certainly a number in another writing, and no name of a group.

    Without plain numbers, per cent may name groups beside `1-49%`, and few sizes doses; a number with letters may be a
    drug (`5FU`); limits such as `<60` are groups.
    """
    shares = {other.number for other in written.values() if other.kind == "per cent"}
    most_shares = _FEW_SHARES if known.str.fullmatch(_RANGE_OF_SHARES).any() else _FEW
    are_groups = not any_plain and len(shares) <= most_shares and known.str.fullmatch(_GROUP_OF_SHARES).any()
    with_unit = [patient for patient, other in written.items() if other.kind == "unit"]
    sizes = {(written[patient].unit, written[patient].number) for patient in with_unit}
    are_doses = len(sizes) <= _FEW_SIZES and known[with_unit].str.fullmatch(r"\d+[^\W\d_]+").all()
    may_be_doses = not any_plain and are_doses and _MEASURED.isdisjoint(unit for unit, _ in sizes)
    is_unit = len(sizes) > len({unit for unit, _ in sizes}) and 2 * len(with_unit) > len(known) and not may_be_doses
    is_number = {"limit": False, "per cent": not are_groups, "unit": is_unit}
    return [patient for patient, other in written.items() if is_number.get(other.kind, True)]


def _refuse_other_writing(entry: str, known: pd.Series, written: Mapping[str, OtherWriting]) -> None:
    # commas alone are read between semicolons, so that another cell, such as 1.604,5, is why these were not
    patient, first = min(written.items(), key=lambda item: item[1].kind == "decimal comma")
    beside_commas = any(other.kind == "decimal comma" for other in written.values())
    alone = first.remedy_among_commas if beside_commas else first.remedy
    units = sorted({other.unit for other in written.values()} - {""})
    required = "numbers without a unit" if units else "numbers"
    remedy = f"Bring all to one unit ({preview(units)}), and leave it out." if len(units) > 1 else alone
    raise ConfigurationError(
        f"covariates: {entry} must hold {required}. Found {known[patient]!r} of {patient} ({len(written)} such cells). "
        f"{remedy}"
    )
