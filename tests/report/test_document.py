import os
import re

import numpy as np
import pandas as pd
import pytest
from fake_run import SCRIPT, write_fake_run
from report_page import Page, written

from subfuse.report import write_report


def test_every_metric_in_the_page_equals_the_table(run, page):
    table = pd.read_csv(run / "metrics.csv").set_index(["task", "model", "metric"])["value"]
    cells = {
        (a["data-task"], a["data-model"], a["data-metric"]): float(a["data-value"])
        for a in page.of("td")
        if "data-metric" in a
    }
    assert set(cells) == set(table.index)
    for key, value in table.items():
        np.testing.assert_equal(cells[key], value)


def test_the_page_loads_nothing_from_anywhere(text, page):
    for _, attributes, _ in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), value
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert not page.of("script")


def test_names_are_shown_as_text_never_as_markup(text):
    assert SCRIPT not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2  # exclusions and explained patients


def test_hostile_names_in_every_table_stay_text(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), explained=1)
    for path in (*run.glob("*.csv"), *run.glob("cohort/*.csv"), *run.glob("explanations/*/*.csv")):
        hostile = path.read_text().replace("G3", "<img src=x>$a_b$").replace("EGFR", "<b>&").replace("concat", "<i>")
        path.write_text(hostile)
    page = Page(write_report(run).read_text())
    assert all("style" in attributes for attributes in page.of("i"))
    assert page.of("img")
    assert all(attributes["src"].startswith("data:image/") for attributes in page.of("img"))
    assert any("<img src=x>$a_b$" in part for part in page.text)


def test_identifiers_in_the_page_are_unique(page):
    identifiers = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_references_inside_the_page_resolve(text, page):
    identifiers = {attributes["id"] for _, attributes, _ in page.elements if "id" in attributes}
    targets = {
        a[name][1:] for _, a, _ in page.elements for name in ("href", "xlink:href") if (a.get(name) or "")[:1] == "#"
    }
    targets |= set(re.findall(r"url\(#(.*?)\)", text))
    assert targets <= identifiers


def test_summary_says_whether_fusion_helps(page):
    text = " ".join("".join(page.text).split())
    assert text.index("Fusion helps.") < text.index("Fusion is not shown to help.") < text.index("Flow of patients")
    assert "Subspace fusion is better than the best single modality, SNN (expression only) (+0.051" in text  # survival
    assert "Subspace fusion is not shown to be better than the best single modality, SNN" in text  # grade


def test_every_picture_and_figure_has_a_description(page):
    assert page.of("img")
    assert all(attributes.get("alt") for attributes in page.of("img"))
    assert all(a.get("aria-label") for a in page.of("figure") if a.get("role") == "group")
    assert len(page.of("caption")) == len(page.of("table"))


@pytest.mark.walk
def test_the_same_run_gives_the_same_report(run, text):
    assert write_report(run).read_text(encoding="utf-8") == text


def test_only_predictions_and_metrics_are_needed(tmp_path):
    left = tmp_path / "run" / ".report.elsewhere-1.abcdefgh.part.html"  # by a process that was killed
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    page = written(tmp_path, patients=80, optional=False)
    assert not left.exists()
    assert "was not tested" in page
    titles = re.findall(r'<h2 id="[\w-]+-title">(.*?)</h2>', page)
    assert titles == ["Cohort", "Survival", "Grade", "Provenance"]  # no section without content
    for absent in ("What models rely on was not computed", "This run was not audited", "keeps no training log"):
        assert page.count(absent) >= 1
