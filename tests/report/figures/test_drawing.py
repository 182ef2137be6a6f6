"""Figures of one page: colours from the page, text as it is, and identifiers of their own."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from subfuse.report.figures.drawing import (
    INK,
    NEGATIVE,
    POSITIVE,
    SERIES,
    STYLE,
    VARIABLES,
    new_figure,
    numbered,
    svg_text,
)


def drawing(marker: str = "o") -> str:
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(3.0, 2.0)
        for colour in (INK, POSITIVE, NEGATIVE, *SERIES):
            axes.plot([0, 1], [0, 1], color=colour, marker=marker)
        axes.set_title("a < b & $x$")
        return svg_text(figure)


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return {"roc": drawing()}


def test_a_figure_has_the_size_that_was_asked_for():
    figure, axes = new_figure(3.5, 2.0)
    np.testing.assert_allclose(figure.get_size_inches(), (3.5, 2.0))
    assert figure.axes == [axes]


def test_colours_are_those_of_the_page_and_nothing_leads_elsewhere(drawn):
    assert not re.findall(r"#[0-9a-fA-F]{6}\b", drawn["roc"])
    for colour in (INK, POSITIVE, NEGATIVE, *SERIES):
        assert f"var({VARIABLES[colour]})" in drawn["roc"]
    assert not re.search(r"http|xmlns|<metadata|\?xml", drawn["roc"])
    assert len(set(VARIABLES.values())) == len(VARIABLES)


def test_names_of_users_are_text_and_no_formula(drawn):
    assert "a &lt; b &amp; $x$" in drawn["roc"]


def test_references_within_a_figure_resolve(drawn):
    tree = ElementTree.fromstring(drawn["roc"].replace("xlink:href", "href"))
    identifiers = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
    assert len(set(identifiers)) == len(identifiers)
    named = set(re.findall(r'(?:href="#|url\(#)([^")]*)', drawn["roc"]))
    assert named
    assert named <= set(identifiers)


def test_other_figures_have_other_identifiers_and_the_same_one_the_same(drawn):
    first, second = (set(re.findall(r'\bid="(.*?)"', text)) for text in (drawn["roc"], drawing("s")))
    assert first & second == set()
    assert drawing() == drawn["roc"]


def test_figures_drawn_alike_get_identifiers_of_their_own(drawn):
    first, second = (numbered(drawn["roc"], place) for place in (1, 2))
    identifiers = [set(re.findall(r'\bid="(.*?)"', text)) for text in (first, second)]
    assert identifiers[0] & identifiers[1] == set()
    named = set(re.findall(r'(?:href="#|url\(#)([^")]*)', second))
    assert named
    assert named <= identifiers[1]
