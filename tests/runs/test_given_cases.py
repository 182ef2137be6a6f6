"""Small cohorts that once failed, from their files to what the user is told."""

from functools import partial
from pathlib import Path

import pytest

from command_run import evaluate_roughly
from subfuse.cohort.cohort import read_cohort
from subfuse.explanation import explained_score, patient
from subfuse.preparation.prepare import prepare
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.new_patient import predict_new_patient
from subfuse.runs.run import load_run
from subfuse.runs.single_training import train_model
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

pytestmark = [pytest.mark.real_data, pytest.mark.walk]

PLAN = TrainingPlan(
    training=TrainingSettings(epochs=1),
    architecture=ArchitectureSettings(embed_dim=8, max_grid=4, table_size=16),
)


@pytest.fixture(autouse=True)
def _rough(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate_roughly(monkeypatch)
    monkeypatch.setattr(patient, "attribute_subspaces", partial(explained_score.attribute_subspaces, tolerance=10.0))


def test_the_same_values_are_predicted_alike_whatever_else_is_measured(cases: Path, tmp_path: Path) -> None:
    folder = cases / "fpkm_of_fewer_genes"
    prepare(folder / "cohort.yaml", tmp_path / "prepared")
    train_model(read_cohort(tmp_path / "prepared"), task="survival", model="cox", out=tmp_path / "run", plan=PLAN)
    run = load_run(tmp_path / "run")
    same, full = (
        predict_new_patient(run, expression=folder / f"new_{genes}.csv", model="cox") for genes in ("same", "full")
    )
    assert full.predictions["risk"].tolist() == pytest.approx(same.predictions["risk"].tolist(), abs=1e-4)
    assert any("shares over 2200 genes" in note for note in full.notes)
    assert not any("shares over" in note for note in same.notes)


def test_a_class_of_a_single_patient_is_named_and_has_no_interval(
    cases: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(cases / "rare_class" / "c.yaml", tmp_path / "prepared")
    cohort = read_cohort(tmp_path / "prepared")
    result = cross_validate(cohort, task="dx", models=["logistic"], out=tmp_path / "run", plan=PLAN)
    assert result.failures.empty
    assert "fold 0: no training patient has class C, which cannot be predicted" in caplog.text
    assert result.metrics["lower"].isna().all()
    assert result.metrics["reason"].str.contains("1 test patients of class C, 5 are needed").all()


def test_patients_of_ready_features_are_explained_without_their_slides(cases: Path, tmp_path: Path) -> None:
    prepare(cases / "ready_features_explain" / "cohort.yaml", tmp_path / "prepared")
    cohort = read_cohort(tmp_path / "prepared")
    train_model(cohort, task="grade", model="subspace", out=tmp_path / "run", plan=PLAN)
    run = load_run(tmp_path / "run")
    of_slides = {p.patient_id for p in cohort if p.slides}
    tested = run.predictions[run.predictions["split"] == "test"]["patient_id"]
    explained = run.explain(cohort, next(p for p in tested if p in of_slides))
    assert {path.suffix for path in explained.glob("grade/*")} >= {".json", ".csv", ".png"}
