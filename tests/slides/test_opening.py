"""Slides of scanners and images are opened alike, and closed where nothing can be read of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from subfuse.errors import DataError
from subfuse.slides.image_folders import ImageFolder
from subfuse.slides.opening import OpenedSlide, open_slide, opened_slide
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling
from subfuse.slides.whole_slides import WholeSlide

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("lazyslide")


@pytest.fixture(params=["scanned", "folder", "image"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> SlideSource:
    """A slide of 512 by 768 pixels that does not say how large they are."""
    pixels = np.random.default_rng(0).integers(90, 200, (768, 512, 3), dtype=np.uint8)
    path = {"scanned": tmp_path / "s.tif", "folder": tmp_path / "tiles", "image": tmp_path / "s.png"}[request.param]
    if request.param == "scanned":
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", compression="deflate", metadata=None)
    else:
        file = path / "0.png" if request.param == "folder" else path
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
    return SlideSource("s", "p", path, mpp=0.5)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[OpenedSlide]:
    """Slides that were closed."""
    found: list[OpenedSlide] = []
    for reader in (ImageFolder, WholeSlide):

        def close(slide, close=reader.close):
            found.append(slide)
            close(slide)

        monkeypatch.setattr(reader, "close", close)
    return found


def test_scanned_slides_and_images_are_opened_alike(source: SlideSource, closed: list[OpenedSlide]) -> None:
    with opened_slide(source, Tiling()) as slide:
        assert isinstance(slide, OpenedSlide)
        assert isinstance(slide, WholeSlide if source.path.suffix == ".tif" else ImageFolder)
        assert (slide.width_px, slide.height_px, slide.mpp) == (512, 768, 0.5)
        assert slide.picture(0, 0, 512, 768, size=(64, 96)).size == (64, 96)
        assert not closed
    assert closed == [slide]


def test_a_slide_is_closed_where_reading_it_fails(source: SlideSource, closed: list[OpenedSlide]) -> None:
    with pytest.raises(KeyError), opened_slide(source, Tiling()) as slide:
        raise KeyError("in the middle of a patch")
    assert closed == [slide]


@pytest.mark.parametrize(("mpp", "message"), [
    (None, r"the pixel size is required \(µm per pixel\)\. Found none in the file\. Declare `mpp` for s in "),
    (40.0, r"40"),
])  # fmt: skip
def test_a_pixel_size_is_required_and_plausible_and_a_refused_slide_is_closed(
    source: SlideSource, closed: list[OpenedSlide], mpp: float | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_slide(SlideSource("s", "p", source.path, mpp), Tiling())
    assert len(closed) == 1


def test_a_slide_that_is_not_there_is_named_with_what_would_be_accepted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.svs: .* is required\. Found nothing\. Correct the path of s\."):
        open_slide(SlideSource("s", "p", tmp_path / "gone.svs", 0.5), Tiling())
