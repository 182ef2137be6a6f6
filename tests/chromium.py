"""An installed Chromium, for tests of pages; they are skipped without it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MARKS = [
    pytest.mark.skipif(PATH is None, reason="no chromium or google-chrome on PATH: install Debian's chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of sockets that Playwright leaves to the collector
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'subfuse[dev]'")


@contextmanager
def launched() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PATH, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: "sync_api.Browser", address: str, **options) -> Iterator[tuple["sync_api.Page", list[str]]]:
    """A page and what it asks for; at the end, that nothing went wrong in it."""
    context = browser.new_context(**options)
    page = context.new_page()
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(address)
    yield page, asked
    context.close()
    problems = [problem for problem in problems if "422" not in problem]  # a refused file is logged by the browser
    assert not problems, f"the page reported: {problems}"
