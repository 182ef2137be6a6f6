"""Cells in another writing: numbers are restored as they were meant, and words, codes and dates are no numbers."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subfuse.cells import are_months, is_date, is_month, may_mean_unknown, number_hint, other_writing

NUMBERS = st.integers(-(10**9), 10**9)
CENTS = st.decimals(-(10**6), 10**6, places=2, allow_nan=False)


@given(st.one_of(NUMBERS, CENTS, st.floats(allow_nan=False)))
def test_plain_numbers_are_left_alone(number):
    assert other_writing(str(number)) is None
    assert other_writing(f"  {number} ") is None


@given(CENTS)
def test_decimal_commas_are_restored(number):
    found = other_writing(f"{number:.2f}".replace(".", ","))
    assert found is not None
    assert found.kind == "decimal comma"
    assert float(found.number) == float(number)


@given(st.integers(10**6, 10**12), st.sampled_from(",.' \u2009\u202f\u00a0"), st.sampled_from(["", "5", "25"]))
def test_marks_between_thousands_are_removed_and_the_other_mark_is_the_decimal_one(number, mark, cents):
    decimal = "." if mark != "." else ","
    written = f"{number:,}".replace(",", mark) + (f"{decimal}{cents}" if cents else "")
    found = other_writing(written)
    assert found is not None
    assert found.kind == "thousands"
    assert float(found.number) == float(f"{number}.{cents or 0}")


def test_one_mark_before_three_digits_may_be_either():
    found = other_writing("1,825")
    assert found is not None
    assert "Write 1.825 if the comma is a decimal one, or 1825 if it separates thousands." in found.remedy


@pytest.mark.parametrize(
    ("cell", "kind", "number", "unit"),
    [
        ("12,5 %", "per cent", "12.5", ""),
        ("<5", "limit", "5", ""),
        ("≥ 0,1", "limit", "0.1", ""),
        ("90+", "limit", "90", ""),
        ("1.5 cm", "unit", "1.5", "cm"),
        ("4.1 x10^9/l", "unit", "4.1", "x10^9/l"),
        ("€ 100", "unit", "100", "€"),
        ("61 y 6 m", "age", "61.5", ""),
        ("6 months, 2 years", "age", "2.5", ""),
        ("−3", "sign", "-3", ""),
        ("٣", "sign", "3", ""),  # other digits
        ("'7", "sign", "7", ""),  # text in Excel
    ],
)
def test_other_writings_are_told_by_their_kind(cell, kind, number, unit):
    found = other_writing(cell)
    assert found is not None
    assert (found.kind, found.number, found.unit) == (kind, number, unit)
    assert (number_hint(cell) == "") == bool(unit)  # who asks knows the unit
    if not unit:
        assert number_hint(cell) == f" {found.remedy}"


@pytest.mark.parametrize("cell", ["G2", "1A", "1p", "2nd", "3d", "20x", "3+4", "high", "", "1_000", "19q", "TCGA-02"])
def test_codes_and_words_are_no_numbers(cell):
    assert other_writing(cell) is None
    assert number_hint(cell) == ""


@given(st.dates(datetime.date(1800, 1, 1), datetime.date(2099, 12, 31)))
def test_dates_are_dates_in_every_writing_and_no_numbers(day):
    for written in ("%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%d-%b-%Y", "%d %B %Y", "%B %d, %Y", "%d.%m.%y"):
        assert is_date(day.strftime(written)), written
        assert is_date(f"{day.strftime(written)} 00:00"), written
        assert not is_month(day.strftime(written)), written
    for written in ("%m/%Y", "%Y-%m", "%B %Y", "%b-%Y"):
        assert is_month(day.strftime(written)), written
        assert not is_date(day.strftime(written)), written


@pytest.mark.parametrize("cell", ["60-69", "1.2.3", "2019", "2019-05-02-03", "99.99.2019x", "12:30", "3/4", "II/III"])
def test_ranges_versions_and_years_are_no_dates(cell):
    assert not is_date(cell)
    assert not is_month(cell)


def test_years_in_a_row_are_no_months_unless_another_cell_is_one():
    assert not are_months(["2010-11", "2011-12", "1999-00"])
    assert are_months(["2010-11", "2011-12", "2019-05"])
    assert are_months(["2010-11", "2010-10"])  # October is no next year
    assert not are_months(["2010-11", "G2"])


@pytest.mark.parametrize("cell", [" Pending", "N.D.", "-", "not tested", "GX", "nicht bestimmt"])
def test_words_that_may_mean_unknown(cell):
    assert may_mean_unknown(cell)


@pytest.mark.parametrize("cell", ["none", "+", "0", "negative", "NED"])
def test_words_that_say_something(cell):
    assert not may_mean_unknown(cell)
