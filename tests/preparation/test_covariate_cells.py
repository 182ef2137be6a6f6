"""Cells of a covariate: numbers, words, or a writing that may be either and is refused."""

import pandas as pd
import pytest

from subfuse.errors import ConfigurationError
from subfuse.preparation.covariate_cells import numeric_cells, refuse_numbers_and_words


def known(*cells: str) -> pd.Series:
    return pd.Series(cells, index=[f"P{i}" for i in range(len(cells))])


def test_numbers_are_told_from_words_cell_by_cell():
    numeric = numeric_cells("x", known("61", " 62.5", "-1e3", "mutant", "inf", "nan"))
    assert numeric.tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize(("cells", "found"), [
    (("61,5", "62,5", "63"), r"x must hold numbers\. Found '61,5' of P0 \(2 such cells\)\."),
    (("10%", "20%", "30", "40"), r"x must hold numbers.* Found '10%' of P0"),
    (("61 y", "62 y", "63 y", "70 y"), r"x must hold numbers without a unit\. Found '61 y' of P0 \(4 such cells\)"),
    (("10 mg", "20 mg", "3 g", "4 g", "5 g"), r".* Bring all to one unit \(g, mg\)"),
])  # fmt: skip
def test_most_cells_being_numbers_in_another_writing_are_refused(cells, found):
    with pytest.raises(ConfigurationError, match=f"^covariates: {found}"):
        numeric_cells("x", known(*cells))


@pytest.mark.parametrize("cells", [
    ("<1%", "1-49%", "50%", "<1%"), ("50mg", "100mg", "50mg", "100mg"), ("5FU", "TMZ", "5FU", "TMZ"), ("<60", ">=60"),
])  # fmt: skip
def test_names_of_groups_and_drugs_are_words(cells):
    assert not numeric_cells("x", known(*cells)).any()


@pytest.mark.parametrize("cells", [
    ("2019-05-02", "61", "62"), ("20190502", "20200101", "20210203"), ("2019-05", "2019-06", "2020-07"),
])  # fmt: skip
def test_a_date_is_neither_number_nor_word(cells):
    with pytest.raises(ConfigurationError, match=rf"x must hold numbers or words\. Found the date '{cells[0]}' of P0"):
        numeric_cells("x", known(*cells))


def test_numbers_beside_words_say_who_has_them_and_what_to_write():
    ages = known("61", "62", "63", "old")
    with pytest.raises(ConfigurationError, match=r"Found 3 numbers, and old \(of P3\)\. Correct or empty the cells\.$"):
        refuse_numbers_and_words("age", ages, numeric_cells("age", ages))
    codes = known("0", "1", "mutant")
    with pytest.raises(ConfigurationError, match=r"Write all as numbers or all as words, .* such as `idh=mutant`\.$"):
        refuse_numbers_and_words("idh", codes, numeric_cells("idh", codes))
    limits = known("60", "<60")
    with pytest.raises(ConfigurationError, match=r"Write all as numbers \(such as 60\) or all as words"):
        refuse_numbers_and_words("age", limits, numeric_cells("age", limits))


def test_the_cell_that_keeps_commas_from_being_read_is_named():
    known = pd.Series(["61,5", "1.604,5", "7,5"], ["a", "b", "c"])
    with pytest.raises(ConfigurationError, match=r"Found '1\.604,5' of b .* as 1604,5"):
        numeric_cells("ldh", known)
