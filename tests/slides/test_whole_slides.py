"""What the header of a slide says about its pixels is used, or refused in its own words."""

from pathlib import Path

import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.preparation.slides.slide import inspect_slide
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling
from subfuse.slides.whole_slides import WholeSlide

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("lazyslide")


def write(path: Path, description: str, *, kind: str = "svs", side: int = 512) -> Path:
    pixels = np.full((side, side, 3), 200, np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    tifffile.imwrite(path.with_suffix(f".{kind}"), pixels, description=description, **options)
    return path.with_suffix(f".{kind}")


def aperio(mpp: str) -> str:
    return f"Aperio Image Library v11.2.1 \r\n512x512 [0,0 512x512] (256x256) JPEG/RGB Q=70|AppMag = 20|MPP = {mpp}"


def ome(*sizes: str) -> str:
    axes = " ".join(f"PhysicalSize{axis}={size}" for axis, size in zip("XY", sizes, strict=True))
    return f'<?xml version="1.0"?><OME><Image ID="Image:0"><Pixels ID="Pixels:0" {axes}/></Image></OME>'


def header(path: Path, mpp: float | None = None) -> float:
    return inspect_slide(SlideSource("s", "p", path, mpp)).mpp


def test_a_decimal_comma_is_read(tmp_path):
    assert header(write(tmp_path / "a", aperio("0,4990"))) == pytest.approx(0.499)
    assert header(write(tmp_path / "a", aperio("0,4990")), 0.25) == 0.25
    assert header(write(tmp_path / "b", ome('"0,25"', '"0,25"'), kind="tif")) == pytest.approx(0.25)


def test_pixels_that_are_not_square_are_refused_with_both_sizes(tmp_path):
    path = write(tmp_path / "a", ome('"0.25"', '"0.5"'), kind="tif")
    with pytest.raises(DataError, match=r"a\.tif: square pixels are required. Found 0.25 x 0.5 µm"):
        header(path)
    slide = WholeSlide(path, mpp=0.25, tiling=Tiling())
    assert slide.mpp == 0.25
    assert "0.25 x 0.5" in slide.warnings[0]
    slide.close()
    assert header(write(tmp_path / "b", ome('"0.250"', '"0.252"'), kind="tif")) == pytest.approx(0.251)


@pytest.mark.parametrize("size", ['"0.25.1"', '"-1"', '"NaN"', '"5" PhysicalSizeXUnit="pixel"'])
def test_a_pixel_size_that_cannot_be_read_is_quoted(size, tmp_path):
    path = write(tmp_path / "a", ome(size, '"0.5"'), kind="tif")
    with pytest.raises(DataError, match=r"a\.tif: the pixel size is required.*in the header. Declare `mpp`"):
        header(path)
    assert header(path, 0.5) == 0.5


def test_the_readers_own_words_are_kept(tmp_path):
    path = write(tmp_path / "a", aperio("0.5"))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"a\.svs: .*of which OpenSlide says: \w+"):
        header(path)


@pytest.mark.real_data
def test_given_headers(cases):
    assert header(cases / "svs_decimal_comma" / "slides" / "P3_comma.svs") == pytest.approx(0.499)
    with pytest.raises(DataError, match=r"Found 0\.25 x 0\.5 µm"):
        header(cases / "ome_anisotropic" / "slides" / "P7.ome.tif")
