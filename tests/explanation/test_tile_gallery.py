from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from bright_slides import BRIGHT, TISSUE, bright_slide, prepared_slide
from PIL import Image

from subfuse.errors import DataError
from subfuse.explanation import tile_gallery
from subfuse.explanation.heatmaps import NEGATIVE_RGB, POSITIVE_RGB
from subfuse.explanation.tile_gallery import (
    NOT_LOCATED,
    GalleryTile,
    gallery,
    locate_slides,
    read_tiles,
    strongest_tiles,
)
from subfuse.features.store import read_features
from subfuse.preparation.slides.slide import prepare_slide
from subfuse.slides.source import FeatureSource, SlideSource
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


def test_outlines_of_tissue_are_not_needed_any_more_once_slides_are_prepared(two_slides, tmp_path):
    slides, features, places = two_slides
    outlined = replace(places["a"], tissue=f"geojson:{tmp_path / 'gone'}")
    expected = read_tiles(places["a"], features["a"], slides["a"], [0, 3])
    found = read_tiles(outlined, features["a"], slides["a"], [0, 3])
    assert all((found[row] == expected[row]).all() for row in (0, 3))


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
    scores["a"][0], scores["a"][-1] = 0.5, -0.5
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


def test_tiles_of_a_gallery_stand_side_by_side_between_their_headings_and_captions():
    colours = [(200, 40, 40), (40, 160, 40), (40, 40, 200), (160, 90, 20)]
    images = [np.full((60, 90 if n == 1 else 60, 3), colour, np.uint8) for n, colour in enumerate(colours)]
    images[0] = np.repeat(images[0], 2, axis=0)[:90]  # the largest side is 90, of one upright and one lying tile
    tiles = [GalleryTile(image, 1.0, "slide", 10, 20) for image in images]
    pixels = np.asarray(gallery(tiles[:3], tiles[3:], label="tumour", score_name="the hazard")).astype(int)
    found = []
    for image, colour in zip(images, colours, strict=True):
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (*image.shape[:2], image.shape[0] * image.shape[1])
        found.append((rows[0], columns.min()))
    tops, lefts = np.array(found).T
    assert len(set(tops[:3])) == 1
    gap = lefts[0]
    assert 0 < gap < 10
    assert lefts.tolist() == [gap, gap + 90 + gap, gap + 2 * (90 + gap), gap]
    assert pixels.shape[1] == 3 * (90 + gap) + gap
    is_text = (pixels < 110).all(axis=2) & (np.ptp(pixels, axis=2) == 0)
    ends = np.flatnonzero(np.diff(np.r_[0, is_text.any(axis=1), 0])).reshape(-1, 2)
    label, heading, *captions = ends[ends[:, 1] <= tops[0]]
    assert not captions
    assert 0 < label[0] < label[1] < heading[0] <= label[1] + 11
    assert heading[1] < tops[0] <= heading[1] + 8  # nearer to its tiles than to the label
    below = ends[ends[:, 0] >= tops[0] + 90]
    *first, second_heading = below[below[:, 1] <= tops[3]]
    assert len(first) == 3  # lines of a caption: score, slide, place
    assert 0 < first[0][0] - (tops[0] + 90) <= 8
    assert first[-1][1] < second_heading[0] <= first[-1][1] + 22
    assert second_heading[1] < tops[3] <= second_heading[1] + 11
    last = below[below[:, 0] >= tops[3] + 90]
    assert len(last) == 3
    assert last[-1][1] < len(pixels) <= last[-1][1] + 22
    row_height = tops[3] - tops[0]
    assert len(pixels) == 22 + 2 * row_height  # both rows below the label, which has two lines
    alone = gallery(tiles[:3], [], label="tumour", score_name="the hazard")
    assert alone.height == 22 + row_height  # no heading without tiles
    heights = [stop - start for start, stop in (label, heading, first[1])]
    assert 16 >= heights[0] >= heights[1] >= heights[2] >= 6


def test_pixels_of_images_are_looked_for_until_all_are_found(tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    colours = [(200, 90, 120), (180, 130, 160), (150, 90, 170)]
    for index, colour in enumerate(colours):
        Image.new("RGB", (300, 280), colour).save(folder / f"{index}.png")
    source = SlideSource("s", "p", folder, 0.5)
    prepare_slide(source, FakeEncoder(), Tiling(), tmp_path / "wsi")
    path = next((tmp_path / "wsi").rglob("s.h5"))
    slide = read_features(path)
    tiles = read_tiles(source, path, slide, range(len(slide.coords)))
    assert sorted(tuple(image[0, 0].tolist()) for image in tiles.values()) == sorted(colours)


def test_slides_are_located_cohort_by_cohort_and_what_is_not_there_has_its_reason(make_cohort, tmp_path, monkeypatch):
    cohort = make_cohort(n_patients=12)
    assert locate_slides(replace(cohort, root=None)) == {}
    owners = ["hidden", "lost", "found"] * 4
    patients = tuple(
        replace(patient, cohort=owner, slides=(tmp_path / f"{owner}-{n}.h5",))
        for n, (patient, owner) in enumerate(zip(cohort.patients, owners, strict=True))
    )
    cohort = replace(cohort, patients=patients, root=tmp_path)
    of_cohort = {name: [p.patient_id for p in patients if p.cohort == name] for name in owners}
    slide = SlideSource("found-2", of_cohort["found"][0], tmp_path / "a.tiff", 0.5)
    features = FeatureSource("found-5", of_cohort["found"][1], tmp_path / "b.h5", 0.5)

    def read_slides(section, patient_ids):
        if section == "lost section":
            raise OSError("the disk is elsewhere")
        assert (section, list(patient_ids)) == ("found section", of_cohort["found"])
        return (slide, features), pd.DataFrame({"id": ["found-8"], "reason": ["no such file"]}), ()

    members = [
        SimpleNamespace(name="hidden", slides=None),
        SimpleNamespace(name="of nobody", slides="other section"),
        SimpleNamespace(name="lost", slides="lost section"),
        SimpleNamespace(name="found", slides="found section"),
    ]
    monkeypatch.setattr(tile_gallery, "read_resolved", lambda root: SimpleNamespace(members=members))
    monkeypatch.setattr(tile_gallery, "read_slides", read_slides)
    assert locate_slides(cohort) == {
        **{f"lost-{n}": "the disk is elsewhere" for n in (1, 4, 7, 10)},
        "found-2": slide,
        "found-5": "the cohort has its features, not its image",
        "found-8": "no such file",
    }

    def damaged(root):
        raise DataError("the cohort file is damaged")

    monkeypatch.setattr(tile_gallery, "read_resolved", damaged)
    assert locate_slides(cohort) == {path.stem: "the cohort file is damaged" for p in patients for path in p.slides}
