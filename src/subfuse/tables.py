"""Text tables and JSON as they arrive: plain, gzip, zip, in a GDC archive or a sheet of a workbook; cells stay text."""

import io
import itertools
import json
import re
import tarfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.bounded_files import (
    open_bounded,
    open_unpacked,
    read_bounded,
    read_bounded_line,
    require_regular_file,
)
from subfuse.errors import DataError, preview

# How tables say "unknown", in lower case; quotes around -- are part of GDC's files.
_MISSING = frozenset(
    {"", "na", "n/a", "nan", "<na>", "null", "--", "'--", "unknown", "not reported", "not available", "[not available]"}
    | {"?", ".", "n.a.", "n. a.", "k.a.", "k. a.", "missing", "unk", "unbekannt", "inconnu", "desconocido"}
    | {
        "#n/a",
        "#nv",
        "#null!",
        "#div/0!",
        "#ref!",
        "#bezug!",
        "#value!",
        "#wert!",
        "#name?",
        "#num!",
        "#zahl!",
    }  # Excel
    | {"[unknown]", "[not applicable]", "[not evaluated]", "[discrepancy]"}
)

_GDC_PREFIX = re.compile(r"^(cases[._])?(samples[._])")  # of the columns of its exports
_SEPARATOR_LINE = 32  # bytes that hold the whole of such a line, see `is_separator_line`
_MAY_HAVE_COMMA = r"[+-]?(?:\d+(?:,\d*)?|,\d+)(?:[eE][+-]?\d+)?"  # a number, decimal comma and all

_OTHER_FILES = {
    b"\x1f\x8b": "a gzip file. Let its name end in .gz, or unpack it",
    b"PK\x03\x04": "an Excel workbook or zip file. Let the name of a workbook end in .xlsx or .ods, or unpack it",
    b"\xd0\xcf\x11\xe0": "a workbook of Excel's old format (.xls), or an encrypted one. Save it as .xlsx, without a "
    "password",
    b"\xff\xfe": "UTF-16. Save the table as UTF-8",
    b"\xfe\xff": "UTF-16. Save the table as UTF-8",
}


def other_bytes(path: Path) -> DataError:
    """Returns the error of a table that is not UTF-8; names the first such line."""
    with open_bounded(path) as file:
        return _other_bytes(path, file)


def _other_bytes(path: Path, lines: Iterable[bytes]) -> DataError:
    number = next(number for number, line in enumerate(lines, start=1) if not _is_utf8(line))
    return DataError(
        f"{path}: UTF-8 text is required. Found other bytes, perhaps Latin-1, in line {number}. "
        "Save the table as UTF-8."
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def has_semicolons(header: str) -> bool:
    """Returns whether semicolons separate the columns of a header, as spreadsheets write CSV where commas are decimal.

    Example:
        >>> has_semicolons('id;"age, years"'), has_semicolons("id,name;alias")
        (True, False)
    """
    unquoted = re.sub(r'"[^"]*"', "", header)
    return ";" in unquoted and not {",", "\t"} & set(unquoted)


def is_separator_line(line: str) -> bool:
    """Returns whether a line tells Excel what separates columns, before the header.

    Example:
        >>> is_separator_line("sep=;"), is_separator_line("sep;event")
        (True, False)
    """
    return re.fullmatch(r'"?sep=[;,\t]"?\s*', line) is not None


def note_of_commas(path: Path, columns: Collection[str]) -> tuple[str, ...]:
    """Returns a note on the columns of a table separated by semicolons whose commas were read as decimal ones."""
    if not columns:
        return ()
    return (f"{path.name}: semicolons separate its columns; commas are read as decimal ones in {preview(columns)}",)


def separator_hint(header: str) -> str:
    """Returns what to do about a header in which neither commas nor tabs separate columns.

    Example:
        >>> separator_hint("patient_id;event")
        ' Semicolons seem to separate them: save the table as CSV with commas, and numbers with decimal points.'
    """
    kinds = {";": "Semicolons", "|": "Vertical bars"}
    kind = next((words for mark, words in kinds.items() if mark in header), None)
    remedy = "seem to separate them: save the table as CSV with commas, and numbers with decimal points."
    return "" if kind is None else f" {kind} {remedy}"


def read_first_line(path: Path, *, what: str = "table") -> str:
    """Returns the header line of a text or gzip file, without byte order mark and line end.

    Raises:
        DataError: The file is missing, empty, binary, or a web page that was saved in its place.
    """
    require_regular_file(path, what)
    with _damage_named(path, what), open_unpacked(path) as file:
        line = read_bounded_line(file, path, what)
    return _checked_header(line, path, what)


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file, plain or .gz.

    Raises:
        DataError: The file is missing, empty, truncated, not JSON, or a web page that was saved in its place.
    """
    read_first_line(path, what="JSON file")
    try:
        with open_unpacked(path) as file:
            return json.loads(read_bounded(file, path))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise DataError(f"{path}: complete JSON is required. Found: {_problem(error)}. Load the file again.") from error


def read_text_table(
    path: Path, *, member: str = "clinical.tsv", comment: str | None = None, n_lines: int | None = None
) -> pd.DataFrame:
    """Returns a table with every cell as stripped text; nothing is interpreted, missing cells are ''.

    The header decides whether tabs, commas or semicolons separate the columns. Columns without a name and empty last
    rows, as spreadsheets add them, are left out. Of several columns with one name and the same cells, one stays. Where
    their cells differ, none does: `attrs["repeated"]` lists them, and `require_columns` refuses a table that needs one.
    Between semicolons, columns of numbers with decimal commas get points: `attrs["decimal_commas"]` lists them.

    Args:
        path: csv, tsv, txt, each also as .gz or .zip; a workbook, with the sheet's name behind it; or a .tar.gz.
        member: Name of the table inside an archive.
        comment: Beginning of the lines before the header that are passed over.
        n_lines: How many lines are read at most, for a look at a table that may be large; not inside an archive.

    Raises:
        DataError: Missing, empty, binary or truncated file, text that is not UTF-8, a web page, or one column only.
    """
    content = _read_bytes(path, member) if n_lines is None else _first_lines(path, n_lines)
    if comment is not None:
        content = _after_comments(content, comment.encode())
    if is_separator_line(content[:_SEPARATOR_LINE].partition(b"\n")[0].decode("utf-8-sig", errors="replace")):
        content = content.partition(b"\n")[2]
    header = _checked_header(content.split(b"\n", 1)[0], path, "table")
    separator = ";" if has_semicolons(header) else "\t" if "\t" in header else ","
    if separator not in header and not re.fullmatch(r'"?[\w.-]+"?', header):  # one word may be the only column
        raise DataError(
            f"{path}: columns separated by commas, tabs or semicolons are required. Found one column: "
            f"{header[:60]!r}." + separator_hint(header)
        )
    try:
        cells = pd.read_csv(
            io.BytesIO(content), sep=separator, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except UnicodeDecodeError as error:
        raise _other_bytes(path, io.BytesIO(content)) from error
    except pd.errors.ParserError as error:
        raise DataError(f"{path}: a complete table is required. Found: {_problem(error)}.") from error
    cells = cells.fillna("")  # shorter rows end in missing cells
    is_wide = cells.shape[1] > len(cells)  # column by column would take long
    cells = cells.T.apply(_with_usual_spaces).T if is_wide else cells.apply(_with_usual_spaces)
    filled = np.flatnonzero((cells != "").any(axis=1))
    if not len(filled):
        raise DataError(f"{path}: a table with a header is required. Found empty cells alone. Load the file again.")
    rows = cells.iloc[1 : filled[-1] + 1].set_axis(cells.iloc[0].to_list(), axis="columns").reset_index(drop=True)
    table = _with_unique_columns(rows)
    return _with_decimal_points(table) if separator == ";" else table


def _with_decimal_points(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with points for commas in columns of numbers alone, some with a comma and none with a point."""
    columns: list[str] = []
    changed = table.copy()
    for name, cells in table.items():
        known = cells[~cells.map(is_missing).astype(bool)]
        if known.str.fullmatch(_MAY_HAVE_COMMA).all() and known.str.contains(",", regex=False).any():
            changed[name] = cells.str.replace(",", ".", regex=False)
            columns.append(str(name))
    changed.attrs = table.attrs | {"decimal_commas": tuple(columns)}
    return changed


def _with_usual_spaces(cells: pd.Series) -> pd.Series:
    """Returns cells without spaces at their ends, and with those that Excel and Word keep from breaking as others."""
    return cells.str.replace(r"[\u00a0\u2007\u202f]", " ", regex=True).str.strip()


def archived_tables(path: Path) -> tuple[str, ...]:
    """Returns the names of the tables (.tsv) in a .tar.gz archive, as `member` of `read_text_table`.

    Raises:
        DataError: The file is missing, or no complete archive.
    """
    with _damage_named(path), tarfile.open(path) as archive:
        names = [Path(member.name).name for member in archive if member.isfile()]
    return tuple(dict.fromkeys(name for name in names if name.endswith(".tsv") and not name.startswith(".")))


def usual_columns(table: pd.DataFrame, names: Collection[str], path: Path) -> pd.DataFrame:
    """Returns a table whose columns of known names have these, in whatever case and with whatever between words.

    Of columns that mean the same and have the same cells one is kept. The prefixes of the GDC's exports are left out.

    Example:
        >>> table = pd.DataFrame(columns=["Slide ID", "cases.samples.sample_type", "note"])
        >>> list(usual_columns(table, ["slide_id", "sample_type"], Path("slides.csv")))
        ['slide_id', 'sample_type', 'note']

    Raises:
        DataError: Two columns are meant by one name, with other cells.
    """
    meant: dict[str, str] = {}
    spelt = {usual_name(name): name for name in names}
    repeated = table.attrs.get("repeated", ())
    for column in (*sorted(map(str, table), key=lambda column: column not in names), *repeated):
        name = spelt.get(usual_name(column))
        if name is None or (other := meant.setdefault(name, column)) == column:
            continue
        if column not in table or column in repeated or (table[other] != table[column]).any():
            raise DataError(f"{path}: one column {name} is required. Found {other} and {column}. Remove one.")
        table = table.drop(columns=column)
    usual = {column: name for name, column in meant.items()}
    renamed = table.rename(columns=usual)
    renamed.attrs = table.attrs | {"repeated": tuple(usual.get(column, column) for column in repeated)}
    return renamed


def usual_name(column: str) -> str:
    """Returns what is left of a column's name without case, prefixes of GDC exports and whatever is between words.

    Example:
        >>> usual_name("cases.samples.Sample_Type"), usual_name("SampleType "), usual_name("Preservation.Method")
        ('sampletype', 'sampletype', 'preservationmethod')
    """
    return re.sub(r"[\W_]+", "", _GDC_PREFIX.sub("", column.strip().lower()))


def require_columns(
    table: pd.DataFrame, needed: Mapping[str, str], path: Path, *, optional: Collection[str] = ()
) -> None:
    """Checks that a table has some columns, each once.

    Args:
        table: The table.
        needed: Column name to what it holds.
        path: Its file, for the message.
        optional: Further columns that are used where the table has them.

    Raises:
        DataError: A column is missing, or is there several times with different cells.
    """
    repeated = [name for name in (*needed, *optional) if name in table.attrs.get("repeated", ())]
    if repeated:
        raise DataError(
            f"{path}: column names must be unique. Found twice: {preview(repeated)}, with different cells. Rename or "
            "remove one."
        )
    for column, meaning in needed.items():
        if column not in table:
            raise DataError(
                f"{path}: a column `{column}` ({meaning}) is required. Found {preview(table.columns, limit=12)}. "
                "Rename or add the column."
            )


def records_below(record: Mapping[str, Any], name: str, place: str) -> list[dict[str, Any]]:
    """Returns the records under a name of a JSON record: those of a list, one on its own, or none.

    Raises:
        DataError: Something else stands there.
    """
    found = record.get(name) or []
    records = [found] if isinstance(found, dict) else found
    if not isinstance(records, list) or not all(isinstance(each, dict) for each in records):
        raise DataError(f"{place}: {name} must be a list of records. Found {str(found)[:60]!r}. Load the file again.")
    return records


def is_missing(cell: str) -> bool:
    """Returns True for the words that mean unknown, in any case.

    Example:
        >>> is_missing("Not Reported"), is_missing("G2")
        (True, False)
    """
    return cell.lower() in _MISSING


def _with_unique_columns(table: pd.DataFrame) -> pd.DataFrame:
    kept = table.loc[:, [name != "" for name in table.columns]]
    is_again = kept.columns.duplicated()
    differing = {
        name for name in kept.columns[is_again] if (kept.loc[:, kept.columns == name].nunique(axis=1) > 1).any()
    }
    unique = kept.loc[:, [not again and name not in differing for name, again in zip(kept, is_again, strict=True)]]
    unique.attrs["repeated"] = tuple(sorted(differing))
    return unique


def _read_bytes(path: Path, member: str) -> bytes:
    require_regular_file(path)
    if not path.name.endswith((".tar.gz", ".tgz")):
        with _damage_named(path), open_unpacked(path) as stream:
            return read_bounded(stream, path)
    with _damage_named(path), tarfile.open(path) as archive:
        found = next((m for m in archive if m.isfile() and Path(m.name).name == member), None)
        file = archive.extractfile(found) if found else None
        if file is None:
            raise DataError(f"{path}: {member} is required inside. Found {preview(archive.getnames())}.")
        return read_bounded(file, path)


def _first_lines(path: Path, n_lines: int) -> bytes:
    require_regular_file(path)
    with _damage_named(path), open_bounded(path) as file:
        return b"".join(itertools.islice(file, n_lines))


@contextmanager
def _damage_named(path: Path, what: str = "table") -> Iterator[None]:
    """Turns whatever a missing or damaged file raises into a DataError that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"{path}: a readable {what} is required. Found: {_problem(error)}. Check the path or load the file again."
        ) from error


def _after_comments(content: bytes, comment: bytes) -> bytes:
    content = content.removeprefix(b"\xef\xbb\xbf")
    while content.startswith(comment):
        content = content.partition(b"\n")[2]
    return content


def _checked_header(line: bytes, path: Path, what: str) -> str:
    for beginning, other in _OTHER_FILES.items():
        if line.startswith(beginning):
            raise DataError(f"{path}: UTF-8 text is required. Found {other}.")
    try:
        header = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        found = "other bytes in its first line"
        raise DataError(f"{path}: UTF-8 text is required. Found {found}. Save the table as UTF-8.") from error
    if not header.strip():
        raise DataError(f"{path}: a {what} is required. Found an empty file or first line. Load the file again.")
    if header.lstrip().startswith("<"):
        raise DataError(f"{path}: a {what} is required. Found a web page (HTML or XML). Load the file itself.")
    return header


def _problem(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
