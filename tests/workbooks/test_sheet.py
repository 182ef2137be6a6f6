"""Sheets of xlsx and ods become tables of text, or are refused in one line that names file, sheet and cell."""

import datetime
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subfuse import bounded_files
from subfuse.bounded_files import file_of
from subfuse.errors import DataError
from subfuse.files import read_table, sha256_of_file
from subfuse.tables import read_first_line, read_text_table
from subfuse.workbooks.sheet import filled_sheets, sheet_csv, sheet_of, workbook_of
from workbook_files import Formula, Styled, write_ods, write_xlsx

ROWS = [["id", "age", "grade"], ["0012", 61.5, "G2"], [12, 70, None]]
WRITERS = {"xlsx": write_xlsx, "ods": write_ods}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Writes a workbook of either kind from its sheets and returns its path."""
    return lambda sheets, **more: WRITERS[request.param](tmp_path / f"p.{request.param}", sheets, **more)


def test_text_stays_text_and_numbers_are_written_as_numbers(write):
    table = read_text_table(write({"P": ROWS}))
    assert table.to_dict("list") == {"id": ["0012", "12"], "age": ["61.5", "70"], "grade": ["G2", ""]}


def test_every_kind_of_cell_has_one_writing(write):
    cells = {
        "date": (datetime.date(2020, 3, 1), "2020-03-01"),
        "yes": (True, "TRUE"),
        "no": (False, "FALSE"),
        "breaks": (" a\tb\n c", "a b  c"),
        "quoted, name": ('x"y,z', 'x"y,z'),
        "numeral": ("61,5", "61,5"),
        "large": (1e20, "1e+20"),
        "whole": (123456789012.0, "123456789012"),
        "small": (0.1 + 0.2, "0.30000000000000004"),
        "computed": (Formula("A1", 7), "7"),
        "computed text": (Formula("A1", "G4"), "G4"),
        "non-ascii": ("Größe", "Größe"),
    }
    table = read_text_table(write({"P": [list(cells), [cell for cell, _ in cells.values()]]}))
    assert table.iloc[0].to_dict() == {name: text for name, (_, text) in cells.items()}


def test_excels_errors_and_formulas_that_give_no_text_are_empty_cells(tmp_path):
    rows = [["id", "n", "t"], ["a", "#N/A", Formula('""', "")]]
    assert read_text_table(write_xlsx(tmp_path / "p.xlsx", {"P": rows})).iloc[0].to_list() == ["a", "", ""]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(
            st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**14), 10**14), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=4,
    )
)
def test_numbers_are_read_to_their_last_bit(tmp_path, rows):
    path = write_xlsx(tmp_path / "n.xlsx", {"N": [["a", "b", "c"], *rows]})
    found = read_table(path, exact=True)
    assert found.to_numpy(float).tolist() == [[float(cell) for cell in row] for row in rows]


def test_a_sheet_is_named_behind_the_file(write):
    path = write({"Notes": [["what"], ["this"]], "My patients": ROWS, "Empty": []})
    named = path.with_name(f"{path.name}#My patients")
    assert read_text_table(named)["id"].to_list() == ["0012", "12"]
    assert read_table(named)["age"].to_list() == [61.5, 70]
    assert read_first_line(named) == "id,age,grade"
    assert file_of(named) == path
    assert sha256_of_file(named) == sha256_of_file(path)
    several = r"the name of a sheet is required .* Found 'Notes', 'My patients'\. Name one behind .* as p\.\w+#Notes"
    with pytest.raises(DataError, match=several):
        read_text_table(path)
    with pytest.raises(DataError, match=r"the sheet 'Patients' is required\. Found 'Notes', 'My patients', 'Empty'"):
        read_text_table(path.with_name(f"{path.name}#Patients"))
    with pytest.raises(DataError, match=r"a table in sheet 'Empty' is required"):
        read_text_table(path.with_name(f"{path.name}#Empty"))


def test_hidden_sheets_count_and_are_said(tmp_path):
    path = write_xlsx(tmp_path / "p.xlsx", {"P": ROWS, "Old": ROWS}, hidden=["Old"])
    with pytest.raises(DataError, match=r"Found 'P', 'Old' \(hidden\)"):
        read_text_table(path)


def test_a_workbook_of_empty_sheets_is_refused(write):
    with pytest.raises(DataError, match=r"a sheet with a table is required\. Found empty ones alone"):
        read_text_table(write({"P": [], "Q": [[None]]}))


def test_a_formula_without_a_value_is_named(write):
    rows = [*ROWS, ["x", Formula("A1+1"), "G2"]]
    with pytest.raises(DataError, match=r"p\.\w+, sheet P, cell B4: a value is required\. Found a formula"):
        read_text_table(write({"P": rows}))


def test_merged_cells_are_named(tmp_path):
    with pytest.raises(DataError, match=r"p\.xlsx, sheet P: one value per cell .* Found the merged cells A2:A3"):
        read_text_table(write_xlsx(tmp_path / "p.xlsx", {"P": ROWS}, merged=["A2:A3"]))
    spanned = '<table:table-cell table:number-rows-spanned="2"><text:p>x</text:p></table:table-cell>'
    with pytest.raises(DataError, match=r"p\.ods, sheet P: .* Found the merged cells D1:D2"):
        read_text_table(write_ods(tmp_path / "p.ods", {"P": ROWS}, extra=spanned))


def test_a_table_that_does_not_begin_in_the_first_cell_is_refused(write):
    below = [[None] * 4, *([None, *row] for row in ROWS)]
    with pytest.raises(DataError, match=r"sheet P: the header in row 1 .* begins in B2"):
        read_text_table(write({"P": below}))


def test_an_empty_corner_and_styled_cells_are_no_hindrance(tmp_path):
    rows = [[None, "EGFR"], ["P1", 2.5], [Styled(), Styled(), Styled()]]
    path = write_xlsx(tmp_path / "p.xlsx", {"P": rows}, extra='<row r="1048576"><c r="XFD1048576" s="1"/></row>')
    assert sheet_csv(path, None, most=1 << 20) == b",EGFR\nP1,2.5\n"


@pytest.mark.parametrize("kind", WRITERS)
def test_cells_far_apart_are_refused_before_memory_is_taken_for_what_lies_between(tmp_path, kind):
    if kind == "xlsx":
        path = write_xlsx(
            tmp_path / "p.xlsx", {"P": ROWS}, extra='<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
        )
    else:
        many = '<table:table-cell office:value-type="float" office:value="1" table:number-columns-repeated="16384"/>'
        rows = f'</table:table-row><table:table-row table:number-rows-repeated="1048000">{many}'
        path = write_ods(tmp_path / "p.ods", {"P": ROWS[:1]}, extra=rows)
    with pytest.raises(DataError, match=r"sheet P: cells of one table are required\. Found .* that reach to XFD104\d+"):
        read_text_table(path)


def test_what_unpacks_to_far_more_than_it_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_files, "_SMALL_ARRAY", 1 << 20)
    path = write_xlsx(tmp_path / "p.xlsx", {"P": ROWS}, extra=" " * (3 << 20))
    with pytest.raises(DataError, match=r"p\.xlsx: a table of at most 1 MB, unpacked, is required\. Found more"):
        read_text_table(path)


def test_what_an_archive_declares_of_its_sizes_is_not_believed(tmp_path, monkeypatch):
    """A size that is written too small ends the part there, which is then damaged: never more is unpacked."""
    monkeypatch.setattr(bounded_files, "_SMALL_ARRAY", 1 << 20)
    content = bytearray(write_xlsx(tmp_path / "p.xlsx", {"P": ROWS}, extra=" " * (3 << 20)).read_bytes())
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = 0
        while (start := content.find(mark, start)) >= 0:
            content[start + offset : start + offset + 4] = (10).to_bytes(4, "little")
            start += 1
    (tmp_path / "p.xlsx").write_bytes(content)
    with pytest.raises(DataError, match=r"p\.xlsx: a complete workbook is required"):
        read_text_table(tmp_path / "p.xlsx")


def test_entities_are_refused(tmp_path):
    path = write_xlsx(tmp_path / "p.xlsx", {"P": ROWS})
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><worksheet><sheetData/></worksheet>'
    _replace(path, "xl/worksheets/sheet1.xml", bomb)
    with pytest.raises(DataError, match=r"a complete workbook is required\. Found: a document type"):
        read_text_table(path)


def _replace(path: Path, part: str, content: str) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, held in {**parts, part: content.encode()}.items():
            archive.writestr(name, held)


def test_other_files_under_the_name_of_a_workbook_are_named(tmp_path):
    path = tmp_path / "p.xlsx"
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("xl/workbook.bin", b"")
    for content, found in (
        (ole + "EncryptedPackage".encode("utf-16-le"), r"Found an encrypted one\. Save it without a password"),
        (ole, r"Found Excel's old format \(\.xls\)\. Save it as \.xlsx"),
        (b"id,age\n1,2\n", r"Found other bytes\. Let a table of text end in \.csv"),
        (b"", "Found other bytes"),
        (packed.getvalue(), r"binary format \(\.xlsb\)"),
        (b"PK\x03\x04 and no more", "a complete workbook is required"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"p\.xlsx: .*{found}"):
            read_text_table(path)
    path.unlink()
    with pytest.raises(DataError, match=r"p\.xlsx#P: a readable table is required\. Found: No such file"):
        read_text_table(tmp_path / "p.xlsx#P")


def test_an_encrypted_ods_is_named(tmp_path):
    path = write_ods(tmp_path / "p.ods", {"P": ROWS})
    _replace(path, "META-INF/manifest.xml", "<manifest:encryption-data/>")
    with pytest.raises(DataError, match="Found an encrypted one"):
        read_text_table(path)


def test_workbooks_under_other_names_say_what_to_do(tmp_path):
    (tmp_path / "p.csv").write_bytes(write_xlsx(tmp_path / "p.xlsx", {"P": ROWS}).read_bytes())
    with pytest.raises(DataError, match=r"Let the name of a workbook end in \.xlsx or \.ods"):
        read_text_table(tmp_path / "p.csv")
    (tmp_path / "p.xls").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    with pytest.raises(
        DataError, match=r"p\.xls: .* Excel's old format \(\.xls\), or an encrypted one\. Save it as \.xlsx"
    ):
        read_text_table(tmp_path / "p.xls")
    (tmp_path / "q.xls").write_text("id\tage\n1\t2\n")  # as many programs call their text
    assert read_text_table(tmp_path / "q.xls")["age"].to_list() == ["2"]


def test_a_truncated_workbook_is_refused_wherever_it_ends(write):
    path = write({"P": ROWS})
    content = path.read_bytes()
    for end in range(0, len(content) - 1, 97):
        path.write_bytes(content[:end])
        with pytest.raises(DataError, match=path.name):
            read_text_table(path)


def test_cells_that_make_the_library_give_up_are_damage(write, monkeypatch):
    class PanicException(BaseException):
        """As the library raises it."""

    def panics(_: object) -> None:
        raise PanicException("index out of bounds")

    monkeypatch.setattr("python_calamine.load_workbook", panics)
    with pytest.raises(DataError, match="a complete workbook is required"):
        read_text_table(write({"P": ROWS}))


def test_a_changed_workbook_is_read_anew(write):
    path = write({"P": ROWS})
    assert len(read_text_table(path)) == 2
    assert len(read_text_table(write({"P": [*ROWS, ["x", 1, "G3"]]}))) == 3


def test_only_names_of_workbooks_have_sheets():
    for name in ("p.csv#P", "p.xlsx.gz", "xlsx", ".xlsx", "p.xls#P"):
        assert workbook_of(Path(name)) is None, name
    assert sheet_of(Path("p.csv#P")) is None
    assert workbook_of(Path("a/P.XLSX#x#y.csv")) == (Path("a/P.XLSX"), "x#y.csv")


def test_sheets_that_hold_something_are_listed(tmp_path):
    path = tmp_path / "s.xlsx"
    write_xlsx(path, {"Empty": [], "A": [["a"]], "Styled": [[Styled()]], "B": [["b"]]})
    assert filled_sheets(path, most=1 << 20) == ("A", "B")
    with pytest.raises(DataError, match="unpacked, is required"):
        filled_sheets(path, most=100)
