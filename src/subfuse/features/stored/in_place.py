"""Features that stay in the file of another tool: where their rows lie in it, and whether it is still the same.

Rows are read as plain bytes. HDF5's own library takes several times as long over chunks of one row, as CLAM and TRIDENT
write them, and opens no file without being trusted with all of it.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from jaxtyping import Float16, Float32, Int64

from subfuse.bounded_files import require_regular_file
from subfuse.errors import DataError, counted
from subfuse.features.hdf5_files import damage_named, stored_array
from subfuse.features.stored.content import CONTENT_HASH, content_sha256

ROWS = "rows_in_place"  # dataset of a prepared feature file whose features stay elsewhere
_FEATURES = "features"  # there a link to them, which other programs follow
_RECORD, _RECORD_HASH = "record", "record_sha256"  # attributes of ROWS
_PLAIN_TYPES = ("<f2", "<f4")


class FileState(NamedTuple):
    """What tells cheaply whether a file was written again."""

    n_bytes: int
    modified_ns: int


@dataclass(frozen=True)
class FeaturesInPlace:
    """Features of one slide in a file that was not made by `subfuse prepare`, and stays as it is."""

    path: Path
    array: str  # its name in the file
    shape: tuple[int, int]  # patches, features
    stored_dtype: str  # as numpy writes it
    dtype: str  # as features are read
    state: FileState  # when it was read by `subfuse prepare`
    runs: Int64[np.ndarray, "run 2"]  # first row of every piece of rows that lie one after another, and its first byte

    @property
    def n_bytes(self) -> int:
        """Size of the features in the file."""
        return self.shape[0] * self._row_bytes

    @property
    def is_same(self) -> bool:
        """Whether the file has the size and the time of change that it was read with.

        Raises:
            DataError: It is gone or cannot be reached.
        """
        return state_of(self.path) == self.state

    def changed(self, found: str = "") -> DataError:
        """Returns the error of a file that is not as `subfuse prepare` read it; of other content, unless it is said."""
        remedy = "Put the earlier file back, or run `subfuse prepare` again: it reads this slide anew"
        if not found and self.is_same:  # which `subfuse prepare` would believe
            found = "others, in a file of the same size and time: bytes changed on the disk or on the way to it"
            remedy = "Copy the file again from where it was made, then run `subfuse prepare` again"
        return DataError(
            f"{self.path}: features that stay in place are required as `subfuse prepare` read them. Found "
            f"{found or 'others, written since'}. {remedy}."
        )

    def read(self, step: int = 1) -> Float16[np.ndarray, "patch feature"] | Float32[np.ndarray, "patch feature"]:
        """Returns the features of every patch, or of every so many, whatever was written into the file since.

        Raises:
            DataError: The file ends before them, or cannot be read.
        """
        rows = np.arange(0, self.shape[0], step)
        of_row = np.searchsorted(self.runs[:, 0], rows, side="right") - 1
        starts = self.runs[of_row, 1] + (rows - self.runs[of_row, 0]) * self._row_bytes
        values = np.empty((len(rows), self.shape[1]), self.stored_dtype)
        begins = [0, *(np.flatnonzero(np.diff(starts) != self._row_bytes) + 1), len(rows)]
        with damage_named(self.path, "a complete feature file"), open(self.path, "rb") as file:
            for first, last in pairwise(begins):
                piece = values[first:last].view(np.uint8).data
                file.seek(int(starts[first]))
                if file.readinto(piece) < piece.nbytes:
                    raise self.changed("that it ends before its features do")
        with np.errstate(over="ignore"):  # of a file that was changed
            return values.astype(self.dtype, copy=False)

    @property
    def _row_bytes(self) -> int:
        return self.shape[1] * np.dtype(self.stored_dtype).itemsize


def why_copied(array: h5py.Dataset) -> str:
    """Returns why an array of features is copied: its rows cannot be read as plain bytes, or it is small.

    Empty where it can stay in its file.
    """
    n_patches = array.shape[-2] if array.ndim > 1 else 1
    if n_patches == 1:
        return "one vector"
    if array.id.get_create_plist().get_nfilters():
        return "compressed"
    if array.dtype.str not in _PLAIN_TYPES:
        return f"{array.dtype} numbers"
    if array.chunks is not None and array.chunks[-1] != array.shape[-1]:
        return "in pieces of columns"
    return "" if array.chunks is not None or array.id.get_offset() is not None else "within the header"


def in_place(array: h5py.Dataset, path: Path, dtype: type[np.floating]) -> FeaturesInPlace:
    """Returns where the rows of an array lie that can stay, see `why_copied`.

    Args:
        array: Of an open file, completely written.
        path: The file.
        dtype: As features are to be read.
    """
    n_patches, n_features = array.shape[-2:]
    if array.chunks is None:
        pieces = [(0, array.id.get_offset())]
    else:
        pieces = []
        array.id.chunk_iter(lambda chunk: pieces.append((chunk.chunk_offset[-2], chunk.byte_offset)))
    runs = np.array(sorted(pieces), np.int64)
    follows = np.diff(runs[:, 1]) == np.diff(runs[:, 0]) * n_features * array.dtype.itemsize
    return FeaturesInPlace(
        path=path.absolute(),
        array=str(array.name),
        shape=(n_patches, n_features),
        stored_dtype=array.dtype.str,
        dtype=np.dtype(dtype).name,
        state=state_of(path),
        runs=runs[np.concatenate([[True], ~follows])],
    )


def write_in_place(features: FeaturesInPlace, file: h5py.File, path: Path) -> None:
    """Writes into an open feature file, complete but for it, where its features are.

    Args:
        features: Where.
        file: The open file, with `coords`.
        path: Where it will be.
    """
    file[_FEATURES] = h5py.ExternalLink(features.path, features.array)
    rows = file.create_dataset(ROWS, data=features.runs)
    record = {
        "path": str(features.path),
        "relative": os.path.relpath(features.path, path.parent.absolute()),
        "array": features.array,
        "shape": features.shape,
        "stored_dtype": features.stored_dtype,
        "dtype": features.dtype,
        "state": features.state,
    }
    rows.attrs[_RECORD] = json.dumps(record)  # in ASCII, whatever the path is made of
    rows.attrs[_RECORD_HASH] = _record_sha256(rows, file["coords"][()], dict(file["coords"].attrs))


def read_in_place(file: h5py.File, path: Path, coords: np.ndarray, attributes: Mapping[str, Any]) -> FeaturesInPlace:
    """Returns where the features of an open feature file are, of which `ROWS` is there.

    Where the recorded path leads nowhere, the one relative to the file counts: both may have been moved together.

    Args:
        file: The open file.
        path: Where it is.
        coords: As it holds them.
        attributes: Of `coords`.

    Raises:
        DataError: The file was changed since it was written.
    """
    rows = stored_array(file, ROWS, path)
    if (
        rows.attrs.get(_RECORD_HASH) != _record_sha256(rows, coords, attributes)
        or attributes.get("slide_id") != path.stem
    ):
        raise DataError(
            f"{path}: the content with which the file was written is required. Found another one, or that of another "
            "slide. Run `subfuse prepare` again: it makes this slide anew and keeps the others."
        )
    found: dict[str, Any] = json.loads(rows.attrs[_RECORD])
    beside = path.parent / found["relative"]
    recorded = FeaturesInPlace(
        path=Path(found["path"]),
        array=found["array"],
        shape=(found["shape"][0], found["shape"][1]),
        stored_dtype=found["stored_dtype"],
        dtype=found["dtype"],
        state=FileState(*found["state"]),
        runs=rows[()],
    )
    return replace(recorded, path=beside) if beside.exists() and not recorded.path.exists() else recorded


def _record_sha256(rows: h5py.Dataset, coords: np.ndarray, attributes: Mapping[str, Any]) -> str:
    """Returns the hash of all that a feature file holds itself when its features stay elsewhere."""
    stated = {"content": attributes[CONTENT_HASH], _RECORD: rows.attrs[_RECORD]}
    return content_sha256(rows[()], coords, {**attributes, **stated})


def state_of(path: Path) -> FileState:
    """Returns size and time of change of a feature file.

    Raises:
        DataError: It is gone, cannot be reached, or is no file.
    """
    try:
        require_regular_file(path, "feature file")
        found = path.stat()
    except OSError as error:
        raise DataError(
            f"{path}: the file in which features stay is required. Found: {error.strerror}. Put it back, or run "
            "`subfuse prepare` again where it lies now; with `slides.copy: true` in the cohort file the prepared "
            "folder holds all features itself."
        ) from error
    return FileState(found.st_size, found.st_mtime_ns)


def where_features_are(features: Iterable[tuple[int, str]]) -> str:
    """Returns in one line how many slides' features stay where they are, and why others are copied.

    Args:
        features: Of each slide, bytes that stay, and why they are copied instead.

    Example:
        >>> where_features_are([(3_000_000_000, ""), (1_500_000_000, ""), (0, "compressed")])
        'features of 2 slides stay where they are (4.5 GB); those of 1 slide are copied: compressed (1)'
    """
    listed = list(features)
    stay = [n_bytes for n_bytes, why in listed if not why]
    copied = Counter(why for _, why in listed if why)
    parts = [f"those of {counted(len(stay), 'slide')} stay where they are ({_size(sum(stay))})"] * bool(stay)
    if copied:
        reasons = ", ".join(f"{why} ({n})" for why, n in copied.most_common())
        parts.append(f"those of {counted(copied.total(), 'slide')} are copied: {reasons}")
    return "; ".join(parts).replace("those", "features", 1)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"
