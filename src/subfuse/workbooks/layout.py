"""What the sheets of a workbook hold, read from its XML: where cells are, merged ones, formulas without a value."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar
from xml.parsers import expat

_WORKBOOK, _RELATIONS, _ODS = "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "content.xml"
_DIGITS = "0123456789"


@dataclass
class Sheet:
    """One sheet. Cells are counted where they hold something; a style alone is nothing."""

    name: str
    is_hidden: bool = False
    n_cells: int = 0  # as the file writes them: one that is repeated counts once
    last_row: int = 0  # counted from 1, as columns are
    last_column: int = 0
    merged: str = ""  # the first range of merged cells
    not_computed: str = ""  # the first cell whose formula has no stored value

    def add(self, row: int, column: int) -> None:
        """Counts a cell that holds something, up to whose row and column the sheet reaches."""
        self.n_cells += 1
        self.last_row = max(self.last_row, row)
        self.last_column = max(self.last_column, column)


def sheets_of(parts: Mapping[str, bytes]) -> list[Sheet] | None:
    """Returns the sheets of cells in their order; None for what is neither an xlsx nor an ods.

    Args:
        parts: Name to content of the archive's members.

    Raises:
        ValueError: Damaged XML, a part that is missing, or entities, which could grow without end.
    """
    try:
        if _WORKBOOK in parts:
            return _sheets_of_excel(parts)
        return _scanned(_OdsScan(), parts[_ODS]).sheets if _ODS in parts else None
    except expat.ExpatError as error:
        raise ValueError(f"damaged XML: {error}") from error
    except KeyError as error:
        raise ValueError(f"no {error.args[0]} inside") from error


def cell_name(row: int, column: int) -> str:
    """Returns a cell as spreadsheets name it.

    Example:
        >>> cell_name(3, 2), cell_name(1, 28), cell_name(1048576, 16384)
        ('B3', 'AB1', 'XFD1048576')
    """
    letters = ""
    while column:
        column, letter = divmod(column - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return f"{letters}{row}"


def _sheets_of_excel(parts: Mapping[str, bytes]) -> list[Sheet]:
    targets = {
        attributes["Id"]: attributes["Target"]
        for attributes in _elements(parts[_RELATIONS], "Relationship")
        if attributes["Type"].endswith("/worksheet")  # not a chart
    }
    sheets = []
    for attributes in _elements(parts[_WORKBOOK], "sheet"):
        target = targets.get(next(value for key, value in attributes.items() if key.endswith(":id")))
        if target is not None:
            sheet = Sheet(attributes["name"], is_hidden=attributes.get("state", "visible") != "visible")
            part = target.lstrip("/") if target.startswith("/") else posixpath.normpath(f"xl/{target}")
            _scanned(_ExcelScan(sheet), parts[part])
            sheets.append(sheet)
    return sheets


class _Scan:
    """Handlers of a parser."""

    def __init__(self) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.StartDoctypeDeclHandler = _refuse_entities

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Called at the start of every element."""
        raise NotImplementedError


S = TypeVar("S", bound=_Scan)


class _ElementScan(_Scan):
    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted, self.found = wanted, list[dict[str, str]]()

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(":")[2] == self.wanted:
            self.found.append(attributes)


class _ExcelScan(_Scan):
    """A worksheet of an xlsx: `c` is a cell, `f` its formula, `v` or `is` its value."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__()
        self.sheet = sheet
        self.row = self.column = 0
        self.is_text = self.is_computed = False
        self.columns: dict[str, int] = {}

    def start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(":")[2]
        if name in ("v", "is"):
            self.sheet.add(self.row, self.column)
        elif name == "c":
            self._enter(attributes)
        elif name == "row":
            self.row, self.column = int(attributes.get("r", self.row + 1)), 0
        elif name == "f":
            self.is_computed = self.is_text  # the value of a formula that gives text may be empty
            self.parser.CharacterDataHandler = None
            self.parser.EndElementHandler = self._end
        elif name == "mergeCell" and not self.sheet.merged and ":" in attributes["ref"]:
            self.sheet.merged = attributes["ref"]

    def _enter(self, attributes: dict[str, str]) -> None:
        self.is_text = attributes.get("t") == "str"
        place = attributes.get("r")
        if place is None:
            self.column += 1
            return
        letters = place.rstrip(_DIGITS)
        column = self.columns.get(letters)
        if column is None:
            column = self.columns[letters] = _number_of_column(letters)
        self.row, self.column = int(place[len(letters) :]), column

    def _end(self, name: str) -> None:
        name = name.rpartition(":")[2]
        if name == "f":  # what follows within the cell is its value
            self.parser.CharacterDataHandler = self._text
        elif name == "c":
            if not self.is_computed:
                self.sheet.add(self.row, self.column)
                self.sheet.not_computed = self.sheet.not_computed or cell_name(self.row, self.column)
            self.parser.CharacterDataHandler = self.parser.EndElementHandler = None

    def _text(self, text: str) -> None:
        self.is_computed = self.is_computed or bool(text.strip())


class _OdsScan(_Scan):
    """The content of an ods, with all its sheets; rows and cells may be repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.sheets: list[Sheet] = []
        self.next_row = self.next_column = 1
        self.has_value = True  # so far, of the cell

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "text:p":
            self._add_value()
        elif name in ("table:table-cell", "table:covered-table-cell"):
            self._enter(attributes)
        elif name == "table:table-row":
            self.next_row += int(attributes.get("table:number-rows-repeated", 1))
            self.next_column = 1
        elif name == "table:table":
            self.sheets.append(Sheet(attributes["table:name"]))
            self.next_row = 1

    def _enter(self, attributes: dict[str, str]) -> None:
        sheet, row, column = self.sheets[-1], self.next_row - 1, self.next_column
        self.next_column += int(attributes.get("table:number-columns-repeated", 1))
        self.has_value = False
        n_rows, n_columns = (int(attributes.get(f"table:number-{kind}-spanned", 1)) for kind in ("rows", "columns"))
        if max(n_rows, n_columns) > 1 and not sheet.merged:
            last = cell_name(row + n_rows - 1, column + n_columns - 1)
            sheet.merged = f"{cell_name(row, column)}:{last}"
        if "office:value-type" in attributes:
            self._add_value()
        elif "table:formula" in attributes:
            self._add_value()
            sheet.not_computed = sheet.not_computed or cell_name(row, column)

    def _add_value(self) -> None:
        if not self.has_value:
            self.has_value = True
            self.sheets[-1].add(self.next_row - 1, self.next_column - 1)


def _scanned(scan: S, content: bytes) -> S:
    scan.parser.Parse(content, True)
    return scan


def _elements(content: bytes, name: str) -> list[dict[str, str]]:
    return _scanned(_ElementScan(name), content).found


def _refuse_entities(*_: object) -> None:
    raise ValueError("a document type, which no workbook has")


def _number_of_column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter.upper()) - ord("A") + 1
    return number
