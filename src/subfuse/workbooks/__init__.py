"""Workbooks of Excel and LibreOffice: one sheet as the text of a table."""

from subfuse.lazy import on_first_use

_NAMES = {
    "sheet_csv": "sheet",
    "sheet_of": "sheet",
    "workbook_of": "sheet",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
