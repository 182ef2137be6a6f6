"""The fast parser and the tolerant one read the same tables alike; what only one of them takes is left to that one."""

import gzip
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subfuse.errors import DataError
from subfuse.expression import numeric_tables
from subfuse.expression.numeric_tables import read_numeric_table

CELLS = st.sampled_from(
    ["0", "1", "-2.5", "3e-7", "1E5", "0.1234567890123", "", "NA", "NaN", "null", "None", "7.", "+1"]
)
NAMES = st.sampled_from(["A", "b c", "NA", "", "None", '"q, r"', '"two\nlines"', "ENSG01.2", "été", "12"])


def both(path, **keys):
    header = numeric_tables._read_header(path, keys.get("comment"), keys.get("text_columns", ()))
    return numeric_tables._parse_well_formed(path, header), numeric_tables._parse_any(path, header)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(NAMES, NAMES, CELLS, CELLS, CELLS), min_size=1, max_size=6), ends=st.booleans())
def test_both_parsers_agree(tmp_path_factory, rows, ends):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    lines = ["# comment", "id,Symbol,G1,G1,G3", *(",".join(row) for row in rows)]
    path.write_bytes(("\r\n" if ends else "\n").join(lines).encode())
    fast, tolerant = both(path, comment="#", text_columns=("symbol",))
    assert fast is not None
    pd.testing.assert_frame_equal(fast[0].fillna(""), tolerant[0].fillna(""), check_column_type=False)
    np.testing.assert_array_equal(fast[1], tolerant[1])
    assert fast[1].dtype == np.float32


def test_blocks_of_a_large_table_are_joined_in_order(tmp_path, monkeypatch):
    values = np.random.default_rng(0).gamma(1, 20, (211, 37)).astype(np.float32)
    values[5, 3] = np.nan
    table = pd.DataFrame(values, index=[f"P{i}" for i in range(211)], columns=[f"G{i}" for i in range(37)])
    table.to_csv(tmp_path / "table.tsv.gz", sep="\t")
    path = tmp_path / "table.tsv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfid" + gzip.decompress(path.read_bytes())))
    monkeypatch.setattr(numeric_tables, "_BYTES_PER_BLOCK", 3000)
    assert both(path)[0] is not None
    read = read_numeric_table(path)
    assert (read.corner, read.rows, read.columns) == ("id", table.index.tolist(), table.columns.tolist())
    np.testing.assert_array_equal(read.values, values)


@pytest.mark.parametrize("block", [8, 12, 16, 24, 1 << 20])
def test_line_breaks_inside_names_survive_any_block_size(tmp_path, monkeypatch, block):
    path = tmp_path / "table.csv"
    path.write_text('id,G1\n"a\nb",1\n"c\n7,8",2\n"d",3\n')
    monkeypatch.setattr(numeric_tables, "_BYTES_PER_BLOCK", block)
    table = read_numeric_table(path)
    assert (table.rows, table.values[:, 0].tolist()) == (["a b", "c 7,8", "d"], [1, 2, 3])


def test_a_line_break_in_the_header_is_no_row(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('"patient\nid",1017,1018\n7,1,2\n')  # genes named by numbers
    table = read_numeric_table(path)
    assert (table.corner, table.rows, table.columns) == ("patient id", ["7"], ["1017", "1018"])
    assert both(path)[0] is None


@pytest.mark.parametrize("text", ["id,G1\na,x\n", "id,G1\na,1\nb,1,2\n", "id,G1\n", "id,G1\n\n\n", "id,G1,G2\na,1\n"])
def test_what_is_not_well_formed_is_left_to_the_tolerant_parser(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_text(text)
    header = numeric_tables._read_header(path, None, ())
    assert numeric_tables._parse_well_formed(path, header) is None


def test_without_pyarrow_tables_are_read_all_the_same(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("id,G1\na,1\nb,\n")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    table = read_numeric_table(path)
    assert table.rows == ["a", "b"]
    np.testing.assert_array_equal(table.values, np.array([[1], [np.nan]], dtype=np.float32))


def test_broken_gzip_is_named(tmp_path):
    path = tmp_path / "table.csv.gz"
    path.write_bytes(gzip.compress(b"id,G1\n" + b"a,1\n" * 5000, mtime=0)[:-20])
    with pytest.raises(DataError, match=r"table\.csv\.gz: a complete table is required"):
        read_numeric_table(path)


@pytest.mark.parametrize(
    "text", ["id,a,b,,\nx,1,2,,\ny,3,4,,\n", "id,a,b,\nx,1,2\ny,3,4,\n", "id,a,b\nx,1,2,\ny,3,4,\n"]
)
def test_empty_columns_at_the_end_of_lines_are_passed_over(tmp_path, text):
    path = tmp_path / "e.csv"
    path.write_text(text)
    table = read_numeric_table(path)
    assert (table.columns, table.rows, table.values.tolist()) == (["a", "b"], ["x", "y"], [[1, 2], [3, 4]])


@pytest.mark.parametrize(("text", "column"), [("id,a,b,,\nx,1,2,,7\n", 5), ("id,a,,b\nx,1,,2\n", 3)])
def test_a_nameless_column_with_values_or_before_named_ones_is_refused(tmp_path, text, column):
    (tmp_path / "e.csv").write_text(text)
    with pytest.raises(DataError, match=f"every column needs a name. Column {column} has"):
        read_numeric_table(tmp_path / "e.csv")


@pytest.mark.parametrize("with_pyarrow", [True, False])
@pytest.mark.parametrize(
    ("text", "expected", "decimal"),
    [
        ("id;G1;G2\nP1;1,5;-2e3\nP2;;,25\n", [[1.5, -2000], [np.nan, 0.25]], ","),
        ("id;G1;G2\nP1;1.5;-2e3\nP2;;.25\n", [[1.5, -2000], [np.nan, 0.25]], "."),
        ("id;G1;G2\nP1;1;2\n", [[1, 2]], "."),
        ('"id";"G1, long";"G2"\n"P1";"1,5";"2"\n', [[1.5, 2]], ","),
        ("id;gene_id;G2\nP1;ENSG1.5;2,5\n", [[2.5]], ","),
    ],
)
def test_semicolons_separate_numbers_of_either_decimal_sign(
    tmp_path, monkeypatch, text, expected, decimal, with_pyarrow
):
    if not with_pyarrow:
        monkeypatch.setattr(numeric_tables, "_parse_well_formed", lambda *_: None)
    (tmp_path / "t.csv").write_text(text)
    table = read_numeric_table(tmp_path / "t.csv", text_columns=["gene_id"])
    np.testing.assert_array_equal(table.values, np.array(expected, dtype=np.float32))
    assert bool(table.notes) == (decimal == ",")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "id;G1;G2\nP1;1,5;2\nP2;3;4.5\n", r"row 3 \(P2\), column G2: .* '4\.5'|row 2 .* '1,5'"),
        ("t.tsv", "id\tG1\tG2\nP1\t1\t2\nP2\t3\t4,5\n", r"row 3 \(P2\), column G2: .* '4,5'\. Write it .* as 4\.5,"),
        ("t.csv", 'id,G1,G2\nP1,1,2\nP2,3,"4,5"\n', r"row 3 \(P2\), column G2: .* '4,5'\. Write it .* as 4\.5,"),
        ("t.csv", "id,G1,G2\nP1,1,2\nP2,3,4,5\n", r"row 3 \(P2\): 3 cells are required.* Found 4\. Decimal commas"),
        ("t.csv", "id,G1,G2\nP1,1,5,2,5\nP2,3,5,4,5\n", r"row 2 \(P1\): 3 cells .* Found 5\. Decimal commas"),
        ("t.tsv", "id\tG1\nP1\t1\t2\n", r"row 2 \(P1\): 2 cells are required, as the header has\. Found 3\.$"),
    ],
)
def test_decimal_commas_are_named_with_row_gene_and_remedy(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}, {message}"):
        read_numeric_table(tmp_path / name)
