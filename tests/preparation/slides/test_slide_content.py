"""Whether the files of a slide are those that its features were made from."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from slide_files import write_mrxs

from subfuse.preparation.slides.slide_content import is_same_slide, slide_sha256


def test_data_of_a_mirax_slide_belong_to_it(tmp_path: Path) -> None:
    write_mrxs(tmp_path / "s.mrxs", np.full((512, 512, 3), 128, dtype=np.uint8), mpp=0.5)
    before = slide_sha256(tmp_path / "s.mrxs")
    data = max((tmp_path / "s").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 255
    data.write_bytes(content)

    assert slide_sha256(tmp_path / "s.mrxs") != before


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A file too large to be read whole."""
    path = tmp_path / "slide.svs"
    path.write_bytes(np.random.default_rng(0).bytes(6_000_000))
    return path


def test_a_slide_that_is_moved_stays_the_same_and_one_of_another_name_or_size_does_not(slide: Path) -> None:
    before = slide_sha256(slide)
    (slide.parent / "elsewhere").mkdir()
    moved = slide.rename(slide.parent / "elsewhere" / slide.name)
    os.utime(moved, (0, 0))
    assert slide_sha256(moved) == before
    assert is_same_slide(moved, before, written=0.0)
    assert slide_sha256(moved.rename(moved.with_name("other.svs"))) != before
    moved.write_bytes(moved.with_name("other.svs").read_bytes() + b"0")
    assert not is_same_slide(moved, before, written=0.0)


@pytest.mark.parametrize("place", [0, 65_535, 3_000_000, -65_536, -1])
def test_a_changed_byte_at_either_end_or_in_the_middle_of_a_small_file_is_seen(slide: Path, place: int) -> None:
    content = bytearray(slide.read_bytes()[:4_000_000])  # 64 blocks hold it all
    slide.write_bytes(content)
    before = slide_sha256(slide)
    content[place] ^= 1
    slide.write_bytes(content)
    assert slide_sha256(slide) != before


def test_tiles_of_a_folder_are_its_content(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(name.encode())
    before = slide_sha256(tmp_path)
    (tmp_path / "b.png").write_bytes(b"c.png")
    assert slide_sha256(tmp_path) != before


def test_what_cannot_be_read_is_never_the_same(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.svs"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path / "gone.svs"):
        assert not is_same_slide(path, slide_sha256(path), written=9e9)


def test_a_hash_of_an_earlier_version_counts_unless_the_file_has_changed_since(slide: Path) -> None:
    earlier = hashlib.sha256(f"{slide.name} {slide.stat().st_size}".encode()).hexdigest()
    changed = slide.stat().st_mtime
    assert is_same_slide(slide, earlier, written=changed + 1)
    assert not is_same_slide(slide, earlier, written=changed - 1)
    assert not is_same_slide(slide, "0" * 64, written=changed + 1)
