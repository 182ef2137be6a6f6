"""A page as its parts, and the page of a run made for one test."""

from html.parser import HTMLParser
from pathlib import Path

from fake_run import write_fake_run

from subfuse.report import write_report


class Page(HTMLParser):
    """Collects what the tests ask about: elements with their attributes, and the text of each."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_data(self, data):
        self.text.append(data)
        if self.elements:
            self.elements[-1][2].append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]


def written(folder: Path, **options) -> str:
    return write_report(write_fake_run(folder / "run", **options)).read_text(encoding="utf-8")
