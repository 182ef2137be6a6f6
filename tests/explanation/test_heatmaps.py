import json

import numpy as np
import pytest
from PIL import Image

from subfuse.explanation import colour_limit, heat_map, write_geojson
from subfuse.explanation.heatmaps import NEGATIVE_RGB, POSITIVE_RGB

SLIDE = {"slide_width_px": 4097, "slide_height_px": 2050}


def thumbnail(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 200, 200))


def coloured(picture: Image.Image, height: int) -> np.ndarray:
    """Pixels of the overlay that are not grey."""
    pixels = np.asarray(picture)[:height].astype(int)
    return np.ptp(pixels, axis=2) > 0


def test_one_bright_patch_lands_on_exactly_its_pixels():
    coords = np.array([[0, 0], [1024, 512], [3000, 1500]])
    picture = heat_map(thumbnail(333, 167), coords, 512, **SLIDE, scores=np.array([0.0, 2.0, 0.0]), label="risk")
    # 333 / 4097 px: 1024 -> 83.23, 1536 -> 124.84; 167 / 2050 px: 512 -> 41.71, 1024 -> 83.42
    expected = np.zeros((167, 333), dtype=bool)
    expected[42:83, 83:125] = True
    assert picture.width == 333
    assert picture.height > 167
    np.testing.assert_array_equal(coloured(picture, 167), expected)


@pytest.mark.parametrize("scale", [1, 2, 7])
def test_the_overlay_covers_the_same_tissue_at_any_scale(scale):
    slide = {"slide_width_px": 4200, "slide_height_px": 2100}
    small, large = (
        coloured(
            heat_map(
                thumbnail(60 * s, 30 * s), np.array([[700, 1400]]), 350, **slide, scores=np.array([1.0]), label="risk"
            ),
            30 * s,
        )[:, : 60 * s]
        for s in (1, scale)
    )
    np.testing.assert_array_equal(np.kron(small, np.ones((scale, scale), dtype=bool)), large)


def test_neighbours_share_an_edge_without_gaps():
    coords = np.array([[x, y] for x in range(0, 1024, 256) for y in range(0, 512, 256)])
    picture = heat_map(thumbnail(333, 167), coords, 256, **SLIDE, scores=np.ones(len(coords)), label="risk")
    covered = coloured(picture, 167)
    assert covered[:42, :83].all()
    assert covered.sum() == 42 * 83


def test_signs_have_their_own_colours_and_strength_grows_with_the_score():
    coords = np.array([[0, 0], [512, 0], [1024, 0]])
    picture = heat_map(thumbnail(400, 200), coords, 512, **SLIDE, scores=np.array([-4.0, 1.0, 4.0]), label="risk")
    pixels = np.asarray(picture).astype(int)
    negative, weak, strong = pixels[20, 20], pixels[20, 75], pixels[20, 120]
    assert negative[2] > negative[0]
    assert strong[0] > strong[2]
    assert np.ptp(strong) > np.ptp(weak) > 0


def test_opacity_is_the_share_of_the_limit_up_to_85_percent_and_the_mean_counts_where_patches_overlap():
    coords = np.array([[0, 0], [512, 0], [1024, 0], [1024, 0], [2048, 0]])
    scores = np.array([-0.5, 0.5, 0.7, 0.1, 8.0])
    picture = heat_map(thumbnail(400, 200), coords, 512, **SLIDE, scores=scores, label="risk", limit=1.0)
    shares = {20: (-0.5, NEGATIVE_RGB), 75: (0.5, POSITIVE_RGB), 120: (0.4, POSITIVE_RGB), 220: (1.0, POSITIVE_RGB)}
    for x, (share, colour) in shares.items():
        alpha = 0.85 * abs(share)
        np.testing.assert_allclose(np.asarray(picture)[20, x], 200 * (1 - alpha) + alpha * np.array(colour), atol=0.51)


def bands(is_ink: np.ndarray) -> list[tuple[int, int]]:
    """First and last row of each run of rows with ink."""
    rows = np.flatnonzero(np.diff(np.r_[0, is_ink.any(axis=1), 0]))
    return [(start, stop - 1) for start, stop in rows.reshape(-1, 2).tolist()]


@pytest.mark.parametrize(("width", "label"), [(680, "risk"), (680, "long label " * 12), (400, "risk")])
def test_label_scale_and_its_numbers_stand_below_the_slide_one_under_the_other(width, label):
    picture = heat_map(thumbnail(width, 100), np.array([[0, 0]]), 512, **SLIDE, scores=np.zeros(1), label=label)
    pixels, size = np.asarray(picture).astype(int), max(12, width // 34)  # of the letters
    assert (pixels[:100] == 200).all()  # the slide keeps its place
    strip = pixels[100:]
    (label_top, label_bottom), (bar_top, bar_bottom), (text_top, text_bottom) = bands((strip < 250).any(axis=2))
    assert 0 <= label_top < label_bottom < bar_top <= label_bottom + 1 + (size / 2 if label == "risk" else size)
    assert size / 2 <= bar_bottom - bar_top <= size
    assert bar_bottom < text_top <= bar_bottom + size / 2
    assert text_bottom < len(strip) - 1 <= text_bottom + size
    bar = np.flatnonzero((strip[bar_top] < 250).any(axis=1))
    left, right = bar[0], width - 1 - bar[-1]
    assert left == right <= size / 2
    assert strip[bar_top, bar[0], 2] > 180 > 100 > strip[bar_top, bar[0], 0]  # blue
    assert strip[bar_top, bar[-1], 0] > 180 > 100 > strip[bar_top, bar[-1], 2]  # orange
    np.testing.assert_allclose(strip[bar_top, width // 2], 225, atol=3)  # grey
    columns = np.flatnonzero((strip[label_top : label_bottom + 1] < 100).all(axis=2).any(axis=0))
    assert abs(columns[0] + columns[-1] - width) <= 4
    assert columns[0] > 0
    if len(label) > 20:
        assert columns[-1] - columns[0] > 0.9 * (width - 2 * left)  # as large as fits
    else:
        assert label_bottom - label_top >= size / 2
    numbers = np.flatnonzero((strip[text_top : text_bottom + 1] < 100).all(axis=2).any(axis=0))
    assert numbers[0] - left <= size / 3
    assert width - 1 - numbers[-1] - right <= size / 3
    zero = numbers[np.abs(numbers - width / 2) < 2 * size]
    assert abs(zero[0] + zero[-1] - width) <= 3
    wide = heat_map(thumbnail(width, 100), np.array([[0, 0]]), 512, **SLIDE, scores=np.zeros(1), label="")
    assert wide.size == picture.size


def test_overlapping_patches_show_their_mean():
    coords = np.array([[0, 0], [0, 0]])
    picture = heat_map(thumbnail(400, 200), coords, 512, **SLIDE, scores=np.array([1.0, -1.0]), label="risk")
    assert not coloured(picture, 200).any()


def test_scores_of_zero_leave_the_tissue_visible():
    picture = heat_map(thumbnail(40, 20), np.array([[0, 0]]), 512, **SLIDE, scores=np.zeros(1), label="risk")
    assert not coloured(picture, 20).any()


def test_undefined_scores_are_rejected():
    with pytest.raises(ValueError, match="1 values that are not finite"):
        heat_map(thumbnail(40, 20), np.array([[0, 0]]), 512, **SLIDE, scores=np.array([np.nan]), label="risk")


def test_the_colour_limit_ignores_a_single_extreme_patch_and_is_never_zero():
    assert colour_limit(np.r_[np.ones(999), 1000.0]) == pytest.approx(1.0)
    assert colour_limit(np.zeros(3)) == 1.0
    assert colour_limit(np.array([0.5]), np.array([0.0, -2.0])) > 1.9
    assert colour_limit(np.arange(0.0, -102.0, -1.0)) == 100.0  # of 1 to 101


def test_geojson_has_one_square_per_patch_in_level0_pixels(tmp_path):
    path = tmp_path / "patches.geojson"
    scores = {"total": np.array([-1.5, 0.0, 2.0]), "tumour": np.array([0.25, 0.5, 0.75])}
    corners = np.array([[0, 512], [512, 512], [1024, 512]])
    write_geojson(path, corners, 512, scores, classify_by="total", score_name="the score of G4")
    features = json.loads(path.read_text())["features"]
    assert features[0]["geometry"] == {
        "type": "Polygon",
        "coordinates": [[[0, 512], [512, 512], [512, 1024], [0, 1024], [0, 512]]],
    }
    assert features[0]["properties"]["measurements"] == {"total": -1.5, "tumour": 0.25}
    classes = [feature["properties"].get("classification", {}).get("name") for feature in features]
    assert classes == ["lowers the score of G4", None, "raises the score of G4"]


def test_geojson_of_a_slide_with_bounds_lies_on_what_qupath_shows(tmp_path):
    path = tmp_path / "patches.geojson"
    patches = (np.array([[1024, 1536], [1536, 2048]]), 512, {"total": np.ones(2)})
    write_geojson(path, *patches, classify_by="total", score_name="the hazard", bounds_corner=(1024, 1536))
    content = json.loads(path.read_text())
    first, second = (feature["geometry"]["coordinates"][0] for feature in content["features"])
    assert first == [[0, 0], [512, 0], [512, 512], [0, 512], [0, 0]]
    assert second[0] == [512, 512]
    assert content["subfuse"]["bounds_corner"] == [1024, 1536]
    assert "QuPath" in content["subfuse"]["frame"]


def test_a_narrow_slide_has_a_readable_label_beside_it():
    picture = heat_map(thumbnail(5, 400), np.array([[0, 0]]), 512, **SLIDE, scores=np.ones(1), label="risk")
    assert picture.width >= 200
    assert (np.asarray(picture)[:400, 5:] == 255).all()


def test_geojson_rejects_scores_of_another_length(tmp_path):
    with pytest.raises(ValueError, match="each of the 1 patches"):
        write_geojson(
            tmp_path / "a.geojson", np.zeros((1, 2)), 512, {"total": np.ones(2)}, classify_by="total", score_name="risk"
        )
    assert not list(tmp_path.iterdir())
