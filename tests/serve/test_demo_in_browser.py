"""Report and viewer of the simulated cohort, with its slides, features and explanations, in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from viewer_page import choose, drawn, drawn_overlays, scale, served, shown_risks, value_of, viewed

import chromium
from command_run import made_by_commands
from subfuse.pipeline import patients_to_explain

pytestmark = [*chromium.MARKS, pytest.mark.walk]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_by_commands(tmp_path_factory)


@pytest.fixture(scope="module")
def risks(run: Path) -> dict[str, float]:
    """Risks of test patients by subspace fusion."""
    table = pd.read_csv(run / "predictions.csv", dtype={"patient_id": str})
    tested = table.query("split == 'test' and task == 'survival' and model == 'subspace'")
    return tested.set_index("patient_id")["risk"].to_dict()


@pytest.fixture(scope="module")
def explained(run: Path) -> str:
    return patients_to_explain(pd.read_csv(run / "predictions.csv"), 1)[0]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium.launched() as browser:
        yield browser


def test_the_report_of_the_demo_opens_from_disk_and_shows_the_predictions(run, risks, explained, browser):
    address = (run / "report.html").as_uri()
    with chromium.opened(browser, address) as (page, asked):
        facts = page.locator(f'article.patient[aria-label="{explained}, Survival"] dl.facts').text_content()
        assert f"{risks[explained]:.3f}".replace("-", "−") in facts
        metrics = pd.read_csv(run / "metrics.csv").dropna(subset=["value"])
        for row in metrics.itertuples():
            cell = f'td[data-task="{row.task}"][data-model="{row.model}"][data-metric="{row.metric}"]'
            assert value_of(page, cell) == row.value
    assert {url for url in asked if not url.startswith("data:")} == {address}


def test_the_viewer_of_the_demo_shows_predictions_slide_and_overlays(run, risks, explained, browser):
    with served(run) as address, viewed(browser, address) as page:
        page.select_option("#task", "survival")
        page.select_option("#model", "subspace")
        page.wait_for_function("n => document.querySelectorAll('#list li').length === n", arg=len(risks))
        assert shown_risks(page) == risks
        with page.expect_response(re.compile(r"/slides/[^/]+/\d+/\d+_\d+\.jpg$")) as tile:
            choose(page, explained)
        assert tile.value.ok  # the slide's own pixels
        assert value_of(page, ".prediction [data-name=risk]") == risks[explained]
        assert len(set(drawn_overlays(page).values())) == 4
        fitted, before = scale(page), drawn(page)
        for _ in range(3):
            page.click("#zoom-in")
        assert scale(page) == pytest.approx(2**1.5 * fitted)
        assert drawn(page) != before
        page.locator("#patch button").first.click()
        patches = pd.read_csv(run / "explanations" / explained / "survival" / "patches.csv")
        assert value_of(page, "#patch [data-name=total]") in patches["total"].to_list()
