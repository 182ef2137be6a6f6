import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from viewer_run import HOSTILE, made_run

import process_pool
from subfuse.errors import DataError
from subfuse.serve import explanations
from subfuse.serve.explanations import ExplanationShelf, ExplanationWorker, read_explanation, read_patch_scores

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def viewer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory)


@pytest.fixture
def folder(viewer_run: Path) -> Path:
    return ExplanationShelf(viewer_run / "explanations").find("P01", "survival")


def test_explanations_are_found_by_their_content(tmp_path):
    for name, patient in (("any", "P/../1"), ("other", "P2")):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "explanation.json").write_text(json.dumps({"patient_id": patient, "task": "grade"}))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "explanation.json").write_text("{}")
    shelf = ExplanationShelf(tmp_path)
    assert shelf.patients("grade") == {"P/../1", "P2"}
    assert shelf.tasks("P2") == ["grade"]
    assert shelf.find("P/../1", "grade") == tmp_path / "any" / "x"
    assert shelf.find("../any", "x") is None
    assert shelf.find("P2", "../../any/x") is None


EXPLAINED = {"patient_id": "P2", "task": "grade", "model": "snn", "fold": 0, "score": 0.5, "ledger": []}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("explanation.json", b"[]"),
        ("explanation.json", b"[" * 100_000),
        ("explanation.json", b"\xff"),
        ("explanation.json", json.dumps(EXPLAINED | {"score": "x"}).encode()),
        ("explanation.json", json.dumps(EXPLAINED | {"ledger": 3}).encode()),
        ("explanation.json", b'{"patient_id": "P2", "task": "grade"}'),
        ("genes.csv", b"gene,subspace,contribution\nA,tumour,much\n"),
        ("patches.csv", b"slide,x,y\ns,0,0\n"),
        ("patches.csv", b"slide_id,x,y,total\ns,0,0,much\n"),
    ],
)
def test_a_damaged_explanation_is_refused_alone(tmp_path, name, content):
    for folder in (tmp_path / "damaged", tmp_path / "whole"):
        folder.mkdir()
        (folder / "explanation.json").write_text(json.dumps(EXPLAINED))
    assert read_explanation(tmp_path / "damaged", genes_per_subspace=3).score == 0.5
    (tmp_path / "damaged" / name).write_bytes(content)
    assert ExplanationShelf(tmp_path).find("P2", "grade") == tmp_path / "whole"
    of_explanation = partial(read_explanation, genes_per_subspace=3)
    of_patches = partial(read_patch_scores, slide_id="s", patch_size_px=256)
    with pytest.raises(DataError, match=r"damaged.* required\. Found[^\n]+$"):
        (of_patches if name == "patches.csv" else of_explanation)(tmp_path / "damaged")


def test_ledger_and_genes_are_those_of_the_files(folder):
    shown = read_explanation(folder, genes_per_subspace=3)
    assert sum(row.contribution for row in shown.ledger) == pytest.approx(shown.score, abs=1e-5)
    genes = pd.read_csv(folder / "genes.csv")
    assert shown.n_genes == len(genes)
    for subspace, rows in genes.groupby("subspace"):
        strongest = rows.loc[rows["contribution"].abs().sort_values(ascending=False).index[:3]]
        of_subspace = [row for row in shown.genes if row.subspace == subspace]
        assert [row.gene for row in of_subspace] == strongest["gene"].tolist()
        assert [row.contribution for row in of_subspace] == strongest["contribution"].tolist()


def test_patch_scores_are_those_of_one_slide(folder):
    table = pd.read_csv(folder / "patches.csv").query("slide_id == 'slide-b'")
    shown = read_patch_scores(folder, "slide-b", patch_size_px=256)
    assert (shown.x, shown.y) == (table["x"].tolist(), table["y"].tolist())
    for name, values in shown.scores.items():
        assert values == table[name].tolist()
    assert {"tumour", "microenvironment", "total"} <= shown.scores.keys()
    assert shown.limits["tumour"] == shown.limits["microenvironment"] == shown.limits["total"] > 0
    assert read_patch_scores(folder, "slide-c", patch_size_px=256) is None


def test_sampling_points_are_shown_per_subspace(folder, tmp_path):
    for name in ("explanation.json", "patches.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert read_patch_scores(tmp_path, "slide-a", patch_size_px=256).points == {}
    points = pd.DataFrame(
        {
            "slide_id": ["slide-a", "slide-a", "slide-b"],
            "subspace": ["tumour", "microenvironment", "tumour"],
            "group": [0, 1, 0],
            "x": [10.5, 20.0, 1.0],
            "y": [7.0, 8.0, 2.0],
        }
    )
    points.to_csv(tmp_path / "points.csv", index=False)
    shown = read_patch_scores(tmp_path, "slide-a", patch_size_px=256).points
    assert shown == {"tumour": [[10.5, 7.0]], "microenvironment": [[20.0, 8.0]]}


def explain_when_let_go(go: Path, patient_id: str, out: Path) -> None:
    """Explains as soon as a file exists; fails as the file says."""
    while not go.exists():
        time.sleep(0.01)
    if patient_id == "unusable":
        raise DataError("no patch")
    if patient_id == "odd":
        raise RuntimeError("odd")
    if patient_id == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    (out / "grade").mkdir(parents=True)
    (out / "grade" / "explanation.json").write_text(json.dumps({"patient_id": patient_id, "task": "grade"}))


def finished(worker: ExplanationWorker, job_id: str):
    while (job := worker.status(job_id)).state == "running":
        time.sleep(0.01)
    return job


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


@pytest.fixture
def worker(tmp_path: Path, go: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExplanationWorker]:
    """A worker whose processes start at once: the one that is served with starts them afresh."""
    monkeypatch.setattr(explanations, "get_context", lambda method: process_pool.CONTEXT)
    shelf = ExplanationShelf(tmp_path / "run" / "explanations")
    worker = ExplanationWorker(shelf, explain=partial(explain_when_let_go, go), n_tasks=1)
    yield worker
    worker.stop()


@pytest.mark.parametrize(
    "patient_id", ["P-01", HOSTILE, "../../outside", "..", ".", "a\\b", "C:x", "nul\0l", ".hidden"]
)
def test_an_explanation_stays_in_its_folder_whatever_the_patient_is_called(tmp_path, go, worker, patient_id):
    go.touch()
    assert finished(worker, worker.start(patient_id).job_id).state == "done"
    found = ExplanationShelf(tmp_path / "run" / "explanations").find(patient_id, "grade")
    assert found.parent.parent == tmp_path / "run" / "explanations"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "go"}
    assert worker.folder_of(patient_id) == found.parent  # a second explanation replaces the first


def test_one_patient_is_explained_at_a_time(worker, go):
    job = worker.start("P1")
    assert worker.start("P1").job_id == job.job_id
    assert worker.start("P2") is None
    shown = worker.status(job.job_id)
    assert (shown.state, shown.done, shown.total) == ("running", 0, 1)
    go.touch()
    assert finished(worker, job.job_id).done == 1
    assert worker.start("P2").job_id != job.job_id
    assert worker.status("no such job") is None


@pytest.mark.parametrize(
    ("patient_id", "shown"),
    [
        ("unusable", "no patch"),
        ("odd", "unexpected RuntimeError: odd"),
        ("killed", "the process ended early (-9): stopped, or out of memory."),
    ],
)
def test_a_failed_explanation_says_why(worker, go, patient_id, shown):
    go.touch()
    done = finished(worker, worker.start(patient_id).job_id)
    assert done.state == "failed"
    assert shown in done.error
    assert finished(worker, worker.start("P1").job_id).state == "done"  # the next one is not affected


def test_a_stopped_explanation_ends_at_once(worker):
    job = worker.start("P1")
    worker.stop()
    assert worker.status(job.job_id).state == "failed"
    assert not any(process.is_alive() for process in multiprocessing.active_children())
