"""Texts in HDF5 files: sound ones pass, those that HDF5's library would read for ever are refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.hdf5_heaps import require_sound_heaps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Names and attributes of all lengths, some of which were written anew."""
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["names"] = ["x" * length for length in range(900)]
        file["values"] = np.arange(50_000.0)
        for name in ("a", "b", "a"):
            file["values"].attrs[name] = f"{name} text of an attribute"
    return tmp_path / "s.h5"


def heaps(path: Path) -> list[int]:
    content = path.read_bytes()
    return [place for place in range(len(content)) if content.startswith(b"GCOL", place)]


def test_sound_files_and_others_pass(path, tmp_path):
    assert len(heaps(path)) > 1
    require_sound_heaps(path)
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("GCOL")
    for other in (tmp_path / "empty", tmp_path / "text", tmp_path / "absent", tmp_path):
        require_sound_heaps(other)


@pytest.mark.parametrize(
    "damage", [bytes(16), b"\1\0\1\0\0\0\0\0" + b"\xff" * 8, b"\1\0\1\0\0\0\0\0" + b"\xf0" + b"\xff" * 7]
)
def test_a_step_of_no_size_or_out_of_the_collection_is_refused(path, damage):
    content, place = bytearray(path.read_bytes()), heaps(path)[-1] + 16
    content[place : place + 16] = damage
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=rf"s\.h5: a complete HDF5 file is required\. Found damage .* at byte {place}\."
    ):
        require_sound_heaps(path)


def test_arrays_are_not_looked_through(path):
    content = bytearray(path.read_bytes())
    content[200_000:200_016] = b"GCOL\1\0\0\0" + (4096).to_bytes(8, "little")
    path.write_bytes(content)
    with pytest.raises(DataError, match="damage in its texts"):
        require_sound_heaps(path)
    require_sound_heaps(path, [(150_000, 200_008)])
    with pytest.raises(DataError, match="damage in its texts"):
        require_sound_heaps(path, [(0, 200_000), (200_008, len(content))])
