"""Outlines of tissue and pen marks that a person can correct in QuPath: written by `prepare` and read back."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subfuse.errors import DataError, preview
from subfuse.slides.qupath import read_qupath, write_qupath
from subfuse.slides.tissue import Tissue
from subfuse.slides.tissue_rule import folder_of_outlines

_TISSUE, _PEN = "Tissue", "Pen"  # classes of the annotations; an annotation without a class is tissue
_COLOURS = {_TISSUE: [0, 160, 80], _PEN: [220, 30, 30]}


def write_outlines(path: Path, tissue: Any, pen: Any, *, bounds_corner: tuple[int, int]) -> None:
    """Writes outlines as annotations for QuPath.

    Args:
        path: File to write, `.geojson`.
        tissue: A shapely geometry in pixels of the whole level 0.
        pen: That of the pen marks.
        bounds_corner: See `write_qupath`.
    """
    import shapely

    polygons = [
        (
            json.loads(shapely.to_geojson(polygon))["coordinates"],
            {"objectType": "annotation", "classification": {"name": name, "color": _COLOURS[name]}},
        )
        for name, shape in ((_TISSUE, tissue), (_PEN, pen))
        for polygon in polygons_of(shape)
    ]
    write_qupath(path, polygons, bounds_corner=bounds_corner)


def read_outlines(path: Path, *, bounds_corner: tuple[int, int], size: tuple[int, int]) -> Tissue:
    """Reads outlines that a person drew or corrected: annotations of class Tissue or of none, and of class Pen.

    Polygons may overlap: their union counts. Annotations of other classes are left out, which a note says. A class may
    be spelt in another case, where that is the only spelling.

    Raises:
        DataError: There is no polygon of tissue; or as for `read_qupath`.
    """
    import shapely

    found = read_qupath(path, bounds_corner=bounds_corner, size=size)
    of_tissue, of_pen = _of_class(_TISSUE, found), _of_class(_PEN, found)
    pen = shapely.union_all(of_pen)
    outline = shapely.difference(shapely.union_all(of_tissue), pen)
    others = {name: shapes for name, shapes in found.items() if name and name not in _spelt(found).values()}
    if outline.is_empty:
        under_pen = f" outside class {_PEN}" if of_tissue else ""
        told = f"{under_pen}, and {preview(sorted(others))}" if others else under_pen
        raise DataError(
            f"{path}: a polygon of class {_TISSUE}, or of none, is required. Found none{told}. Draw one in QuPath, "
            "or leave the slide out."
        )
    whole = shapely.union(outline, pen).area
    counts = preview([f"{name} ({len(shapes)})" for name, shapes in sorted(others.items())], limit=10)
    note = f"outlines of other classes than {_TISSUE} and {_PEN} are left out: {counts}"
    return Tissue(outline=outline, pen=pen, pen_share=pen.area / whole, notes=(note,) if others else ())


def _spelt(found: Mapping[str, Any]) -> dict[str, str]:
    """Returns how a file spells our classes: as we do, or else in the only other case that there is.

    Example:
        >>> _spelt({"tissue": [], "Pen": [], "pen": []})
        {'Tissue': 'tissue', 'Pen': 'Pen'}
    """
    spelt = {}
    for name in (_TISSUE, _PEN):
        alike = [other for other in found if other.casefold() == name.casefold()]
        if name in alike or len(alike) == 1:
            spelt[name] = name if name in alike else alike[0]
    return spelt


def _of_class(name: str, found: Mapping[str, list[Any]]) -> list[Any]:
    """Returns the polygons of one of our classes; those without a class are tissue."""
    spelt = _spelt(found)
    return [*(found[spelt[name]] if name in spelt else []), *(found.get("", []) if name == _TISSUE else [])]


def outlines_sha256(path: Path) -> str:
    """Returns a hash of the polygons of a file of outlines, to the pixel: the same area drawn in another order is one.

    Raises:
        DataError: As for `read_qupath`.
    """
    import shapely

    found = read_qupath(path)
    lines = []
    for name in (_TISSUE, _PEN):
        polygons = _of_class(name, found)
        whole = shapely.normalize(shapely.transform(polygons, lambda points: points.round()))
        lines += sorted(f"{name} {text}" for text in shapely.to_wkt(whole))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def outline_file(rule: str, slide_id: str) -> Path | None:
    """Returns the file of outlines that a rule gives for a slide; None for rules that find tissue.

    Raises:
        DataError: There is none.
    """
    folder = folder_of_outlines(rule)
    if folder is None:
        return None
    path = folder / f"{slide_id}.geojson"
    if not path.exists():
        there = preview(sorted(other.name for other in folder.glob("*.geojson")), 3) or "no .geojson file"
        raise DataError(
            f"{path}: the outlines of slide {slide_id} are required, since slides.tissue names their folder. Found "
            f"none beside {there}. Export them from QuPath, or leave the slide out."
        )
    return path


def polygons_of(shape: Any) -> list[Any]:
    """Returns the polygons of a shapely geometry."""
    import shapely

    return [part for part in shapely.get_parts(shape) if part.geom_type == "Polygon"]
