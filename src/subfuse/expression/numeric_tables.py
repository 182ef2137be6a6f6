"""Tables of numbers with names on both sides, of any size: read in chunks into one float32 matrix."""

import csv
import io
import itertools
import re
import threading
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.bounded_files import open_bounded
from subfuse.cells import number_hint
from subfuse.errors import DataError
from subfuse.tables import has_semicolons, note_of_commas, other_bytes, read_first_line, separator_hint

_CELLS_PER_CHUNK = 10_000_000  # a chunk of text and numbers stays below a few hundred megabytes
_LONGEST_HEADER = 64 << 20  # characters of a header whose names hold line breaks
_SAMPLE = 1 << 20  # characters of rows that tell a decimal sign
_BYTES_PER_BLOCK = 32 << 20  # of text: some hundred rows of a table with thousands of columns


@dataclass(frozen=True)
class NumericTable:
    """A table as the file holds it: its rows are patients or genes, whatever the file has."""

    corner: str  # header of the first column
    rows: list[str]  # first column
    columns: list[str]  # headers of the numeric columns
    annotations: pd.DataFrame  # columns of text beside the first one, one row per table row
    values: Float[np.ndarray, "row column"]  # float32; NaN where a cell is empty or says NA
    column_numbers: list[int]  # of `columns` in the file, counted from 1
    first_line: int  # line of the first row in the file, counted from 1
    notes: tuple[str, ...] = ()  # on how it is read


@dataclass(frozen=True)
class _Header:
    """The header of a file and where it ends."""

    names: list[str]
    is_text: list[bool]  # by column: holds text, not numbers
    separator: str
    n_skipped: int  # lines before the first row, those inside quotes not counted
    has_line_break: bool  # inside a quoted name
    decimal: str  # sign before the fraction of a number

    def positions(self, *, text: bool) -> list[int]:
        """Positions of the columns of text, or of numbers."""
        return [position for position, is_text in enumerate(self.is_text) if is_text == text]


def read_numeric_table(
    path: Path,
    *,
    text_columns: Collection[str] = (),
    comment: str | None = None,
    nameless_rows: bool = False,
    suffix: str = "",
) -> NumericTable:
    """Returns a csv or tsv file of numbers with a header and a first column of names; .gz and .zip are unpacked.

    Args:
        path: The file. The header decides whether tabs, commas or semicolons separate the columns. With semicolons,
            numbers may have decimal commas, all of them.
        text_columns: Names, in lower case, of further columns that hold text.
        comment: Beginning of lines before the header that are passed over.
        nameless_rows: True where the first column may be empty.
        suffix: How the names of columns of numbers end; all others hold text.

    Raises:
        DataError: A file that is missing, empty, truncated, not a table or a web page; a nameless row or column (empty
            ones at the end of lines are passed over), rows of other lengths, or a cell that is not a number. Names
            file, row and column.
    """
    header = _read_header(path, comment, text_columns, suffix)
    texts, values = _parse_well_formed(path, header) or _parse_any(path, header)
    names = texts.fillna("").map(lambda text: " ".join(text.split()))
    rows, first_line = names[0].tolist(), header.n_skipped + 1
    if "" in rows and not nameless_rows:
        raise DataError(f"{path}, row {rows.index('') + first_line}: an identifier is required. Found an empty cell.")
    numeric, described = header.positions(text=False), header.positions(text=True)[1:]  # the first are the names
    nameless = [position for position in described if not header.names[position]]
    described = [position for position in described if header.names[position]]
    for position in nameless:
        if (names[position] != "").any():
            raise DataError(f"{path}: every column needs a name. Column {position + 1} has none, but values.")
    return NumericTable(
        corner=header.names[0],
        rows=rows,
        columns=[header.names[position] for position in numeric],
        annotations=names[described].set_axis([header.names[i].lower() for i in described], axis="columns"),
        values=values,
        column_numbers=[position + 1 for position in numeric],
        first_line=first_line,
        notes=note_of_commas(path, ["all numbers"] if header.decimal == "," else []),
    )


def _read_header(path: Path, comment: str | None, text_columns: Collection[str], suffix: str = "") -> _Header:
    read_first_line(path)  # says what else the file is
    n_skipped = 1
    try:
        with _open_text(path) as file:
            start = file.readline()
            while comment is not None and start.startswith(comment):
                n_skipped += 1
                start = file.readline()
            first, n_quotes = start, start.count('"')
            while n_quotes % 2 and len(start) < _LONGEST_HEADER and (further := file.readline()):
                start += further  # a quoted name holds a line break
                n_quotes += further.count('"')
            separator = ";" if has_semicolons(start) else "\t" if start.count("\t") > start.count(",") else ","
            decimal = _decimal_of(file.read(_SAMPLE)) if separator == ";" else "."
        header = [" ".join(name.split()) for name in next(csv.reader(io.StringIO(start), delimiter=separator), [])]
    except UnicodeDecodeError as error:
        raise other_bytes(path) from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{path}: a complete table is required. Found: {' '.join(str(error).split())}.") from error
    if len(header) < 2:
        raise DataError(
            f"{path}: a first column of names and then columns of numbers, separated by commas, tabs or semicolons, "
            f"are required. Found a header with one column: {start.strip()[:60]!r}.{separator_hint(start)}"
        )
    n_named = max(position for position, name in enumerate(header) if name or position == 0) + 1
    if not all(header[1:n_named]):
        raise DataError(f"{path}: every column needs a name. Column {header.index('', 1) + 1} has none.")
    # separators at the end of lines: read as text, which must be empty
    is_text = [
        position in (0, *range(n_named, len(header))) or name.lower() in text_columns or not name.endswith(suffix)
        for position, name in enumerate(header)
    ]
    return _Header(header, is_text, separator, n_skipped, has_line_break=start != first, decimal=decimal)


def _decimal_of(rows: str) -> str:
    """Returns the decimal sign of a table separated by semicolons; a point where some numbers have one."""
    first = {match[1] for match in re.finditer(r"(?:^|;)\"?[+-]?\d*([.,])\d", rows, re.MULTILINE)}
    return "," if first == {","} else "."


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    with open_bounded(path) as binary:
        yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")


class _EndingFile:
    """A binary file that ends where reading it fails, and once its reader has returned.

    pyarrow reads ahead in a thread of its own, which goes on where an error has ended the reading, and aborts the
    process if Python ends meanwhile; at the end of a file it stops.
    """

    closed = False

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._has_ended = False
        self._error: Exception | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        with self._lock:
            try:
                return b"" if self._has_ended else self._file.read(size)
            except Exception as error:
                self._has_ended, self._error = True, error
                return b""

    def end(self) -> None:
        """Waits for a read that goes on, allows no other, and raises what reading has failed with."""
        with self._lock:
            self._has_ended = True
        if self._error is not None:
            raise self._error


@contextmanager
def _ending(file: io.BufferedIOBase) -> Iterator[_EndingFile]:
    ending = _EndingFile(file)
    try:
        yield ending
    finally:
        ending.end()


def _parse_well_formed(path: Path, header: _Header) -> tuple[pd.DataFrame, Float[np.ndarray, "row column"]] | None:
    """Returns columns of text and numbers as `_parse_any` does, in half the processor time and by several threads.

    Returns None where pyarrow is not installed, or refuses the file: `_parse_any` is more tolerant, and says what is
    wrong.
    """
    if header.has_line_break:  # pyarrow would take its end for a row
        return None
    try:
        import pyarrow
        from pyarrow import csv as arrow_csv
    except ImportError:
        return None
    names = [str(position) for position in range(len(header.names))]
    kinds = {True: pyarrow.string(), False: pyarrow.float32()}
    missing = [*arrow_csv.ConvertOptions().null_values, "None", "<NA>"]  # those of pandas
    try:
        with open_bounded(path) as binary, _ending(binary) as file:
            table = arrow_csv.read_csv(
                file,
                read_options=arrow_csv.ReadOptions(
                    skip_rows=header.n_skipped, column_names=names, block_size=_BYTES_PER_BLOCK
                ),
                # names in quotes may hold line breaks, also where a block ends
                parse_options=arrow_csv.ParseOptions(delimiter=header.separator, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    column_types={name: kinds[is_text] for name, is_text in zip(names, header.is_text, strict=True)},
                    null_values=missing,
                    strings_can_be_null=True,
                    decimal_point=header.decimal,
                ),
            )
    except (pyarrow.ArrowException, OSError, EOFError, zlib.error):
        return None
    if not len(table):
        return None
    numbers = table.select([names[position] for position in header.positions(text=False)])
    values = np.empty(numbers.shape, dtype=np.float32)
    start = 0
    for batch in numbers.to_batches():
        values[start : start + len(batch)] = batch.to_pandas().to_numpy(dtype=np.float32)
        start += len(batch)
    positions = header.positions(text=True)
    return table.select([names[position] for position in positions]).to_pandas().set_axis(positions, axis=1), values


def _parse_any(path: Path, header: _Header) -> tuple[pd.DataFrame, Float[np.ndarray, "row column"]]:
    """Returns columns of text, named by their positions, and the numbers; or says what is wrong, and where."""
    dtypes = {position: "str" if text else "float32" for position, text in enumerate(header.is_text)}
    numeric = header.positions(text=False)
    blocks, texts = [], []
    try:
        for chunk in _chunks(path, header, dtypes):
            texts.append(chunk[header.positions(text=True)])
            blocks.append(chunk[numeric].to_numpy(dtype=np.float32))
    except ValueError:
        _raise_first_text(path, header, _chunks(path, header, dict.fromkeys(dtypes, "str")))
        raise
    if not sum(len(block) for block in blocks):
        raise DataError(f"{path}: at least one row below the header is required. Found only a header.")
    return pd.concat(texts, ignore_index=True), _stack(blocks)


def _chunks(path: Path, header: _Header, dtypes: Mapping[Any, Any]) -> Iterator[pd.DataFrame]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells beyond the header would be cut off
            with open_bounded(path) as file:
                yield from pd.read_csv(
                    file,
                    sep=header.separator,
                    header=None,
                    names=list(dtypes),
                    skiprows=header.n_skipped,
                    dtype=dtypes,
                    index_col=False,
                    decimal=header.decimal,
                    encoding="utf-8-sig",
                    chunksize=max(1, _CELLS_PER_CHUNK // len(dtypes)),
                    low_memory=False,  # small chunks are slow for thousands of columns
                )
    except pd.errors.EmptyDataError:
        return
    except pd.errors.ParserWarning as error:
        _refuse_longer_rows(path, header)
        raise DataError(
            f"{path}: the header must name every column. Found {len(dtypes)} names and longer rows below."
        ) from error
    except UnicodeDecodeError as error:
        raise other_bytes(path) from error
    except (pd.errors.ParserError, EOFError, OSError, zlib.error) as error:
        if isinstance(error, pd.errors.ParserError):
            _refuse_longer_rows(path, header)
        raise DataError(f"{path}: a complete table is required. Found: {' '.join(str(error).split())}.") from error


def _raise_first_text(path: Path, header: _Header, chunks: Iterator[pd.DataFrame]) -> None:
    for chunk in chunks:
        for column in header.positions(text=False):
            cells = chunk[column]
            if header.decimal == ",":  # a point is then none
                cells = cells.str.translate(str.maketrans(",.", ".,"))
            text = pd.to_numeric(cells, errors="coerce").isna() & cells.notna()
            if text.any():
                row = int(text.idxmax())
                place = f"row {row + header.n_skipped + 1} ({chunk.loc[row, 0]}), column {header.names[column]}"
                cell = str(chunk.loc[row, column])
                remedy = number_hint(cell) or " Correct the cell, or drop its row or column."
                if header.decimal == "," and "." in cell:
                    remedy = " Write all numbers with the same decimal sign, comma or point."
                raise DataError(f"{path}, {place}: a number is required. Found {cell[:40]!r}.{remedy}")


def _refuse_longer_rows(path: Path, header: _Header) -> None:
    """Raises a DataError that names the first row with more cells than the header has names, if there is one."""
    with suppress(csv.Error, UnicodeDecodeError), _open_text(path) as file:
        rows = itertools.islice(csv.reader(file, delimiter=header.separator), header.n_skipped, None)
        for number, row in enumerate(rows, start=header.n_skipped + 1):
            if len(row) > len(header.names):
                hint = " Decimal commas would do this: write numbers with decimal points." * (header.separator == ",")
                raise DataError(
                    f"{path}, row {number} ({row[0][:40]}): {len(header.names)} cells are required, as the header has. "
                    f"Found {len(row)}.{hint}"
                )


def _stack(blocks: list[np.ndarray]) -> np.ndarray:
    """Returns blocks of rows below one another, letting go of each once it is copied."""
    if len(blocks) == 1:
        return np.ascontiguousarray(blocks.pop())
    values = np.empty((sum(len(block) for block in blocks), blocks[0].shape[1]), dtype=np.float32)
    stop = len(values)
    while blocks:
        block = blocks.pop()
        values[stop - len(block) : stop] = block
        stop -= len(block)
    return values
