"""Arrays that are needed again and again: in memory up to a limit, beyond it in a scratch file."""

import io
import os
import tempfile
import weakref
from dataclasses import dataclass, field

import numpy as np

from subfuse.errors import DataError


@dataclass
class Scratch:
    """Arrays in the order in which they were kept.

    The scratch file has no name on the disk: it ends with this object, however the process ends. It lies where
    temporary files do (`TMPDIR`).

    Args:
        limit_bytes: Of all arrays that are held in memory.
    """

    limit_bytes: int = 1 << 30
    _places: list["np.ndarray | _InFile"] = field(default_factory=list, init=False)
    _held_bytes: int = field(default=0, init=False)
    _file: io.FileIO | None = field(default=None, init=False)

    def keep(self, array: np.ndarray) -> int:
        """Returns the number of the array, by which `read` returns it.

        Raises:
            DataError: The disk of the scratch file is full.
        """
        if self._held_bytes + array.nbytes <= self.limit_bytes:
            self._held_bytes += array.nbytes
            self._places.append(array)
        else:
            self._places.append(self._written(array))
        return len(self._places) - 1

    def read(self, number: int) -> np.ndarray:
        """Returns an array that was kept, the very one or an equal one."""
        place = self._places[number]
        if isinstance(place, np.ndarray):
            return place
        assert self._file is not None
        array = np.empty(place.shape, place.dtype)
        self._file.seek(place.offset)
        self._file.readinto(array.reshape(-1).view(np.uint8).data)
        return array

    def _written(self, array: np.ndarray) -> "_InFile":
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  it ends with this object
                weakref.finalize(self, self._file.close)
            offset = self._file.seek(0, os.SEEK_END)
            left = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise DataError(
                f"{tempfile.gettempdir()}: {array.nbytes / 1e6:.0f} MB more are required there, for what is read of "
                f"slides beyond {self.limit_bytes / 1e6:.0f} MB of memory. Found: {error.strerror}. Free some space, "
                "or set TMPDIR to a folder on a larger disk."
            ) from error
        return _InFile(offset, array.shape, array.dtype)


@dataclass(frozen=True)
class _InFile:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
