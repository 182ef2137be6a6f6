"""Figures of results as SVG text, drawn from numbers alone.

Colours are CSS variables, so one figure serves the light theme, the dark theme and print; text stays text, in the
page's own font. The same numbers give the same characters.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from subfuse.report.figures.drawing import (
    DASHES,
    INK,
    MUTED,
    NEGATIVE,
    POSITIVE,
    SERIES,
    STYLE,
    SURFACE,
    new_figure,
    svg_text,
)


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; any of them may be NaN."""

    name: str
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class SurvivalCurve:
    """An estimate of one group; all arrays have one entry per step, starting at time zero."""

    name: str
    time_days: np.ndarray
    probability: np.ndarray  # of no event, or of one
    lower: np.ndarray
    upper: np.ndarray
    censored_days: np.ndarray  # follow-up times of the patients whose event was not observed
    follow_up_days: np.ndarray  # of everybody, for the numbers at risk


@matplotlib.rc_context(STYLE)
def forest_plot(estimates: Sequence[Estimate], *, label: str, highlight: str, reference: float | None = None) -> str:
    """Draws one row per model: the estimate and its interval."""
    figure, axes = new_figure(5.0, 0.62 + 0.3 * len(estimates))
    places = np.arange(len(estimates))[::-1]
    for place, row in zip(places, estimates, strict=True):
        colour = SERIES[0] if row.name == highlight else MUTED
        axes.plot([row.lower, row.upper], [place, place], color=colour, linewidth=2.2, solid_capstyle="round")
        axes.plot([row.value], [place], "o", color=colour, markersize=6, markeredgecolor=SURFACE)
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=0.9, linestyle=(0, (3, 3)))
    axes.set_yticks(places, [row.name for row in estimates])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes.set_ylim(-0.6, len(estimates) - 0.4)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def roc_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, emphasis: str) -> str:
    """Draws receiver operating characteristics."""
    figure, axes = new_figure(4.2, 4.0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    styles = iter(zip(SERIES * 3, DASHES * 3, strict=False))
    for name, (false_positive, true_positive) in curves.items():
        if name == emphasis:
            axes.plot(false_positive, true_positive, color=INK, linewidth=2.2, label=name, zorder=3)
        else:
            colour, dash = next(styles)
            axes.plot(false_positive, true_positive, color=colour, linestyle=dash, linewidth=1.5, label=name)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")
    axes.set(xlabel="False positive rate", ylabel="True positive rate")
    axes.legend(loc="lower right")
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def calibration_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> str:
    """Draws observed frequency against predicted probability.

    Args:
        curves: By legend entry: mean prediction, observed frequency and number of patients of each bin; the marker
            area grows with the number.
    """
    figure, axes = new_figure(4.2, 4.0)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    largest = max((counts.max() for _, _, counts in curves.values() if counts.size), default=1)
    for (name, (predicted, observed, counts)), colour, dash in zip(
        curves.items(), SERIES * 3, DASHES * 3, strict=False
    ):
        axes.plot(predicted, observed, color=colour, linestyle=dash, linewidth=1.2, label=name)
        axes.scatter(predicted, observed, s=10 + 50 * counts / largest, color=colour, edgecolor=SURFACE, zorder=3)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.05), aspect="equal")
    axes.set(xlabel="Predicted probability", ylabel="Observed frequency")
    axes.legend(loc="upper left")
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def predicted_against_measured(predicted: np.ndarray, measured: np.ndarray) -> str:
    """Draws a point per patient, the line on which predictions are right, and the line that fits the points best."""
    figure, axes = new_figure(4.2, 4.0)
    ends = np.array([min(predicted.min(), measured.min()), max(predicted.max(), measured.max())])
    margin = 0.04 * (ends[1] - ends[0])
    axes.plot(ends, ends, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)))
    axes.scatter(predicted, measured, s=16, color=SERIES[0], edgecolor=SURFACE, linewidth=0.4, alpha=0.8)
    if np.ptp(predicted) > 0:
        slope, intercept = np.polyfit(predicted, measured, 1)
        seen = np.array([predicted.min(), predicted.max()])
        axes.plot(seen, intercept + slope * seen, color=INK, linewidth=1.4)
    limits = (ends[0] - margin, ends[1] + margin)
    axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel="Predicted", ylabel="Measured")
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def decision_curves(
    panels: Mapping[str, Mapping[str, np.ndarray]], thresholds: np.ndarray, *, defaults: Collection[str]
) -> str:
    """Draws the net benefit of acting at each threshold, a panel for each outcome.

    Args:
        panels: By outcome, then legend entry: net benefits; NaN is left out.
        thresholds: Of all of them.
        defaults: Entries that treat everybody alike, drawn in grey.
    """
    n_columns = min(len(panels), 2)
    n_rows = -(-len(panels) // n_columns)
    figure = Figure(figsize=(4.2 if n_columns == 1 else 5.6, 2.4 * n_rows + 0.6))
    highest = max(0.01, *(float(np.nanmax(curve)) for curves in panels.values() for curve in curves.values()))
    for place, (outcome, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(n_rows, n_columns, place + 1)
        styles = iter(zip(SERIES, DASHES, strict=True))
        greys = iter(DASHES[1:])
        for name, curve in curves.items():
            colour, dash = (MUTED, next(greys)) if name in defaults else next(styles)
            width = 1.0 if name in defaults else 1.7
            axes.plot(thresholds, curve, color=colour, linestyle=dash, linewidth=width, label=name)
        axes.set(xlim=(0, 1), ylim=(-0.25 * highest, 1.08 * highest), title=outcome)
        if place % n_columns == 0:
            axes.set_ylabel("Net benefit")
        if place + n_columns >= len(panels):
            axes.set_xlabel("Threshold of the probability")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    handles, names = axes.get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.5 / figure.get_figheight()))
    figure.legend(handles, names, loc="upper center", ncols=2 if n_columns == 1 else len(names))
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def survival_curves(curves: Sequence[SurvivalCurve], *, of_event: bool = False) -> str:
    """Draws probabilities over time with intervals, censoring marks and the numbers at risk below.

    Args:
        curves: Of each group.
        of_event: True for probabilities of an event, which grow; else of none.
    """
    figure = Figure(figsize=(5.6, 3.6 + 0.3 * len(curves)))
    grid = figure.add_gridspec(2, 1, height_ratios=(17, 1.4 * len(curves)), hspace=0.36)
    axes, table = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
    years = 365.25
    for curve, colour, dash in zip(curves, SERIES, DASHES, strict=False):
        time = curve.time_days / years
        axes.step(time, curve.probability, where="post", color=colour, linestyle=dash, linewidth=1.8, label=curve.name)
        axes.fill_between(time, curve.lower, curve.upper, step="post", color=colour, alpha=0.13, linewidth=0)
        place = np.searchsorted(curve.time_days, curve.censored_days, side="right") - 1
        axes.plot(
            curve.censored_days / years, curve.probability[place], "|", color=colour, markersize=6, markeredgewidth=0.9
        )
    longest = float(max(curve.follow_up_days.max() for curve in curves)) / years
    ticks = np.asarray(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]).tick_values(0, longest))
    ticks = ticks[(ticks >= 0) & (ticks <= longest)]
    for panel in (axes, table):
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.set_xlim(-0.01 * longest, longest * 1.02)
    axes.set(ylim=(0, 1.03), xlabel="Years", ylabel=f"Probability of {'the' if of_event else 'no'} event")
    axes.legend(loc="upper left" if of_event else "upper right")
    _numbers_at_risk(table, curves, ticks * years, ticks)
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def contribution_bars(
    ledger: Mapping[tuple[str, str], float], *, subspaces: Sequence[str], modalities: Sequence[str]
) -> str:
    """Draws what each modality of each subspace adds to a prediction, grouped by subspace.

    Args:
        ledger: Contribution by (subspace, modality); an absent pair is drawn as zero.
        subspaces: Groups from top to bottom.
        modalities: Rows of each group.
    """
    labels: list[str] = []
    values: list[float] = []
    for subspace in subspaces:
        labels += [subspace, *modalities]
        values += [np.nan, *(ledger.get((subspace, modality), 0.0) for modality in modalities)]
    return _signed_bars(labels, np.array(values))


@matplotlib.rc_context(STYLE)
def gene_bars(genes: Sequence[str], contributions: Sequence[float]) -> str:
    """Draws the signed contribution of genes, first on top."""
    return _signed_bars(list(genes), np.asarray(contributions, dtype=float))


@matplotlib.rc_context(STYLE)
def learning_curves(training: np.ndarray, validation: np.ndarray) -> str:
    """Draws training and validation loss over the epochs, one thin line per fold.

    Args:
        training: Losses, folds × epochs; NaN after a fold has stopped.
        validation: The same on validation patients.
    """
    figure, axes = new_figure(4.2, 2.3)
    for losses, colour, dash, label in (
        (training, MUTED, "-", "training"),
        (validation, SERIES[0], DASHES[1], "validation"),
    ):
        for fold, values in enumerate(losses):
            epochs = np.arange(1, len(values) + 1)
            axes.plot(
                epochs, values, color=colour, linestyle=dash, linewidth=1, label=label if fold == 0 else "_nolegend_"
            )
    axes.set(xlabel="Epoch", ylabel="Loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.legend(loc="upper right")
    return svg_text(figure)


def _signed_bars(labels: list[str], values: np.ndarray) -> str:
    """Draws bars to both sides of zero with their values; a row with value NaN is a heading."""
    figure, axes = new_figure(4.2, 0.55 + 0.235 * len(labels))
    places = np.arange(len(labels))[::-1]
    shown = np.nan_to_num(values)
    axes.barh(places, shown, color=[POSITIVE if value >= 0 else NEGATIVE for value in shown], height=0.68)
    axes.axvline(0, color=INK, linewidth=0.8)
    reach = float(np.abs(shown).max(initial=0.0)) or 1.0
    decimals = int(np.clip(2 - np.floor(np.log10(reach)), 3, 8))  # three digits of the largest
    for place, value in zip(places, values, strict=True):
        if not np.isnan(value):
            axes.text(
                value + np.copysign(0.03 * reach, value),
                place,
                f"{value:+.{decimals}f}".replace("-", "−") if value else "0",
                ha="left" if value >= 0 else "right",
                va="center",
                fontsize=8,
            )
    axes.set_yticks(places, labels)
    for label, value in zip(axes.get_yticklabels(), values, strict=True):
        label.set_fontweight("bold" if np.isnan(value) else "normal")
    axes.set_ylim(-0.6, len(labels) - 0.4)
    room = 0.5 * reach  # for the numbers; less on a side without bars
    left, right = (room if (side * shown > 0).any() else 0.1 * reach for side in (-1, 1))
    axes.set_xlim(shown.min(initial=0) - left, shown.max(initial=0) + right)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    return svg_text(figure)


def _numbers_at_risk(axes: Axes, curves: Sequence[SurvivalCurve], days: np.ndarray, places: np.ndarray) -> None:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelbottom=False)
    axes.tick_params(axis="y", pad=16)
    axes.set_title("Number at risk", fontsize=8.5, color=MUTED, pad=4)
    axes.set_ylim(-0.6, len(curves) - 0.4)
    rows = np.arange(len(curves))[::-1]
    axes.set_yticks(rows, [curve.name for curve in curves])
    for row, curve in zip(rows, curves, strict=True):
        for place, day in zip(places, days, strict=True):
            at_risk = int((curve.follow_up_days >= day).sum())
            axes.text(place, row, str(at_risk), ha="center", va="center", fontsize=8.5)
