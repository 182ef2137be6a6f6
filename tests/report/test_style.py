"""Contrast of the page's colours, computed from its style sheet (WCAG 2.2)."""

import re
from pathlib import Path

import pytest

import subfuse.report

CSS = (Path(subfuse.report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
TEXT = [
    *((ink, surface) for ink in ("ink", "muted", "accent") for surface in ("page", "card")),
    *(("ink", tint) for tint in ("warn-tint", "bad-tint")),
    *(("accent", tint) for tint in ("warn-tint", "bad-tint")),
    ("warn", "warn-tint"),
]
MARKS = [*(f"series-{index}" for index in range(1, 7)), "positive", "negative", "bad"]


def colours(theme: str) -> dict[str, str]:
    """Variables of a theme; the dark one overrides the light one."""
    light, dark = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6}|\d+%);", light))
    return found if theme == "light" else found | dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6}|\d+%);", dark))


def channels(colour: str) -> list[float]:
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def luminance(rgb: list[float]) -> float:
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: list[float], second: list[float]) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_of_black_and_white_is_the_largest():
    assert contrast(channels("#000000"), channels("#ffffff")) == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
class TestEveryTheme:
    @pytest.mark.parametrize(("ink", "surface"), TEXT)
    def test_text_can_be_read(self, theme, ink, surface):
        known = colours(theme)
        assert contrast(channels(known[ink]), channels(known[surface])) >= 4.5

    @pytest.mark.parametrize("mark", MARKS)
    def test_lines_and_bars_can_be_seen(self, theme, mark):
        known = colours(theme)
        assert contrast(channels(known[mark]), channels(known["card"])) >= 4.5

    @pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
    def test_counts_in_the_confusion_matrix_can_be_read(self, theme, share):
        known = colours(theme)
        weight = share * int(known["heat"].rstrip("%")) / 100
        pairs = zip(channels(known["series-1"]), channels(known["page"]), strict=True)
        cell = [weight * series + (1 - weight) * page for series, page in pairs]
        assert contrast(channels(known["ink"]), cell) >= 4.5


def test_print_is_light_whatever_the_screen():
    assert "@media screen and (prefers-color-scheme: dark)" in CSS
    assert CSS.count("prefers-color-scheme") == 1
