"""Cells of tables that are numbers in another writing, or dates, and what to do about each."""

import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["sign", "decimal comma", "thousands", "per cent", "limit", "unit", "age"]

DATE_REMEDY = "Give an age or a number of days instead of a date: a spreadsheet subtracts dates."
_DIGITS = r"[+-]?\d+(?:[.,]\d+)?(?:e[+-]?\d+)?"
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:([.,' ’\u00a0\u2009\u202f])\d{3})(?:\1\d{3})*(?:(?!\1)[.,]\d+)?")
_COMMA = re.compile(r"[+-]?\d*,\d+(?:e[+-]?\d+)?", re.IGNORECASE)
_PER_CENT = re.compile(rf"({_DIGITS})\s*%", re.IGNORECASE)
_LIMIT = re.compile(rf"(?:[<>≤≥~≈]=?\s*({_DIGITS})|({_DIGITS})\s*\+)\s*%?", re.IGNORECASE)
_UNIT = re.compile(
    rf"({_DIGITS})\s*((?:[x×*]\s*)?10\s*[\^*]+\s*\d+(?:\s*/\s*[^\W\d_]+)?|[$€£¥]"  # 4.1 x10^9/l, 100 €
    r"|[^\W\d_][^\W\d_²³]*(?:[²³]|\d(?!\w))?(?:/[^\W\d_]+)?)\.?",
    re.IGNORECASE,
)
_CURRENCY = re.compile(rf"([$€£¥])\s*({_DIGITS})")
TIME_WORDS = {  # of units of time, in English, German and French, without accents
    "days": ("day", "days", "d", "tag", "tage", "tagen", "jour", "jours"),
    "weeks": ("week", "weeks", "wk", "wks", "woche", "wochen", "semaine", "semaines"),
    "months": ("month", "months", "m", "mo", "mos", "mon", "mons", "mth", "mths", "monat", "monate", "monaten", "mois"),
    "years": ("year", "years", "y", "yr", "yrs", "jahr", "jahre", "jahren", "j", "an", "ans", "annee", "annees"),
}
_YEARS, _MONTHS = (f"(?:{'|'.join(TIME_WORDS[unit])})" for unit in ("years", "months"))
_AGE = re.compile(
    rf"(\d+)\s*{_YEARS}\.?,?\s*(\d+)\s*{_MONTHS}\.?|(\d+)\s*{_MONTHS}\.?,?\s*(\d+)\s*{_YEARS}\.?", re.IGNORECASE
)
_CODE = re.compile(  # stages (1A, 1E, 1S), arms of chromosomes, ordinals, dimensions, magnifications
    r"\d[a-cesx]|\d{1,2}[pq]|\d+(?:st|nd|rd|th)|\d+d|\d+x", re.IGNORECASE
)
_MONTH = (  # in English, German and French
    r"(?:jan(?:uary?|v(?:ier)?)?|feb(?:ruary?)?|f[ée]v(?:r(?:ier)?)?|mar(?:ch|s)?|märz?|mrz|apr(?:il)?|avr(?:il)?|ma[iy]"
    r"|jun[ei]?|juin|jul[iy]?|juil(?:let)?|aug(?:ust)?|ao[ûu]t|sept?(?:emb(?:er|re))?|o[ck]t(?:ob(?:er|re))?"
    r"|nov(?:emb(?:er|re))?|d[eé][cz](?:emb(?:er|re))?)\b"
)
_YEAR = r"(?:1[89]|20)\d\d"
_DATE = re.compile(
    rf"(?:{_YEAR}([-/.])\d{{1,2}}\1\d{{1,2}}"  # 2019-05-02
    rf"|\d{{1,2}}([-/.])\d{{1,2}}\2{_YEAR}"  # 2.5.2019
    r"|(?:0[1-9]|[12]\d|3[01])([-.])(?:0[1-9]|1[0-2])\3\d\d"  # 02.05.19; 2.5.19 may be a version
    r"|\d{1,2}/\d{1,2}/\d\d"  # 5/2/19
    rf"|\d{{1,2}}[-. ]*{_MONTH}[-., ]*(?:{_YEAR}|\d\d)"  # 2-May-2019
    rf"|{_MONTH}[. ]*\d{{1,2}},? +{_YEAR})"  # May 2, 2019
    r"(?:[T ]\d{1,2}:\d\d.*)?",  # and a time of day
    re.IGNORECASE,
)
_MONTH_OF_YEAR = re.compile(
    rf"(?:0?[1-9]|1[0-2])[-/.]{_YEAR}|{_YEAR}[-/.](?:0[1-9]|1[0-2])|{_MONTH}[-. ]*{_YEAR}", re.IGNORECASE
)
_YEARS_IN_A_ROW = re.compile(rf"({_YEAR})[-/](\d\d)")  # 2010-11, which is no month


_PERHAPS_UNKNOWN = frozenset(  # in lower case
    {"-", "–", "/", "n.d.", "n. d.", "nd", "n/d", "pending", "tbd", "not done", "not determined", "not assessed"}
    | {"not tested", "not applicable", "not known", "indeterminate", "nicht bestimmt", "gx", "tx", "nx", "mx"}
)


_SHORT = {"m": "male", "f": "female", "w": "weiblich", "y": "yes", "n": "no"}  # words and their first letter


@dataclass(frozen=True)
class OtherWriting:
    """A number that no program reads as one."""

    kind: Kind
    number: str  # with a decimal point alone
    remedy: str
    unit: str = ""  # in lower case

    @property
    def remedy_among_commas(self) -> str:
        """The remedy in a table whose decimal commas are read, where marks between thousands alone are at fault."""
        return (
            self.remedy.replace(self.number, self.number.replace(".", ",")) if self.kind == "thousands" else self.remedy
        )


def other_writing(cell: str) -> OtherWriting | None:
    """Returns how a cell writes a number that tables write otherwise; None for plain numbers and for words.

    Example:
        >>> other_writing("61,5").number, other_writing("1.234.567").number, other_writing("12,5 %").number
        ('61.5', '1234567', '12.5')
        >>> other_writing("<5").kind, other_writing("1.5 cm").unit, other_writing("G2"), other_writing("3+4")
        ('limit', 'cm', None, None)
    """
    written, cell = cell.strip(), _with_usual_signs(cell.strip())
    like = ", like all numbers of the table."
    if _is_plain(cell):
        remedy = f"Write it with a hyphen as minus and the digits 0 to 9 alone, as {cell}{like}"
        return None if cell == written else OtherWriting("sign", cell, remedy)
    if match := _AGE.fullmatch(cell):
        number = f"{int(match[1] or match[4]) + int(match[2] or match[3]) / 12:.4g}"
        return OtherWriting("age", number, f"Write it as one number of one unit, such as {number} for years{like}")
    if _COMMA.fullmatch(cell) or _THOUSANDS.fullmatch(cell):
        return _marked(cell, like)
    if match := _PER_CENT.fullmatch(cell):
        number = _with_point(match[1])
        return OtherWriting("per cent", number, f"Write it without the sign, as {number}{like}")
    if match := _LIMIT.fullmatch(cell):
        number = _with_point(match[1] or match[2])
        remedy = f"Write one number in its place, such as the limit {number}."
        return OtherWriting("limit", number, remedy)
    if match := _CURRENCY.fullmatch(cell):
        number = _with_point(match[2])
        return OtherWriting("unit", number, f"Write it without the unit, as {number}{like}", match[1])
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


def without_accents(text: str) -> str:
    """Returns text in lower case with the letters below accents and umlauts alone.

    Example:
        >>> without_accents("Überleben (années)")
        'uberleben (annees)'
    """
    return "".join(sign for sign in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(sign))


def may_mean_unknown(cell: str) -> bool:
    """Returns whether a cell that counts as a value may mean that nothing is known.

    Example:
        >>> may_mean_unknown("Not determined"), may_mean_unknown("none")
        (True, False)
    """
    return cell.strip().lower() in _PERHAPS_UNKNOWN


def abbreviated(words: Collection[str]) -> dict[str, str]:
    """Returns the letters among words that stand for another of them, such as `m` beside `male`.

    Args:
        words: Of one column, in lower case.

    Example:
        >>> abbreviated({"m", "male", "f", "y"})
        {'m': 'male'}
    """
    return {letter: word for letter, word in _SHORT.items() if letter in words and word in words}


def is_date(cell: str) -> bool:
    """Returns whether a cell is a date with its day, month and year.

    Example:
        >>> is_date("2019-05-02"), is_date("2.5.2019 00:00"), is_date("2-May-19"), is_date("60-69"), is_date("1.2.3")
        (True, True, True, False, False)
    """
    return _DATE.fullmatch(cell.strip()) is not None


def is_month(cell: str) -> bool:
    """Returns whether a cell is a month of a year, or a range of two years written alike, see `are_months`.

    Example:
        >>> is_month("05/2019"), is_month("2019-05"), is_month("Mai 2019"), is_month("2011-15")
        (True, True, True, False)
    """
    return _MONTH_OF_YEAR.fullmatch(cell.strip()) is not None


def are_months(cells: Iterable[str]) -> bool:
    """Returns whether all cells are months of several years or one, and not all of them years in a row (`2010-11`).

    Example:
        >>> are_months(["2010-11", "2019-05"]), are_months(["2010-11", "2011-12"])
        (True, False)
    """
    cells = [cell.strip() for cell in cells]
    ranges = [match for cell in cells if (match := _YEARS_IN_A_ROW.fullmatch(cell))]
    in_a_row = [int(match[2]) == (int(match[1]) + 1) % 100 for match in ranges]
    return all(map(is_month, cells)) and not (len(ranges) == len(cells) and all(in_a_row))


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


def _with_usual_signs(cell: str) -> str:
    """Returns a cell with hyphens as minus and ASCII digits, and without the mark that makes text of it in Excel."""
    cell = re.sub(r"^'(?=[\d.+-])", "", re.sub("^[\u2212\u2013]", "-", cell).replace("\u2212", "-"))
    return "".join(str(unicodedata.decimal(sign)) if sign.isdecimal() else sign for sign in cell)


def _is_plain(cell: str) -> bool:
    if "_" in cell:  # a number in Python alone
        return False
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _with_point(number: str) -> str:
    point = number.replace(",", ".")
    return re.sub(r"^([+-]?)\.", r"\g<1>0.", point)
