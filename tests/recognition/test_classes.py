"""Molecular classes, by the words of a column."""

import pandas as pd
import pytest

from subfuse.recognition.classes import class_columns


@pytest.mark.parametrize(
    "words",
    [
        ("MSIH", "nonMSIH"), ("MSI-H", "MSS"), ("MSI-H", "MSI-L", "MSS"), ("mutated", "wild type"), ("MUT", "WT"),
        ("positive", "negative"), ("dMMR", "pMMR"), ("methylated", "unmethylated"), ("CIMP", "non-CIMP"),
    ],
)  # fmt: skip
def test_columns_of_the_words_of_a_test_are_classes(words):
    table = pd.DataFrame({"x": [*words, *words, "", "NA", "not tested"]})
    assert class_columns(table) == ["x"]
    assert class_columns(table, ["x"]) == []


@pytest.mark.parametrize(
    "cells",
    [
        ["yes", "no"] * 2,
        ["left", "right"] * 2,
        ["0", "1"] * 2,
        ["MUT", "positive"] * 2,  # of two tests
        ["MSIH"] * 4,
        ["MSIH", "MSS", "MSS", "MSS"],  # one patient is no class
        ["G2", "G3"] * 2,
        [""] * 4,
    ],
)
def test_others_are_none(cells):
    assert class_columns(pd.DataFrame({"x": cells})) == []
