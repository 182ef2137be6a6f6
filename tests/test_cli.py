"""The whole path through the command line, on a small simulated cohort."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from command_run import explain_roughly, made_by_commands
from subfuse.cli import COMMANDS, main
from subfuse.pipeline import patients_to_explain, run_demo

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Simulated, prepared, cross-validated and explained by commands alone."""
    return made_by_commands(tmp_path_factory)


def test_the_numbers_of_the_report_are_those_of_the_metrics_file(run):
    html = (run / "report.html").read_text(encoding="utf-8")
    shown = {}
    for cell in re.findall(r"<t[dh][^>]*data-metric[^>]*>", html):
        attributes = dict(re.findall(r'data-(\w+)="([^"]*)"', cell))
        shown[attributes["task"], attributes["model"], attributes["metric"]] = attributes["value"]
    metrics = pd.read_csv(run / "metrics.csv").dropna(subset=["value"])
    assert len(metrics) > 10
    for row in metrics.itertuples():
        assert float(shown[row.task, row.model, row.metric]) == pytest.approx(row.value, abs=1e-12)


def test_cross_validation_explains_the_cohort_and_two_patients_and_reports_them(run):
    report = run / "report.html"
    html = report.read_text(encoding="utf-8")
    assert "Not computed for this run" not in html
    for task in ("survival", "grade"):
        assert f"Subspaces and modalities, {task.capitalize()}" in html
        assert (run / "explanations" / "cohort" / task / "enrichment.csv").exists()
    chosen = patients_to_explain(pd.read_csv(run / "predictions.csv"), 2)
    assert len(re.findall('<article class="patient"', html)) == 4  # two patients, two tasks
    assert all(f'aria-label="{name}, Survival"' in html for name in chosen)
    assert main(["report", str(run)]) == 0
    assert report.read_text(encoding="utf-8") == html


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:spatialdata")
def test_patch_scores_are_written_to_stores_that_wsidata_reads(run, tmp_path, monkeypatch):
    wsidata = pytest.importorskip("wsidata")
    explain_roughly(monkeypatch)
    chosen = patients_to_explain(pd.read_csv(run / "predictions.csv"), 1)[0]
    out, stores = tmp_path / "out", tmp_path / "stores"
    assert main(["explain", str(run), "--patient", chosen, "--out", str(out), "--wsidata", str(stores)]) == 0
    for task in ("survival", "grade"):
        scores = pd.read_csv(out / task / "patches.csv")
        for slide_id, of_slide in scores.groupby("slide_id"):
            (path,) = (run.parent / "cohort" / "slides").rglob(f"{slide_id}.*")
            wsi = wsidata.open_wsi(path, store=str(stores / f"{slide_id}.zarr"))
            tiles = wsi.shapes["subfuse_tiles"]
            assert tiles.bounds["minx"].tolist() == of_slide["x"].tolist()
            assert tiles[f"{task}_tumour"].tolist() == pytest.approx(of_slide["tumour"].tolist())
            wsi.reader.detach_reader()
    assert main(["explain", str(run), "--wsidata", str(stores)]) == 2  # of a patient only


def test_an_explanation_adds_up_to_the_prediction(run):
    explained = list((run / "explanations").rglob("explanation.json"))
    assert {path.parent.name for path in explained} == {"survival", "grade"}
    for path in explained:
        content = json.loads(path.read_text(encoding="utf-8"))
        total = sum(row["contribution"] for row in content["ledger"])
        assert total == pytest.approx(content["score"], abs=1e-4)
        assert len(list(path.parent.glob("heatmap_*.png"))) == 3 * len(content["slides"])
        genes = pd.read_csv(path.parent / "genes.csv")
        assert set(genes["subspace"]) == {"tumour", "microenvironment"}


def test_predicting_the_own_cohort_uses_held_out_models_only(run, tmp_path):
    out = tmp_path / "predictions.csv"
    assert main(["predict", str(run), "--cohort", str(run.parent / "prepared"), "--out", str(out)]) == 0
    predicted, known = pd.read_csv(out), pd.read_csv(run / "predictions.csv")
    assert set(predicted["split"]) == {"test"}
    test = known[(known["split"] == "test") & (known["model"] == "subspace")]
    assert len(predicted) == len(test)
    of_patients = pd.read_csv(tmp_path / "predictions_patients.csv")
    assert not of_patients.duplicated(["patient_id", "task"]).any()
    assert set(of_patients["patient_id"]) == set(predicted["patient_id"])


def test_slide_and_expression_files_give_the_prediction_of_the_prepared_patient(run, tmp_path, capsys):
    known, raw = pd.read_csv(run / "predictions.csv"), run.parent / "cohort"
    known = known[(known["model"] == "subspace") & (known["split"] == "test") & (known["task"] == "survival")]
    tested = known[known["has_slides"] & known["has_expression"]].iloc[0]
    slides = pd.read_csv(run / "cohort" / "slides.csv")
    names = slides.loc[slides["patient_id"] == tested["patient_id"], "slide_id"]
    slides = [path for name in names for path in (raw / "slides").rglob(f"{name}.*")]
    sheet = pd.read_csv(raw / "gdc_sample_sheet.tsv", sep="\t").query("`Sample Type` == 'Primary Tumor'")
    name = sheet.loc[sheet["Case ID"] == tested["patient_id"], "File Name"].iloc[0]
    (expression,) = (raw / "expression").rglob(name)
    out = tmp_path / "new.csv"
    files = [*(part for path in slides for part in ("--slide", str(path))), "--expression", str(expression)]
    assert main(["predict", str(run), *files, "--out", str(out)]) == 0
    assert "range of the models" in capsys.readouterr().out
    found = pd.read_csv(out).query("task == 'survival' and fold == @tested.fold").iloc[0]
    assert found["split"] == "new"
    assert found["risk"] == pytest.approx(tested["risk"], abs=1e-4)
    assert found["contribution_tumour"] == pytest.approx(tested["contribution_tumour"], abs=1e-4)
    assert main(["predict", str(run)]) == 2  # nobody is named
    assert main(["predict", str(run), "--cohort", str(run.parent / "prepared"), *files]) == 2


def test_preparing_again_does_nothing_again(run, capsys):
    prepared = run.parent / "prepared"
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*.h5")}
    arguments = ["prepare", str(run.parent / "cohort" / "cohort.yaml"), "--out", str(prepared), "--workers", "1"]
    assert main(arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*.h5")}


def test_slides_that_were_cut_otherwise_than_those_of_training_are_refused_in_one_line(run, tmp_path, capsys):
    """One slide is enough: nobody is predicted before the tilings are compared."""
    raw, prepared = run.parent / "cohort", tmp_path / "prepared"
    content = yaml.safe_load((raw / "cohort.yaml").read_text())
    pd.read_csv(raw / "slides.csv").iloc[:1].to_csv(tmp_path / "one.csv", index=False)
    content["slides"] |= {"table": str(tmp_path / "one.csv"), "tiling": {"mpp": 0.5, "tile_px": 128, "overlap_px": 0}}
    (raw / "other.yaml").write_text(yaml.safe_dump(content | {"name": "elsewhere", "role": "external"}))
    assert main(["prepare", str(raw / "other.yaml"), "--out", str(prepared), "--workers", "1"]) == 0
    capsys.readouterr()
    for command in (
        ["evaluate", str(run), "--cohort"],
        ["predict", str(run), "--out", str(tmp_path / "p"), "--cohort"],
    ):
        assert main([*command, str(prepared)]) == 3
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("subfuse: error: slides of cohort 'elsewhere' must be cut into patches")
        assert "as in training, mpp: 0.5, tile_px: 256, overlap_px: 0. Found mpp: 0.5, tile_px: 128, over" in error
        assert "Declare `tiling: {mpp: 0.5, tile_px: 256, overlap_px: 0}` in `slides`" in error
    assert not (tmp_path / "p").exists()


def test_a_run_is_the_same_in_python(run):
    import subfuse

    cohort = subfuse.read_cohort(run.parent / "prepared")
    result = subfuse.cross_validate(cohort, task="grade", models=["logistic"], folds=2, seed=0)
    assert result.folder.exists()
    assert set(result.metrics["model"]) == {"logistic"}
    loaded = subfuse.load_run(run)
    tested = loaded.predictions.query("model == 'cox' and split == 'test'")
    assert set(loaded.predict(cohort, model="cox")["patient_id"]) == set(tested["patient_id"]) != set()


def test_the_demo_is_the_same_path(run, monkeypatch):
    """In the folder of the commands it finds the cohort simulated and prepared, and trains what is missing."""
    from subfuse.runs import cross_validation
    from subfuse.training.settings import TrainingPlan, TrainingSettings

    brief = TrainingPlan(training=TrainingSettings(epochs=1))
    monkeypatch.setattr(cross_validation, "TrainingPlan", lambda: brief)
    root, done = run.parent, []
    inputs = [path for name in ("cohort", "prepared") for path in (root / name).rglob("*.*") if path.is_file()]
    before = {path: path.read_bytes() for path in inputs}
    report = run_demo(root, patients=10, models=("snn",), workers=1, progress=lambda *step: done.append(step))
    assert report == root / "run" / "report.html"
    assert {path: path.read_bytes() for path in inputs} == before
    assert {what.split(":")[0] for _, _, what in done} >= {"simulate", "prepare", "cross-validate"}
    assert all(0 <= count <= total for count, total, _ in done)
    assert set(pd.read_csv(root / "run" / "predictions.csv")["task"]) == {"survival", "grade", "diagnosis"}


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: subfuse {command}" in shown


def test_help_and_version_work_as_a_module():
    for arguments in (["--help"], ["--version"]):
        done = subprocess.run([sys.executable, "-m", "subfuse", *arguments], capture_output=True, check=False)
        assert done.returncode == 0
