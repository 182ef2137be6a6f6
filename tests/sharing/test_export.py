"""An export has all that predicts and nothing of patients; what cannot be exported is one line."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from safetensors import safe_open
from shared_run import everyone, shared_run

from subfuse.cli import main
from subfuse.errors import ConfigurationError
from subfuse.sharing.export import _prepared, export_run

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, Path, object]:
    return shared_run(tmp_path_factory)


def readable(path: Path) -> bytes:
    """All bytes of a file, and those of every array and name in it."""
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            content += b"".join(name.encode() + file.get_tensor(name).tobytes() for name in file.keys())  # noqa: SIM118
            content += json.dumps(file.metadata()).encode()
    return content


def test_nothing_of_the_patients_is_in_any_byte(shared):
    run, folder, _ = shared
    cohort = everyone(run.parent)
    predictions = pd.read_csv(run / "predictions.csv")
    secrets = {p.patient_id for p in cohort} | {path.name for p in cohort for path in p.slides}
    secrets |= {str(run), str(run.parent), "sharing/", "features/", "SECRET", "slide-0"}
    secrets |= set(re.findall(r"[0-9a-f]{64}", (run / "config.yaml").read_text()))  # hashes of the folds
    secrets |= {f"{time!r}" for time in predictions["time_days"].dropna()}
    secrets |= {f"{risk!r}" for risk in predictions["risk"].dropna()}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 2 + 3 * 4  # of the main model: two tasks in two folds
    assert len(secrets) > 300
    text = b"\n".join(map(readable, files))
    assert [secret for secret in secrets if secret.encode() in text] == []
    assert b"validation_offsets" not in text
    assert b"split_sha256" in (run / "survival" / "subspace" / "fold_0" / "model.json").read_bytes()


def test_named_tasks_and_models_alone_are_exported(shared, tmp_path):
    folder = export_run(shared[0], tmp_path / "one", tasks=["survival"], models=["cox"])
    jobs = json.loads((folder / "subfuse.json").read_text())["jobs"]
    assert [(job["task"], job["model"], job["fold"]) for job in jobs] == [("survival", "cox", k) for k in (0, 1)]
    assert not list(tmp_path.glob(".*"))


def test_weights_on_disk_and_outlines_are_named_without_their_place():
    prepared = {"requested_encoder": "resnet18@/home/me/v2.pth", "tissue": ["geojson:/home/me/outlines", "otsu"]}
    found = _prepared({**prepared, "sources": "/home/me", "stain": None})
    assert found == {"requested_encoder": "resnet18@v2.pth", "tissue": ["geojson:outlines", "otsu"]}
    assert _prepared({"requested_encoder": "/home/me/mine.ts"}) == {"requested_encoder": "mine.ts"}


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(shared, tmp_path, capsys):
    run, folder, _ = shared
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "predictions.csv").unlink()
    new = tmp_path / "new"
    for arguments, words in (
        ([run, folder], "must be an empty or a new folder. Found other files"),
        ([run, run / "config.yaml"], "must be an empty or a new folder. Found a file"),
        ([run, new, "--task", "diagnosis"], "has no model at all for task diagnosis. Its tasks: grade, survival"),
        ([run, new, "--model", "abmil"], "has no model abmil. Name one that it has with --model"),
        ([run, new, "--model", "cox", "cox"], "--model must name each once"),
        ([unfinished, new], "must be a finished run. Found no predictions.csv"),
        ([tmp_path, new], "must be a finished run"),
    ):
        assert main(["export", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert words in error
        assert not new.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_models_of_hospitals_are_not_exported(shared, tmp_path, monkeypatch):
    monkeypatch.setattr("subfuse.sharing.export.modalities_of", lambda model: frozenset({"site"}))
    with pytest.raises(ConfigurationError, match="subspace knows hospitals or batches of the run by name"):
        export_run(shared[0], tmp_path / "new")


def test_an_empty_folder_is_taken(shared, tmp_path):
    (tmp_path / "empty" / "within").mkdir(parents=True)
    assert (export_run(shared[0], tmp_path / "empty", tasks=["grade"]) / "README.md").exists()
