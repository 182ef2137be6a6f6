"""Quality of prepared slides: one row per slide for a person to look through."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int32, UInt8
from PIL import Image, ImageDraw

from subfuse.files import atomic_path
from subfuse.slides.opening import OpenedSlide
from subfuse.slides.outlines import polygons_of

_PATCH_COLOUR, _TISSUE_COLOUR, _PEN_COLOUR = (30, 90, 200), (0, 160, 80), (220, 30, 30)


def write_pictures(
    folder: Path, slide_id: str, slide: OpenedSlide, tissue: Any, coords: Int32[np.ndarray, "patch 2"], *, size: int
) -> None:
    """Writes thumbnail and contact sheet of a slide.

    Args:
        folder: The folder of the tiling.
        slide_id: Names the files.
        slide: An opened slide, whose patches have been read.
        tissue: Outline of the tissue in level-0 pixels (a shapely geometry).
        coords: Top-left corners (x, y) of the patches that were kept, in level-0 pixels.
        size: Side of a patch in level-0 pixels.
    """
    thumbnail = slide.thumbnail()
    _write_jpeg(folder / "thumbnails" / f"{slide_id}.jpg", thumbnail)
    scale = thumbnail.width / slide.width_px
    sheet = _contact_sheet(thumbnail, tissue, slide.pen(), coords, size=size, scale=scale)
    _write_jpeg(folder / "contact_sheets" / f"{slide_id}.jpg", sheet)


def _contact_sheet(
    thumbnail: Image.Image, tissue: Any, pen: Any, coords: Int32[np.ndarray, "patch 2"], *, size: int, scale: float
) -> Image.Image:
    """The thumbnail with the patches that were kept (blue), the tissue's outline (green) and that of pen (red)."""
    sheet = thumbnail.copy()
    draw = ImageDraw.Draw(sheet)
    for x, y in coords.tolist():
        draw.rectangle((x * scale, y * scale, (x + size) * scale, (y + size) * scale), outline=_PATCH_COLOUR)
    for shape, colour, width in ((tissue, _TISSUE_COLOUR, 2), (pen, _PEN_COLOUR, 4)):
        for polygon in polygons_of(shape):
            for ring in (polygon.exterior, *polygon.interiors):
                draw.line([(x * scale, y * scale) for x, y in ring.coords], fill=colour, width=width)
    return sheet


def _write_jpeg(path: Path, image: Image.Image) -> None:
    with atomic_path(path) as temporary:
        image.save(temporary, "JPEG", quality=90, subsampling=0)  # thin coloured lines stay sharp


QUALITY_COLUMNS = (
    "slide_id",
    "patient_id",
    "n_patches",
    "tissue_mm2",
    "pen_share",
    "sharpness",
    "sharpness_mpp",
    "mpp",
    "mpp_source",
    "warnings",
)
QUALITY_ONLY = ("pen_share", "sharpness", "sharpness_mpp", "mpp_source", "warnings")  # not in slides.csv

_NOTABLE_PEN_SHARE = 0.05
_BLURRED = 30.0  # sharpness of tissue in focus at 0.5 µm per pixel is in the hundreds


def sharpness(image: UInt8[np.ndarray, "height width 3"]) -> float:
    """Returns the variance of the Laplacian of grey values in 0..255, low where a patch is out of focus.

    It depends on the resolution: compare slides at one resolution only. (Pech-Pacheco et al. 2000.)
    """
    import cv2

    edges = cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_16S)
    _, deviation = cv2.meanStdDev(edges)
    return float(deviation[0, 0] ** 2)


def quality_warnings(*, pen_share: float, median_sharpness: float) -> tuple[str, ...]:
    """Returns what a person should look at.

    Args:
        pen_share: Share of the stained and marked area that is pen.
        median_sharpness: Median of `sharpness` over the patches at 0.5 µm per pixel.

    Example:
        >>> quality_warnings(pen_share=0.2, median_sharpness=400.0)
        ('20% of the stained area is pen marks and was left out',)
    """
    found = []
    if pen_share > _NOTABLE_PEN_SHARE:
        found.append(f"{pen_share:.0%} of the stained area is pen marks and was left out")
    if median_sharpness < _BLURRED:
        found.append(f"sharpness {median_sharpness:.0f} is below {_BLURRED:.0f}: most patches may be out of focus")
    return tuple(found)


def quality_table(records: Iterable[Any]) -> pd.DataFrame:
    """Returns one row per slide with `QUALITY_COLUMNS`; what a record (prepared or imported) does not know is missing.

    `sharpness` is the median over the patches, at `sharpness_mpp` µm per pixel; several warnings are joined by `; `.
    """
    rows = [
        {name: getattr(record, name, None) for name in QUALITY_COLUMNS}
        | {"warnings": "; ".join(getattr(record, "warnings", ()))}
        for record in records
    ]
    return pd.DataFrame(rows, columns=list(QUALITY_COLUMNS)).sort_values("slide_id", ignore_index=True)
