"""Figures of what models rely on: genes over patients, and the score while inputs are replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.ticker import MaxNLocator

from subfuse.report.figures.drawing import INK, MUTED, NEGATIVE, POSITIVE, STYLE, new_figure, svg_text

MAX_POINTS = 120  # of a gene; of more patients, as many evenly spaced ones in the order of their contribution
_BINS = 60  # across the figure: points of one bin are placed beside each other


@dataclass(frozen=True)
class GenePoints:
    """One gene over patients: its contribution, and its expression in standard deviations from the training mean."""

    gene: str
    contribution: np.ndarray
    expression: np.ndarray


@dataclass(frozen=True)
class RemovalCurve:
    """How the score changes while inputs are replaced; one entry per point, NaN where there is no interval."""

    removed: np.ndarray  # share of the inputs that is replaced, 0 to 1
    change: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@matplotlib.rc_context(STYLE)
def beeswarm(genes: Sequence[GenePoints], *, score_name: str) -> str:
    """Draws one row of points per gene, one point per patient, by contribution to the score.

    Triangles: expression above the training mean; circles: below it. At most `MAX_POINTS` of a gene are drawn, evenly
    spaced in the order of their contribution, the extremes among them.
    """
    figure, axes = new_figure(6.2, 0.6 + 0.28 * len(genes))
    thinned = [_thinned(row) for row in genes]
    reach = max((float(np.abs(row.contribution).max(initial=0)) for row in thinned), default=0) or 1.0
    places = np.arange(len(genes))[::-1]
    for place, row in zip(places, thinned, strict=True):
        offset = swarm_offsets(row.contribution / reach)
        above = row.expression >= 0
        for chosen, colour, marker in ((~above, NEGATIVE, "o"), (above, POSITIVE, "^")):
            axes.plot(row.contribution[chosen], place + offset[chosen], marker, color=colour, markersize=2.6)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, [row.gene for row in genes])
    axes.set_ylim(-0.6, len(genes) - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"Contribution to {score_name}")
    return svg_text(figure)


@matplotlib.rc_context(STYLE)
def removal_curves(curves: Mapping[str, RemovalCurve], *, score_name: str) -> str:
    """Draws how the score changes while inputs are replaced: the most raising first, in random order, last.

    Args:
        curves: By order: `deletion`, `random` and `insertion`; an absent one is not drawn.
        score_name: What changes, for example `the hazard`.
    """
    figure, axes = new_figure(4.2, 3.0)
    axes.axhline(0, color=MUTED, linewidth=0.7)
    for order, label, colour, dash in (
        ("insertion", "lowest first", POSITIVE, (0, (5, 2))),
        ("random", "random order", INK, (0, (1, 1.5))),
        ("deletion", "highest first", NEGATIVE, "-"),
    ):
        if order in curves:
            curve = curves[order]
            axes.plot(100 * curve.removed, curve.change, color=colour, linestyle=dash, linewidth=1.7, label=label)
            axes.fill_between(100 * curve.removed, curve.lower, curve.upper, color=colour, alpha=0.13, linewidth=0)
    axes.set(xlabel="Replaced by the average, %", ylabel=f"Change of {score_name}", xlim=(-1, 101))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, columnspacing=1.2)
    return svg_text(figure)


def swarm_offsets(values: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
    """Returns how far each point is moved from its row, within ±0.36, so that points of similar value lie apart."""
    bins = np.rint(values * _BINS / 2).astype(int)
    offsets = np.zeros(len(values))
    for found in np.unique(bins):
        members = np.flatnonzero(bins == found)
        step = min(0.09, 0.72 / len(members))
        offsets[members] = _centre_outwards(len(members)) * step
    return offsets


def _centre_outwards(n: int) -> Float[np.ndarray, " point"]:
    """Returns places 0, 1, -1, 2, -2 and so on, shifted so that their mean is zero."""
    places = (np.arange(n) + 1) // 2 * np.where(np.arange(n) % 2, 1.0, -1.0)
    return places - places.mean()


def _thinned(row: GenePoints) -> GenePoints:
    order = np.argsort(row.contribution, kind="stable")
    kept = order[np.unique(np.linspace(0, len(order) - 1, MAX_POINTS).round().astype(int))] if len(order) else order
    return GenePoints(row.gene, row.contribution[kept], row.expression[kept])
