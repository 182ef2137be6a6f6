"""A run on disk: which of its models may predict whom, and what it is without them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from brief_run import run

from subfuse.errors import ConfigurationError, DataError
from subfuse.run_folder.job import Job
from subfuse.runs.run import Run, load_run

pytestmark = pytest.mark.walk


@pytest.fixture
def cohort(make_cohort):
    return make_cohort(30)


def test_a_run_predicts_known_patients_only_with_models_that_did_not_train_on_them(cohort, tmp_path, make_cohort):
    result = run(cohort, tmp_path / "run", task="survival", models=["snn"])
    predicted = load_run(tmp_path / "run").predict(cohort)
    test = result.predictions[result.predictions["split"] == "test"]
    merged = predicted.merge(test, on=["patient_id", "fold"], suffixes=("", "_before"))
    assert len(predicted) == len(test) == len(merged)
    np.testing.assert_allclose(merged["risk"], merged["risk_before"], atol=1e-6)
    assert predicted["risk_percentile"].between(0, 100).all()


def test_a_run_predicts_new_patients_with_every_fold(cohort, tmp_path):
    known = cohort.select([p.patient_id for p in cohort.patients[:24]])
    run(known, tmp_path / "run", task="survival", models=["snn"])
    predicted = load_run(tmp_path / "run").predict(cohort)
    new = predicted[predicted["split"] == "new"]
    assert set(new["patient_id"]) == {p.patient_id for p in cohort.patients[24:]}
    assert (new.groupby("patient_id")["fold"].nunique() == 2).all()


def test_slides_of_another_tiling_are_neither_predicted_nor_explained(cohort, tmp_path):
    run(cohort, tmp_path / "run", task="survival", models=["abmil", "snn"])
    (tmp_path / "run" / "cohort").mkdir(exist_ok=True)
    tiling = {"tile_px": 256, "mpp": 0.5, "overlap_px": 0}
    (tmp_path / "run" / "cohort" / "provenance.json").write_text(json.dumps({"tiling": tiling}))
    found, other = load_run(tmp_path / "run"), replace(cohort, tiling=tiling | {"mpp": 1.0})
    name = next(p.patient_id for p in cohort if p.slides)
    for ask in (
        lambda: found.predict(other),
        lambda: found.evaluate(replace(other, name="elsewhere"), tmp_path / "out"),
        lambda: found.explain(other, name, model="abmil", out=tmp_path / "out"),
        lambda: found.explain_cohort(other, tmp_path / "out", model="abmil"),
    ):
        with pytest.raises(DataError, match=r"mpp: 0\.5, tile_px: 256, overlap_px: 0\. Found mpp: 1\.0"):
            ask()
    assert len(found.predict(other, model="snn")) == len(found.predict(cohort, model="snn"))


def test_a_run_folder_is_required(tmp_path):
    with pytest.raises(ConfigurationError, match="must be a finished run"):
        load_run(tmp_path)


def test_jobs_are_found_by_model_and_task_or_what_there_is_is_named(cohort, tmp_path):
    run(cohort, tmp_path / "run", task="survival", models=["cox", "snn"])
    found = load_run(tmp_path / "run")
    assert list(found.jobs()) == [Job("survival", model, fold) for model in ("cox", "snn") for fold in (0, 1)]
    assert list(found.jobs(model="cox", task="survival")) == [Job("survival", "cox", 0), Job("survival", "cox", 1)]
    with pytest.raises(ConfigurationError, match=r"has no model abmil\. Name one .*: cox, snn\."):
        list(found.jobs(model="abmil"))
    with pytest.raises(ConfigurationError, match=r"for task grade\. Its tasks: survival\."):
        list(found.jobs(task="grade"))
    with pytest.raises(ConfigurationError, match=r"cohort without a folder\. Pass the cohort itself"):
        found.cohort()


def test_a_run_that_evaluates_another_sends_to_it(tmp_path):
    evaluated = Run(tmp_path, {"trained": "../trained"}, pd.DataFrame(columns=["task", "model", "fold", "repeat"]))
    for ask in (lambda: list(evaluated.jobs()), lambda: evaluated.cohort_folder):
        with pytest.raises(ConfigurationError, match=r"evaluates \.\./trained and holds no models of its own\. Give "):
            ask()
