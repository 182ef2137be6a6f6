"""Tissue and tiles are found once for several encoders."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from subfuse.cli import main
from subfuse.errors import ConfigurationError
from subfuse.features.store import read_attributes, read_features
from subfuse.preparation import prepare as preparation
from subfuse.preparation.slides.slide import completed_record, prepare_slide
from subfuse.preparation.slides.stored_tiles import PICTURES, require_tiles
from subfuse.slides import whole_slides
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling
from subfuse.slides.tissue_rule import FIXED, OTSU

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("lazyslide")

SMALL = Tiling(tile_px=128, overlap_px=16)


class Channel:
    """The mean of one colour."""

    dim = 1

    def __init__(self, index: int) -> None:
        self.name, self.sha256, self._index = f"channel{index}", f"{index}" * 64, index

    def encode(self, images: np.ndarray) -> np.ndarray:
        return images[..., self._index].mean(axis=(1, 2), dtype=np.float32)[:, None]


@pytest.fixture
def slide(tmp_path: Path) -> SlideSource:
    image = np.full((700, 1100, 3), 244, np.uint8)
    noise = np.random.default_rng(0).normal((200, 120, 170), 12, (400, 500, 3))
    image[150:550, 300:800] = noise.clip(0, 255).astype(np.uint8)
    image[590:690, 100:600] = (20, 20, 25)  # pen on glass
    path = tmp_path / "s.tiff"
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", resolution=(20000, 20000),
                     resolutionunit="CENTIMETER")  # fmt: skip
    return SlideSource("s", "p", path)


@pytest.fixture
def first(slide: SlideSource, tmp_path: Path) -> Path:
    prepare_slide(slide, Channel(0), SMALL, tmp_path / "first" / "wsi")
    return tmp_path / "first"


def found_anew(*_: object, **__: object) -> None:
    raise AssertionError("tissue is searched for, or tiles are cut")


def test_another_encoder_finds_no_tissue_and_cuts_no_tiles_and_is_as_if_it_had(
    slide: SlideSource, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = prepare_slide(slide, Channel(1), SMALL, tmp_path / "anew" / "wsi")
    monkeypatch.setattr(whole_slides, "find_tissue", found_anew)
    monkeypatch.setattr(whole_slides.WholeSlide, "parts", found_anew)

    record = prepare_slide(slide, Channel(1), SMALL, tmp_path / "second" / "wsi", tiles_from=first)

    assert record == expected
    assert record.pen_share > 0
    for name in ("anew", "second"):
        assert completed_record(slide, "channel1", SMALL, tmp_path / name / "wsi") == record
    old, new = (tmp_path / name / record.features for name in ("anew", "second"))
    np.testing.assert_array_equal(read_features(new).features, read_features(old).features)
    np.testing.assert_array_equal(read_features(new).coords, read_features(old).coords)
    assert read_attributes(new) == read_attributes(old)
    for kind, end in PICTURES:
        a, b = (tmp_path / name / "wsi" / SMALL.folder_name / kind / f"s.{end}" for name in ("anew", "second"))
        assert a.read_bytes() == b.read_bytes()


@pytest.mark.parametrize("change", ["slide", "tiling", "tissue", "features", "picture"])
def test_tiles_of_anything_else_are_not_taken(
    change: str, slide: SlideSource, first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiling = replace(SMALL, mpp=0.6) if change == "tiling" else SMALL
    folder = first / "wsi" / SMALL.folder_name
    if change == "slide":
        pixels = tifffile.imread(slide.path)
        tifffile.imwrite(slide.path, pixels[::-1], tile=(256, 256), photometric="rgb", resolution=(20000, 20000),
                         resolutionunit="CENTIMETER")  # fmt: skip
    elif change == "tissue":
        slide = replace(slide, tissue="otsu")
    elif change == "features":
        (folder / "features_channel0" / "s.h5").write_bytes(b"damaged")
    elif change == "picture":
        (folder / "thumbnails" / "s.jpg").unlink()
    searched: list[int] = []
    search = whole_slides.find_tissue
    monkeypatch.setattr(whole_slides, "find_tissue", lambda *a, **k: searched.append(1) or search(*a, **k))

    prepare_slide(slide, Channel(1), tiling, tmp_path / "second" / "wsi", tiles_from=first)

    assert searched == [1]


def test_tiles_may_come_from_any_of_several_encoders(slide: SlideSource, first: Path, tmp_path: Path) -> None:
    folder = first / "wsi" / SMALL.folder_name
    shutil.copytree(folder / "features_channel0", folder / "features_another")
    (folder / "features_another" / "s.h5").write_bytes(b"damaged")
    (folder / "features_a").mkdir()
    record = prepare_slide(slide, Channel(1), SMALL, tmp_path / "second" / "wsi", tiles_from=first)
    assert record.n_patches > 0


def test_images_are_cut_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal((200, 120, 170), 12, (256, 300, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    source = SlideSource("a", "p", tmp_path / "a.png", 0.5)
    one = prepare_slide(source, Channel(0), SMALL, tmp_path / "first" / "wsi")
    two = prepare_slide(source, Channel(1), SMALL, tmp_path / "second" / "wsi", tiles_from=tmp_path / "first")
    assert one.n_patches == two.n_patches > 0


def test_a_folder_without_such_tiles_is_refused_with_those_that_it_has(first: Path, tmp_path: Path) -> None:
    require_tiles(first, SMALL, [FIXED])
    with pytest.raises(
        ConfigurationError, match=r"with patches of 256 px .* Found those of 20x_128px_16px_overlap\. Give"
    ):
        require_tiles(first, Tiling(), [FIXED])
    with pytest.raises(ConfigurationError, match="Found no slides that were cut into patches"):
        require_tiles(tmp_path / "absent", Tiling(), [FIXED])


def test_tiles_on_tissue_that_was_found_otherwise_are_refused(first: Path) -> None:
    (first / "provenance.json").write_text(json.dumps({"tissue": ["geojson:outlines"]}))
    with pytest.raises(ConfigurationError, match=r"slides\.tissue has it, otsu, .* Found tiles on that of geojson\."):
        require_tiles(first, SMALL, [OTSU])
    (first / "provenance.json").write_text(json.dumps({"tissue": [FIXED]}))
    require_tiles(first, SMALL, [FIXED])
    require_tiles(first, SMALL, ["geojson:corrected"])


def cohort_file(folder: Path, **section: object) -> Path:
    """A cohort of the slide alone, whose patient nobody trains on."""
    (folder / "patients.csv").write_text("patient_id,age\np,60\n")
    (folder / "slides.csv").write_text("slide_id,patient_id,path\ns,p,s.tiff\n")
    slides = {"table": "slides.csv", "folder": ".", **section}
    content = {"name": "one", "role": "external", "patients": {"table": "patients.csv"}, "slides": slides}
    (folder / "cohort.yaml").write_text(yaml.safe_dump(content))
    return folder / "cohort.yaml"


def test_the_command_takes_tissue_and_tiles_from_another_prepared_folder(
    slide: SlideSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cohort_file(tmp_path, tiling={"tile_px": 128, "overlap_px": 16})
    monkeypatch.setattr(preparation, "_encoder", lambda name, _: Channel(int(name[-1])))
    command = ["prepare", str(path), "--workers", "1", "--out"]
    assert main([*command, str(tmp_path / "one"), "--encoder", "channel0"]) == 0
    monkeypatch.setattr(whole_slides, "find_tissue", found_anew)
    monkeypatch.setattr(whole_slides.WholeSlide, "parts", found_anew)
    with_tiles = ["--encoder", "channel1", "--tiles-from", str(tmp_path / "one")]
    assert main([*command, str(tmp_path / "two"), *with_tiles]) == 0
    tables = [pd.read_csv(tmp_path / name / "slides.csv") for name in ("one", "two")]
    slides = [read_features(tmp_path / n / t["features"][0]) for n, t in zip(("one", "two"), tables, strict=True)]
    np.testing.assert_array_equal(slides[0].coords, slides[1].coords)
    assert not np.array_equal(slides[0].features, slides[1].features)


def test_a_refused_encoder_leaves_no_folder(slide: SlideSource, tmp_path: Path) -> None:
    command = ["prepare", str(cohort_file(tmp_path)), "--workers", "1", "--encoder", "no-such-encoder", "--out"]
    assert main([*command, str(tmp_path / "new")]) == 2
    assert not (tmp_path / "new").exists()
    (tmp_path / "there").mkdir()
    assert main([*command, str(tmp_path / "there")]) == 2
    assert (tmp_path / "there").exists()
