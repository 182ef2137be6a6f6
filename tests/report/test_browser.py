"""The report in a real browser, opened from disk: nothing is fetched, links work, numbers are those of the tables."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from fake_run import SCRIPT, made_report

import chromium

pytestmark = chromium.MARKS

# what sticks out of the page, unless it lies in a box that scrolls by itself
WIDER = """() => [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll") &&
  e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))"""

# boxes that are seen and hold nothing
EMPTY = """() => [...document.querySelectorAll("section, details, .card, .inside, .columns > *, figure, ul, ol, dl, p")]
  .filter(e => e.offsetHeight > 0 && !e.innerText.trim() && !e.querySelector("img, svg, i"))
  .map(e => e.outerHTML.slice(0, 80))"""
# text that is hard to tell from the page, by the contrast of WCAG
FAINT = """() => {
  const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const page = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll("h1, h2, h3, p, dd, dt, td, th, summary, figcaption")]
    .map(e => [light(getComputedStyle(e).color), e.outerHTML.slice(0, 80)])
    .filter(([text]) => (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05) < 3)
    .map(([_, element]) => element);
}"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_report(tmp_path_factory)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def page(browser, run) -> Iterator:
    """The opened report; that it asks for nothing else is checked at the end."""
    address = (run / "report.html").as_uri()
    with chromium.opened(browser, address, viewport={"width": 1280, "height": 900}) as (page, asked):
        yield page
    assert {url.split("#")[0] for url in asked if not url.startswith("data:")} == {address}


def test_contents_lead_to_their_sections_by_keyboard_and_open_them(page):
    links = page.locator('nav[aria-label="Sections"] a')
    assert links.count() > 5
    for index in range(links.count()):
        links.nth(index).focus()
        page.keyboard.press("Enter")
        target = page.evaluate("location.hash.slice(1)")
        assert target == links.nth(index).get_attribute("href")[1:]
        assert page.locator(f"#{target}").bounding_box()["height"] > 50
        place = page.evaluate("id => document.getElementById(id).getBoundingClientRect().top", target)
        at_end = page.evaluate("innerHeight + scrollY >= document.documentElement.scrollHeight - 2")
        assert 0 <= place < 120 or at_end


def test_a_link_to_an_explained_patient_opens_section_and_patient(run, browser):
    address = (run / "report.html").as_uri()
    with chromium.opened(browser, f"{address}#patient-1", viewport={"width": 1280, "height": 900}) as (page, _):
        article = page.locator("article.patient:target")
        assert article.bounding_box()["y"] < 400
        assert page.get_by_text("Contributions", exact=True).first.is_visible()
        assert page.locator("details[open]").count() >= 2
        assert SCRIPT in page.locator("details:has(> * > article:target) > summary").inner_text()


def test_the_first_screen_holds_the_cards_and_the_page_grows_with_the_tasks_only(page):
    """All cards at once on a desk, the first on a telephone; the rest is a line for each section."""
    for width, height in ((1400, 900), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        cards = [card.bounding_box() for card in page.locator(".result").all()]
        assert len(cards) == 3
        shown = cards if width > 1000 else cards[:1]
        assert max(card["y"] + card["height"] for card in shown) < height
        assert page.evaluate("document.documentElement.scrollHeight") < 1100 + 500 * len(cards)
        assert page.locator("header .research").is_visible()


def test_with_everything_open_all_is_drawn_and_nothing_is_empty_faint_or_wider_than_the_page(page):
    page.eval_on_selector_all("details", "folds => folds.forEach(fold => fold.open = true)")
    drawn = page.evaluate("Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))")
    assert len(drawn) > 3
    assert min(drawn) > 100
    backgrounds = set()
    for width, scheme in itertools.product((1400, 390), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate(WIDER) == []
        assert page.evaluate(EMPTY) == []
        assert page.evaluate(FAINT) == []
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(backgrounds) == 2


def test_shown_numbers_are_those_of_the_table(page, run):
    table = pd.read_csv(run / "metrics.csv").set_index(["task", "model", "metric"])["value"].dropna()
    for (task, model, metric), value in table.items():
        cell = page.locator(f'td[data-task="{task}"][data-model="{model}"][data-metric="{metric}"] .value')
        assert cell.text_content().startswith(f"{value:.3f}")


def test_print_opens_what_is_folded_and_needs_little_shrinking(page):
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 720, "height": 1000})  # A4 within its margins
    assert page.evaluate("document.documentElement.scrollWidth") < 1.3 * 720  # a printer shrinks what is wider
    assert not page.locator('nav[aria-label="Sections"]').is_visible()
    folded = page.locator("details:not([open]) table")
    assert folded.count() > 10
    assert all(table.bounding_box()["height"] > 20 for table in folded.all())
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
