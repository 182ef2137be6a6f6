"""Pictures of a prepared slide for a person to look through: outline, thumbnail and contact sheet."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32
from PIL import Image, ImageDraw

from subfuse.files import atomic_path, write_text

_PATCH_COLOUR, _TISSUE_COLOUR, _PEN_COLOUR = (30, 90, 200), (0, 160, 80), (220, 30, 30)


def write_pictures(
    folder: Path, slide_id: str, slide: Any, tissue: Any, coords: Int32[np.ndarray, "patch 2"], *, size: int
) -> None:
    """Writes outline, thumbnail and contact sheet of a slide.

    Args:
        folder: The folder of the tiling.
        slide_id: Names the files.
        slide: An opened slide, whose patches have been read.
        tissue: Outline of the tissue in level-0 pixels (a shapely geometry).
        coords: Top-left corners (x, y) of the patches that were kept, in level-0 pixels.
        size: Side of a patch in level-0 pixels.
    """
    _write_outline(folder / "contours_geojson" / f"{slide_id}.geojson", tissue)
    thumbnail = slide.thumbnail()
    _write_jpeg(folder / "thumbnails" / f"{slide_id}.jpg", thumbnail)
    scale = thumbnail.width / slide.width_px
    sheet = _contact_sheet(thumbnail, tissue, slide.pen, coords, size=size, scale=scale)
    _write_jpeg(folder / "contact_sheets" / f"{slide_id}.jpg", sheet)


def _write_outline(path: Path, tissue: Any) -> None:
    """Writes the tissue as QuPath annotations in level-0 pixels."""
    import shapely

    properties = {"objectType": "annotation", "classification": {"name": "Tissue", "color": [0, 160, 80]}}
    features = [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(polygon)), "properties": properties}
        for polygon in _polygons(tissue)
    ]
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}) + "\n")


def _contact_sheet(
    thumbnail: Image.Image, tissue: Any, pen: Any, coords: Int32[np.ndarray, "patch 2"], *, size: int, scale: float
) -> Image.Image:
    """The thumbnail with the patches that were kept (blue), the tissue's outline (green) and that of pen (red)."""
    sheet = thumbnail.copy()
    draw = ImageDraw.Draw(sheet)
    for x, y in coords.tolist():
        draw.rectangle((x * scale, y * scale, (x + size) * scale, (y + size) * scale), outline=_PATCH_COLOUR)
    for shape, colour, width in ((tissue, _TISSUE_COLOUR, 2), (pen, _PEN_COLOUR, 4)):
        for polygon in _polygons(shape):
            for ring in (polygon.exterior, *polygon.interiors):
                draw.line([(x * scale, y * scale) for x, y in ring.coords], fill=colour, width=width)
    return sheet


def _write_jpeg(path: Path, image: Image.Image) -> None:
    with atomic_path(path) as temporary:
        image.save(temporary, "JPEG", quality=90, subsampling=0)  # thin coloured lines stay sharp


def _polygons(tissue: Any) -> list[Any]:
    import shapely

    return [part for part in shapely.get_parts(tissue) if part.geom_type == "Polygon"]
