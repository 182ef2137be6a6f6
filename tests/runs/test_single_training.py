"""One model on one fold: what a cross-validation makes of the same fold, and never two trainings in one folder."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from brief_run import BRIEF
from safetensors.torch import load_file

from small_cohort import deal_folds
from subfuse.cohort.fold_files import SPLITS, write_repeats
from subfuse.errors import ConfigurationError
from subfuse.run_folder.job import Job
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.single_training import train_model

pytestmark = pytest.mark.walk


@pytest.fixture
def cohort(make_cohort, tmp_path):
    """A cohort with folds of its own."""
    drawn = make_cohort(30)
    write_repeats(tmp_path / "prepared" / SPLITS, [deal_folds(drawn)])
    return replace(drawn, root=tmp_path / "prepared")


def test_folds_trained_one_by_one_are_those_of_a_cross_validation(cohort, tmp_path):
    together, alone = tmp_path / "together", tmp_path / "alone"
    result = cross_validate(cohort, task="grade", models=["snn"], out=together, **BRIEF)
    for fold in (1, 0):
        metrics = train_model(cohort, task="grade", model="snn", fold=fold, out=alone, **BRIEF)

    for job in (Job("grade", "snn", 0), Job("grade", "snn", 1)):
        first, second = (load_file(job.folder(out) / "model.safetensors") for out in (together, alone))
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])
    expected = result.metrics.set_index("metric")["value"]
    np.testing.assert_allclose(metrics.set_index("metric")["value"].loc[expected.index], expected)
    assert not list(alone.rglob("last.ckpt"))


def test_a_finished_fold_is_kept_when_asked_and_otherwise_an_error(cohort, tmp_path):
    out, options = tmp_path / "run", {"task": "grade", "model": "logistic", **BRIEF}
    first = train_model(cohort, out=out, **options)
    weights = Job("grade", "logistic", 0).folder(out) / "model.safetensors"
    before = (weights.read_bytes(), weights.stat().st_mtime_ns)
    with pytest.raises(ConfigurationError, match=r"holds a finished training\. Add --resume to keep it"):
        train_model(cohort, out=out, **options)
    again = train_model(cohort, out=out, resume=True, **options)
    assert (weights.read_bytes(), weights.stat().st_mtime_ns) == before
    np.testing.assert_array_equal(first["value"], again["value"])


def test_outcomes_that_changed_since_are_trained_again_and_other_folds_left_out_until_they_are(
    cohort, tmp_path, caplog
):
    out, options = tmp_path / "run", {"task": "grade", "model": "logistic", "resume": True, **BRIEF}
    train_model(cohort, out=out, **options)
    train_model(cohort, out=out, fold=1, **options)
    assert set(read_predictions(out / "predictions.csv")["fold"]) == {0, 1}
    weights = Job("grade", "logistic", 0).folder(out) / "model.safetensors"
    before = weights.read_bytes()
    trained = deal_folds(cohort)[0].train[3]
    other = {"G2": "G4", "G4": "G2"}
    patients = tuple(
        replace(p, labels={"grade": other[p.labels["grade"]]}) if p.patient_id == trained else p for p in cohort
    )
    corrected = replace(cohort, patients=patients)
    train_model(corrected, out=out, **options)
    assert weights.read_bytes() != before
    assert set(read_predictions(out / "predictions.csv")["fold"]) == {0}
    assert "grade · logistic · fold 1 is left out: changed since it was trained: outcomes" in caplog.text
    again = train_model(corrected, out=out, fold=1, **options)
    fresh = [train_model(corrected, out=tmp_path / "fresh", fold=fold, **options) for fold in (0, 1)][-1]
    pd.testing.assert_frame_equal(again, fresh)


@pytest.mark.parametrize(("changes", "message"), [
    ({"fold": 2}, r"--fold must be between 0 and 1\. Found 2"), ({"fold": -1}, r"between 0 and 1\. Found -1"),
    ({"task": "os"}, "os"), ({"model": "resnet"}, "resnet"), ({"model": "cox"}, "cox is for the other kind of task"),
    ({"plan": BRIEF["plan"].model_copy(update={"search": 2})}, r"search must be 0 .* Found 2\. Use cross_validate"),
])  # fmt: skip
def test_wrong_use_is_told_before_anything_is_written(cohort, tmp_path, changes, message):
    options = {"task": "grade", "model": "snn", **BRIEF, **changes}
    with pytest.raises(ConfigurationError, match=message):
        train_model(cohort, out=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
