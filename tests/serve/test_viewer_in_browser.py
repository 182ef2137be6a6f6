"""The page in a real browser: its numbers, overlays, zoom, keyboard and requests."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from viewer_page import (
    SETTLED,
    choose,
    drawn,
    drawn_overlays,
    pixels,
    scale,
    served,
    shown_risks,
    value_of,
    viewed,
)
from viewer_run import GENES, HEIGHT, HOSTILE, N_PATIENTS, WIDTH, made_run

import chromium

pytestmark = chromium.MARKS
STEP = 2**0.5  # of a zoom by key or button
TILE = re.compile(r"/slides/slide-a/(\d+)/(\d+)_(\d+)\.jpg$")
DROPPED = """content => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([content], "dropped.csv", { type: "text/csv" }));
  return transfer;
}"""

# boxes that are seen and hold nothing
EMPTY = """() => [...document.querySelectorAll("section, ul, dl, fieldset, .below, #drop")]
  .filter(e => e.offsetHeight > 0 && !e.innerText.trim()).map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory)


@pytest.fixture(scope="module")
def address(viewer_run: Path) -> Iterator[str]:
    with served(viewer_run) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def page(browser, address) -> Iterator:
    with viewed(browser, address) as page:
        yield page


def test_the_shown_numbers_are_those_of_the_file(page, viewer_run):
    rows = pd.read_csv(viewer_run / "predictions.csv", dtype={"patient_id": str}).query("split == 'test'")
    survival = rows.query("task == 'survival' and model == 'subspace'").set_index("patient_id")
    assert page.locator("#list li").count() == N_PATIENTS
    assert shown_risks(page) == survival["risk"].to_dict()
    choose(page, HOSTILE)
    assert page.locator("#patient-title").text_content() == HOSTILE  # text, not an image
    assert page.locator("img:not(#stage img)").count() == 0
    row = survival.loc[HOSTILE]
    assert value_of(page, ".prediction [data-name=risk]") == row["risk"]
    days = [column for column in rows if column.startswith("survival_") and pd.notna(row[column])]
    assert days
    for column in days:
        assert value_of(page, f".prediction [data-name='{column}']") == row[column]
    page.select_option("#model", "snn")
    page.select_option("#task", "grade")
    page.wait_for_selector(".prediction [data-name=p_G4]")
    row = rows.query("task == 'grade' and model == 'snn' and patient_id == @HOSTILE").iloc[0]
    assert value_of(page, ".prediction [data-name=p_G4]") == row["p_G4"]
    assert page.locator("#notice").is_visible()


def test_recalibrated_probabilities_are_shown_beside_the_others(browser, address):
    def changed(route):
        answer = route.fetch()
        content = answer.json()
        for prediction in content["predictions"]:
            prediction["recalibrated"] = dict.fromkeys(prediction["probabilities"], 0.25)
            for point in prediction["survival"]:
                point["recalibrated"] = 0.75
        route.fulfill(response=answer, json=content)

    with viewed(browser, address) as page:
        assert page.locator(".prediction [data-name^=recalibrated]").count() == 0  # too few validation patients
        page.route("**/api/patients/P01", changed)
        choose(page, "P01")
        n_days = page.locator(".prediction [data-name^=survival_]").count()
        assert n_days > 0
        assert page.locator(".prediction [data-name^=recalibrated_survival_]").all_text_contents() == ["75 %"] * n_days
        page.select_option("#task", "grade")
        page.wait_for_selector(".prediction [data-name=recalibrated_p_G4]")
        assert page.locator(".prediction dl").inner_text().count("recalibrated 25 %") == 2
        assert value_of(page, ".prediction [data-name=recalibrated_p_G2]") == 0.25


def test_it_opens_on_the_first_patient_or_on_that_of_its_address(browser, address):
    title = "id => document.querySelector('#patient-title').textContent === id"
    with viewed(browser, address) as page:
        first = page.locator("#list li").first.get_attribute("data-patient")
        page.wait_for_function(title, arg=first)
        page.wait_for_selector(".prediction")
    with viewed(browser, f"{address}#patient={quote(HOSTILE)}") as page:
        page.wait_for_function(title, arg=HOSTILE)
        page.evaluate("location.hash = '#patient=P01'")
        page.wait_for_function(title, arg="P01")
        page.fill("#query", "nobody")
        page.wait_for_function("() => document.querySelector('#count').textContent === 'No patient matches.'")
        assert not page.locator("#list").is_visible()


def test_a_slide_is_fitted_before_the_browser_tells_the_size_of_the_stage(browser, address):
    late = "window.ResizeObserver = class { observe() {} }"
    with chromium.opened(browser, f"{address}#patient=P01", viewport={"width": 1400, "height": 900}) as (page, _):
        page.add_init_script(late)
        page.reload()
        page.wait_for_selector(f"{SETTLED} .prediction")
        assert 0.1 < float(page.locator("#stage").get_attribute("data-scale")) < 2
        page.wait_for_function("() => document.querySelectorAll('#stage img.leaflet-tile-loaded').length > 0")


def test_a_telephone_needs_no_scrolling_sideways_and_nothing_is_empty_also_in_the_dark(browser, address):
    with chromium.opened(browser, f"{address}#patient=P01", viewport={"width": 390, "height": 844}) as (page, _):
        page.wait_for_selector("#ledger table")
        backgrounds = set()
        for width, scheme in ((390, "light"), (390, "dark"), (1400, "dark")):
            page.set_viewport_size({"width": width, "height": 844})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(EMPTY) == []
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert len(backgrounds) == 2


def test_overlays_switch_and_patches_tell_their_scores(page, viewer_run):
    choose(page, "P01")
    pictures = drawn_overlays(page)
    assert len(set(pictures.values())) == 4
    full = pictures["total"]
    page.locator("#opacity").fill("20")
    assert drawn(page) != full
    without = drawn(page)
    page.check("#points")  # where it looked
    of_all = drawn(page)
    page.check("#overlay-choices input[value=tumour]")
    page.uncheck("#points")
    assert of_all != without
    assert drawn(page) not in (without, of_all)
    page.check("#overlay-choices input[value=total]")
    scores = pd.read_csv(viewer_run / "explanations" / "P01" / "survival" / "patches.csv").query(
        "slide_id == 'slide-a'"
    )
    strongest = scores.loc[scores["total"].abs().idxmax()]
    page.locator("#patch button").first.click()
    assert f"x {strongest['x']}, y {strongest['y']}" in page.locator("#patch").text_content()
    for name in ("tumour", "microenvironment", "total"):
        assert value_of(page, f"#patch [data-name={name}]") == pytest.approx(strongest[name], abs=1e-12)
    page.locator("#stage").click(position={"x": 3, "y": 3})  # glass
    assert page.locator("#patch button").count() > 0


def test_ledger_and_genes_stand_beside_the_slide(page, viewer_run):
    choose(page, "P01")
    page.wait_for_selector("#ledger table")
    ledger = page.eval_on_selector_all("#ledger .number", "cells => cells.map(c => +c.dataset.value)")
    assert sum(ledger[:-1]) == pytest.approx(ledger[-1], abs=1e-5)
    genes = pd.read_csv(viewer_run / "explanations" / "P01" / "survival" / "genes.csv")
    shown = page.eval_on_selector_all(
        "#genes [data-name]", "cells => cells.map(cell => [cell.dataset.name, +cell.dataset.value])"
    )
    assert len(shown) == len(genes)
    assert sorted(map(tuple, shown)) == sorted(zip(genes["gene"], genes["contribution"], strict=True))


def test_tiles_are_those_that_are_seen_at_the_sharpness_that_is_seen(page):
    tiles = []
    page.on("response", lambda answer: tiles.append((*TILE.findall(answer.url), answer.status)))
    for zoom, expected in ((lambda: choose(page, "P01"), 10), (lambda: zoom_in(page, 3), 11)):
        tiles.clear()
        zoom()
        drawn(page)
        asked = [(tuple(map(int, place)), status) for place, status in (tile for tile in tiles if len(tile) == 2)]
        assert {status for _, status in asked} == {200}
        assert {level for (level, _, _), _ in asked} == {expected}
        shrink = 2 ** (11 - expected)
        most = math.ceil(WIDTH / shrink / 256) * math.ceil(HEIGHT / shrink / 256)
        assert 0 < len({place for place, _ in asked}) == len(asked) <= most
    assert len(asked) < most  # the rest is beyond the edge of the screen


def test_scores_lie_where_the_slide_has_its_pixels(page):
    choose(page, "P01")
    page.wait_for_selector("#overlay-choices input[value=total]")
    page.check("#overlay-choices input[value=total]")
    page.locator("#opacity").fill("0")
    grey = pixels(page)
    assert np.ptp(grey, axis=2).max() < 24  # so that colour means score only
    page.locator("#opacity").fill("100")
    patches = np.ptp(pixels(page), axis=2) > 24
    start, stop = extent(grey[:, :, 0] < 200)
    np.testing.assert_allclose(start, extent(patches)[0], atol=2)  # the first patch begins where the tissue begins
    np.testing.assert_allclose((stop - start) / scale(page), (HEIGHT - 120, 600), atol=6)
    np.testing.assert_allclose((extent(patches)[1] - start) / scale(page), (768, 512), atol=6)


def test_the_slide_is_zoomed_by_wheel_buttons_and_keyboard(page):
    choose(page, "P01")
    fitted, before = scale(page), drawn(page)
    page.locator("#stage").hover()
    for _ in range(3):
        page.mouse.wheel(0, -120)
    assert scale(page) > 1.5 * fitted
    assert drawn(page) != before
    page.locator("#stage").focus()
    zoomed = scale(page)
    page.keyboard.press("+")
    assert scale(page) == pytest.approx(STEP * zoomed)
    page.keyboard.press("-")
    assert scale(page) == pytest.approx(zoomed)
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        moved = drawn(page)
        page.keyboard.press(key)
        assert drawn(page) != moved
    page.keyboard.press("0")
    assert scale(page) == pytest.approx(fitted)
    page.click("#zoom-in")
    assert scale(page) == pytest.approx(STEP * fitted)


def zoom_in(page, steps: int) -> None:
    for _ in range(steps):
        page.click("#zoom-in")


def extent(mask: np.ndarray) -> np.ndarray:
    """First and last row and column, of shape (2, 2), of a region that fills much of each."""
    inside = [np.flatnonzero(mask.mean(axis=axis) > 0.25) for axis in (1, 0)]
    return np.array([[place[0] for place in inside], [place[-1] + 1 for place in inside]])


def test_the_list_is_used_by_keyboard_and_filters(page):
    page.locator("#list").focus()
    for key, place in (("Home", 0), ("ArrowDown", 1), ("End", N_PATIENTS - 1), ("ArrowUp", N_PATIENTS - 2)):
        page.keyboard.press(key)
        line = page.locator("#list li").nth(place)
        assert line.get_attribute("aria-selected") == "true"
        name = line.get_attribute("data-patient")
        page.wait_for_function("id => document.querySelector('#patient-title').textContent === id", arg=name)
    page.fill("#query", "P0")
    page.wait_for_function("n => document.querySelectorAll('#list li').length === n", arg=9)
    page.select_option("#data", "has_slides=true")
    page.wait_for_function("n => document.querySelectorAll('#list li').length === n", arg=2)
    assert page.locator("#count").text_content() == "2 patients"
    unnamed = (
        "elements => elements.filter(e => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map(e => e.id)"
    )
    assert page.eval_on_selector_all("input, select, button", unnamed) == []


def test_a_lost_slide_falls_back_to_its_thumbnail(page):
    choose(page, "P03")
    page.wait_for_function("() => document.querySelector('#slide-state').textContent.includes('thumbnail')")
    tissue = pixels(page).std(axis=2) > 20
    assert tissue.mean() > 0.1


def test_another_expression_file_is_predicted_beside_the_old(page, viewer_run):
    choose(page, "P01")
    content = "\n".join(f"{gene},{10 + i}" for i, gene in enumerate(GENES))
    upload = {"name": "new.csv", "mimeType": "text/csv", "buffer": content.encode()}
    page.set_input_files("#file", upload)
    page.wait_for_selector("#compared table")
    rows = pd.read_csv(viewer_run / "predictions.csv", dtype={"patient_id": str})
    own = rows.query("split == 'test' and task == 'survival' and model == 'subspace' and patient_id == 'P01'").iloc[0]
    assert value_of(page, "#compared [data-name='before/survival/risk']") == own["risk"]
    assert value_of(page, "#compared [data-name='after/survival/risk']") != own["risk"]
    page.set_input_files("#file", upload | {"buffer": b"gene,value\nGENE00,high"})
    page.wait_for_selector("#error:not([hidden])")
    assert "GENE00" in page.locator("#error").text_content()
    dropped = page.evaluate_handle(DROPPED, content)  # a good file drives the error away
    page.dispatch_event("#drop", "drop", {"dataTransfer": dropped})
    page.wait_for_selector("#compared table")
    assert page.locator("#error").is_hidden()
    assert page.locator("#upload-state").text_content().startswith(f"dropped.csv: {len(GENES)} genes used")


def test_a_patient_is_explained_from_the_page(page, viewer_run):
    choose(page, HOSTILE)
    if page.locator("#explain").is_visible():  # not in a rerun
        page.click("#explain")
        page.wait_for_function("() => document.querySelector('#explain-state').textContent.includes('0 of 2')")
    page.wait_for_selector("#ledger table", timeout=120_000)
    page.wait_for_selector("#overlay-choices input[value=total]")
    assert "<img" in page.locator("#list li[aria-selected=true]").text_content()
    assert not (viewer_run / "explanations" / HOSTILE).exists()
