"""Tables of text and JSON as they arrive: read whole, or refused in one line."""

import gzip
import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subfuse.errors import DataError
from subfuse.files import read_json as read_own_json
from subfuse.tables import (
    archived_tables,
    is_missing,
    read_first_line,
    read_json,
    read_text_table,
    records_below,
    require_columns,
)


def test_json_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text('{"a": ' + "[" * 100_000)
    for read in (read_json, read_own_json):
        with pytest.raises(DataError, match=r"deep\.json: complete JSON"):
            read(tmp_path / "deep.json")


@pytest.mark.parametrize("content", [",\n,\n", "\0,\n", '"",""\n'])
def test_a_table_of_empty_cells_is_refused(tmp_path, content):
    (tmp_path / "table.csv").write_text(content)
    with pytest.raises(DataError, match=r"table\.csv: .*Found"):
        read_text_table(tmp_path / "table.csv")


def test_a_pipe_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "p.csv")
    for read in (read_text_table, read_first_line, read_json):
        with pytest.raises(DataError, match=r"p.csv: .* Found a pipe or device"):
            read(tmp_path / "p.csv")
    with pytest.raises(DataError, match="Found a folder"):
        read_text_table(tmp_path)


def test_other_separators_say_what_to_do(tmp_path):
    (tmp_path / "p.csv").write_text("a|b\n1|2\n")
    with pytest.raises(DataError, match="Vertical bars seem to separate them: save the table as CSV with commas"):
        read_text_table(tmp_path / "p.csv")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1,5", "2", "-,5", "+3,", "1e3", "NA", ""], ["1.5", "2", "-.5", "+3.", "1e3", "NA", ""]),
        (["1,5", "G2"], None),  # words
        (["1,5", "2.5"], None),  # either may be the decimal sign
        (["1.234,5", "2,5"], None),
        (["1,2,3", "4,5"], None),
        (["1", "2"], None),
        (["", "NA"], None),
    ],
)
def test_commas_between_semicolons_are_decimal_where_a_column_holds_numbers_alone(tmp_path, cells, expected):
    (tmp_path / "p.csv").write_text("\n".join(["id;n", *(f"r;{cell}" for cell in cells)]))
    table = read_text_table(tmp_path / "p.csv")
    assert table["n"].tolist() == (expected or cells)
    assert table.attrs["decimal_commas"] == (("n",) if expected else ())
    (tmp_path / "p.tsv").write_text("\n".join(["id\tn", *(f"r\t{cell}" for cell in cells)]))  # may be thousands
    assert read_text_table(tmp_path / "p.tsv")["n"].tolist() == cells


def test_cells_are_text_as_they_are_but_for_spaces(tmp_path):
    rows = ["id,grade,note", "007 ,G2,1e5", '"P,1",NA,', "3,G\u00a02\u202f,TRUE", ",,", ""]
    for name, content in (("a.csv", "\n".join(rows)), ("b.csv", "\ufeff" + "\r\n".join(rows))):
        (tmp_path / name).write_bytes(content.encode())
        with gzip.open(tmp_path / f"{name}.gz", "wb") as file:
            file.write(content.encode())
        for path in (tmp_path / name, tmp_path / f"{name}.gz"):
            table = read_text_table(path)
            assert table.columns.tolist() == ["id", "grade", "note"]
            assert table.to_numpy().tolist() == [["007", "G2", "1e5"], ["P,1", "NA", ""], ["3", "G 2", "TRUE"]]


def test_of_columns_of_one_name_that_differ_none_is_used(tmp_path):
    (tmp_path / "t.csv").write_text("id,site,site,age,age,\na,S1,S1,4,5,\nb,S2,S2,6,6,\n")
    table = read_text_table(tmp_path / "t.csv")
    assert table.columns.tolist() == ["id", "site"]
    assert table.attrs["repeated"] == ("age",)
    require_columns(table, {"id": "a patient"}, tmp_path / "t.csv", optional=("site",))
    for needed, optional in (({"age": "years"}, ()), ({}, ("age",))):
        with pytest.raises(DataError, match=r"t\.csv: column names must be unique\. Found twice: age"):
            require_columns(table, needed, tmp_path / "t.csv", optional=optional)
    with pytest.raises(DataError, match=r"t\.csv: a column `days` \(of follow-up\) is required\. Found id, site\."):
        require_columns(table, {"days": "of follow-up"}, tmp_path / "t.csv")


def test_tables_of_an_archive_are_listed_and_read_by_name(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        for name in ("x/clinical.tsv", "x/._clinical.tsv", "notes.txt", "y/follow_up.tsv", "z/clinical.tsv"):
            content = f"id\tname\n1\t{name}\n".encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert archived_tables(tmp_path / "a.tar.gz") == ("clinical.tsv", "follow_up.tsv")
    assert read_text_table(tmp_path / "a.tar.gz", member="follow_up.tsv")["name"].tolist() == ["y/follow_up.tsv"]
    assert read_text_table(tmp_path / "a.tar.gz")["name"].tolist() == ["x/clinical.tsv"]  # the first


@pytest.mark.parametrize(("found", "n"), [(None, 0), ([], 0), ({"a": 1}, 1), ([{"a": 1}, {}], 2)])
def test_records_below_are_a_list_or_one(found, n):
    assert len(records_below({"cases": found}, "cases", "file.json")) == n


@pytest.mark.parametrize("found", ["text", [1], [{}, "a"], 3])
def test_what_is_no_record_is_named_with_its_place(found):
    with pytest.raises(DataError, match=r"^file\.json: cases must be a list of records"):
        records_below({"cases": found}, "cases", "file.json")


@given(st.sampled_from(["NA", "n/a", "Not Reported", "--", "", "unbekannt", "#N/A", "[Unknown]"]), st.booleans())
def test_words_for_unknown_count_in_any_case(word: str, upper: bool):
    assert is_missing(word.upper() if upper else word.lower())
    assert not is_missing(f"{word} G2")


def test_the_first_lines_of_a_table_are_read_alone(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"#Program\nid,a\n" + b"".join(b"p%d,%d\n" % (i, i) for i in range(50))))
    start = read_text_table(path, comment="#", n_lines=12)
    assert start["id"].tolist() == [f"p{i}" for i in range(10)]
    assert read_text_table(path, comment="#", n_lines=100).equals(read_text_table(path, comment="#"))
    (tmp_path / "cut.csv.gz").write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut\.csv\.gz: a readable table is required"):
        read_text_table(tmp_path / "cut.csv.gz", n_lines=100)
    with pytest.raises(DataError, match="Found a folder"):
        read_text_table(tmp_path, n_lines=3)
