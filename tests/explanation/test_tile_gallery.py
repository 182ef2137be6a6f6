from dataclasses import replace

import numpy as np
import pytest
from bright_slides import BRIGHT, TISSUE, bright_slide, prepared_slide
from PIL import Image

from subfuse.errors import DataError
from subfuse.explanation.heatmaps import NEGATIVE_RGB, POSITIVE_RGB
from subfuse.explanation.tile_gallery import NOT_LOCATED, gallery, read_tiles, strongest_tiles
from subfuse.features.store import read_features
from subfuse.preparation.slides.slide import prepare_slide
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling

pytest.importorskip("wsidata")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class FakeEncoder:
    name, dim, sha256 = "fake", 3, "ab" * 32

    def encode(self, images):
        return images.mean(axis=(1, 2)).astype(np.float32)


@pytest.fixture
def two_slides(tmp_path):
    """A patient's slides of different sizes, the second with the bright patch elsewhere."""
    shapes = {
        "a": {"width": 700, "height": 520, "size": 150, "bright": (300, 150)},
        "b": {"width": 500, "height": 690, "size": 150, "bright": (0, 450)},
    }
    slides = {name: bright_slide(tmp_path / f"{name}.tiff", **shape) for name, shape in shapes.items()}
    features = {name: prepared_slide(tmp_path, slide, name) for name, slide in slides.items()}
    places = {name: SlideSource(name, "p", tmp_path / f"{name}.tiff", 0.5) for name in slides}
    return slides, features, places


def test_the_strongest_tiles_are_the_bright_ones_at_level_0(two_slides):
    slides, features, places = two_slides
    scores = {name: slide.features[:, 0].astype(float) - 0.5 for name, slide in slides.items()}
    scores["b"] *= 2
    high, low, missing = strongest_tiles(scores, slides, features, places, count=3)
    assert missing == {}
    assert [(tile.slide_id, tile.x, tile.y, tile.score) for tile in high] == [("b", 0, 450, 1.0), ("a", 300, 150, 0.5)]
    assert all((tile.image == BRIGHT).all() and tile.image.shape == (150, 150, 3) for tile in high)
    assert len(low) == 3
    assert all((tile.image == TISSUE).all() for tile in low)


def test_a_slide_that_is_not_here_is_named_and_its_patches_are_shown_by_where_they_lie(two_slides, tmp_path):
    slides, features, places = two_slides
    scores = {"a": np.full(len(slides["a"].coords), -2.0), "b": -np.ones(len(slides["b"].coords))}
    scores["a"][5], scores["b"][0] = 3.0, 1.0
    gone = {**places, "a": replace(places["a"], path=tmp_path / "gone.tiff")}
    high, _, missing = strongest_tiles(scores, slides, features, gone)
    assert [(tile.slide_id, tile.score) for tile in high] == [("a", 3.0), ("b", 1.0)]
    assert (high[1].image == TISSUE).all()
    assert list(missing) == ["a"]
    assert "gone.tiff" in missing["a"]
    _, low, missing = strongest_tiles(scores, slides, features, {"a": "the disk is elsewhere"})
    assert missing == {"a": "the disk is elsewhere", "b": NOT_LOCATED}
    assert len(low) == 6


def test_the_place_of_a_patch_is_coloured_by_its_sign_among_the_patches_of_its_slide(two_slides):
    slides, features, _ = two_slides
    scores = {"a": np.zeros(len(slides["a"].coords))}  # 4 x 3 patches of 150 px
    scores["a"][0], scores["a"][-1] = 1.0, -1.0
    (first,), (last,), _ = strongest_tiles(scores, {"a": slides["a"]}, features, {})
    side = first.image.shape[0]
    assert tuple(first.image[side // 8, side // 8]) == POSITIVE_RGB
    assert tuple(last.image[5 * side // 8, 7 * side // 8]) == NEGATIVE_RGB
    assert len(set(first.image[7 * side // 8, side // 8].tolist())) == 1  # grey: no patch there


def test_another_slide_under_the_same_name_is_refused(two_slides):
    slides, features, places = two_slides
    with pytest.raises(DataError, match="the slide that was prepared"):
        read_tiles(places["b"], features["a"], slides["a"], [0])


def test_tiles_of_image_folders_are_found_by_their_place(tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    for index, colour in enumerate([(200, 90, 120), (180, 130, 160), (150, 90, 170)]):
        Image.new("RGB", (300, 280), colour).save(folder / f"{index}.png")
    source = SlideSource("s", "p", folder, 0.5)
    prepare_slide(source, FakeEncoder(), Tiling(), tmp_path / "wsi")
    path = next((tmp_path / "wsi").rglob("s.h5"))
    slide = read_features(path)
    row = int(slide.features[:, 1].argmax())
    tiles = read_tiles(source, path, slide, [row])
    assert list(tiles) == [row]
    assert (tiles[row] == (180, 130, 160)).all()


def test_a_gallery_shows_both_ends_and_is_absent_without_tiles(two_slides):
    slides, features, places = two_slides
    scores = {name: slide.features[:, 0].astype(float) - 0.5 for name, slide in slides.items()}
    high, low, _ = strongest_tiles(scores, slides, features, places, count=2)
    picture = gallery(high, low, label="tumour", score_name="the hazard")
    pixels = np.asarray(picture)
    assert (pixels == BRIGHT).all(axis=2).sum() == 2 * 150**2
    assert gallery([], [], label="tumour", score_name="the hazard") is None
