"""Commands that are killed at any moment and run again give the results of an undisturbed one.

The short form kills each at two moments; `make test-faults` at 25.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from killed_process import FORKED, count_changes, kill_at
from subfuse import execution
from subfuse.cohort.cohort import read_cohort
from subfuse.preparation import prepare as preparation
from subfuse.preparation.prepare import prepare
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.run import load_run
from subfuse.runs.single_training import train_model
from subfuse.simulation.cohort import simulate
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from trident_cohort import GENES, trident_cohort

pytestmark = [pytest.mark.faults, pytest.mark.walk]

N_POINTS = int(os.environ.get("SUBFUSE_FAULT_POINTS", "2"))
SIZES: dict[str, Any] = {
    "plan": TrainingPlan(
        training=TrainingSettings(epochs=2, batch_size=8),
        architecture=ArchitectureSettings(embed_dim=8, max_grid=4, table_size=16),
    ),
    "allow_inputs": [*GENES, "age", "gender"],
}


@dataclass(frozen=True)
class Prepared:
    """Made once for all tests, which copy nothing of it and write elsewhere."""

    cohort_file: Path
    folder: Path
    run: Path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("faults")
    cohort_file = trident_cohort(folder / "raw")
    prepare(cohort_file, folder / "prepared")
    cross_validate(read_cohort(folder / "prepared"), task="grade", models=["snn"], out=folder / "run", **SIZES)
    return Prepared(cohort_file, folder / "prepared", folder / "run")


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cohort of six patients with an image each, and mean colours as encoder."""
    noise = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / "images" / f"s{index}"
        folder.mkdir(parents=True)
        Image.fromarray(noise.integers(60, 200, (256, 256, 3), dtype=np.uint8)).save(folder / "0.png")
    patients = pd.DataFrame({"patient_id": list("ABCDEF"), "grade": ["G2", "G4"] * 3})
    patients.to_csv(tmp_path / "patients.csv", index=False)
    slides = pd.DataFrame({"slide_id": [f"s{index}" for index in range(6)], "patient_id": list("ABCDEF"), "mpp": 0.5})
    slides.assign(path=slides["slide_id"]).to_csv(tmp_path / "slides.csv", index=False)
    content = {
        "name": "images",
        "patients": {"table": "patients.csv"},
        "slides": {"table": "slides.csv", "folder": "images"},
        "tasks": {"grade": {"column": "grade"}},
        "splits": {"folds": 2, "stratify": []},
    }
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(preparation, "_encoder", lambda *_: MeanColour())
    return tmp_path / "cohort.yaml"


class MeanColour:
    name, dim, sha256 = "efficientnet-lite0", 3, "ab" * 32

    def encode(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2)).astype(np.float32)


def files_of(folder: Path) -> dict[str, bytes]:
    """Returns all that a command has left, hidden files too, but what holds the time: the provenance of a run."""
    return {
        path.relative_to(folder).as_posix(): b"" if _holds_the_time(path) else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _holds_the_time(path: Path) -> bool:
    return path.name == "provenance.json" and not (path.parent / "patients.csv").exists()


def check(command: Callable[[Path], Any], out: Path) -> None:
    """Kills a command at moments spread over its changes of files; run again, it leaves what it leaves undisturbed."""
    whole = out / "whole"
    n_changes = count_changes(partial(command, whole), whole)
    expected = files_of(whole)
    points = sorted({1 + round((k + 0.5) * (n_changes - 1) / N_POINTS) for k in range(N_POINTS)})
    for point in points:
        broken = out / f"killed_{point}"
        kill_at(partial(command, broken), broken, point)
        count_changes(partial(command, broken), broken)
        found = files_of(broken)
        assert found.keys() == expected.keys(), point
        assert [name for name in found if found[name] != expected[name]] == [], point
    print(f"{len(points)} kills among {n_changes} changes of files")


def test_simulate(tmp_path):
    check(partial(simulate, patients=3), tmp_path)


def test_prepare_slides(images, tmp_path):
    check(partial(prepare, images), tmp_path / "out")


def test_prepare_features(prepared, tmp_path):
    check(partial(prepare, prepared.cohort_file), tmp_path)


@pytest.mark.parametrize("workers", [1, 2])
def test_crossval(workers, prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "get_context", lambda _: FORKED)  # so that workers are watched and killed too
    cohort = read_cohort(prepared.folder)

    def command(out: Path) -> None:
        cross_validate(cohort, task="grade", models=["snn", "logistic"], workers=workers, out=out, **SIZES)

    check(command, tmp_path)


def test_train(prepared, tmp_path):
    cohort = read_cohort(prepared.folder)

    def command(out: Path) -> None:
        train_model(cohort, task="grade", model="snn", out=out, resume=True, **SIZES)

    check(command, tmp_path)


def test_explain(prepared, tmp_path):
    run, cohort = load_run(prepared.run), read_cohort(prepared.folder)

    def command(out: Path) -> None:
        run.explain_cohort(cohort, out / "cohort", model="snn")
        run.explain(cohort, "PT-03", out / "patient", model="snn")

    check(command, tmp_path)


def test_evaluate(prepared, tmp_path):
    run, cohort = load_run(prepared.run), read_cohort(prepared.folder)
    other = replace(cohort, patients=tuple(replace(p, patient_id=f"X{p.patient_id}") for p in cohort))
    check(partial(run.evaluate, other), tmp_path)
