"""GeoJSON in the frame in which QuPath shows a slide."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from subfuse.files import write_text

_FRAME = "pixels of level 0 as QuPath shows the slide: bounds_corner, the slide's scanned area, is subtracted"

_Ring = Sequence[Sequence[float]]


def write_qupath(
    path: Path, polygons: Iterable[tuple[Sequence[_Ring], Mapping[str, Any]]], *, bounds_corner: tuple[int, int]
) -> None:
    """Writes polygons as objects that QuPath imports.

    QuPath crops a slide to its scanned bounds where the slide records them, as MIRAX slides do: their corner is
    subtracted, and the file says so in its member `subfuse`.

    Args:
        path: File to write, `.geojson`.
        polygons: Rings of (x, y) in pixels of the whole level 0, the outer one first; and the object's properties.
        bounds_corner: Top left corner of the scanned bounds in the same pixels, (x, y); (0, 0) where there are none.
    """
    left, top = bounds_corner
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[x - left, y - top] for x, y in ring] for ring in rings]},
            "properties": properties,
        }
        for rings, properties in polygons
    ]
    frame = {"frame": _FRAME, "bounds_corner": [left, top]}
    content = {"type": "FeatureCollection", "subfuse": frame, "features": features}
    write_text(path, json.dumps(content, allow_nan=False) + "\n")
