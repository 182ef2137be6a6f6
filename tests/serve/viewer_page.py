"""The viewer on a free port, and what tests do on its page."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from PIL import Image

import chromium
import process_pool
from subfuse.serve import explanations
from subfuse.serve.app import create_app
from subfuse.serve.protection import Access
from subfuse.serve.run_reader import open_run

RISKS = "lines => lines.map(line => [line.dataset.patient, +line.querySelector('.number').dataset.value])"
SETTLED = "main[aria-busy=false]"  # a patient is shown with everything


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of a viewer; its explanations run in processes that start at once."""
    app = create_app(open_run(run), Access.for_host("127.0.0.1", None))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explanations, "get_context", lambda method: process_pool.CONTEXT)
        thread.start()
        while not server.started:
            assert thread.is_alive()
            thread.join(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        server.should_exit = True
        thread.join(10)


@contextmanager
def viewed(browser, address: str) -> Iterator:
    """The page with its list of patients; at the end, that it asked nobody but the viewer."""
    with chromium.opened(browser, address, viewport={"width": 1400, "height": 900}, reduced_motion="reduce") as (
        page,
        asked,
    ):
        page.wait_for_selector("#list li")
        page.wait_for_selector(SETTLED)
        yield page
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(address).netloc}
    assert len(asked) > 5


def choose(page, patient: str) -> None:
    page.locator("#list li").filter(has=page.get_by_text(patient, exact=True)).click()
    page.wait_for_function("id => document.querySelector('#patient-title').textContent === id", arg=patient)
    page.wait_for_selector(f"{SETTLED} .prediction")


def value_of(page, selector: str) -> float:
    return float(page.locator(selector).first.get_attribute("data-value"))


def shown_risks(page) -> dict[str, float]:
    """The numbers of the list, by patient."""
    return dict(page.eval_on_selector_all("#list li", RISKS))


def drawn(page) -> bytes:
    """The slide as it is on the screen, once it has come to rest."""
    before = None
    while (now := page.locator("#stage").screenshot()) != before:
        before = now
        page.wait_for_timeout(150)
    return now


def pixels(page) -> np.ndarray:
    """The same as numbers, of shape (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(drawn(page))).convert("RGB")).astype(int)


def drawn_overlays(page) -> dict[str, bytes]:
    """What lies over the slide, by the overlay that is chosen."""
    page.wait_for_selector("#overlay-choices input[value=total]")
    pictures = {}
    for name in ("", "tumour", "microenvironment", "total"):
        page.check(f"#overlay-choices input[value='{name}']")
        pictures[name] = drawn(page)
        assert page.locator("#stage").get_attribute("data-overlay") == name
    return pictures


def scale(page) -> float:
    drawn(page)
    return float(page.locator("#stage").get_attribute("data-scale"))
