"""What scores are drawn on: the slide's picture, else its patches' places, without gaps between neighbours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bright_slides import TISSUE
from hypothesis import example, given
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
@example(size=3, n=40, width=9)  # patches narrower than half a pixel
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


def test_a_small_slide_is_drawn_in_its_own_size_and_a_large_one_as_high_or_wide_as_a_thumbnail(tmp_path: Path) -> None:
    sizes = {
        (300, 200): (300, 200),
        (1200, 800): (1024, 683),
        (800, 3200): (256, 1024),
        (5000, 2): (1024, 1),
        (2, 5000): (1, 1024),
    }
    for (width, height), expected in sizes.items():
        slide = slide_of([(0, 0)], width=width, height=height)
        assert slide_ground(tmp_path / "features_fake" / "a.h5", slide).picture.size == expected


@pytest.mark.parametrize(("size", "has_edge"), [(7, False), (8, True), (100, True)])
def test_patches_are_drawn_on_exactly_their_pixels_large_ones_with_an_edge(tmp_path, size, has_edge) -> None:
    slide = replace(slide_of([(100, 0), (101 + size, 300)], width=1024, height=700), patch_size_level0=size)
    picture = np.asarray(slide_ground(tmp_path / "features_fake" / "a.h5", slide).picture)
    expected = np.zeros((700, 1024), dtype=bool)
    inside = expected.copy()
    for x, y in slide.coords:
        expected[y : y + size, x : x + size] = True
        inside[y + 1 : y + size - 1, x + 1 : x + size - 1] = True
    glass = picture[-1, -1]
    np.testing.assert_array_equal((picture != glass).any(axis=2), expected)
    np.testing.assert_array_equal((picture == GREY).all(axis=2), inside if has_edge else expected)


def test_a_patch_among_others_is_coloured_on_exactly_its_pixels() -> None:
    coords = [(40, 30), (540, 30), (40, 530)]
    pictures = [np.asarray(picture_of_place(slide_of(coords), row, TISSUE)) for row in range(3)]
    picture = pictures[2]
    expected = {row: np.zeros(picture.shape[:2], dtype=bool) for row in range(3)}
    for row, (x, y) in enumerate(coords):
        left, top, right, bottom = (round(len(picture) * (n - o) / 600) for n, o in
                                    ((x, 40), (y, 30), (x + 100, 40), (y + 100, 30)))  # fmt: skip
        expected[row][top:bottom, left:right] = True
    for row, found in enumerate(pictures):
        np.testing.assert_array_equal((found == TISSUE).all(axis=2), expected[row])
    np.testing.assert_array_equal((picture == GREY).all(axis=2), expected[0] | expected[1])
    framed = np.flatnonzero((picture == 0).all(axis=2).any(axis=0))
    assert framed[-1] - framed[0] > expected[2].any(axis=0).sum()  # a frame around it


def test_patches_beyond_the_slide_end_at_its_edges(tmp_path) -> None:
    edges = pixel_edges(np.array([[-60, -10], [990, 695]]), 100, (1024, 700), (1024, 700))
    assert edges.tolist() == [[0, 0, 40, 90], [990, 695, 1024, 700]]
    for x, y in ((1020, 400), (600, 696)):  # what is left of them is too narrow for an edge
        slide = slide_of([(x, y)], width=1024, height=700)
        picture = np.asarray(slide_ground(tmp_path / "features_fake" / "a.h5", slide).picture)
        np.testing.assert_array_equal(
            picture[y:, x:][:100, :100], np.full((min(100, 700 - y), min(100, 1024 - x), 3), 200)
        )
