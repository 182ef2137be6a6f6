from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfuse.errors import ConfigurationError, DataError
from subfuse.features.feature_table import feature_row, read_feature_table

TABLE = pd.DataFrame({"slide_id": ["s 1", "sß", "s3"], "area": [2048.125, 1e5, 3], "year": [2001, 2002, 2003]})


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.csv.gz", "t.parquet", "index.parquet"])
def test_every_format_gives_the_same_numbers(tmp_path, name):
    path = tmp_path / name
    if path.suffix == ".parquet":
        (TABLE.set_index("slide_id") if name.startswith("index") else TABLE).to_parquet(path)
    else:
        TABLE.to_csv(path, index=False, sep="\t" if name == "t.tsv" else ",")

    table = read_feature_table(path)

    pd.testing.assert_frame_equal(table, TABLE.set_index("slide_id").astype(float))


def test_byte_order_mark_windows_line_ends_and_spaces(tmp_path):
    path = write(tmp_path / "t.csv", b"\xef\xbb\xbfslide_id,area\r\n s1 ,1.5\r\ns2,2\r\n")
    assert read_feature_table(path)["area"].to_dict() == {"s1": 1.5, "s2": 2.0}


def test_a_row_is_one_patch_without_coordinates_in_single_precision(tmp_path):
    path = tmp_path / "shape features.csv"
    file = feature_row(TABLE.set_index("slide_id"), "s 1", path)
    slide = file.slide_features(path)
    assert (slide.features.dtype, slide.features.tolist()) == (np.float32, [[2048.125, 2001.0]])
    assert (slide.has_coordinates, slide.encoder) == (False, "shape features")


def test_the_features_and_their_order_are_the_identity(tmp_path):
    tables = [TABLE.set_index("slide_id"), TABLE.set_index("slide_id")[["year", "area"]]]
    assert len({feature_row(table, "s3", tmp_path / "t.csv").encoder_sha256 for table in tables}) == 2


@pytest.mark.parametrize(("cell", "shown"), [("", "area"), ("NA", "area"), ("nan", "area"), ("inf", "area")])
def test_a_cell_that_is_no_finite_number_costs_its_slide_only(tmp_path, cell, shown):
    path = write(tmp_path / "t.csv", f"slide_id,area,year\na,{cell},1\nb,2,3\n")
    table = read_feature_table(path)
    with pytest.raises(DataError, match=rf"every feature of a must be a finite number. Found none in {shown}"):
        feature_row(table, "a", path)
    assert feature_row(table, "b", path).shape == (1, 2)


def test_decimal_commas_of_a_table_with_semicolons_are_numbers(tmp_path):
    table = read_feature_table(write(tmp_path / "f.csv", "slide_id;area;n\na;1,5;2\nb;,25;3\n"))
    assert table.loc["a"].tolist() == [1.5, 2]
    assert table.loc["b"].tolist() == [0.25, 3]
    assert table.attrs["decimal_commas"] == ("area",)
    with pytest.raises(DataError, match=r"row 3: column 'area' must hold numbers.*Found '1,5'\. Write it .* as 1\.5"):
        read_feature_table(write(tmp_path / "f.csv", "slide_id;area\na;2.5\nb;1,5\n"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("slide_id,area\na,1\nb,large\n", r"row 3: column 'area' must hold numbers.*Found 'large'"),
        ("slide_id,area\na,1\nb,2\na,3\n", r"slide_id must be given once per row. Found twice a"),
        ("slide_id,area\na,1\n,2\n", r"slide_id must be given once per row. Found an empty cell in row 3"),
        ("slide,area\na,1\n", r"a column `slide_id`"),
        ("slide_id|area\na|1\n", r"separated by commas, tabs or semicolons"),
        ("slide_id\na\n", r"at least one column of a feature"),
        ("<!doctype html><html>", r"a web page"),
        ("", r"empty"),
        (b"\xff\xfe\x00\x01,\n", r"UTF-8"),
    ],
)
def test_unusable_tables(tmp_path, content, message):
    path = write(tmp_path / "Mappe ü.csv", content)
    with pytest.raises(DataError, match=f"Mappe ü.csv.*{message}") as caught:
        read_feature_table(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1 truncated", b"slide_id,area\na,1\n"])
def test_unusable_parquet(tmp_path, content):
    with pytest.raises(DataError, match=r"t\.parquet: a complete Parquet file is required"):
        read_feature_table(write(tmp_path / "t.parquet", content))


def test_no_feature_at_all(tmp_path):
    TABLE[["slide_id"]].to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="at least one column of a feature"):
        read_feature_table(tmp_path / "t.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    TABLE.to_parquet(tmp_path / "t.parquet")

    def absent(path):
        raise ImportError("Unable to find a usable engine")

    monkeypatch.setattr(pd, "read_parquet", absent)
    with pytest.raises(ConfigurationError, match=r"subfuse\[parquet\]"):
        read_feature_table(tmp_path / "t.parquet")
