"""What scores are drawn on: the slide's picture, else its patches' places, without gaps between neighbours."""

from pathlib import Path

import numpy as np
import pytest
from bright_slides import TISSUE
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from subfuse.explanation.ground import picture_of_place, pixel_edges, slide_ground, thumbnail_path
from subfuse.features.store import SlideFeatures

GREY = (200, 200, 200)


def slide_of(coords: list[tuple[int, int]], *, width: int = 1200, height: int = 800) -> SlideFeatures:
    return SlideFeatures(
        features=np.zeros((len(coords), 6), np.float16),
        coords=np.array(coords, dtype=np.int32),
        patch_size_level0=100,
        level0_mpp=0.5,
        target_mpp=0.5,
        encoder="fake",
        encoder_sha256="0" * 64,
        slide_width_px=width,
        slide_height_px=height,
    )


@given(size=st.integers(1, 700), n=st.integers(1, 40), width=st.integers(1, 900))
def test_neighbours_share_an_edge_at_every_scale_and_cover_at_least_a_pixel(size, n, width):
    coords = np.array([(i * size, 0) for i in range(n)])
    left, top, right, bottom = pixel_edges(coords, size, (n * size, size), (width, 50)).T
    assert (left[0], right[-1]) == (0, width)
    assert (top == 0).all()
    assert (bottom == 50).all()
    if width >= 2 * n:
        np.testing.assert_array_equal(right[:-1], left[1:])
    whole = coords[:, 0] * width / (n * size) < width - 1  # the last may lie beyond the picture's edge
    assert (right - left)[whole].min(initial=1) >= 1
    assert (np.abs(left - coords[:, 0] * width / (n * size)) <= 0.5 + 1e-9).all()


def test_the_picture_of_the_slide_is_beside_its_features(tmp_path: Path) -> None:
    features = tmp_path / "features_fake" / "case.7 a.h5"
    assert thumbnail_path(features) == tmp_path / "thumbnails" / "case.7 a.jpg"
    thumbnail_path(features).parent.mkdir()
    Image.new("L", (60, 40), 90).save(thumbnail_path(features))

    ground = slide_ground(features, slide_of([(0, 0)]))

    assert ground.reason is None
    assert (ground.picture.size, ground.picture.mode) == ((60, 40), "RGB")


@pytest.mark.parametrize("content", [None, b"", b"no picture"])
def test_without_a_picture_the_places_of_the_patches_are_drawn_and_it_is_said_why(
    tmp_path: Path, content: bytes | None
) -> None:
    features = tmp_path / "features_fake" / "a.h5"
    if content is not None:
        thumbnail_path(features).parent.mkdir()
        thumbnail_path(features).write_bytes(content)

    ground = slide_ground(features, slide_of([(0, 0), (1100, 700)]))

    assert ground.reason is not None
    assert ("a.jpg cannot be read" if content is not None else "there is no picture") in ground.reason
    picture = np.asarray(ground.picture)
    height, width = picture.shape[:2]
    assert width / height == pytest.approx(1200 / 800, rel=0.01)
    for x, y, is_patch in ((50, 50, True), (1150, 750, True), (600, 400, False), (1150, 50, False)):
        found = tuple(picture[round(y * height / 800), round(x * width / 1200)])
        assert (found == GREY) is is_patch


def test_one_patch_is_coloured_among_the_others() -> None:
    coords = [(400, 300), (500, 300), (600, 700)]
    for row, (x, y) in enumerate(coords):
        picture = np.asarray(picture_of_place(slide_of(coords), row, TISSUE))
        assert picture.shape[0] == picture.shape[1]
        scale = picture.shape[0] / 500  # the patches span 500 pixels of the slide, from (400, 300) on
        for other, (left, top) in enumerate(coords):
            found = tuple(picture[int((top - 300 + 50) * scale), int((left - 400 + 50) * scale)])
            assert found == (TISSUE if other == row else GREY), (x, y)
