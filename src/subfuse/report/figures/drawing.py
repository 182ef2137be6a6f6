"""How the report's figures are drawn: colours of the page, style, and the step from Matplotlib to inline SVG."""

import hashlib
import io
import re
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Matplotlib needs real colours: these are replaced by the page's variables after drawing. Categorical colours follow
# Okabe and Ito, which stay distinct with colour-vision deficiencies; series also differ in line style.
INK, MUTED, GRID, SURFACE = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
POSITIVE, NEGATIVE = "#0b0b01", "#0b0b02"
VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    SURFACE: "--card",
    POSITIVE: "--positive",
    NEGATIVE: "--negative",
} | {colour: f"--series-{index}" for index, colour in enumerate(SERIES, start=1)}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), ":", "--")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names of users may hold dollar signs
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
}


def new_figure(width: float | int, height: float | int) -> tuple[Figure, Axes]:
    """Returns a figure of a size in inches, and its axes."""
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def svg_text(figure: Figure) -> str:
    """Returns the figure as an SVG element for inlining: themed colours, no metadata, identifiers of its own.

    Identifiers start with a hash of the drawing, so that several figures can share a page.
    """
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    with matplotlib.rc_context({"svg.hashsalt": "subfuse"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight", transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # known to every HTML parser, and no address in the page
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:7]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r"url\(#", f"url(#{prefix}-", text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text)
    text = re.sub(r'(<use [^>]*) x="([\d.-]+)" y="([\d.-]+)"', _rounded, text)  # there are many of them
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text.replace("<svg", '<svg role="img" aria-hidden="true" focusable="false"', 1)


def numbered(svg: str, number: int) -> str:
    """Returns a figure of `svg_text` with identifiers of its place on the page, for two may be drawn alike."""
    return re.sub(r'(\bid="|href="#|url\(#)f[0-9a-f]{7}-', rf"\1f{number}-", svg)


def _rounded(use: re.Match[str]) -> str:
    return f'{use[1]} x="{float(use[2]):.1f}" y="{float(use[3]):.1f}"'
