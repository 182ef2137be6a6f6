from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tool_files import FEATURES, write_hdf5

from subfuse.errors import ConfigurationError, DataError
from subfuse.features.feature_table import encoder_of_vectors, feature_row, read_feature_table

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


VECTORS = {"case-1": FEATURES[0], "case-2.svs": FEATURES[1:2], "case.3": FEATURES[2].astype(np.float16)}
OF_TITAN = {"encoder": "titan", "precision": "torch.float16", "stamp_version": "2.2.0", "feat_type": "slide"}


def test_vectors_of_all_slides_in_one_file_of_stamp_are_rows(tmp_path):
    path = write_hdf5(tmp_path / "titan-slide-1a2b3c4d.h5", on_file=OF_TITAN, **VECTORS)
    assert encoder_of_vectors(path) == "titan"
    table = read_feature_table(path)
    assert table.index.tolist() == ["case-1", "case-2", "case.3"]
    for slide, row in zip(("case-1", "case-2"), FEATURES, strict=False):
        file = feature_row(table, slide, path)
        np.testing.assert_array_equal(file.slide_features(path).features, row[None])
        assert (file.layout, file.encoder, file.read_coords) == ("STAMP", "titan", None)
    again = write_hdf5(tmp_path / "titan-slide-99999999.h5", on_file=OF_TITAN, x=FEATURES[3])
    found = [feature_row(read_feature_table(p), s, p).encoder_sha256 for p, s in ((path, "case-1"), (again, "x"))]
    assert found[0] == found[1]  # so that another cohort's vectors are of the same encoder


@pytest.mark.parametrize(
    ("vectors", "problem"),
    [
        (
            {"a": FEATURES[0], "b": FEATURES[0, :3]},
            "of one length are required. Found 4 numbers for a and 3 .* b",
        ),
        ({"a": FEATURES}, r"a must be one vector of numbers. Found float32 \(6, 4\)"),
        ({"a": np.float32(1)}, "a must be one vector"),
        ({"a": np.zeros((1, 0))}, "a must be one vector"),
        ({"a": np.array([b"x"])}, "a must be one vector"),
        ({"a/b": FEATURES[0]}, "`a` must be an array. Found a group"),
        ({"a": FEATURES[0], "a.svs": FEATURES[0]}, "slide_id must be given once per row. Found twice a"),
    ],
)
def test_files_of_vectors_that_cannot_be_used_say_why(tmp_path, vectors, problem):
    path = write_hdf5(tmp_path / "v.h5", on_file=OF_TITAN, **vectors)
    with pytest.raises(DataError, match=problem):
        read_feature_table(path)


def test_files_of_one_slide_and_damaged_ones_are_no_table_of_vectors(tmp_path):
    assert encoder_of_vectors(write_hdf5(tmp_path / "a.h5", on_file=OF_TITAN, feats=FEATURES)) is None
    assert encoder_of_vectors(write_hdf5(tmp_path / "b.h5", on_file=OF_TITAN, coords=FEATURES)) is None
    assert encoder_of_vectors(write_hdf5(tmp_path / "c.h5", x=FEATURES[0])) is None
    assert encoder_of_vectors(write_hdf5(tmp_path / "d.h5", on_file=OF_TITAN)) is None
    assert encoder_of_vectors(write(tmp_path / "e.h5", "no HDF5")) is None
    assert encoder_of_vectors(tmp_path) is None
