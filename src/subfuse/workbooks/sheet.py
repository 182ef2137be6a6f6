"""One sheet of a workbook (xlsx, ods) as the bytes of a CSV table, which every reader of tables takes."""

import csv
import datetime
import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from subfuse.errors import DataError
from subfuse.workbooks.layout import Sheet, cell_name, sheets_of

_NAME = re.compile(r"(.+\.(?:xlsx|xlsm|ods))(?:#(.+))?", re.IGNORECASE)
_OLE = b"\xd0\xcf\x11\xe0"  # of Excel's old format, and around an encrypted workbook
_PARTS = (".xml", ".rels", "mimetype")  # not pictures and macros
_BREAKS = re.compile(r"[\t\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_LARGEST_SPARSE = 20_000_000  # cells of the rectangle that is held at once, however few are filled
_PER_CELL = 4  # and beyond it, for every filled one
_EXACT = 1e15  # whole numbers have their digits up to here, in a spreadsheet too


def workbook_of(path: Path) -> tuple[Path, str | None] | None:
    """Returns the file of a workbook and the sheet that is named behind it; None for other files.

    Example:
        >>> workbook_of(Path("clinical.xlsx#Patients 2024"))
        (PosixPath('clinical.xlsx'), 'Patients 2024')
        >>> workbook_of(Path("clinical.ods")), workbook_of(Path("clinical.csv"))
        ((PosixPath('clinical.ods'), None), None)
    """
    match = _NAME.fullmatch(path.name)
    return None if match is None else (path.with_name(match[1]), match[2])


def sheet_of(path: Path) -> str | None:
    """Returns the sheet that a path names, None where it names none."""
    return (workbook_of(path) or (path, None))[1]


def sheet_csv(file: Path, sheet: str | None, *, most: int) -> bytes:
    """Returns a sheet as CSV in UTF-8, one line per row, so that line numbers are those of the sheet.

    Text stays as it is, but for line breaks and tabs, which become spaces: `0012` typed as text keeps its zeros, and
    a number has none. Dates become `2019-05-02`; errors such as #N/A are empty cells.

    Args:
        file: The workbook.
        sheet: Its name; None: the only one that holds something.
        most: Bytes that it may unpack to.

    Raises:
        DataError: No workbook, encrypted or damaged; several sheets and none named, or a name that is not there;
            merged cells, formulas without a stored value, a table that does not begin in the first cell, or one far
            larger than what it holds.
        OSError: It cannot be read.
    """
    found = file.stat()
    return _converted(file, sheet, most, found.st_mtime_ns, found.st_size)


def filled_sheets(file: Path, *, most: int) -> tuple[str, ...]:
    """Returns the names of the sheets that hold something.

    Args:
        file: The workbook.
        most: Bytes that it may unpack to.

    Raises:
        DataError: No workbook, encrypted or damaged.
        OSError: It cannot be read.
    """
    return tuple(sheet.name for sheet in _sheets(file, _parts(file, most)) if sheet.n_cells)


@lru_cache(maxsize=1)  # the header is read first, then the table
def _converted(file: Path, sheet: str | None, most: int, modified_ns: int, n_bytes: int) -> bytes:
    import python_calamine

    parts = _parts(file, most)
    sheets = _sheets(file, parts)
    chosen = _chosen(file, sheets, sheet)
    for each in sheets:
        _refuse_sparse(file, each)
    _refuse_unclear(file, chosen)
    try:
        cells = python_calamine.load_workbook(_stored(parts)).get_sheet_by_name(chosen.name)
        if cells.start != (0, 0):
            row, column = cells.start or (0, 0)
            raise DataError(
                f"{file}, sheet {chosen.name}: the header in row 1 and the first column in A are required. Found a "
                f"table that begins in {cell_name(row + 1, column + 1)}. Remove what is empty before it."
            )
        return _as_csv(cells)
    except (python_calamine.CalamineError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of the library, which is no Exception
            raise _damaged(file, "cells that contradict each other") from error
        raise


def _sheets(file: Path, parts: Mapping[str, bytes]) -> list[Sheet]:
    try:
        sheets = sheets_of(parts)
    except (ValueError, IndexError) as error:
        raise _damaged(file, str(error)) from error
    if sheets is None:
        kind = "one of Excel's binary format (.xlsb)" if "xl/workbook.bin" in parts else "another zip file"
        raise DataError(f"{file}: an Excel (.xlsx) or ods workbook is required. Found {kind}. Save it as .xlsx.")
    return sheets


def _parts(file: Path, most: int) -> dict[str, bytes]:
    """Returns the members of the archive that a table needs, unpacked within bounds."""
    with file.open("rb") as opened:
        start = opened.read(4)
        if start == _OLE:
            opened.seek(0)
            is_encrypted = "EncryptedPackage".encode("utf-16-le") in opened.read()
            kind = "an encrypted one" if is_encrypted else "Excel's old format (.xls)"
            remedy = "Save it without a password." if is_encrypted else "Save it as .xlsx."
            raise DataError(f"{file}: an Excel (.xlsx) or ods workbook is required. Found {kind}. {remedy}")
        if not start.startswith(b"PK"):
            raise DataError(
                f"{file}: an Excel (.xlsx) or ods workbook is required, as its name says. Found other bytes. Let a "
                "table of text end in .csv or .tsv, or load the file again."
            )
    parts: dict[str, bytes] = {}
    left = most
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if not member.filename.endswith(_PARTS) and member.filename != "xl/workbook.bin":
                    continue
                with archive.open(member) as packed:
                    parts[member.filename] = packed.read(left + 1)
                left -= len(parts[member.filename])
                if left < 0:
                    raise DataError(
                        f"{file}: a table of at most {most >> 20} MB, unpacked, is required. Found more. Check that it "
                        "is the right file, or keep the columns that are needed."
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(file, str(error)) from error
    if b"encryption-data" in parts.get("META-INF/manifest.xml", b""):
        raise DataError(
            f"{file}: an Excel (.xlsx) or ods workbook is required. Found an encrypted one. Save it without a password."
        )
    return parts


def _stored(parts: Mapping[str, bytes]) -> io.BytesIO:
    """Returns an archive of the parts as they were bounded: what sizes the file itself declares plays no part."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    packed.seek(0)
    return packed


def _chosen(file: Path, sheets: Sequence[Sheet], name: str | None) -> Sheet:
    filled = [sheet for sheet in sheets if sheet.n_cells]
    example = f"as {file.name}#{filled[0].name if filled else 'NAME'}"
    if name is None:
        if not filled:
            raise DataError(f"{file}: a sheet with a table is required. Found empty ones alone. Load the file again.")
        if len(filled) > 1:
            raise DataError(
                f"{file}: the name of a sheet is required where several hold something. Found {_listed(filled)}. Name "
                f"one behind the file, {example}."
            )
        return filled[0]
    named = next((sheet for sheet in sheets if sheet.name == name), None)
    if named is None:
        raise DataError(f"{file}: the sheet {name!r} is required. Found {_listed(sheets)}. Name one, {example}.")
    if not named.n_cells:
        raise DataError(
            f"{file}: a table in sheet {name!r} is required. Found no cell that holds something. It is in "
            f"{_listed(filled) if filled else 'no sheet'}."
        )
    return named


def _listed(sheets: Sequence[Sheet]) -> str:
    return ", ".join(f"{sheet.name!r}{' (hidden)' if sheet.is_hidden else ''}" for sheet in sheets)


def _refuse_sparse(file: Path, sheet: Sheet) -> None:
    n_held = sheet.last_row * sheet.last_column
    if n_held > max(_LARGEST_SPARSE, _PER_CELL * sheet.n_cells):
        raise DataError(
            f"{file}, sheet {sheet.name}: cells of one table are required. Found {sheet.n_cells:,} that reach to "
            f"{cell_name(sheet.last_row, sheet.last_column)}. Remove those that lie apart."
        )


def _refuse_unclear(file: Path, sheet: Sheet) -> None:
    place = f"{file}, sheet {sheet.name}"
    if sheet.merged:
        raise DataError(
            f"{place}: one value per cell is required. Found the merged cells {sheet.merged}. Unmerge them, and fill "
            "each cell."
        )
    if sheet.not_computed:
        raise DataError(
            f"{place}, cell {sheet.not_computed}: a value is required. Found a formula whose value is not stored. Open "
            "the workbook in a spreadsheet program and save it, or paste the values."
        )


def _as_csv(cells: Any) -> bytes:  # a sheet of python_calamine
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_written(cell) for cell in row] for row in cells.iter_rows())
    return text.getvalue().encode(errors="replace")


def _written(cell: Any) -> str:
    if isinstance(cell, str):
        return _BREAKS.sub(" ", cell)
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < _EXACT else repr(cell)
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return str(cell)


def _damaged(file: Path, problem: str) -> DataError:
    return DataError(f"{file}: a complete workbook is required. Found: {' '.join(problem.split())}. Load it again.")
