"""One report of a run with everything, which tests look at; subfuse is imported late, once its shapes are checked."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fake_run import made_report

    return made_report(tmp_path_factory)


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str):
    from report_page import Page

    return Page(text)
