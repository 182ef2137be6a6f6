"""The page as a document: well-formed, described, reachable by keyboard, and small for large cohorts."""

from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_run import SCRIPT, made_report, write_fake_run
from PIL import Image

from subfuse.report import patient_section, write_report
from subfuse.report import patient_section as pictures
from subfuse.report.patient_section import PictureBudget
from subfuse.report.run_files import read_run
from subfuse.report.task_figures import survival_figures

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


@pytest.mark.walk
def test_five_hundred_explained_patients_fit_into_15_megabytes(tmp_path, monkeypatch):
    """Figures and pictures of every patient are as large as they come, and cost no drawing here."""
    run = write_fake_run(tmp_path / "run", patients=500, tasks=("survival",), explained=1)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (500, 900, 3), dtype=np.uint8))
    folder = run / "explanations" / "patient_0"
    noise.save(folder / "heatmap_total_01Z-DX1.png")
    files = read_run(run)
    drawn = patient_section.explained_patient(files, files.explanations[0])
    monkeypatch.setattr(patient_section, "explained_patient", lambda run, explanation: drawn)
    source = PictureBudget().embed(folder / "heatmap_total_01Z-DX1.png")
    for index in range(1, 500):
        copy = run / "explanations" / f"patient_{index}"
        copy.mkdir()
        for name in ("explanation.json", "heatmap_total_01Z-DX1.png"):
            (copy / name).hardlink_to(folder / name)
    monkeypatch.setattr(pictures, "encoded", lambda path: source)
    path = write_report(run)
    page = path.read_text(encoding="utf-8")
    assert 8e6 < path.stat().st_size < 15e6
    assert "more explained predictions" in page
    assert "more picture" in page
    assert SCRIPT not in page


@pytest.mark.parametrize("audited", [True, False])
def test_calibration_of_survival_is_drawn_from_the_audit_or_said_to_be_missing(tmp_path, audited):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    if audited:
        known = {"task": "survival", "model": "subspace"}
        groups = [known | {"group": 1, "n_patients": 20, "predicted": 0.25, "observed": 0.3}]
        measures = [known | {"horizon_days": 1096}]
        tables = {"reliability": groups, "calibration": measures}
        drawn, remarks = survival_parts(run, {"findings": [], "tables": tables})
        assert (
            drawn[-1].alt == "Predicted and observed probabilities of an event by 3 years, by group: 0.250 and 0.300."
        )
        assert remarks == []
    else:
        drawn, remarks = survival_parts(run, None)
        assert remarks == ["No figure of the calibration of the survival curves: run `subfuse audit`."]
    assert len(drawn) == 1 + audited


def survival_parts(run, audit):
    found = survival_figures(replace(read_run(run), audit=audit), "survival", "subspace")
    return found["figures"], found["remarks"]
