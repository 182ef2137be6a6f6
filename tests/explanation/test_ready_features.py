"""Features without an image through all commands, and failures after training."""

import json
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from command_run import BRIEF, explain_roughly
from subfuse import pipeline
from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.runs import run as run_module
from subfuse.serve.explanations import ExplanationShelf, read_explanation, read_patch_scores
from subfuse.serve.run_reader import open_run
from subfuse.serve.slide_tiles import SlideShelf
from trident_cohort import TWO_SLIDES, WITHOUT_SLIDES, trident_cohort

TASKS = ("survival", "grade")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the cohort, made and explained by commands."""
    root = tmp_path_factory.mktemp("ready")
    cohort = trident_cohort(root / "cohort")
    commands = [
        ["check", cohort],
        ["prepare", cohort, "--out", root / "prepared", "--workers", "1"],
        ["crossval", root / "prepared", "--tasks", *TASKS, "--models", "subspace", "--out", root / "run",
         "--workers", "1", *BRIEF],
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        explain_roughly(patch)
        for command in commands:
            assert main([str(part) for part in command]) == 0
    return root / "run"


def test_crossval_explains_and_reports_slides_by_the_places_of_their_patches(run):
    assert pd.read_csv(run / "explanations" / "failures.csv").empty
    report = (run / "report.html").read_text()
    assert "Drawn on the places of the patches" in report
    assert "raises the risk" in report
    assert "raises the score<" not in report
    explained = [json.loads(path.read_text()) for path in (run / "explanations").rglob("explanation.json")]
    assert {content["task"] for content in explained} == set(TASKS)
    assert all(content["drawn_on_places"].keys() == set(content["slides"]) for content in explained)


def test_explain_draws_every_slide_of_a_patient(run, tmp_path, monkeypatch):
    explain_roughly(monkeypatch)
    assert main(["explain", str(run), "--patient", TWO_SLIDES, "--out", str(tmp_path)]) == 0
    for slide, width in ((f"{TWO_SLIDES}_0", 6000 + 3 * 512), (f"{TWO_SLIDES}_1", 6000 + 4 * 512)):
        with Image.open(tmp_path / "survival" / f"heatmap_total_{slide}.png") as picture:
            assert picture.width == 1024
            assert picture.height > round(1024 * 5000 / width)
    assert list((tmp_path / "grade").glob("gallery_*.jpg"))


def test_the_viewer_shows_and_explains_slides_by_the_places_of_their_patches(run, tmp_path, monkeypatch):
    explain_roughly(monkeypatch)
    reader = open_run(run)
    slide = f"{TWO_SLIDES}_0"
    shelf = SlideShelf(reader.cohort)
    info = shelf.info(slide)
    assert (info.available, info.picture) == (False, "places")
    assert "features, not its image" in info.reason
    assert shelf.thumbnail(slide).startswith(b"\xff\xd8")
    reader.explain(TWO_SLIDES, tmp_path)
    folder = ExplanationShelf(tmp_path).find(TWO_SLIDES, "survival")
    assert read_explanation(folder, genes_per_subspace=3).score_name == "the risk"
    assert len(read_patch_scores(folder, slide, patch_size_px=512).x) > 5


def test_a_patient_without_slides_is_explained_by_genes(run, tmp_path, monkeypatch):
    explain_roughly(monkeypatch)
    assert main(["explain", str(run), "--patient", WITHOUT_SLIDES, "--out", str(tmp_path)]) == 0
    assert not list((tmp_path / "grade").glob("*.png"))


def test_nothing_after_training_makes_it_a_failure(run, caplog, monkeypatch):
    explain_roughly(monkeypatch)
    explained, explain = [], run_module.explain_patient
    monkeypatch.setattr(run_module, "explain_cohort", lambda *_, **__: 1 / 0)

    def explain_one(fitted, patient, *rest, **options):
        if fitted.task == "grade":
            raise RuntimeError("no memory left")
        explained.append(patient.patient_id)
        explain(fitted, patient, *rest, **options)

    monkeypatch.setattr(run_module, "explain_patient", explain_one)
    assert pipeline.explain_and_report(run, read_cohort(run.parent / "prepared")) == run / "report.html"
    assert len(explained) == 2  # survival of both patients, although grade failed
    failures = pd.read_csv(run / "explanations" / "failures.csv")
    assert failures["what"].tolist() == [
        "the cohort", *(f"patient {name}" for name in explained)
    ]  # fmt: skip
    assert failures["reason"].str.contains("no memory left|division by zero").all()
    assert len([record for record in caplog.records if "not explained" in record.message]) == 3
    assert "no memory left" in (run / "report.html").read_text()


def test_a_report_that_cannot_be_written_is_a_warning(run, caplog, monkeypatch):
    monkeypatch.setattr(pipeline, "write_report", lambda _: 1 / 0)
    assert pipeline.explain_and_report(run, read_cohort(run.parent / "prepared"), explain=False) is None
    assert "division by zero" in caplog.text
    assert f"subfuse report {run}" in caplog.text


def test_a_damaged_explanation_is_left_out_of_the_report_with_its_reason(run):
    damaged = next((run / "explanations").rglob("explanation.json"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100])
    try:
        assert main(["report", str(run)]) == 0
        report = (run / "report.html").read_text()
    finally:
        damaged.write_bytes(content)
    assert f"Not explained: {damaged.parent.relative_to(run).as_posix()}" in report
