"""A manifest names the files of its jobs and no others."""

import json
from pathlib import Path

import pytest

from subfuse.errors import DataError
from subfuse.files import write_sealed_json
from subfuse.run_folder.job import Job
from subfuse.sharing.manifest import files_of, read_manifest, require_files, write_manifest

JOBS = [Job("grade", "cox", 1), Job("grade", "cox", 0, 2)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in files_of(JOBS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path, JOBS, version="1", prepared={"stain": "none"}, expression=None)
    return tmp_path


def change(folder: Path, **changes) -> None:
    content = json.loads((folder / "subfuse.json").read_text())
    del content["sha256"]
    write_sealed_json(folder / "subfuse.json", content | changes)


def test_what_is_written_is_read(folder):
    found = read_manifest(folder)
    assert [shared.job for shared in found.jobs] == JOBS
    assert "grade/cox/repeat_2/fold_0/model.safetensors" in found.files
    require_files(folder, found)


def test_other_files_than_those_of_jobs_are_refused(folder):
    files = json.loads((folder / "subfuse.json").read_text())["files"]
    for other in (files | {"../../evil.pt": "0" * 64}, {k: v for k, v in files.items() if k != "README.md"}):
        change(folder, files=other)
        with pytest.raises(DataError, match=r"subfuse\.json: files: must be those of its jobs"):
            read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jobs": [{"task": "../x", "model": "cox", "fold": 0}]}, r"jobs\.0\.task: a name must be"),
        ({"jobs": []}, "jobs: Tuple should have at least 1 item"),
        ({"format": 2}, "format: Input should be 1. Get the folder again .*, or use a later subfuse"),
        ({"more": 1}, "more: Extra inputs are not permitted"),
    ],
)
def test_a_manifest_that_is_none_is_one_line(folder, changes, words):
    change(folder, **changes)
    with pytest.raises(DataError, match=words) as refused:
        read_manifest(folder)
    assert str(refused.value).startswith(f"{folder / 'subfuse.json'}: ")


def test_a_manifest_that_was_edited_is_refused(folder):
    path = folder / "subfuse.json"
    path.write_text(path.read_text().replace('"stain": "none"', '"stain": "macenko"'))
    with pytest.raises(DataError, match=r"subfuse\.json: what was written is required"):
        read_manifest(folder)
