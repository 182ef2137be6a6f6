"""What patch scores are drawn on: the picture of the slide, or the places of its patches where there is none."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageDraw

from subfuse.bounded_files import require_regular_file
from subfuse.errors import DataError
from subfuse.features.store import SlideFeatures
from subfuse.slides.tissue import THUMBNAIL_PX

_NO_PICTURE = "there is no picture of the slide here"
NO_PLACES = "the places of its patches are not known"
_GLASS, _PATCH, _EDGE = (246, 246, 246), (200, 200, 200), (120, 120, 120)
_LOCATOR_PX = 224


@dataclass(frozen=True)
class Ground:
    """A picture of the whole slide, as wide and high in proportion."""

    picture: Image.Image
    reason: str | None  # why it shows the places of the patches; None: it shows the slide


def thumbnail_path(features: Path) -> Path:
    """Returns where the picture of a prepared slide is, if there is one."""
    return features.parent.parent / "thumbnails" / f"{features.stem}.jpg"


def slide_ground(features: Path, slide: SlideFeatures) -> Ground:
    """Returns the thumbnail of a slide; where it is missing or cannot be read, a drawing of the patches' places.

    Args:
        features: The feature file, which says where the thumbnail is.
        slide: The places of the patches, which must be known.
    """
    path = thumbnail_path(features)
    if not path.exists():
        return Ground(_picture_of_places(slide), _NO_PICTURE)
    try:
        require_regular_file(path, "picture")
        with Image.open(path) as opened:
            return Ground(opened.convert("RGB"), None)
    except (OSError, SyntaxError, ValueError, DataError, Image.DecompressionBombError) as error:
        return Ground(_picture_of_places(slide), f"its thumbnail {path.name} cannot be read ({error})")


def _picture_of_places(slide: SlideFeatures) -> Image.Image:
    """Returns a slide in grey with its patches darker, at most `THUMBNAIL_PX` wide and high."""
    scale = min(1.0, THUMBNAIL_PX / max(slide.slide_width_px, slide.slide_height_px))
    size = (max(1, round(slide.slide_width_px * scale)), max(1, round(slide.slide_height_px * scale)))
    picture = Image.new("RGB", size, _GLASS)
    edges = pixel_edges(
        slide.coords, slide.patch_size_level0, (slide.slide_width_px, slide.slide_height_px), picture.size
    )
    draw = ImageDraw.Draw(picture)
    for left, top, right, bottom in edges.tolist():
        outline = _EDGE if min(right - left, bottom - top) >= 8 else None
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=_PATCH, outline=outline)
    return picture


def picture_of_place(slide: SlideFeatures, row: int, colour: tuple[int, int, int]) -> Image.Image:
    """Returns a small square that shows one patch in colour among all patches of its slide."""
    corners = slide.coords.astype(np.int64)
    first, side = corners.min(axis=0), int(np.ptp(corners, axis=0).max()) + slide.patch_size_level0
    picture = Image.new("RGB", (_LOCATOR_PX, _LOCATOR_PX), _GLASS)
    edges = pixel_edges(corners - first, slide.patch_size_level0, (side, side), picture.size)
    draw = ImageDraw.Draw(picture)
    for left, top, right, bottom in edges.tolist():
        draw.rectangle((left, top, right - 1, bottom - 1), fill=_PATCH)
    left, top, right, bottom = edges[row].tolist()
    draw.rectangle((left, top, right - 1, bottom - 1), fill=colour)
    draw.rectangle(
        (left - 4, top - 4, right + 3, bottom + 3), outline=(0, 0, 0), width=2
    )  # small patches too are found
    return picture


def pixel_edges(
    coords: np.ndarray,
    patch_size: float | int,
    slide_size: tuple[float | int, float | int],
    picture_size: tuple[int, int],
) -> Int[np.ndarray, "patch 4"]:
    """Returns left, top, right, bottom pixels of a picture (right and bottom exclusive); at least one pixel each way.

    Both edges of a patch are rounded, not its size: neighbours then share an edge, without gaps or overlaps.
    """
    scale = np.asarray(picture_size) / np.asarray(slide_size)  # (x, y)
    corners = np.asarray(coords, dtype=np.float64)
    start = np.floor(corners * scale + 0.5).astype(np.int64)
    stop = np.maximum(np.floor((corners + patch_size) * scale + 0.5).astype(np.int64), start + 1)
    return np.concatenate([start, stop], axis=1).clip(0, np.tile(picture_size, 2))
