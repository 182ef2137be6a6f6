"""Where cells of a sheet are, and what of it no table can hold."""

import zipfile

import pytest

from subfuse.workbooks.layout import cell_name, sheets_of
from workbook_files import Formula, Styled, write_ods, write_xlsx


def _parts(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("write", [write_xlsx, write_ods])
def test_cells_that_hold_something_are_counted(tmp_path, write):
    rows = [["a", None, "b"], [], [1, Formula("A1", 3)]]
    empty, sheet = sheets_of(_parts(write(tmp_path / "p", {"none": [], "P": rows})))
    assert (empty.name, empty.n_cells, empty.last_row, empty.last_column) == ("none", 0, 0, 0)
    assert (sheet.name, sheet.n_cells, sheet.last_row, sheet.last_column) == ("P", 4, 3, 3)
    assert not sheet.merged
    assert not sheet.not_computed


def test_a_style_alone_is_nothing(tmp_path):
    (sheet,) = sheets_of(_parts(write_xlsx(tmp_path / "p", {"P": [["a"], [None, Styled()]]})))
    assert (sheet.n_cells, sheet.last_row, sheet.last_column) == (1, 1, 1)


@pytest.mark.parametrize("write", [write_xlsx, write_ods])
def test_the_first_formula_without_a_value_is_named(tmp_path, write):
    rows = [["a", Formula("A1", 0), Formula("A1", 5)], [1, 2, Formula("B2")], [Formula("A1")]]
    (sheet,) = sheets_of(_parts(write(tmp_path / "p", {"P": rows})))
    assert sheet.not_computed == "C2"


def test_cells_without_places_follow_one_another():
    """Places are optional in an xlsx, and elements may have a prefix."""
    main = 'xmlns:x="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    first = "<x:row><x:c><x:v>1</x:v></x:c><x:c><x:f>A1</x:f></x:c></x:row>"
    body = f"{first}<x:row><x:c/><x:c/><x:c><x:v>1</x:v></x:c></x:row>"
    parts = {
        "xl/workbook.xml": f'<x:workbook {main} xmlns:r="r"><x:sheets><x:sheet name="P" sheetId="1" r:id="i"/>'
        "</x:sheets></x:workbook>",
        "xl/_rels/workbook.xml.rels": '<Relationships><Relationship Id="i" Type="t/worksheet" Target="/xl/s.xml"/>'
        "</Relationships>",
        "xl/s.xml": f"<x:worksheet {main}><x:sheetData>{body}</x:sheetData></x:worksheet>",
    }
    (sheet,) = sheets_of({name: content.encode() for name, content in parts.items()})
    assert (sheet.last_row, sheet.last_column, sheet.not_computed) == (2, 3, "B1")
    del parts["xl/s.xml"]
    with pytest.raises(ValueError, match=r"no xl/s\.xml inside"):
        sheets_of({name: content.encode() for name, content in parts.items()})


def test_what_is_no_workbook_has_no_sheets():
    assert sheets_of({"word/document.xml": b"<a/>"}) is None


def test_names_of_cells_count_as_letters_do():
    names = [cell_name(1, column) for column in range(1, 16385)]
    assert names[25:28] == ["Z1", "AA1", "AB1"]
    assert names[701:703] == ["ZZ1", "AAA1"]
    assert names[-1] == "XFD1"
    assert len(set(names)) == len(names)
