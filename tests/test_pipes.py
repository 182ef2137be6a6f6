"""Pipes in the place of files: one line at once, instead of waiting for a writer for ever."""

import os
from pathlib import Path

import pytest
from PIL import Image

from subfuse.errors import DataError
from subfuse.expression.gene_sets import read_gmt
from subfuse.slides.image_folders import ImageFolder
from subfuse.slides.tissue import Tiling
from subfuse.slides.whole_slides import WholeSlide

TILING = Tiling(tile_px=32)


@pytest.mark.parametrize("read", [read_gmt, lambda path: WholeSlide(path, mpp=0.5, tiling=TILING)])
def test_a_pipe_is_refused(tmp_path: Path, read):
    os.mkfifo(tmp_path / "pipe.svs")
    with pytest.raises(DataError, match=r"pipe\.svs: .* Found a pipe or device"):
        read(tmp_path / "pipe.svs")


def test_a_pipe_among_images_is_named_and_the_others_are_read(tmp_path: Path):
    Image.new("RGB", (64, 64), "purple").save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    opened = ImageFolder(tmp_path, mpp=0.5, tiling=TILING)
    assert any("b.png" in warning and "pipe" in warning for warning in opened.warnings)
    assert len(opened.parts()) > 0
