"""Folds are read back as they were written, and a change of their files is noticed."""

import json

import pytest
from fold_tables import draw, table_of

from subfuse.cohort.drawn_folds import repeated_folds
from subfuse.cohort.fold_files import read_repeats, write_repeats
from subfuse.errors import DataError


def test_written_folds_read_back_in_order(tmp_path):
    folds = draw(table_of([True, False] * 15), folds=12)
    write_repeats(tmp_path, [folds])
    assert read_repeats(tmp_path)[0] == folds
    write_repeats(tmp_path, [folds[:3]])
    assert read_repeats(tmp_path)[0] == folds[:3]
    assert read_repeats(tmp_path) == (folds[:3],)


def test_repeats_read_back_and_leave_nothing_behind(tmp_path):
    patients = table_of([True, False] * 8)
    repeats = repeated_folds(patients, folds=3, repeats=3, validation=0.2, stratify=(), seed=0)
    write_repeats(tmp_path, repeats)
    assert read_repeats(tmp_path) == repeats
    assert read_repeats(tmp_path)[0] == repeats[0]
    assert (tmp_path / "repeat_2" / "fold_1.json").exists()
    write_repeats(tmp_path, repeats[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold_0.json", "fold_1.json", "fold_2.json", "repeat_1"]
    assert read_repeats(tmp_path) == repeats[:2]


def test_exchanged_and_missing_fold_files_are_noticed(tmp_path):
    repeats = repeated_folds(table_of([True, False] * 8), folds=3, repeats=2, validation=0.2, stratify=(), seed=0)
    write_repeats(tmp_path, repeats)
    first, second = tmp_path / "fold_1.json", tmp_path / "repeat_1" / "fold_1.json"
    content = first.read_text()
    first.write_text(second.read_text())
    with pytest.raises(DataError, match=r"fold_1.json: fold 1 of repeat 0 is required. Found another fold's"):
        read_repeats(tmp_path)
    first.write_text(content)
    second.unlink()
    with pytest.raises(DataError, match=r"repeat_1/fold_1.json: a complete fold file is required"):
        read_repeats(tmp_path)


def test_changed_fold_files_are_noticed(tmp_path):
    write_repeats(tmp_path, [draw(table_of([True, False] * 5), folds=2)])
    path = tmp_path / "fold_1.json"
    content = json.loads(path.read_text())
    content["train"], content["test"] = content["test"], content["train"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"fold_1.json: the patients do not match the recorded hash"):
        read_repeats(tmp_path)[0]


@pytest.mark.parametrize("content", ["", "{}", '{"sha256": "x", "train": 3, "validation": [], "test": []}'])
def test_broken_fold_files(tmp_path, content):
    write_repeats(tmp_path, [draw(table_of([True, False] * 5), folds=2)])
    (tmp_path / "fold_0.json").write_text(content)
    with pytest.raises(DataError, match=r"fold_0\.json"):
        read_repeats(tmp_path)[0]


def test_folder_without_fold_files(tmp_path):
    with pytest.raises(DataError, match=r"fold_0.json, fold_1.json, ... are required. Found none"):
        read_repeats(tmp_path)[0]


def test_gap_in_fold_files(tmp_path):
    write_repeats(tmp_path, [draw(table_of([True, False] * 5), folds=3)])
    (tmp_path / "fold_1.json").unlink()
    with pytest.raises(DataError, match=r"fold_1\.json: a complete fold file is required"):
        read_repeats(tmp_path)[0]
