import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from subfuse.report.figures import results as figures
from subfuse.report.figures.results import Estimate, SurvivalCurve


def curve(name: str, *, longest: float) -> SurvivalCurve:
    days = np.array([0.0, 100.0, longest])
    return SurvivalCurve(
        name=name,
        time_days=days,
        probability=np.array([1.0, 0.75, 0.75]),
        lower=np.array([1.0, 0.4, 0.4]),
        upper=np.array([1.0, 0.9, 0.9]),
        censored_days=np.array([longest]),
        follow_up_days=np.array([100.0, 800.0, 900.0, longest]),
    )


PREDICTED, MEASURED = np.array([1.0, 2.0, 4.0]), np.array([2.0, 1.0, 6.0])
WORTH = {"A": np.array([0.3, 0.1, np.nan]), "B": np.array([0.0, -0.1, -0.2]), "C": np.array([0.2, 0.2, 0.1])}


def drawings() -> dict[str, str]:
    rates = (np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.9, 1.0]))
    losses = np.array([[1.0, 0.5, np.nan], [1.1, 0.6, 0.4]])
    return {
        "forest": figures.forest_plot(
            [Estimate("a", 0.7, 0.6, 0.8), Estimate("b", 0.6, np.nan, np.nan)],
            label="AUC",
            highlight="a",
            reference=0.5,
        ),
        "roc": figures.roc_curves({"class 1": rates, "macro": rates}, emphasis="macro"),
        "calibration": figures.calibration_curves({"class 1": (*rates, np.array([3, 4, 5]))}),
        "numbers": figures.predicted_against_measured(PREDICTED, MEASURED),
        "decisions": figures.decision_curves(
            {name: {"ours": worth, "all": -worth, "none": 0 * worth} for name, worth in WORTH.items()},
            np.array([0.1, 0.5, 0.9]),
            defaults=("all", "none"),
        ),
        "incidence": figures.survival_curves([curve("low", longest=2000)], of_event=True),
        "kaplan-meier": figures.survival_curves([curve("low", longest=2000), curve("high", longest=1500)]),
        "contributions": figures.contribution_bars(
            {("tumour", "slides"): 0.25, ("tumour", "expression"): -0.125},
            subspaces=["tumour"],
            modalities=["slides", "expression"],
        ),
        "genes": figures.gene_bars(["EGFR", "<b>&$x$"], [0.5, -0.25]),
        "learning": figures.learning_curves(losses, losses + 0.1),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return drawings()


@pytest.mark.parametrize("name", sorted(drawings()))
class TestEveryFigure:
    def test_is_one_svg_element_without_any_address(self, drawn, name):
        text = drawn[name].replace("xlink:href", "href")
        assert ElementTree.fromstring(text).tag == "svg"
        assert "http" not in text
        assert "<metadata" not in text

    def test_takes_every_colour_from_the_page(self, drawn, name):
        assert re.findall(r"#[0-9a-fA-F]{6}\b", drawn[name]) == []
        assert "var(--ink)" in drawn[name]


def drawn_axes(monkeypatch, draw):
    """The axes of a figure before it becomes text."""
    kept = []
    monkeypatch.setattr(figures, "svg_text", lambda figure: kept.append(figure) or "")
    draw()
    (axes,) = kept[0].axes
    return axes


def test_numbers_are_a_point_per_patient_on_equal_axes_beside_the_line_of_right_ones(monkeypatch):
    axes = drawn_axes(monkeypatch, lambda: figures.predicted_against_measured(PREDICTED, MEASURED))
    (points,) = axes.collections
    np.testing.assert_array_equal(points.get_offsets(), np.column_stack([PREDICTED, MEASURED]))
    right, fitted = axes.lines
    np.testing.assert_array_equal(right.get_xydata(), [[1, 1], [6, 6]])
    slope = ((PREDICTED - PREDICTED.mean()) * (MEASURED - MEASURED.mean())).sum() / PREDICTED.var() / 3
    ends = MEASURED.mean() + slope * (np.array([1.0, 4.0]) - PREDICTED.mean())
    np.testing.assert_allclose(fitted.get_xydata(), [[1, ends[0]], [4, ends[1]]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted", "Measured")
    assert axes.get_xlim() == axes.get_ylim() == pytest.approx((0.8, 6.2))
    assert axes.get_aspect() == 1


def test_one_predicted_number_for_all_has_no_fitted_line(monkeypatch):
    axes = drawn_axes(monkeypatch, lambda: figures.predicted_against_measured(np.full(3, 2.0), MEASURED))
    assert len(axes.lines) == 1


def test_figures_are_the_same_every_time(drawn):
    assert drawings() == drawn


def test_names_with_markup_and_dollars_are_text(drawn):
    assert "&lt;b&gt;&amp;$x$" in drawn["genes"]


def test_bars_carry_their_values_with_a_true_minus(drawn):
    assert "+0.250" in drawn["contributions"]
    assert "−0.125" in drawn["contributions"]


def test_small_bars_keep_three_digits_and_zero_is_zero():
    text = figures.gene_bars(["a", "b"], [0.000412, 0.0])
    assert "+0.000412" in text
    assert ">0</text>" in text


def test_numbers_at_risk_count_those_followed_until_then(drawn):
    text = drawn["kaplan-meier"]
    assert "Number at risk" in text
    shown = [int(value) for value in re.findall(r">(\d+)</text>", text[text.index("Number at risk") - 20000 :])]
    # at year 0 all four of each group, at year 1 (day 365) three
    assert shown.count(4) >= 2
    assert shown.count(3) >= 2


def test_figures_share_no_identifier(drawn):
    identifiers = [found for text in drawn.values() for found in re.findall(r'\bid="(.*?)"', text)]
    assert len(identifiers) == len(set(identifiers))


def test_text_stays_text(drawn):
    assert "<text" in drawn["roc"]
    assert "false positive rate" in drawn["roc"].lower()


def test_decisions_have_a_panel_for_each_outcome_and_one_legend(drawn):
    assert [drawn["decisions"].count(f">{name}<") for name in (*WORTH, "ours", "all", "none")] == [1] * 6
    alone = figures.decision_curves({"A": {"none": np.zeros(2)}}, np.array([0.2, 0.4]), defaults=("none",))
    assert "var(--series-1)" not in alone  # who treats everybody alike is grey
