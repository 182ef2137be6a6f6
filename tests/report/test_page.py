"""The page as a document: well-formed, described, reachable by keyboard, and small for large cohorts."""

from html.parser import HTMLParser

import numpy as np
import pytest
from fake_run import made_report

VOID = {"meta", "img", "br", "link", "hr", "input", "col"}


class Tree(HTMLParser):
    """Checks nesting, and keeps every element with those that it lies in."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.elements: list[tuple[str, dict[str, str | None], list[tuple[str, dict[str, str | None]]]]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), list(self.open)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), list(self.open)))

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, f"</{tag}> closes <{self.open[-1][0]}> in {self.open[-3:]}"
        self.open.pop()

    def of(self, tag):
        return [(attributes, within) for name, attributes, within in self.elements if name == tag]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree((made_report(tmp_path_factory) / "report.html").read_text(encoding="utf-8"))


def test_every_element_is_closed_where_it_was_opened(tree):
    assert tree.open == []
    assert [attributes.get("lang") for attributes, _ in tree.of("html")] == ["en"]
    assert len(tree.of("h1")) == len(tree.of("main")) == len(tree.of("title")) == 1


def test_every_picture_says_what_it_shows(tree):
    assert len(tree.of("img")) >= 8
    assert all(len(attributes["alt"]) > 20 for attributes, _ in tree.of("img"))
    for _, within in tree.of("svg"):
        figure = next(attributes for tag, attributes in reversed(within) if tag == "figure")
        assert len(figure["aria-label"]) > 20


def test_headings_descend_by_one_level(tree):
    levels = [int(tag[1]) for tag, _, _ in tree.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert max(np.diff(levels)) <= 1


def test_wide_tables_scroll_by_keyboard_and_are_named(tree):
    for attributes, _ in tree.of("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["aria-label"]
    for _, within in tree.of("table"):
        assert any(attributes.get("class") == "scroll" for _, attributes in within)


def test_every_header_cell_has_a_scope(tree):
    assert tree.of("th")
    assert all(attributes.get("scope") in ("col", "row") for attributes, _ in tree.of("th"))


def test_sections_are_landmarks_with_a_heading_in_the_contents(tree):
    listed = {
        attributes["href"][1:]
        for attributes, within in tree.of("a")
        if any(a.get("aria-label") == "Sections" for _, a in within)
    }
    titles = {attributes["aria-labelledby"] for attributes, _ in tree.of("section")}
    assert titles == {f"{anchor}-title" for anchor in listed - {"summary"}}


def test_it_is_said_at_the_top_and_at_the_end_that_it_is_no_medical_device(tree):
    assert sum(attributes.get("class") == "research" for attributes, _ in tree.of("p")) == 2
    assert any(tag == "footer" for tag, _, _ in tree.elements[-3:])
