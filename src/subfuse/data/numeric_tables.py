"""Tables of numbers with names on both sides, of any size: read in chunks into one float32 matrix."""

import csv
import gzip
import io
import warnings
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.data.tables import read_first_line
from subfuse.errors import DataError

_CELLS_PER_CHUNK = 10_000_000  # a chunk of text and numbers stays below a few hundred megabytes


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


def read_numeric_table(
    path: Path, *, text_columns: Collection[str] = (), comment: str | None = None, nameless_rows: bool = False
) -> NumericTable:
    """Returns a csv or tsv file of numbers with a header and a first column of names; .gz is unpacked.

    Args:
        path: The file. The header decides whether tabs or commas separate the columns.
        text_columns: Names, in lower case, of further columns that hold text.
        comment: Beginning of lines before the header that are passed over.
        nameless_rows: True where the first column may be empty.

    Raises:
        DataError: A file that is missing, empty, truncated, not a table or a web page; a nameless row or column, rows
            of other lengths, or a cell that is not a number. Names file, row and column.
    """
    header, separator, n_skipped = _read_header(path, comment)
    is_text = [position == 0 or name.lower() in text_columns for position, name in enumerate(header)]
    dtypes = {position: "str" if text else "float32" for position, text in enumerate(is_text)}
    numeric = [position for position, text in enumerate(is_text) if not text]
    blocks, texts = [], []
    try:
        for chunk in _chunks(path, separator, dtypes, n_skipped):
            texts.append(chunk[[position for position, text in enumerate(is_text) if text]])
            blocks.append(chunk[numeric].to_numpy(dtype=np.float32))
    except ValueError:
        as_text = _chunks(path, separator, dict.fromkeys(dtypes, "str"), n_skipped)
        _raise_first_text(path, header, as_text, numeric, n_skipped + 1)
        raise
    if not sum(len(block) for block in blocks):
        raise DataError(f"{path}: at least one row below the header is required. Found only a header.")
    names = pd.concat(texts, ignore_index=True).fillna("").map(lambda text: " ".join(text.split()))
    rows = names[0].tolist()
    if "" in rows and not nameless_rows:
        raise DataError(
            f"{path}, row {rows.index('') + n_skipped + 1}: an identifier is required. Found an empty cell."
        )
    annotations = names.drop(columns=0)
    text_names = [header[position] for position, text in enumerate(is_text) if text and position]
    return NumericTable(
        corner=header[0],
        rows=rows,
        columns=[header[position] for position in numeric],
        annotations=annotations.set_axis([name.lower() for name in text_names], axis="columns"),
        values=_stack(blocks),
        column_numbers=[position + 1 for position in numeric],
        first_line=n_skipped + 1,
    )


def _read_header(path: Path, comment: str | None) -> tuple[list[str], str, int]:
    """Returns column names, separator, and how many lines come before the first row."""
    read_first_line(path)  # says what else the file is
    n_skipped = 1
    try:
        with _open_text(path) as file:
            start = file.readline()
            while comment is not None and start.startswith(comment):
                n_skipped += 1
                start = file.readline()
            while start.count('"') % 2 and (further := file.readline()):
                start += further  # a quoted name holds a line break
        separator = "\t" if start.count("\t") > start.count(",") else ","
        header = [" ".join(name.split()) for name in next(csv.reader(io.StringIO(start), delimiter=separator), [])]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise DataError(f"{path}: a complete table is required. Found: {' '.join(str(error).split())}.") from error
    if len(header) < 2:
        raise DataError(
            f"{path}: a first column of names and then columns of numbers, separated by commas or tabs, are required. "
            f"Found a header with one column: {start.strip()[:60]!r}."
        )
    if not all(header[1:]):
        raise DataError(f"{path}: every column needs a name. Column {header.index('', 1) + 1} has none.")
    return header, separator, n_skipped


@contextmanager
def _open_text(path: Path) -> Iterator[io.TextIOWrapper]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as binary:
        yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")


def _chunks(path: Path, separator: str, dtypes: Mapping[Any, Any], n_skipped: int) -> Iterator[pd.DataFrame]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells beyond the header would be cut off
            yield from pd.read_csv(
                path,
                sep=separator,
                header=None,
                names=list(dtypes),
                skiprows=n_skipped,
                dtype=dtypes,
                index_col=False,
                encoding="utf-8-sig",
                chunksize=max(1, _CELLS_PER_CHUNK // len(dtypes)),
                low_memory=False,  # small chunks are slow for thousands of columns
            )
    except pd.errors.EmptyDataError:
        return
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{path}: the header must name every column. Found {len(dtypes)} names and longer rows below."
        ) from error
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: a complete table is required. Found: {' '.join(str(error).split())}.") from error


def _raise_first_text(
    path: Path, header: Sequence[str], chunks: Iterator[pd.DataFrame], numeric: Sequence[int], first: int
) -> None:
    for chunk in chunks:
        for column in numeric:
            text = pd.to_numeric(chunk[column], errors="coerce").isna() & chunk[column].notna()
            if text.any():
                row = int(text.idxmax())
                raise DataError(
                    f"{path}, row {row + first} ({chunk.loc[row, 0]}), column {header[column]}: a number is required. "
                    f"Found {str(chunk.loc[row, column])[:40]!r}. Correct the cell, or drop its row or column."
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
