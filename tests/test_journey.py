"""A first week with what most users have: ready features without an image, RNA, covariates, three tasks."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from command_run import BRIEF, evaluate_roughly, explain_roughly
from subfuse import pipeline
from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.evaluation.survival.horizons import HORIZON_COLUMNS
from subfuse.runs import run as run_module
from subfuse.serve.explanations import ExplanationShelf, read_explanation, read_patch_scores
from subfuse.serve.run_reader import open_run
from subfuse.serve.slide_tiles import SlideShelf
from trident_cohort import CONTENT, FEATURES, N_PATIENTS, TWO_SLIDES, WITHOUT_RNA, WITHOUT_SLIDES, trident_cohort

pytestmark = pytest.mark.walk

TASKS = tuple(CONTENT["tasks"])
FOLDS = CONTENT["splits"]["folds"]
COMPARED = {
    "subspace", "abmil", "snn", "concat", "clinical", "cox", "cox-slides", "cox-both",
    "logistic", "logistic-slides", "logistic-both",
}  # fmt: skip
ALARM = "Do not use these results"


def do(*command: object) -> None:
    """Runs a command, which must succeed."""
    assert main([str(part) for part in command]) == 0, command


@pytest.fixture(scope="module", autouse=True)
def brief():
    """Explanations over few points, intervals of few replicates."""
    with pytest.MonkeyPatch.context() as patch:
        explain_roughly(patch)
        evaluate_roughly(patch)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the cohort, made and explained by commands; the cohort and the prepared folder lie beside it."""
    root = tmp_path_factory.mktemp("ready")
    cohort = trident_cohort(root / "cohort")
    do("check", cohort)
    do("prepare", cohort, "--out", root / "prepared", "--workers", 1)
    do("crossval", root / "prepared", "--out", root / "run", "--workers", 1, *BRIEF)
    return root / "run"


def test_a_first_week(run, tmp_path, capsys):
    trained_explained_and_reported(run)
    capsys.readouterr()
    do("audit", run)
    assert 5 < len(capsys.readouterr().out.splitlines()) < 60
    findings = json.loads((run / "audit.json").read_text())["findings"]
    assert [finding for finding in findings if finding["level"] == "failure"] == []
    drawn_on_places(run, tmp_path / "explained")
    other = trident_cohort(tmp_path / "other", seed=1, site="EX", name="elsewhere", role="external")
    predicted_from_files(run, tmp_path / "other", tmp_path / "new.csv")
    predicted_without_outcomes(run, tmp_path)
    capsys.readouterr()
    validated_elsewhere(run, other, tmp_path)
    assert "Cohort: elsewhere (external)" in capsys.readouterr().err


def trained_explained_and_reported(run: Path) -> None:
    predictions = pd.read_csv(run / "predictions.csv")
    assert set(predictions["model"]) == COMPARED
    tested = predictions[(predictions["split"] == "test") & (predictions["model"] == "subspace")]
    assert tested.groupby("task").size().to_dict() == dict.fromkeys(TASKS, N_PATIENTS)
    assert not tested.duplicated(["task", "patient_id"]).any()
    lacking = tested.set_index("patient_id")
    assert not lacking.loc[WITHOUT_RNA, "has_expression"].any()
    assert not lacking.loc[WITHOUT_SLIDES, "has_slides"].any()
    assert pd.read_csv(run / "failures.csv").empty
    assert pd.read_csv(run / "explanations" / "failures.csv").empty
    report = (run / "report.html").read_text()
    assert "Drawn on the places of the patches" in report
    assert "raises the hazard" in report
    assert "raises the score<" not in report
    assert ALARM not in report + (run / "MODEL_CARD.md").read_text()
    explained = [json.loads(path.read_text()) for path in (run / "explanations").rglob("explanation.json")]
    assert {content["task"] for content in explained} == set(TASKS)
    assert all(content["drawn_on_places"].keys() == set(content["slides"]) for content in explained)


def drawn_on_places(run: Path, out: Path) -> None:
    do("explain", run, "--patient", TWO_SLIDES, "--out", out)
    for slide, width in ((f"{TWO_SLIDES}_0", 6000 + 3 * 512), (f"{TWO_SLIDES}_1", 6000 + 4 * 512)):
        with Image.open(out / "survival" / f"heatmap_total_{slide}.png") as picture:
            assert picture.width == 1024
            assert picture.height > round(1024 * 5000 / width)
    assert list((out / "grade").glob("gallery_*.jpg"))


def predicted_from_files(run: Path, cohort: Path, out: Path) -> None:
    expression = pd.read_csv(cohort / "expression.csv", index_col=0).loc["EX-00"].rename_axis("gene").rename("value")
    expression.to_csv(cohort / "new.csv")
    part = out.with_name(f".{out.stem}.elsewhere-1.abcdefgh.part.csv")  # of a command that was killed long ago
    part.touch()
    os.utime(part, (0, 0))
    do(
        "predict",
        run,
        "--slide",
        cohort / FEATURES / "EX-00_0.h5",
        "--mpp",
        0.25,
        "--expression",
        cohort / "new.csv",
        "--out",
        out,
    )
    assert not part.exists()
    of_models, of_patient = pd.read_csv(out), pd.read_csv(out.with_name(f"{out.stem}_patients.csv"))
    assert of_models.groupby("task").size().to_dict() == dict.fromkeys(TASKS, FOLDS)
    assert set(of_patient["task"]) == set(TASKS)
    risk = of_models.query("task == 'survival'")["risk"]
    np.testing.assert_allclose(of_patient.query("task == 'survival'")["risk"], [risk.mean()])


def predicted_without_outcomes(run: Path, folder: Path) -> None:
    cohort = trident_cohort(
        folder / "clinic", seed=2, site="CL", outcomes=False, name="clinic", role="external", tasks={}
    )
    do("prepare", cohort, "--out", folder / "clinic_prepared", "--workers", 1)
    do("predict", run, "--cohort", folder / "clinic_prepared", "--out", folder / "clinic.csv")
    table = pd.read_csv(folder / "clinic_patients.csv")
    assert table.groupby("task")["patient_id"].nunique().to_dict() == dict.fromkeys(TASKS, N_PATIENTS)
    assert len(table) == len(TASKS) * N_PATIENTS
    assert table.query("task == 'survival'")["risk"].notna().all()
    assert {*HORIZON_COLUMNS} <= set(table)
    assert np.allclose(table.query("task == 'grade'")[["p_G2", "p_G4"]].sum(axis=1), 1, atol=1e-3)


def validated_elsewhere(run: Path, cohort: Path, folder: Path) -> None:
    do("prepare", cohort, "--out", folder / "elsewhere", "--workers", 1)
    do("evaluate", run, "--cohort", folder / "elsewhere", "--out", folder / "external")
    tested = pd.read_csv(folder / "external" / "predictions.csv").query("split == 'test'")
    assert {name[:2] for name in tested["patient_id"]} == {"EX"}
    assert set(pd.read_csv(folder / "external" / "metrics.csv")["task"]) == set(TASKS)
    assert ALARM not in (folder / "external" / "report.html").read_text()


def test_the_viewer_shows_and_explains_slides_by_the_places_of_their_patches(run, tmp_path):
    reader = open_run(run)
    slide = f"{TWO_SLIDES}_0"
    shelf = SlideShelf(reader.cohort)
    info = shelf.info(slide)
    assert (info.available, info.picture) == (False, "places")
    assert "features, not its image" in info.reason
    assert shelf.thumbnail(slide).startswith(b"\xff\xd8")
    reader.explain(TWO_SLIDES, tmp_path)
    folder = ExplanationShelf(tmp_path).find(TWO_SLIDES, "survival")
    assert read_explanation(folder, genes_per_subspace=3).score_name == "the hazard"
    assert len(read_patch_scores(folder, slide, patch_size_px=512).x) > 5


def test_a_patient_without_slides_is_explained_by_genes(run, tmp_path):
    do("explain", run, "--patient", WITHOUT_SLIDES, "--out", tmp_path)
    assert not list((tmp_path / "grade").glob("*.png"))


def test_another_model_is_explained_beside_the_main_one(run):
    do("explain", run, "--patient", WITHOUT_SLIDES, "--model", "clinical")
    found = [json.loads(path.read_text()) for path in (run / "explanations").rglob("explanation.json")]
    assert {content["model"] for content in found} == {"subspace"}
    beside = json.loads((run / "explanations_clinical" / WITHOUT_SLIDES / "grade" / "explanation.json").read_text())
    assert beside["model"] == "clinical"


def test_nothing_after_training_makes_it_a_failure(run, caplog, monkeypatch):
    explained, explain = [], run_module.explain_patient
    monkeypatch.setattr(run_module, "explain_cohort", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(pipeline, "write_report", lambda folder: folder / "report.html")  # written by the last test

    def explain_one(fitted, patient, *rest, **options):
        if fitted.task == "grade":
            raise RuntimeError("no memory left")
        explained.append(patient.patient_id)
        explain(fitted, patient, *rest, **options)

    monkeypatch.setattr(run_module, "explain_patient", explain_one)
    assert pipeline.explain_and_report(run, read_cohort(run.parent / "prepared")) == run / "report.html"
    assert len(explained) == 4  # survival and diagnosis of both patients, although grade failed
    failures = pd.read_csv(run / "explanations" / "failures.csv")
    assert failures["what"].tolist() == [
        "the cohort", *(f"patient {name}" for name in dict.fromkeys(explained))
    ]  # fmt: skip
    assert failures["reason"].str.contains("no memory left|division by zero").all()
    assert len([record for record in caplog.records if "not explained" in record.message]) == 3


def test_a_report_that_cannot_be_written_is_a_warning(run, caplog, monkeypatch):
    monkeypatch.setattr(pipeline, "write_report", lambda _: 1 / 0)
    assert pipeline.explain_and_report(run, read_cohort(run.parent / "prepared"), explain=False) is None
    assert "division by zero" in caplog.text
    assert f"subfuse report {run}" in caplog.text


def test_what_could_not_be_explained_stands_in_the_report_with_its_reason(run):
    table = pd.DataFrame({"what": ["the cohort"], "reason": ["no memory left"]})
    table.to_csv(run / "explanations" / "failures.csv", index=False)
    damaged = next((run / "explanations").rglob("explanation.json"))
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100])
    try:
        do("report", run)
        report = (run / "report.html").read_text()
    finally:
        damaged.write_bytes(content)
    assert f"Not explained: {damaged.parent.relative_to(run).as_posix()}" in report
    assert "no memory left" in report
    assert ALARM not in report  # with the audit of the first week
