"""An opened feature file: its places lie on the slide, and it says what it cannot know."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tool_files import CORNERS, FEATURES

from subfuse.errors import DataError
from subfuse.features.feature_file import (
    NO_COORDINATES,
    ONE_VECTOR,
    FeatureFile,
    bag_shape,
    unknown_mpp,
    without_coordinates,
)

PATH = Path("s.h5")


def opened(**changes) -> FeatureFile:
    given = FeatureFile("CLAM", FEATURES.shape, lambda: FEATURES, lambda: CORNERS, 512, 0.25, tile_px=256)
    return replace(given, **changes)


def test_features_and_places_come_together_in_the_units_of_the_slide() -> None:
    slide = opened().slide_features(PATH)
    np.testing.assert_array_equal(slide.features, FEATURES.astype(np.float16))
    np.testing.assert_array_equal(slide.coords, CORNERS)
    assert slide.target_mpp == pytest.approx(512 * 0.25 / 256)
    assert (slide.slide_width_px, slide.slide_height_px) == (3000 + 512, 2048 + 512)  # where the last patch ends
    assert opened().patch_um == 128.0


def test_leading_axes_and_precision_of_the_stored_array_do_not_matter() -> None:
    stored = FEATURES.astype(np.float64)[None, None]
    for dtype in (np.float16, np.float32):
        slide = opened(read=lambda: stored, dtype=dtype).slide_features(PATH)
        assert slide.features.dtype == dtype
        np.testing.assert_array_equal(slide.features, FEATURES.astype(dtype))


def test_the_size_of_patches_is_their_spacing_where_it_is_not_recorded() -> None:
    file = opened(patch_size_level0=None)
    assert file.slide_features(PATH).patch_size_level0 == 512
    assert math.isnan(file.patch_um)
    assert math.isnan(opened(tile_px=None).slide_features(PATH).target_mpp)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"read_coords": lambda: CORNERS - np.array([0, 1])},
            r"patches must lie on the slide, .* Found \(0, -1\) in row 0",
        ),
        ({"read_coords": lambda: CORNERS + np.array([1 << 24, 0])}, "and 6 such patches"),
        ({"slide_size_px": (3000, 9000)}, r"slide of 3,000 x 9,000 px, .* Found \(3000, 2048\) in row 5, and 1 such"),
        ({"read_coords": lambda: CORNERS * np.nan}, r"Found \(nan, nan\) in row 0"),
        ({"read_coords": lambda: CORNERS[:-1]}, r"each of the 6 patches is required\. Found an array \(5, 2\)"),
        (
            {"read_coords": lambda: CORNERS * 0 + 512},
            r"its 6 patches are required\. Found all of them at \(512",
        ),
        ({"read": lambda: FEATURES * (np.arange(6) < 4)[:, None]}, "Found the last 2 of 6 all zero"),
        ({"read": lambda: 0 * FEATURES}, "Found those of all 6 all zero"),
        ({"read_coords": lambda: CORNERS * (np.arange(6) < 4)[:, None]}, r"Found the last 2 of them at \(0, 0\)"),
        ({"read": lambda: FEATURES * np.inf}, "finite"),
        ({"read": lambda: FEATURES * 1e9}, "finite and below 65504"),
        ({"read": lambda: 1 / 0}, "a complete file is required"),
    ],
)
def test_what_cannot_be_a_slide_is_one_line_that_names_the_file(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=rf"^s\.h5: .*{message}"):
        opened(**changes).slide_features(PATH)


@pytest.mark.parametrize(("n_patches", "note"), [(1, ONE_VECTOR), (5, NO_COORDINATES)])
def test_patches_without_places_lie_apart_on_a_square_and_say_so(n_patches: int, note: str) -> None:
    file = without_coordinates("tensor", (n_patches, 4), lambda: FEATURES[:n_patches])
    slide = file.slide_features(PATH)
    size = slide.patch_size_level0
    assert file.warnings == (note,)
    assert not slide.has_coordinates
    assert math.isnan(file.patch_um)
    assert math.isnan(slide.target_mpp)
    assert len(np.unique(slide.coords // size, axis=0)) == n_patches
    assert (slide.coords % size == 0).all()
    assert slide.coords.max(initial=0) < size * math.ceil(math.sqrt(n_patches))


@pytest.mark.parametrize(("shape", "bag"), [((6, 4), (6, 4)), ((1, 6, 4), (6, 4)), ((4,), (1, 4)), ((1, 4), (1, 4))])
def test_bags_have_patches_and_features(shape: tuple[int, ...], bag: tuple[int, int]) -> None:
    assert bag_shape(shape, PATH, "an array") == bag


@pytest.mark.parametrize("shape", [(), (2, 6, 4), (0, 4), (6, 0), (1, 1, 6, 4)])
def test_other_shapes_are_no_bags(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"^s\.h5: .* at least one patch are required\. Found: an array\."):
        bag_shape(shape, PATH, "an array")


def test_an_unknown_pixel_size_is_declared_in_the_slide_table() -> None:
    assert "s.h5: the pixel size is required (µm per level-0 pixel). Found none. Declare `mpp`" in str(
        unknown_mpp(PATH, "none")
    )
