"""HDF5 files from anywhere, opened without trust: nothing outside the file is read, and nothing that it only claims."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from subfuse.bounded_files import require_plausible_size, require_regular_file
from subfuse.errors import DataError, SubfuseError, preview
from subfuse.hdf5_heaps import require_sound_heaps

_LARGE = 4 << 20  # bytes
_LONGEST_TEXT = 150  # characters of an attribute that names something


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading. No locks: files appear complete, and read-only network folders cannot lock.

    Raises:
        DataError: The file is missing, empty, truncated or no HDF5 file; also when reading inside the block fails.
    """
    require_regular_file(path, "feature file")
    if not path.exists():
        raise DataError(f"{path}: a feature file is required. Found none; run `subfuse prepare` or correct the path.")
    with damage_named(path, "a complete HDF5 file"), h5py.File(path, "r", locking=False) as file:
        require_sound_heaps(path, _arrays(file))
        yield file


def _arrays(file: h5py.File) -> list[tuple[int, int]]:
    """Returns where the values of large arrays lie in a file: no text is read for it, and no attribute.

    Small ones may be in very many pieces, and are sooner looked through than left out.
    """
    found: list[tuple[int, int]] = []
    for name in file:
        array = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(array, h5py.Dataset) or array.is_virtual or array.nbytes < _LARGE:
            continue
        if array.chunks is not None:
            array.id.chunk_iter(lambda chunk: found.append((chunk.byte_offset, chunk.byte_offset + chunk.size)))
        elif (place := array.id.get_offset()) is not None:
            found.append((place, place + array.id.get_storage_size()))
    return found


@contextmanager
def damage_named(path: Path, required: str) -> Iterator[None]:
    """Turns any error of a library that reads a file into one line that names the file and keeps the library's words.

    Damaged files lead libraries to errors of any type. The block should hold little else than the reading. Where the
    system or memory is at fault, the file may be whole, and the message says so.

    Args:
        path: The file.
        required: What it should be, for the message.

    Raises:
        DataError: Anything but our own errors was raised.
    """
    try:
        yield
    except SubfuseError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:160] or type(error).__name__
        size = f"{path.stat().st_size} bytes" if path.is_file() else "a folder"
        is_of_system = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)
        whole = "The file may be whole: correct its permissions, or free memory or open files, and try again"
        remedy = whole if is_of_system else "Delete it and write it again"
        raise DataError(
            f"{path}: {required} is required. Found {size} that cannot be read ({words}). {remedy}."
        ) from error


def is_held(file: h5py.File, name: str) -> bool:
    """Returns whether a file has something of this name; a link is not followed to find out."""
    return file.get(name, getlink=True) is not None


def stored_array(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Returns an array that the file itself holds completely; its values are not read.

    Raises:
        DataError: The name is a link, the values lie in other files, parts were never written, or the file is too small
            for the size that it declares.
    """
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise DataError(
            f"{path}: `{name}` must be stored in the file itself. Found a link, and links are not followed."
        )
    array = file[name]
    if not isinstance(array, h5py.Dataset):
        raise DataError(f"{path}: `{name}` must be an array. Found a group. Extract the slide again.")
    if array.is_virtual or array.external:
        raise DataError(
            f"{path}: `{name}` must be stored in the file itself. Found its values declared in other files."
        )
    chunk = math.prod(array.chunks or (0,))
    require_plausible_size(path, f"`{name}`", max(int(array.size), chunk), array.dtype.itemsize, path.stat().st_size)
    n_chunks = math.prod(-(-n // side) for n, side in zip(array.shape, array.chunks, strict=True)) if chunk else 1
    written = array.id.get_num_chunks() if chunk else int(array.id.get_storage_size() > 0)
    if array.size and written < n_chunks:
        raise DataError(
            f"{path}: `{name}` must be written completely. Found {written} of {n_chunks} parts: the extraction was "
            "interrupted. Extract the slide again."
        )
    return array


class Attributes:
    """Attributes of several places in a file, read one by one when they are asked for.

    Tools write the same attribute on the file, on the features or on the coordinates: all are looked at, and where two
    say different things, neither is believed.
    """

    def __init__(self, places: Sequence[h5py.File | h5py.Dataset], path: Path) -> None:
        self._places = places
        self._path = path

    def __contains__(self, name: str) -> bool:
        return any(name in place.attrs for place in self._places)

    def names(self) -> list[str]:
        """Returns the names of all attributes, sorted."""
        return sorted({os.fsdecode(name) for place in self._places for name in place.attrs})

    def text(self, *names: str) -> str | None:
        """Returns the text of the first of these attributes that is there; None where none is, or it is empty.

        Raises:
            DataError: It is not a short text, or two places differ.
        """
        name = next((name for name in names if name in self), None)
        value = None if name is None else self._value(name)
        if isinstance(value, bytes):
            value = value.decode(errors="surrogateescape")
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        if not isinstance(value, str) or not value.isprintable() or len(value) > _LONGEST_TEXT:
            raise self._refused(name, f"a short text in UTF-8. Found {repr(value)[:60]}")
        return value.strip()

    def number(self, name: str, *, least: int | None = None) -> float | None:
        """Returns a number: positive, or `least` or more; None where there is none.

        Raises:
            DataError: It is no such number, or two places differ.
        """
        if name not in self:
            return None
        value = self._value(name)
        fits = isinstance(value, int | float) and math.isfinite(value)
        if not fits or (value <= 0 if least is None else value < least):
            raise self._refused(
                name, f"{'a positive number' if least is None else f'{least} or more'}. Found {value!r}"
            )
        return float(value)

    def whole(self, name: str, *, least: int | None = None) -> int | None:
        """Returns a whole number, see `number`."""
        number = self.number(name, least=least)
        if number is not None and (number != round(number) or number > np.iinfo(np.int32).max):
            raise self._refused(name, f"a whole number below 2^31. Found {number:g}")
        return None if number is None else round(number)

    def _value(self, name: str) -> Any:
        """Python's value of an attribute; an array of equal values, such as one per axis, is that value."""
        values = [place.attrs[name] for place in self._places if name in place.attrs]
        flat = [item for value in values for item in np.asarray(value).ravel().tolist()]
        if len({repr(item) for item in flat}) != 1:
            raise self._refused(name, f"one value. Found {preview([repr(item) for item in flat]) or 'none'}")
        return flat[0]

    def _refused(self, name: str | None, words: str) -> DataError:
        return DataError(f"{self._path}: attribute `{name}` must be {words}. Extract the slide again.")


def hdf5_listing(file: h5py.File) -> str:
    """Returns what a file holds, for messages: names with shapes, then the names of its attributes."""
    shapes = {os.fsdecode(name): _kind(file, name) for name in file}  # a name that is no UTF-8 comes as bytes
    listing = preview([f"{name} {shapes[name]}" for name in sorted(shapes)], limit=10) or "an empty file"
    attributes = sorted(os.fsdecode(name) for name in file.attrs)
    return f"{listing}; attributes {preview(attributes, limit=10)}" if attributes else listing


def _kind(file: h5py.File, name: str | bytes) -> Any:
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        return "a link"
    return getattr(file[name], "shape", "a group")
