"""Our own files: written atomically, so that one is either complete or absent; tables read as they were written."""

import errno
import glob
import hashlib
import io
import json
import math
import os
import platform
import re
import tempfile
import time
import zipfile
from collections.abc import Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subfuse.bounded_files import file_of, open_unpacked, other_than_file, require_regular_file
from subfuse.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import pandas

# Columns of our tables that hold names, which are text whatever they look like
_TEXT_COLUMNS = frozenset(
    {"patient_id", "cohort", "reference", "site", "label", "task", "model", "split", "metric", "reason", "level", "id"}
    | {"slide_id", "slide", "features", "gene", "subspace", "gene_set", "leading_genes", "explained"}
)

# Spreadsheets execute text that begins so; our tables mark it with an apostrophe, and what began with the mark as well
_EXECUTABLE = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][+-]?\d+)?")
_HOST = re.sub(r"[^A-Za-z0-9]", "", platform.node())[:20] or "host"
_SECONDS_OF_A_DAY = 86400.0
_NO_SPACE = {
    errno.ENOSPC: "none",
    errno.EDQUOT: "none: the quota is used up",
    errno.EFBIG: "a limit on the size of files (ulimit -f, or the file system's own)",
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder that replaces `path` when the block succeeds.

    When the block raises, the temporary file is removed and an earlier `path` stays as it was. The temporary name
    keeps the suffix of `path`, since many writers choose a format by it.

    Raises:
        ConfigurationError: The disk or the quota is full, or nothing can be written there (exit code 2). Not a
            DataError: no input is at fault, and a command must stop where it would exclude a slide that cannot be read.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        with _writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if other_than_file(path) is not None:
                raise OSError("a folder, pipe or device")
            prefix = f"{_beginning_of_part(path)}{_HOST}-{os.getpid()}."
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=f".part{path.suffix}")
        os.close(descriptor)
        temporary = Path(name)
        yield temporary
        with _writable(path):
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except Exception as error:
        found = lack_of_space(error)
        if found is not None:
            raise ConfigurationError(
                f"{path}: free disk space is required to write it. Found {found}. Free some or choose another folder; "
                "what is complete is kept."
            ) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Says of a place where nothing can be written which it is; a full disk is told by `atomic_path`."""
    try:
        yield
    except OSError as error:
        if lack_of_space(error) is not None:
            raise
        raise ConfigurationError(
            f"{path}: a place where files can be written is required. Found: {error.strerror or error}. Choose another "
            "--out, or correct its permissions."
        ) from error


def require_place(folder: Path) -> None:
    """Raises a ConfigurationError unless files can be written in a folder, which need not be there yet.

    For commands that work long before they write.
    """
    with _writable(folder):
        place = next(path for path in (folder, *folder.parents) if path.exists())
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def remove_parts(place: Path) -> None:
    """Removes the temporary files that killed processes left in a folder and below it, or of one file beside it.

    A file stays as long as the process that writes it lives; one of another machine, whose processes cannot be seen,
    for a day.

    Args:
        place: The folder; or the file, which need not be there.
    """
    of_file = place.parent.glob(f"{glob.escape(_beginning_of_part(place))}*.part*")
    for path in place.rglob(".*.part*") if place.is_dir() else of_file:
        with suppress(OSError):  # finished or removed by another process meanwhile
            if _is_abandoned(path):
                path.unlink()


def holds_files(folder: Path, *, beside: str | None = None) -> bool:
    """True if a folder holds more than empty folders, hidden files and, directly in it, the file `beside`.

    Hidden files may be those that another process is writing, or that a killed one left.
    """
    others = (path for path in folder.rglob("*") if path != folder / (beside or ".") and not path.is_dir())
    return any(not path.name.startswith(".") for path in others)


def is_begun(folder: Path, mark: str, *, what: str, beside: str | None = None) -> bool:
    """Returns whether a folder to write to is one that was begun before, as its mark says; False for an empty one.

    What killed processes left in it is removed.

    Args:
        folder: It need not be there.
        mark: The file in it that is written first.
        what: What it is once begun, with its article.
        beside: A file that an empty one may hold.

    Raises:
        ConfigurationError: It holds something else, or is a file.
    """
    remove_parts(folder)
    if (folder / mark).exists():
        return True
    is_file = folder.exists() and not folder.is_dir()
    if is_file or holds_files(folder, beside=beside):
        found = "a file" if is_file else "other files"
        raise ConfigurationError(f"{folder} must be empty or {what}. Found {found}. Choose another folder.")
    return False


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically, with Unix line ends on every platform."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: keys in their order (of subspaces it means something), two spaces, no NaN."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def json_value(value: Any) -> Any:
    """Returns a plain value that JSON can hold: of a scalar of NumPy its item, of an undefined number None."""
    import pandas

    value = value.item() if hasattr(value, "item") else value
    return None if value is pandas.NA or (isinstance(value, float) and not math.isfinite(value)) else value


def write_sealed_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes an object as JSON with the SHA-256 of its content, order of keys included, under `sha256`."""
    write_json(path, {**content, "sha256": sha256_of_json(content, in_order=True)})


def read_sealed_json(path: Path) -> dict[str, Any]:
    """Returns what `write_sealed_json` wrote, without the hash; a file of an earlier version may have none.

    Raises:
        DataError: See `read_json`; or the content is not what was written.
    """
    content = read_json(path)
    expected = content.pop("sha256", None)
    if expected is not None and expected != sha256_of_json(content, in_order=True):
        raise DataError(f"{path}: what was written is required. Found that it was changed since. Make it again.")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file of ours.

    Raises:
        DataError: It is missing, no regular file, not UTF-8, no JSON, nested too deeply, or something else than an
            object.
    """
    require_regular_file(path, "JSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: complete JSON in UTF-8 is required. Found: {problem}. Make it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: a JSON object is required. Found {type(content).__name__}. Make it again.")
    return content


def write_table(path: Path, table: "pandas.DataFrame") -> None:
    """Writes a DataFrame as `csv_text`, atomically."""
    write_text(path, csv_text(table))


def csv_text(table: "pandas.DataFrame") -> str:
    """Returns a DataFrame as CSV without its index; text that a spreadsheet would execute is marked.

    `read_table` takes the mark, a leading apostrophe, off again. Numbers stay as they are.
    """
    marked = table.rename(columns=_marked)
    for position, dtype in enumerate(table.dtypes):
        if dtype.kind == "O":  # text, and whatever is mixed with text
            marked.isetitem(position, table.iloc[:, position].map(_marked).array)
    return marked.to_csv(index=False, lineterminator="\n")


def without_marks(table: "pandas.DataFrame") -> "pandas.DataFrame":
    """Returns a table that was read from CSV with its text as `write_table` was given it."""
    unmarked = table.rename(columns=_unmarked)
    for position in range(table.shape[1]):
        column = table.iloc[:, position]
        if column.dtype.kind == "O" and any(isinstance(cell, str) and cell.startswith("'") for cell in column):
            unmarked.isetitem(position, column.map(_unmarked).array)
    return unmarked


def _marked(cell: Any) -> Any:
    executable = isinstance(cell, str) and _EXECUTABLE.match(cell) and not _NUMBER.fullmatch(cell)
    return f"'{cell}" if executable else cell


def _unmarked(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _EXECUTABLE.match(cell) else cell


def read_table(path: Path, *, text: Collection[str] = (), exact: bool = False) -> "pandas.DataFrame":
    """Returns a CSV table, or a sheet, as `write_table` writes it, with names as they stand there.

    Only an empty cell is missing: a class or a patient may be called NA, None or nan.

    Args:
        path: The file; an empty one is a table without columns.
        text: Columns of names beside `_TEXT_COLUMNS`.
        exact: Numbers to their last bit, which takes longer.

    Raises:
        DataError: There is no such table.
    """
    import pandas

    require_regular_file(path)
    try:
        with open_unpacked(path) as file:
            content = file.read()
        if not content.strip():
            return pandas.DataFrame()
        names: dict[Hashable, type[str]] = dict.fromkeys((*_TEXT_COLUMNS, *text), str)
        table = pandas.read_csv(
            io.BytesIO(content),
            dtype=names,
            keep_default_na=False,
            na_values=[""],
            encoding="utf-8-sig",
            low_memory=False,
            float_precision="round_trip" if exact else None,
        )
        if table.index.nlevels > 1 or not isinstance(table.index, pandas.RangeIndex):
            n_named = table.shape[1]
            raise ValueError(
                f"{table.index.nlevels + n_named} cells in rows below a header of {n_named}, as of a comma at the end "
                "of rows. Name every column"
            )
        return without_marks(table)
    except (OSError, ValueError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: a CSV table in UTF-8 is required. Found: {problem}.") from error


def require_whole_tensors(path: Path) -> None:
    """Compares every part of a file of `torch.save` with its checksum, which torch itself does not look at.

    Files of its versions before 1.6 have no checksums.

    Raises:
        DataError: It is no regular file.
        ValueError: A part differs, or the list of parts cannot be read.
    """
    require_regular_file(path, "file of tensors")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        part = file.testzip()
    if part is not None:
        raise ValueError(f"its part {part} is not as it was written: bytes changed on the disk or on the way to it")


def sha256_of_file(path: Path) -> str:
    """Returns the hexadecimal SHA-256 of a file's bytes; of a sheet, those of its workbook.

    Raises:
        DataError: It is no regular file.
        OSError: It cannot be read.
    """
    require_regular_file(path, "file")
    with open(file_of(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any, *, in_order: bool = False) -> str:
    """Returns the hexadecimal SHA-256 of a value's canonical JSON; keys are sorted unless their order counts."""
    text = json.dumps(value, sort_keys=not in_order, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _beginning_of_part(path: Path) -> str:
    return f".{path.stem[:40]}."


def _is_abandoned(part: Path) -> bool:
    writer = re.search(r"\.([A-Za-z0-9]+)-(\d+)\.[^.]*\.part", part.name)
    if writer is None or writer[1] != _HOST:
        return time.time() - part.stat().st_mtime > _SECONDS_OF_A_DAY
    return not _is_running(int(writer[2]))


def _is_running(process: int) -> bool:
    """True if there is a process of this number; one that has ended and waits to be noticed (Linux) does not run."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # not Linux
        return True
    return state != "Z"


def lack_of_space(error: BaseException | None) -> str | None:
    """Returns what there is where space lacks, also where closing the file failed as well, with an error of its own."""
    while error is not None:
        for number, found in _NO_SPACE.items():
            # in words within HDF5 (OSError, RuntimeError) and safetensors (its own)
            if (isinstance(error, OSError) and error.errno == number) or os.strerror(number) in str(error):
                return found
        error = error.__cause__ or error.__context__
    return None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
