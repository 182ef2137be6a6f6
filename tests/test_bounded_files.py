"""Files that unpack to far more than they hold, or declare it, are refused after little of it."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile

import pytest

from subfuse import bounded_files
from subfuse.bounded_files import require_plausible_size, tables_of
from subfuse.errors import DataError
from subfuse.tables import read_first_line, read_text_table
from workbook_files import write_xlsx


def test_archives_that_unpack_to_more_than_a_table_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_files, "_LARGEST_TEXT", 1000)
    with gzip.open(tmp_path / "p.csv.gz", "wb") as file:
        file.write(b"a,b\n" + b"0,0\n" * 1000)
    with pytest.raises(DataError, match=r"p.csv.gz: a table of at most .* unpacked"):
        read_text_table(tmp_path / "p.csv.gz")
    monkeypatch.setattr(bounded_files, "_LARGEST_LINE", 2)
    with pytest.raises(DataError, match="Found a first line above"):
        read_first_line(tmp_path / "p.csv.gz")


def zipped(path, **contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name.replace("__", "/"), content)
    return path


def test_a_zip_file_with_one_table_is_that_table(tmp_path):
    path = zipped(tmp_path / "p.csv.zip", folder__p="id,a\nx,1\n")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/folder/._p", b"\0")
    assert read_text_table(path).to_dict("records") == [{"id": "x", "a": "1"}]
    assert read_text_table(path, n_lines=1).columns.tolist() == ["id", "a"]


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        ({"a": "id,x\n", "b": "id,x\n"}, "Found a, b"),
        ({}, "Found none in it"),
        (None, r"Found one that cannot be read \(File is not a zip file\)"),
    ],
)
def test_a_zip_file_of_anything_else_is_one_line(tmp_path, contents, found):
    path = tmp_path / "p.csv.zip"
    path.write_bytes(b"id,x\n") if contents is None else zipped(path, **contents)
    with pytest.raises(DataError, match=rf"p\.csv\.zip: a zip file with one table is required\. {found}"):
        read_text_table(path)


def test_damage_inside_a_zip_file_is_one_line(tmp_path):
    path = zipped(tmp_path / "p.csv.zip", p="id,x\n" + "".join(f"{i},{i * i}\n" for i in range(200)))
    content = bytearray(path.read_bytes())
    content[100:110] = bytes(10)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"p\.csv\.zip: a zip file with one table is required\. Found one that cannot"):
        read_text_table(path)


@pytest.mark.parametrize("kind", ["gz", "tar.gz", "csv.zip"])
def test_what_unpacks_to_a_hundred_times_its_size_takes_little_memory(tmp_path, monkeypatch, kind):
    """No more than six times what is allowed is held at once, whatever there would be."""
    bound, path = 1 << 20, tmp_path / f"clinical.{kind}"
    monkeypatch.setattr(bounded_files, "_SMALL_ARRAY", bound)
    content = b"a,b\n" + b"0,0\n" * (2 * bound)
    if kind == "gz":
        path.write_bytes(gzip.compress(content))
    elif kind == "csv.zip":
        zipped(path, p=content)
    else:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("clinical.tsv")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    del content
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"a table of at most 1 MB, unpacked, is required\. Found more"):
            read_text_table(path)
        assert tracemalloc.get_traced_memory()[1] < 6 * bound
    finally:
        tracemalloc.stop()


def test_arrays_may_be_small_or_stored_but_not_only_declared(tmp_path):
    for n_values, stored in ((8 << 20, 1), (10**9, 8 * 10**9 // 100)):
        require_plausible_size(tmp_path, "`x`", n_values, 8, stored)
    with pytest.raises(DataError, match=r"`x` must be stored in the file\. Found 10 bytes that declare 8,000,000,000"):
        require_plausible_size(tmp_path, "`x`", 10**9, 8, 10)


def test_a_workbook_is_as_many_tables_as_it_has_filled_sheets(tmp_path):
    write_xlsx(tmp_path / "s.xlsx", {"A": [["a"]], "Empty": [], "B c": [["b"]]})
    write_xlsx(tmp_path / "one.xlsx", {"A": [["a"]], "Empty": []})
    assert [path.name for path in tables_of(tmp_path / "s.xlsx")] == ["s.xlsx#A", "s.xlsx#B c"]
    assert [path.name for path in tables_of(tmp_path / "one.xlsx")] == ["one.xlsx"]
    assert tables_of(tmp_path / "t.csv") == (tmp_path / "t.csv",)
    (tmp_path / "no.xlsx").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"no\.xlsx: "):
        tables_of(tmp_path / "no.xlsx")
