"""Objects for QuPath: valid GeoJSON in the frame in which it shows a slide, and which frame that is."""

import json
from pathlib import Path

import pytest
import shapely

from subfuse.errors import DataError
from subfuse.slides.qupath import read_qupath, write_qupath

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


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def feature(coordinates: object, kind: str = "Polygon", **properties: object) -> dict[str, object]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def test_what_is_written_is_read_in_pixels_of_the_whole_slide(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    write_qupath(path, [([SQUARE, HOLE], {"classification": {"name": "Tissue"}}), ([SQUARE], {})], bounds_corner=(7, 5))
    found = read_qupath(path, bounds_corner=(7, 5), size=(100, 100))
    assert found == {"Tissue": [shapely.Polygon(SQUARE, [HOLE])], "": [shapely.Polygon(SQUARE)]}
    assert read_qupath(path)[""] == [shapely.affinity.translate(shapely.Polygon(SQUARE), -7, -5)]


def test_collections_lists_and_single_objects_are_read_and_what_is_no_area_is_left_out(tmp_path: Path) -> None:
    two = shapely.MultiPolygon([shapely.box(0, 0, 1, 2), shapely.box(5, 5, 6, 7)])
    several = {"type": "Feature", "geometry": json.loads(shapely.to_geojson(two)), "properties": None}
    others = [
        feature([1, 2], "Point"),
        feature([[1, 2], [3, 4]], "LineString"),
        feature([SQUARE], objectType="detection"),
        {"type": "Feature", "geometry": None},
    ]
    for content in ({"type": "FeatureCollection", "features": [*others, several]}, [several, *others], several):
        assert read_qupath(written(tmp_path / "a.geojson", content)) == {"": list(two.geoms)}
    old = feature([SQUARE], classification="Tissue")
    assert set(read_qupath(written(tmp_path / "a.geojson", old))) == {"Tissue"}


@pytest.mark.parametrize(
    ("coordinates", "problem"),
    [
        ([[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]], r"Found Self-intersection\[2 2\]"),
        ([], "Found an empty one"),
        ([[[0, 0], [4, 4], [0, 0]]], "Found Too few points"),
        ([[[0, 0], [4, 4], [4, 0]]], "Found a ring that does not end where it begins"),
        ([[[0, 0], ["x", 4], [4, 0], [0, 0]]], "Found coordinates that are no rings of numbers"),
        ([[[0, 0], [float("inf"), 4], [4, 0], [0, 0]]], "Found coordinates that are no rings"),
        (5, "Found coordinates that are no rings"),
    ],
)
def test_polygons_that_nobody_could_draw_are_refused_in_one_line(
    coordinates: object, problem: str, tmp_path: Path
) -> None:
    path = written(tmp_path / "slide.geojson", [feature([SQUARE]), feature(coordinates)])
    with pytest.raises(DataError, match=f"slide.geojson, object 2: a polygon whose.*{problem}") as caught:
        read_qupath(path)
    assert "\n" not in str(caught.value)
    assert "Exception" not in str(caught.value)


def test_outlines_of_another_slide_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.geojson", feature([SQUARE]))
    assert read_qupath(path, bounds_corner=(-5, 0), size=(6, 100))
    with pytest.raises(DataError, match=r"a polygon on the slide of 4 x 100 px is required. Found one at x=5, y=20"):
        read_qupath(path, bounds_corner=(-5, 0), size=(4, 100))


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '{"type": "FeatureCollection", "features": 3}', "{}"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(text)
    with pytest.raises(DataError, match="GeoJSON is required"):
        read_qupath(path)
    with pytest.raises(DataError, match="folder"):
        read_qupath(tmp_path)
