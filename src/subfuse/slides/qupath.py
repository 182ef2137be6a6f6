"""GeoJSON in the frame in which QuPath shows a slide."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subfuse.bounded_files import require_regular_file
from subfuse.errors import DataError
from subfuse.files import write_text

_FRAME = "pixels of level 0 as QuPath shows the slide: bounds_corner, the slide's scanned area, is subtracted"

_AREAS = ("Polygon", "MultiPolygon")

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


def read_qupath(
    path: Path, *, bounds_corner: tuple[int, int] = (0, 0), size: tuple[int, int] | None = None
) -> dict[str, list[Any]]:
    """Reads the annotations of a slide that QuPath exported, or `write_qupath` wrote.

    Args:
        path: The file: a collection, a list of objects or a single one.
        bounds_corner: Corner (x, y) of the slide's scanned bounds, which is added.
        size: Width and height of level 0 in pixels; None: not compared with.

    Returns:
        Polygons (shapely) in pixels of the whole level 0, in the file's order, by class; "" where an object has none.
        Other shapes than polygons, such as points and lines, are no areas and left out; so are cells and tiles.

    Raises:
        DataError: The file is missing or no GeoJSON; a polygon is empty, crosses itself, or does not touch the slide.
    """
    import shapely

    found: dict[str, list[Any]] = {}
    for number, item in enumerate(_objects(path), start=1):
        place = f"{path}, object {number}"
        properties = item.get("properties") or {}
        geometry = item.get("geometry") or {}
        if properties.get("objectType", "annotation") != "annotation" or geometry.get("type") not in _AREAS:
            continue
        shape = shapely.transform(_shape(geometry, place), lambda points: points + np.array(bounds_corner))
        if size is not None and not shapely.intersects(shape, shapely.box(0, 0, *size)):
            raise DataError(
                f"{place}: a polygon on the slide of {size[0]:,} x {size[1]:,} px is required. Found one at "
                f"x={shape.bounds[0]:.0f}, y={shape.bounds[1]:.0f}. Check that the outlines are those of this slide."
            )
        kind = properties.get("classification") or {}
        name = str(kind.get("name", "")) if isinstance(kind, dict) else str(kind)
        found.setdefault(name, []).extend(shapely.get_parts(shape).tolist())
    return found


def _objects(path: Path) -> list[dict[str, Any]]:
    require_regular_file(path, "GeoJSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: GeoJSON is required. Found: {problem}. Export it from QuPath again.") from error
    objects = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(objects, list) or not all(isinstance(item, dict) and "geometry" in item for item in objects):
        raise DataError(
            f"{path}: GeoJSON is required, a collection of objects with `geometry`. Found something else. "
            "Export it from QuPath again."
        )
    return objects


def _shape(geometry: Mapping[str, Any], place: str) -> Any:
    """A polygon or several, all of them whole; crossing lines would make an area that nobody drew."""
    import shapely

    try:
        shape = shapely.from_geojson(json.dumps(geometry))
        problem = "an empty one" if shape.is_empty else None if shape.is_valid else shapely.is_valid_reason(shape)
    except (shapely.errors.ShapelyError, ValueError) as error:
        is_open = "closed" in str(error)  # in the words of GEOS, which name its classes
        problem = "a ring that does not end where it begins" if is_open else "coordinates that are no rings of numbers"
    if problem is not None:
        raise DataError(
            f"{place}: a polygon whose outline does not cross itself is required. Found {problem}. Correct it in "
            "QuPath and export again, or delete it there."
        )
    return shape
