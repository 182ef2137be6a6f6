"""Objects for QuPath: valid GeoJSON in the frame in which it shows a slide, and which frame that is."""

import json
from pathlib import Path

import pytest
import shapely

from subfuse.slides.qupath import write_qupath

SQUARE = [(10.0, 20.0), (30.0, 20.0), (30.0, 40.0), (10.0, 40.0), (10.0, 20.0)]
HOLE = [(12.0, 22.0), (14.0, 22.0), (14.0, 24.0), (12.0, 22.0)]


@pytest.mark.parametrize("corner", [(0, 0), (7, 5)])
def test_polygons_are_moved_by_the_corner_of_the_scanned_area_and_keep_shape_and_properties(
    tmp_path: Path, corner: tuple[int, int]
) -> None:
    path = tmp_path / "a" / "slide.geojson"
    write_qupath(path, [([SQUARE, HOLE], {"name": "tissue"}), ([SQUARE], {"score": 0.5})], bounds_corner=corner)

    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["type"], content["subfuse"]["bounds_corner"]) == ("FeatureCollection", list(corner))
    first, second = content["features"]
    found = shapely.geometry.shape(first["geometry"])
    expected = shapely.affinity.translate(shapely.Polygon(SQUARE, [HOLE]), -corner[0], -corner[1])
    assert found.equals(expected)
    assert shapely.geometry.shape(second["geometry"]).area == 400
    assert [feature["properties"] for feature in (first, second)] == [{"name": "tissue"}, {"score": 0.5}]
    assert {feature["type"] for feature in (first, second)} == {"Feature"}


def test_a_score_that_is_no_number_is_no_json_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_qupath(tmp_path / "a.geojson", [([SQUARE], {"score": float("nan")})], bounds_corner=(0, 0))
    assert not list(tmp_path.iterdir())


def test_a_slide_without_objects_is_an_empty_collection(tmp_path: Path) -> None:
    write_qupath(tmp_path / "a.geojson", [], bounds_corner=(0, 0))
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
