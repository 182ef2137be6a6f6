"""Workbooks as Excel and LibreOffice write them, from rows of cells."""

import datetime
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from subfuse.workbooks.layout import cell_name

_MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"
_EPOCH = datetime.date(1899, 12, 30)
_ODS = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text")
)
_STYLES = f'<styleSheet {_MAIN}><cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs></styleSheet>'


@dataclass(frozen=True)
class Formula:
    """A formula and the value that the program stored with it, if it did."""

    text: str
    value: Any = None


@dataclass(frozen=True)
class Styled:
    """A cell with a style alone."""


def write_xlsx(
    path: Path,
    sheets: Mapping[str, Sequence[Sequence[Any]]],
    *,
    merged: Iterable[str] = (),
    hidden: Iterable[str] = (),
    extra: str = "",
) -> Path:
    """Writes an xlsx with shared strings; `extra` stands among the rows of its last sheet."""
    strings: dict[str, int] = {}
    parts = {
        "xl/styles.xml": _STYLES,
        "_rels/.rels": _relations([("officeDocument", "xl/workbook.xml")]),
        "xl/_rels/workbook.xml.rels": _relations(
            [("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)]
            + [("styles", "styles.xml"), ("sharedStrings", "sharedStrings.xml")]
        ),
        "xl/workbook.xml": f'<workbook {_MAIN} xmlns:r="{_OFFICE}"><sheets>'
        + "".join(
            f'<sheet name={quoteattr(name)} sheetId="{n}" state="{"hidden" if name in hidden else "visible"}" '
            f'r:id="rId{n}"/>'
            for n, name in enumerate(sheets, start=1)
        )
        + "</sheets></workbook>",
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
    }
    for n, rows in enumerate(sheets.values(), start=1):
        cells = "".join(
            f'<row r="{i}">'
            + "".join(_of_excel(cell_name(i, k), cell, strings) for k, cell in enumerate(row, 1))
            + "</row>"
            for i, row in enumerate(rows, start=1)
        )
        ranges = "".join(f'<mergeCell ref="{each}"/>' for each in merged)
        cells += extra if n == len(sheets) else ""
        parts[f"xl/worksheets/sheet{n}.xml"] = (
            f"<worksheet {_MAIN}><sheetData>{cells}</sheetData>"
            + (f"<mergeCells>{ranges}</mergeCells>" if ranges else "")
            + "</worksheet>"
        )
    parts["xl/sharedStrings.xml"] = (
        f"<sst {_MAIN}>"
        + "".join(f'<si><t xml:space="preserve">{escape(text)}</t></si>' for text in strings)
        + "</sst>"
    )
    return _write(path, parts)


def write_ods(path: Path, sheets: Mapping[str, Sequence[Sequence[Any]]], *, extra: str = "") -> Path:
    """Writes an ods, with the empty rest of each sheet as LibreOffice writes it; `extra` stands in the last row."""
    rest = '<table:table-row table:number-rows-repeated="1048000"><table:table-cell/>'
    tables = "".join(
        f"<table:table table:name={quoteattr(name)}>"
        + "".join(f"<table:table-row>{''.join(map(_of_ods, row))}{extra}</table:table-row>" for row in rows)
        + f"{rest}</table:table-row></table:table>"
        for name, rows in sheets.items()
    )
    body = f"<office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>"
    return _write(
        path,
        {
            "mimetype": "application/vnd.oasis.opendocument.spreadsheet",
            "content.xml": f"<office:document-content {_ODS}>{body}</office:document-content>",
            "META-INF/manifest.xml": "<manifest/>",
        },
    )


def _write(path: Path, parts: Mapping[str, str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def _relations(targets: Sequence[tuple[str, str]]) -> str:
    each = "".join(
        f'<Relationship Id="rId{n}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for n, (kind, target) in enumerate(targets, start=1)
    )
    return f'<Relationships xmlns="{_PACKAGE}">{each}</Relationships>'


def _of_excel(place: str, cell: Any, strings: dict[str, int]) -> str:
    match cell:
        case None:
            return ""
        case Styled():
            return f'<c r="{place}" s="1"/>'
        case Formula(text=text, value=None):
            return f'<c r="{place}"><f>{escape(text)}</f><v></v></c>'
        case Formula(text=text, value=str() as value):
            return f'<c r="{place}" t="str"><f>{escape(text)}</f><v>{escape(value)}</v></c>'
        case Formula(text=text, value=value):
            return f'<c r="{place}"><f>{escape(text)}</f><v>{value}</v></c>'
        case bool():
            return f'<c r="{place}" t="b"><v>{int(cell)}</v></c>'
        case datetime.date():
            return f'<c r="{place}" s="1"><v>{(cell - _EPOCH).days}</v></c>'
        case str() if cell.startswith("#"):
            return f'<c r="{place}" t="e"><v>{cell}</v></c>'
        case str():
            return f'<c r="{place}" t="s"><v>{strings.setdefault(cell, len(strings))}</v></c>'
        case _:
            return f'<c r="{place}"><v>{cell!r}</v></c>'


def _of_ods(cell: Any) -> str:
    match cell:
        case None:
            return "<table:table-cell/>"
        case Formula(text=text, value=None):
            return f"<table:table-cell table:formula={quoteattr(f'of:={text}')}/>"
        case Formula(text=text, value=value):
            return _of_ods(value).replace("<table:table-cell", f"<table:table-cell table:formula={quoteattr(text)}", 1)
        case bool():
            kind, value = "boolean", f'office:boolean-value="{str(cell).lower()}"'
        case datetime.date():
            kind, value = "date", f'office:date-value="{cell.isoformat()}"'
        case str():
            kind, value = "string", ""
        case _:
            kind, value = "float", f'office:value="{cell!r}"'
    shown = escape(str(cell))
    return f'<table:table-cell office:value-type="{kind}" {value}><text:p>{shown}</text:p></table:table-cell>'
