"""The viewer on a free port, and what tests do on its page."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import uvicorn

import chromium
import process_pool
from subfuse.serve import explanations
from subfuse.serve.app import create_app
from subfuse.serve.protection import Access
from subfuse.serve.run_reader import open_run

INKED = """name => {
  const canvas = document.querySelectorAll('#stage canvas')[name];
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0;
  for (let i = 0; i < pixels.length; i += 4) sum += pixels[i + 3] * (pixels[i] + 2 * pixels[i + 1] + 3 * pixels[i + 2]);
  return sum;
}"""
RISKS = "lines => lines.map(line => [line.dataset.patient, +line.querySelector('.number').dataset.value])"


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
    with chromium.opened(browser, address, viewport={"width": 1400, "height": 900}) as (page, asked):
        page.wait_for_selector("#list li")
        yield page
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(address).netloc}
    assert len(asked) > 5


def choose(page, patient: str) -> None:
    page.locator("#list li").filter(has=page.get_by_text(patient, exact=True)).click()
    page.wait_for_function("id => document.querySelector('#patient-title').textContent === id", arg=patient)
    page.wait_for_selector(".prediction")


def value_of(page, selector: str) -> float:
    return float(page.locator(selector).first.get_attribute("data-value"))


def shown_risks(page) -> dict[str, float]:
    """The numbers of the list, by patient."""
    return dict(page.eval_on_selector_all("#list li", RISKS))


def drawn(page, canvas: int) -> float:
    """A number that changes with what is drawn: 0 the slide, 1 what lies over it."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return page.evaluate(INKED, canvas)


def drawn_overlays(page) -> dict[str, float]:
    """What lies over the slide, by the overlay that is chosen."""
    page.wait_for_selector("#overlay-choices input[value=total]")
    pictures = {}
    for name in ("", "tumour", "microenvironment", "total"):
        page.check(f"#overlay-choices input[value='{name}']")
        pictures[name] = drawn(page, 1)
        assert page.locator("#stage").get_attribute("data-overlay") == name
    return pictures


def scale(page) -> float:
    drawn(page, 0)
    return float(page.locator("#stage").get_attribute("data-scale"))
