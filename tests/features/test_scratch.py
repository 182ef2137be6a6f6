import tempfile
from pathlib import Path

import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.features.scratch import Scratch


def test_arrays_are_those_that_were_kept_within_memory_and_beyond_it():
    arrays = [
        np.arange(12, dtype=np.float32).reshape(3, 4),
        np.zeros((0, 4), np.float32),
        np.arange(5, dtype=np.float16),
        np.arange(24, dtype=np.int64).reshape(2, 3, 4).transpose(2, 0, 1),
        np.array([[-1.5]]),
    ]
    for limit in (0, 60, 1000):
        scratch = Scratch(limit_bytes=limit)
        numbers = [scratch.keep(array) for array in arrays]
        for number, array in reversed(list(zip(numbers, arrays, strict=True))):
            found = scratch.read(number)
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)


def test_memory_holds_no_more_than_the_limit_and_the_file_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = Scratch(limit_bytes=100)
    held, beyond, small = np.ones(10), np.ones(10), np.ones(2)
    numbers = [scratch.keep(array) for array in (held, beyond, small)]
    assert [scratch.read(number) is array for number, array in zip(numbers, (held, beyond, small), strict=True)] == [
        True,
        False,
        True,
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_with_what_to_do(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: Path("/dev/full").open("wb", buffering=buffering))  # noqa: SIM115
    with pytest.raises(DataError, match=r"8 MB more are required .* 1 MB of memory.* No space left .* set TMPDIR"):
        Scratch(limit_bytes=10**6).keep(np.ones(10**6))
