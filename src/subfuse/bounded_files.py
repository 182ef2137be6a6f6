"""Files from elsewhere, plain, gzip, zip or a sheet, read with little memory whatever they unpack to or declare."""

import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from subfuse.errors import DataError, preview
from subfuse.workbooks.sheet import filled_sheets, sheet_csv, workbook_of

_LARGEST_LINE = 16 << 20  # bytes of a header or row; 100,000 sample barcodes take three million
_LARGEST_TEXT = 512 << 20  # bytes of a table of text or of JSON, unpacked
_SMALL_ARRAY = 64 << 20  # bytes up to which an array may be as compressed as it likes
ZIPPED_TABLES = (".csv.zip", ".tsv.zip", ".txt.zip")  # endings of names, in lower case
_UNPACKED = 100  # times its file, beyond `_LARGEST_TEXT`; expression tables unpack to some ten times


class _BoundedStream(io.RawIOBase):
    """Bytes of a table of any size, up to a line or a whole that no table has."""

    def __init__(self, stream: io.BufferedIOBase, path: Path) -> None:
        self._stream, self._path = stream, path
        self._most = max(_LARGEST_TEXT, _UNPACKED * file_of(path).stat().st_size)
        self._n_read = self._line = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._stream.read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._n_read += len(chunk)
        end = chunk.find(b"\n")
        if self._line + (end if end >= 0 else len(chunk)) > _LARGEST_LINE:
            raise DataError(
                f"{self._path}: a table with one row a line is required. Found a line above {_LARGEST_LINE >> 20} MB. "
                "Check that it is the right file, with line ends."
            )
        if self._n_read > self._most:
            raise DataError(
                f"{self._path}: a table is required. Found a file that unpacks to more than {_UNPACKED} times its "
                f"size, above {self._most >> 20} MB. Check that it is the right file, or unpack it."
            )
        self._line = self._line + len(chunk) if end < 0 else len(chunk) - 1 - chunk.rfind(b"\n")
        return len(chunk)


def require_regular_file(path: Path, what: str = "table") -> None:
    """Checks that a path is no folder, pipe or device, which has no end that reading could come to.

    Raises:
        DataError: It is one.
    """
    if (found := other_than_file(path)) is not None:
        raise DataError(f"{path}: a readable {what} is required. Found a {found}. Give the file itself.")


def other_than_file(path: Path) -> str | None:
    """Returns what there is in the place of a file: a folder, pipe or device; None where a file is, or nothing."""
    path = file_of(path)
    if path.is_file() or not path.exists():
        return None
    return "folder" if path.is_dir() else "pipe or device"


def file_of(path: Path) -> Path:
    """Returns the file behind a path, which may name a sheet of a workbook: `clinical.xlsx#Patients`."""
    workbook = workbook_of(path)
    return path if workbook is None else workbook[0]


def tables_of(path: Path) -> tuple[Path, ...]:
    """Returns a file, or of a workbook with several sheets that hold something each of them, `book.xlsx#Sheet`.

    Raises:
        DataError: A workbook that cannot be read.
    """
    if workbook_of(path) is None:
        return (path,)
    sheets = filled_sheets(path, most=_most_unpacked(path))
    return tuple(path.with_name(f"{path.name}#{sheet}") for sheet in sheets) if len(sheets) > 1 else (path,)


def open_unpacked(path: Path) -> io.BufferedIOBase:
    """Opens a plain or gzip file without bounds, for `read_bounded` and `read_bounded_line`; a sheet as CSV.

    Raises:
        DataError: As `sheet_csv`, which unpacks within bounds, as are tables in zip files; a zip file that is damaged,
            encrypted, or holds several files or none.
    """
    if (workbook := workbook_of(path)) is not None:
        return io.BytesIO(sheet_csv(*workbook, most=_most_unpacked(path)))
    if path.name.lower().endswith(ZIPPED_TABLES):
        return io.BytesIO(_zipped(path))
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _zipped(path: Path) -> bytes:
    """The content of the only file in a zip file."""
    required = f"{path}: a zip file with one table is required."
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
            if len(names) != 1:
                raise DataError(f"{required} Found {preview(names) or 'none in it'}. Unpack it and give the table.")
            with archive.open(names[0]) as file:
                return read_bounded(file, path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:  # or encrypted
        raise DataError(f"{required} Found one that cannot be read ({error}). Unpack it and give the table.") from error


@contextmanager
def open_bounded(path: Path) -> Iterator[io.BufferedReader]:
    """Opens a plain or gzip file of any size, or a sheet; reading it needs little memory, whatever it unpacks to.

    Raises:
        DataError: While reading: a line is longer than 16 MB, or the content is larger than both 512 MB and a hundred
            times the file.
    """
    with open_unpacked(path) as stream:
        yield io.BufferedReader(_BoundedStream(stream, path), buffer_size=1 << 20)


def read_bounded(file: Any, path: Path) -> bytes:
    """Returns all bytes of an opened file.

    Raises:
        DataError: It is larger, unpacked, than a table of text can be.
    """
    most = _most_unpacked(path)
    content = file.read(most + 1)
    if len(content) > most:
        raise DataError(
            f"{path}: a table of at most {most >> 20} MB, unpacked, is required. Found more. Check that it is "
            "the right file, or keep the columns that are needed."
        )
    return content


def _most_unpacked(path: Path) -> int:
    return min(_LARGEST_TEXT, max(_SMALL_ARRAY, _UNPACKED * file_of(path).stat().st_size))


def read_bounded_line(file: io.BufferedIOBase, path: Path, what: str) -> bytes:
    """Returns the first line of an opened file, with its end.

    Raises:
        DataError: It is longer than a header can be.
    """
    line = file.readline(_LARGEST_LINE + 1)
    if len(line) > _LARGEST_LINE:
        raise DataError(
            f"{path}: a {what} with a header is required. Found a first line above {_LARGEST_LINE >> 20} MB. Check the "
            "file."
        )
    return line


def require_plausible_size(path: Path, name: str, n_values: int, itemsize: int, stored_bytes: int) -> None:
    """Refuses an array that declares far more than its file can hold, before memory is taken for it.

    Raises:
        DataError: Names the file and both sizes.
    """
    declared = n_values * itemsize
    if declared > _SMALL_ARRAY and declared > _UNPACKED * stored_bytes:
        raise DataError(
            f"{path}: {name} must be stored in the file. Found {stored_bytes:,} bytes that declare {declared:,} of "
            "them. Make the file again."
        )
