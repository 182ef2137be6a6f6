import csv
import errno
import os
import re
import stat

import numpy as np
import pandas as pd
import pytest

from subfuse.errors import ConfigurationError
from subfuse.files import atomic_path, read_table, sha256_of_file, sha256_of_json, write_json, write_table, write_text


def write_half(path):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk full"):
        write_half(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("also_closing_fails", [False, True])
def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, also_closing_fails):
    def write(path):
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                if also_closing_fails:
                    raise RuntimeError("cannot close")

    with pytest.raises(ConfigurationError, match=r"slide\.h5: free disk space is required") as caught:
        write(tmp_path / "slide.h5")
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_a_written_file_has_the_permissions_of_an_ordinary_file(tmp_path):
    ordinary, ours = tmp_path / "ordinary", tmp_path / "folder" / "ours.txt"
    ordinary.touch()
    write_text(ours, "x")
    assert stat.S_IMODE(os.stat(ours).st_mode) == stat.S_IMODE(os.stat(ordinary).st_mode)


def test_json_refuses_nan_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


def test_tables_round_trip_with_unusual_characters(tmp_path):
    table = pd.DataFrame({"patient_id": ["a,b", 'say "hi"', "Müller"], "value": [1.5, 2.0, float("nan")]})
    write_table(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), table)


EXECUTABLE = ["=1+1", "+1", "-x", "@f", "\tcmd", "-1+2", "'=1", "''-x", '=HYPERLINK("x")', "--"]
HARMLESS = ["a=b", "'quoted'", "it's", "-1", "-2.5e-3", "", "G4"]


def test_no_text_of_a_table_is_executable_and_all_comes_back(tmp_path):
    cells = EXECUTABLE + HARMLESS
    numbers = np.linspace(-1, 1, len(cells))
    columns = {"label": cells, "=note": cells, "kind": pd.Categorical(cells), "mixed": [-1.5, None, *cells[2:]]}
    table = pd.DataFrame(columns | {"value": numbers, "count": -np.arange(len(cells))})
    write_table(tmp_path / "t.csv", table)

    with open(tmp_path / "t.csv", encoding="utf-8", newline="") as file:
        written = list(csv.reader(file))
    dangerous = [cell for row in written for cell in row if cell and cell[0] in "=+-@\t\r" and not is_number(cell)]
    assert not dangerous
    assert [row[0] for row in written[1 + len(EXECUTABLE) :]] == HARMLESS  # as they stand
    assert [float(row[4]) for row in written[1:]] == numbers.tolist()
    reread = read_table(tmp_path / "t.csv", text=["kind"])
    assert list(reread) == list(table)
    for name in ("label", "=note", "kind"):
        assert reread[name].fillna("").tolist() == cells
    np.testing.assert_array_equal(reread["value"], numbers)
    assert list(table["label"]) == cells  # the caller's table is as it was


def is_number(cell):
    return re.fullmatch(r"-[\d.]+(e-?\d+)?", cell) is not None


def test_the_hash_of_json_ignores_key_order_but_not_values(tmp_path):
    assert sha256_of_json({"a": 1, "b": 2}) == sha256_of_json({"b": 2, "a": 1})
    assert sha256_of_json({"a": 1}) != sha256_of_json({"a": 2})
    (tmp_path / "empty").touch()
    assert sha256_of_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")  # SHA-256 of nothing
