"""HDF5 files whose damage would keep HDF5's own library busy for ever: found before the library reads them."""

import mmap
from collections.abc import Iterable
from pathlib import Path

from subfuse.errors import DataError

_HEAP = b"GCOL\x01\0\0\0"  # a collection of texts of any length, which attributes and tables of names refer to
_HEADER = 16  # bytes, of a collection and of each of its objects


def require_sound_heaps(path: Path, arrays: Iterable[tuple[int, int]] = ()) -> None:
    """Walks the collections of texts in an HDF5 file as its library does, which does not end after a step of no size.

    Files that are missing or of another kind are left to the library.

    Args:
        path: The file.
        arrays: First byte of each array in it and of what follows; they are not looked through.

    Raises:
        DataError: A step leads nowhere, or out of its collection.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = 0
        for first, last in (*sorted(arrays), (len(content), len(content))):
            place = content.find(_HEAP, start, first)
            while place >= 0:
                _require_steps(content, place, path)
                place = content.find(_HEAP, place + len(_HEAP), first)
            start = max(start, last)


def _require_steps(content: mmap.mmap, place: int, path: Path) -> None:
    end = place + _number(content, place + 8, 8)
    start = place + _HEADER
    while start + _HEADER <= min(end, len(content)):
        size = _number(content, start + 8, 8)
        is_free = _number(content, start, 2) == 0  # what is free counts its own header
        step = size if is_free else _HEADER + -(-size // 8) * 8
        if step == 0 or start + step > end:
            raise DataError(
                f"{path}: a complete HDF5 file is required. Found damage in its texts, at byte {start}. Copy it again "
                "from where it was made, or write it again."
            )
        start += step


def _number(content: mmap.mmap, place: int, length: int) -> int:
    return int.from_bytes(content[place : place + length], "little")
