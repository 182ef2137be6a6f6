"""Outlines that `prepare` writes, a person corrects and `prepare` reads back."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely

from subfuse.errors import DataError
from subfuse.slides.outlines import outline_file, outlines_sha256, read_outlines, write_outlines

SIZE = (1000, 800)
TISSUE = shapely.MultiPolygon([shapely.box(0, 0, 100, 100), shapely.box(200, 50, 300.25, 150.25).difference(
    shapely.box(220, 70, 240, 90))])  # fmt: skip
PEN = shapely.box(500, 500, 600, 520)


def annotation(shape: Any, name: str | None = None) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation"}
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    return {"type": "Feature", "geometry": json.loads(shapely.to_geojson(shape)), "properties": properties}


def write(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": objects}))
    return path


@pytest.mark.parametrize("corner", [(0, 0), (31, 17)])
def test_what_is_written_is_read_back(corner: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "s.geojson"
    write_outlines(path, TISSUE, PEN, bounds_corner=corner)

    found = read_outlines(path, bounds_corner=corner, size=SIZE)

    assert found.outline.equals(TISSUE)
    assert found.pen.equals(PEN)
    assert found.pen_share == pytest.approx(PEN.area / (PEN.area + TISSUE.area))


def test_classes_have_names_and_colours_in_qupath(tmp_path: Path) -> None:
    path = tmp_path / "s.geojson"
    write_outlines(path, TISSUE, PEN, bounds_corner=(0, 0))
    found = [feature["properties"] for feature in json.loads(path.read_text())["features"]]
    tissue = {"objectType": "annotation", "classification": {"name": "Tissue", "color": [0, 160, 80]}}
    pen = {"objectType": "annotation", "classification": {"name": "Pen", "color": [220, 30, 30]}}
    assert found == [tissue, tissue, pen]


def test_the_hash_is_that_of_earlier_preparations(tmp_path: Path) -> None:
    path = write(tmp_path / "s.geojson", annotation(shapely.box(-0.2, 3, 8, 9), "Tissue"), annotation(PEN, "Pen"))
    text = "Tissue POLYGON ((0 3, 0 9, 8 9, 8 3, 0 3))\nPen POLYGON ((500 500, 500 520, 600 520, 600 500, 500 500))"
    assert outlines_sha256(path) == hashlib.sha256(text.encode()).hexdigest()


def test_tissue_is_what_has_its_class_or_none_and_overlapping_polygons_count_once(tmp_path: Path) -> None:
    left, right = shapely.box(0, 0, 60, 40), shapely.box(50, 0, 100, 40)
    other = shapely.box(0, 0, 900, 700)
    path = write(tmp_path / "s.geojson", annotation(left), annotation(right, "Tissue"), annotation(other, "Necrosis"))

    found = read_outlines(path, bounds_corner=(0, 0), size=SIZE)

    assert found.outline.equals(shapely.box(0, 0, 100, 40))
    assert found.pen.is_empty
    assert found.pen_share == 0
    assert found.notes == ("outlines of other classes than Tissue and Pen are left out: Necrosis (1)",)


def test_pen_that_is_drawn_into_tissue_is_no_tissue(tmp_path: Path) -> None:
    outer, inner = shapely.box(0, 0, 100, 50), shapely.box(10, 10, 30, 40)
    path = write(tmp_path / "s.geojson", annotation(outer, "Tissue"), annotation(inner, "Pen"))
    found = read_outlines(path, bounds_corner=(0, 0), size=SIZE)
    assert (found.outline.area, found.pen.area, found.pen_share) == (5000 - 600, 600, 600 / 5000)
    path = write(tmp_path / "t.geojson", annotation(inner, "Tissue"), annotation(outer, "Pen"))
    with pytest.raises(DataError, match="Found none outside class Pen"):
        read_outlines(path, bounds_corner=(0, 0), size=SIZE)


def test_classes_in_another_case_are_meant_unless_both_spellings_are_there(tmp_path: Path) -> None:
    usual = write(tmp_path / "u.geojson", annotation(TISSUE, "Tissue"), annotation(PEN, "Pen"))
    lower = write(tmp_path / "s.geojson", annotation(TISSUE, "tissue"), annotation(PEN, "PEN"))
    found = read_outlines(lower, bounds_corner=(0, 0), size=SIZE)
    assert (found.outline.equals(TISSUE), found.pen.equals(PEN), found.notes) == (True, True, ())
    assert outlines_sha256(lower) == outlines_sha256(usual)

    both = write(lower, annotation(TISSUE, "tissue"), annotation(shapely.box(0, 0, 9, 9), "Tissue"))
    found = read_outlines(both, bounds_corner=(0, 0), size=SIZE)
    assert found.outline.area == 81
    assert found.notes[0].endswith("left out: tissue (2)")
    two = write(lower, annotation(TISSUE, "tissue"), annotation(TISSUE, "TISSUE"))
    with pytest.raises(DataError, match="Found none, and TISSUE, tissue"):
        read_outlines(two, bounds_corner=(0, 0), size=SIZE)


def test_without_tissue_the_classes_that_are_there_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "s.geojson", annotation(TISSUE, "Tumor"), annotation(PEN, "Pen"))
    with pytest.raises(
        DataError, match=r"s.geojson: a polygon of class Tissue, or of none.*Found none, and Tumor. Draw"
    ):
        read_outlines(path, bounds_corner=(0, 0), size=SIZE)
    with pytest.raises(DataError, match=r"Found none\. Draw"):
        read_outlines(write(tmp_path / "t.geojson"), bounds_corner=(0, 0), size=SIZE)


def test_the_hash_is_that_of_the_area_and_not_of_how_it_is_written(tmp_path: Path) -> None:
    first = tmp_path / "first.geojson"
    write_outlines(first, TISSUE, PEN, bounds_corner=(0, 0))
    a, b = TISSUE.geoms
    turned = shapely.Polygon(
        np.roll(shapely.get_coordinates(b.exterior)[:-1], 1, axis=0), [next(iter(b.interiors)).coords]
    )
    again = write(
        tmp_path / "again.geojson", annotation(PEN, "Pen"), annotation(shapely.reverse(turned), "Tissue"), annotation(a)
    )
    nudged = write(
        tmp_path / "n.geojson", annotation(shapely.transform(TISSUE, lambda p: p + 0.1)), annotation(PEN, "Pen")
    )
    assert outlines_sha256(first) == outlines_sha256(again) == outlines_sha256(nudged)

    others = [
        [annotation(a), annotation(PEN, "Pen")],  # a polygon less
        [annotation(TISSUE)],  # a pen mark less
        [annotation(TISSUE), annotation(PEN)],  # a pen mark that is tissue
        [annotation(shapely.transform(TISSUE, lambda p: p + 1)), annotation(PEN, "Pen")],
    ]
    hashes = {outlines_sha256(write(tmp_path / "o.geojson", *objects)) for objects in others}
    assert len(hashes | {outlines_sha256(first)}) == 5


def test_the_file_of_a_slide_bears_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.geojson")
    assert outline_file(f"geojson:{tmp_path}", "a") == path
    assert outline_file("fixed", "b") is None
    with pytest.raises(
        DataError, match=r"b.geojson: the outlines of slide b are required.*Found none beside a.geojson"
    ):
        outline_file(f"geojson:{tmp_path}", "b")
    path.unlink()
    with pytest.raises(DataError, match=r"beside no .geojson file"):
        outline_file(f"geojson:{tmp_path}", "b")
