import csv
import errno
import os
import re
import stat
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import SafetensorError

from subfuse.errors import ConfigurationError, DataError
from subfuse.files import (
    atomic_path,
    holds_files,
    is_begun,
    read_table,
    remove_parts,
    sha256_of_file,
    sha256_of_json,
    write_json,
    write_table,
    write_text,
)


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


def test_a_full_disk_is_named_whatever_the_library_calls_it(tmp_path):
    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    with pytest.raises(ConfigurationError, match="free disk space is required"), atomic_path(tmp_path / "model"):
        raise error


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


def abandoned(path: Path) -> Path:
    """The temporary file of a process that was killed while it wrote."""
    child = os.fork()
    if not child:
        with atomic_path(path):
            os._exit(9)
    os.waitpid(child, 0)
    (part,) = path.parent.glob(".*.part*")
    return part


def test_the_temporary_files_of_killed_processes_are_removed_and_those_being_written_stay(tmp_path):
    part = abandoned(tmp_path / "below" / "table.csv")
    with atomic_path(tmp_path / "other.csv") as temporary:
        temporary.write_text("whole")
        remove_parts(tmp_path)
        assert not part.exists()
    assert (tmp_path / "other.csv").read_text() == "whole"


def test_those_of_one_file_are_removed_and_those_beside_it_stay(tmp_path):
    part = abandoned(tmp_path / "table.csv")
    other = tmp_path / part.name.replace("table", "tables")
    other.touch()
    remove_parts(tmp_path / "table.csv")
    assert list(tmp_path.iterdir()) == [other]


def test_a_writer_that_has_ended_and_was_not_noticed_yet_is_no_writer(tmp_path):
    child = os.fork()
    if not child:
        with atomic_path(tmp_path / "table.csv"):
            os._exit(9)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it stays until it is waited for without WNOWAIT
    assert len(list(tmp_path.iterdir())) == 1
    remove_parts(tmp_path)
    os.waitpid(child, 0)
    assert list(tmp_path.iterdir()) == []


def test_those_of_another_machine_stay_for_a_day(tmp_path):
    part = tmp_path / ".table.elsewhere-1.abcdefgh.part.csv"
    part.touch()
    remove_parts(tmp_path)
    assert part.exists()
    os.utime(part, (time.time() - 90_000,) * 2)
    remove_parts(tmp_path)
    assert not part.exists()


def test_a_folder_of_hidden_files_and_empty_folders_holds_nothing(tmp_path):
    (tmp_path / "empty" / "deeper").mkdir(parents=True)
    (tmp_path / "empty" / ".table.part.csv").touch()
    (tmp_path / "exclusions.csv").touch()
    assert not holds_files(tmp_path, beside="exclusions.csv")
    assert holds_files(tmp_path)
    (tmp_path / "empty" / "thesis.tex").touch()
    assert holds_files(tmp_path, beside="exclusions.csv")


def test_a_folder_is_new_or_ours_or_refused_as_it_is(tmp_path):
    out = tmp_path / "out"
    assert not is_begun(out, "below/mark.json", what="a run")
    part = abandoned(out / "table.csv")
    assert not is_begun(out, "below/mark.json", what="a run")
    assert not part.exists()
    assert not is_begun(out / "exclusions.csv", "mark.json", what="a run")
    write_text(out / "exclusions.csv", "mine")
    assert not is_begun(out, "below/mark.json", what="a run", beside="exclusions.csv")
    for place, found in ((out, "other files"), (out / "exclusions.csv", "a file")):
        with pytest.raises(ConfigurationError) as caught:
            is_begun(place, "below/mark.json", what="a run")
        assert str(caught.value) == f"{place} must be empty or a run. Found {found}. Choose another folder."
    assert (out / "exclusions.csv").read_text() == "mine"
    write_json(out / "below" / "mark.json", {})
    assert is_begun(out, "below/mark.json", what="a run")


@pytest.mark.parametrize(("row", "found"), [("A,3,", "3 cells in rows"), ("A,3,4,5", "4 cells in rows")])
def test_rows_longer_than_their_header_are_refused_and_move_no_column(tmp_path, row, found):
    (tmp_path / "table.csv").write_text(f"patient_id,age\n{row}\n{row}\n")
    with pytest.raises(DataError, match=rf"table\.csv: .*{found} below a header of 2"):
        read_table(tmp_path / "table.csv")


def test_what_is_no_file_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(ConfigurationError, match="Found: a folder, pipe or device"):
            write_text(place, "x")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
