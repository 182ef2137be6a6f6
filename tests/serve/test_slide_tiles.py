import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from openslide import OpenSlide
from PIL import Image
from viewer_run import HEIGHT, WIDTH, made_run

from subfuse.cohort.cohort import Cohort, read_cohort
from subfuse.serve import slide_tiles
from subfuse.serve.slide_tiles import TILE_PX, SlideShelf, Unavailable
from subfuse.slides import whole_slides


@pytest.fixture(scope="module")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory)


@pytest.fixture
def cohort(viewer_run: Path) -> Cohort:
    return read_cohort(viewer_run.parent / "prepared")


@pytest.fixture
def shelf(cohort: Cohort) -> SlideShelf:
    return SlideShelf(cohort)


def test_tiles_of_the_last_level_are_the_slide_itself(shelf, cohort):
    info = shelf.info("slide-a")
    assert (info.width_px, info.height_px, info.mpp, info.available) == (WIDTH, HEIGHT, 0.5, True)
    slide = OpenSlide(cohort.root.parent / "cohort" / "slides" / "slide-a.tiff")
    for column, row in ((0, 0), (1, 2), (4, 3)):
        tile = np.asarray(Image.open(io.BytesIO(shelf.tile("slide-a", info.levels - 1, column, row))), float)
        left, top = column * TILE_PX, row * TILE_PX
        size = (min(TILE_PX, WIDTH - left), min(TILE_PX, HEIGHT - top))
        expected = np.asarray(slide.read_region((left, top), 0, size).convert("RGB"), float)
        assert tile.shape == expected.shape
        assert np.abs(tile - expected).mean() < 15  # lossy compression of noise
        assert abs(tile.mean() - expected.mean()) < 2


def test_the_first_levels_are_one_tile_of_the_whole_slide(shelf):
    for level, size in ((0, (1, 1)), (8, (138, 104))):
        tile = Image.open(io.BytesIO(shelf.tile("slide-a", level, 0, 0)))
        assert tile.size == pytest.approx(size, abs=1)  # OpenSlide rounds by aspect


def test_a_coarser_level_is_the_mean_of_the_finer_one(shelf):
    finest = shelf.info("slide-a").levels - 1
    whole = np.asarray(Image.open(io.BytesIO(shelf.tile("slide-a", finest - 1, 0, 0))), float)
    quarters = [
        [np.asarray(Image.open(io.BytesIO(shelf.tile("slide-a", finest, x, y))), float) for x in (0, 1)] for y in (0, 1)
    ]
    below = np.concatenate([np.concatenate(row, axis=1) for row in quarters])
    assert whole.shape == (TILE_PX, TILE_PX, 3)
    mean = below.reshape(TILE_PX, 2, TILE_PX, 2, 3).mean(axis=(1, 3))
    assert np.abs(whole - mean).mean() < 15  # lossy compression of noise
    assert np.abs(whole.mean(axis=(0, 1)) - mean.mean(axis=(0, 1))).max() < 2


@pytest.mark.parametrize(
    ("slide_id", "place", "reason"),
    [
        ("slide-a", (12, 0, 0), "levels 0 to 11"),
        ("slide-a", (-1, 0, 0), "levels 0 to 11"),
        ("slide-a", (11, 5, 0), "5 x 4 tiles"),
        ("slide-a", (11, 0, -1), "5 x 4 tiles"),
        ("slide-lost", (0, 0, 0), "cannot be read here: "),
        ("../../cohort/slides/slide-a", (0, 0, 0), "there is no slide"),
        ("", (0, 0, 0), "there is no slide"),
    ],
)
def test_what_cannot_be_shown_says_why(shelf, slide_id, place, reason):
    with pytest.raises(Unavailable, match=reason):
        shelf.tile(slide_id, *place)


def test_a_lost_slide_keeps_its_size_and_thumbnail(shelf):
    info = shelf.info("slide-lost")
    assert not info.available
    assert info.picture == "slide"
    assert "no such file" in info.reason
    with Image.open(io.BytesIO(shelf.thumbnail("slide-lost"))) as thumbnail:
        assert thumbnail.width / thumbnail.height == pytest.approx(info.width_px / info.height_px, rel=0.01)


@pytest.mark.parametrize("content", [b"", b"II*\x00" + bytes(200)])
def test_a_damaged_slide_is_a_reason(cohort, tmp_path, content):
    shelf = SlideShelf(cohort)
    damaged = tmp_path / "slide-a.tiff"
    damaged.write_bytes(content)
    shelf._places = {"slide-a": replace(shelf._places["slide-a"], path=damaged)}
    assert "cannot be opened" in shelf.info("slide-a").reason


def test_images_are_shown_as_slides_are(cohort, tmp_path):
    shelf = SlideShelf(cohort)
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    shelf._places = {"slide-a": replace(shelf._places["slide-a"], path=tmp_path)}
    info = shelf.info("slide-a")
    assert info.available
    tile = np.asarray(Image.open(io.BytesIO(shelf.tile("slide-a", info.levels - 1, 4, 3))), float)
    expected = image[3 * TILE_PX :, 4 * TILE_PX :].astype(float)
    assert tile.shape == expected.shape
    assert abs(tile.mean() - expected.mean()) < 2


def test_what_takes_too_long_to_be_read_is_shown_from_the_picture_of_the_preparation(shelf, monkeypatch):
    sound = [np.asarray(Image.open(io.BytesIO(shelf.tile("slide-a", level, 0, 0))), float) for level in (7, 9)]
    monkeypatch.setattr(whole_slides, "_BLOCK_PX", 16)
    monkeypatch.setattr(whole_slides.WholeSlide, "picture", None)
    for level, read in zip((7, 9), sound, strict=True):
        shown = np.asarray(Image.open(io.BytesIO(shelf.tile("slide-a", level, 0, 0))), float)
        assert np.abs(np.array(shown.shape) - read.shape).max() <= 1  # OpenSlide rounds by aspect
        assert np.abs(shown.mean(axis=(0, 1)) - read.mean(axis=(0, 1))).max() < 2
    monkeypatch.setattr(slide_tiles, "thumbnail_path", lambda features: features.with_name("none.jpg"))
    with pytest.raises(Unavailable, match="Zoom in"):
        shelf.tile("slide-a", 7, 0, 0)


def test_another_file_of_the_same_name_is_a_reason(cohort):
    shelf = SlideShelf(cohort)
    shelf._places = {"slide-a": shelf._places["slide-b"]}
    assert f"the slide that was prepared, {WIDTH} x {HEIGHT} px" in shelf.info("slide-a").reason


def test_a_folder_of_slides_on_another_machine_leaves_the_thumbnails(cohort, tmp_path):
    text = (cohort.root / "cohort.yaml").read_text().replace(f"{cohort.root.parent}/cohort/slides", str(tmp_path / "x"))
    moved = tmp_path / "prepared"
    moved.mkdir()
    (moved / "cohort.yaml").write_text(text)
    shelf = SlideShelf(replace(cohort, root=moved))
    assert "cannot be found" in shelf.info("slide-a").reason or "cannot be read here" in shelf.info("slide-a").reason
