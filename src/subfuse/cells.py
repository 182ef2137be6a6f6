"""Cells of tables that are numbers in another writing, or dates, and what to do about each."""

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["minus", "decimal comma", "thousands", "per cent", "limit", "unit"]

DATE_REMEDY = "Give an age or a number of days instead of a date: a spreadsheet subtracts dates."
_DIGITS = r"[+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?"
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:([.,' ’\u00a0\u2009\u202f])\d{3})(?:\1\d{3})*(?:(?!\1)[.,]\d+)?")
_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.IGNORECASE)
_PER_CENT = re.compile(rf"({_DIGITS})\s*%", re.IGNORECASE)
_LIMIT = re.compile(rf"(?:[<>≤≥~≈]=?\s*({_DIGITS})|({_DIGITS})\s*\+)\s*%?", re.IGNORECASE)
_UNIT = re.compile(rf"({_DIGITS})\s*([^\W\d_][^\W\d_²³]*(?:[²³]|\d(?!\w))?(?:/[^\W\d_]+)?)\.?", re.IGNORECASE)
_CODE = re.compile(r"\d[a-c]|\d{1,2}[pq]|\d+(?:st|nd|rd|th)|\d+d", re.IGNORECASE)  # stages, arms of chromosomes, ...
_MONTH = "jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez"
_YEAR = r"(?:1[89]|20)\d\d"
_DATE = re.compile(
    rf"(?:{_YEAR}([-/.])\d{{1,2}}\1\d{{1,2}}"  # 2019-05-02
    rf"|\d{{1,2}}([-/.])\d{{1,2}}\2(?:{_YEAR}|\d\d)"  # 2.5.2019, 5/2/19
    rf"|\d{{1,2}}[-. ]*(?:{_MONTH})[^\W\d_]*[-., ]*(?:{_YEAR}|\d\d)"  # 2-May-2019
    rf"|(?:{_MONTH})[^\W\d_]*[. ]*\d{{1,2}},? +{_YEAR})"  # May 2, 2019
    r"(?:[T ]\d{1,2}:\d\d.*)?",  # and a time of day
    re.IGNORECASE,
)


@dataclass(frozen=True)
class OtherWriting:
    """A number that no program reads as one."""

    kind: Kind
    number: str  # with a decimal point alone
    remedy: str
    unit: str = ""  # in lower case


def other_writing(cell: str) -> OtherWriting | None:
    """Returns how a cell writes a number that tables write otherwise; None for plain numbers and for words.

    Example:
        >>> other_writing("61,5").number, other_writing("1.234.567").number, other_writing("12,5 %").number
        ('61.5', '1234567', '12.5')
        >>> other_writing("<5").kind, other_writing("1.5 cm").unit, other_writing("G2"), other_writing("3+4")
        ('limit', 'cm', None, None)
    """
    written, cell = cell.strip(), cell.strip().replace("\u2212", "-")
    like = ", like all numbers of the table."
    if _is_plain(cell):
        remedy = f"Write its minus as a hyphen, as {cell}{like}"
        return None if cell == written else OtherWriting("minus", cell, remedy)
    if _COMMA.fullmatch(cell) or _THOUSANDS.fullmatch(cell):
        return _marked(cell, like)
    if match := _PER_CENT.fullmatch(cell):
        number = _with_point(match[1])
        return OtherWriting("per cent", number, f"Write it without the sign, as {number}{like}")
    if match := _LIMIT.fullmatch(cell):
        number = _with_point(match[1] or match[2])
        remedy = f"Write one number in its place, such as the limit {number}."
        return OtherWriting("limit", number, remedy)
    if (match := _UNIT.fullmatch(cell)) and not _CODE.fullmatch(cell):
        number = _with_point(match[1])
        return OtherWriting("unit", number, f"Write it without the unit, as {number}{like}", match[2].lower())
    return None


def number_hint(cell: str) -> str:
    """Returns what to do about a cell where a number is required and is written otherwise; nothing for other cells.

    Nothing either for a number with a unit: who asks knows which unit is required.

    Example:
        >>> number_hint("1,5"), number_hint("high")
        (' Write it with a decimal point, as 1.5, like all numbers of the table.', '')
    """
    written = other_writing(cell)
    return "" if written is None or written.unit else f" {written.remedy}"


def is_date(cell: str) -> bool:
    """Returns whether a cell is a date with its day, month and year.

    Example:
        >>> is_date("2019-05-02"), is_date("2.5.2019 00:00"), is_date("2-May-19"), is_date("60-69"), is_date("1.2.3")
        (True, True, True, False, False)
    """
    return _DATE.fullmatch(cell.strip()) is not None


def _marked(cell: str, like: str) -> OtherWriting:
    """A number with a comma, or with marks between thousands."""
    digits = re.sub(r"[^\d+-]", "", cell)
    if re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", cell):
        point = cell.replace(",", ".")
        return OtherWriting(
            "decimal comma",
            point,
            f"Write {point} if the comma is a decimal one, or {digits} if it separates thousands.",
        )
    if _COMMA.fullmatch(cell):
        point = _with_point(cell)
        return OtherWriting("decimal comma", point, f"Write it with a decimal point, as {point}{like}")
    mark = cell.lstrip("+-0123456789")[0]  # the first separates thousands
    number = _with_point(cell.replace(mark, ""))
    return OtherWriting("thousands", number, f"Write it without marks between thousands, as {number}{like}")


def _is_plain(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _with_point(number: str) -> str:
    point = number.replace(",", ".")
    return re.sub(r"^([+-]?)\.", r"\g<1>0.", point)
