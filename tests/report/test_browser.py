"""The report in a real browser, opened from disk: nothing is fetched, links work, numbers are those of the tables."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from fake_run import SCRIPT, made_report

import chromium

pytestmark = chromium.MARKS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_report(tmp_path_factory)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium.launched() as browser:
        yield browser


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser, run) -> Iterator:
    """The opened report; that it asks for nothing else is checked at the end."""
    address = (run / "report.html").as_uri()
    options = {"viewport": {"width": 1280, "height": 900}, "color_scheme": request.param}
    with chromium.opened(browser, address, **options) as (page, asked):
        yield page
    assert {url.split("#")[0] for url in asked if not url.startswith("data:")} == {address}


def test_contents_lead_to_their_sections_by_keyboard(page):
    links = page.locator('nav[aria-label="Sections"] a')
    assert links.count() > 5
    for index in range(links.count()):
        links.nth(index).focus()
        page.keyboard.press("Enter")
        target = page.evaluate("location.hash.slice(1)")
        assert target == links.nth(index).get_attribute("href")[1:]
        place = page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", target)
        at_end = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        assert abs(place) < 60 or at_end


def test_an_explained_patient_is_reached_from_the_index(page):
    page.locator('nav[aria-label="Explained patients"] a').first.click()
    article = page.locator("article.patient:target")
    assert SCRIPT in article.inner_text()
    assert article.bounding_box()["y"] < 400


def test_pictures_are_drawn_and_nothing_is_wider_than_the_page(page):
    drawn = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(drawn) > 3
    assert min(drawn) > 100
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_shown_numbers_are_those_of_the_table(page, run):
    table = pd.read_csv(run / "metrics.csv").set_index(["task", "model", "metric"])["value"].dropna()
    for (task, model, metric), value in table.items():
        cell = page.locator(f'td[data-task="{task}"][data-model="{model}"][data-metric="{metric}"] .value')
        assert cell.inner_text().startswith(f"{value:.3f}")


def test_print_opens_what_is_folded_and_needs_little_shrinking(page):
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 within its margins
    assert page.evaluate("document.documentElement.scrollWidth") < 1.3 * 720  # a printer shrinks what is wider
    assert not page.locator('nav[aria-label="Sections"]').is_visible()
    folded = page.locator("details:not([open]) table")
    assert folded.count() > 2
    assert all(table.bounding_box()["height"] > 20 for table in folded.all())
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
