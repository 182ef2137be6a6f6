from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from conftest import deal_folds
from subfuse.errors import ConfigurationError, DataError
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.external_validation import risk_percentile, with_percentiles
from subfuse.runs.run import load_run


@pytest.fixture
def run_and_others(make_cohort, tmp_path):
    """A finished run on 24 patients, and 14 further patients of the same kind."""
    everybody = make_cohort(38)
    known = everybody.select([p.patient_id for p in everybody.patients[:24]])
    others = everybody.select([p.patient_id for p in everybody.patients[24:]])
    cross_validate(
        known,
        task=["survival", "grade"],
        models=["cox", "logistic"],
        folds=deal_folds(known),
        out=tmp_path / "run",
        allow_inputs=["GENE0"],
    )
    moved = tuple(replace(patient, cohort="elsewhere") for patient in others)
    return load_run(tmp_path / "run"), replace(others, name="elsewhere", patients=moved)


def test_a_percentile_is_the_share_of_training_patients_below():
    trained = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(risk_percentile(np.array([0.5, 2.5, 9.0, np.nan]), trained), [0, 50, 100, np.nan])
    assert np.isnan(risk_percentile(np.array([1.0]), trained[:0])).all()


def test_percentiles_do_not_depend_on_the_scale_of_a_folds_risks(run_and_others):
    known = run_and_others[0].predictions.query("task == 'survival'")
    stretched = known.assign(risk=np.where(known["fold"] == 1, known["risk"] * 7 + 100, known["risk"]))
    pd.testing.assert_series_equal(with_percentiles(known)["risk"], with_percentiles(stretched)["risk"])


def test_every_new_patient_is_tested_once_by_the_mean_of_all_folds(run_and_others, tmp_path):
    run, others = run_and_others
    metrics = run.evaluate(others, tmp_path / "external")
    table = load_run(tmp_path / "external").predictions
    test = table[table["split"] == "test"]
    assert set(test["patient_id"]) <= {p.patient_id for p in others}
    assert not test.duplicated(["task", "model", "patient_id"]).any()
    single = run.predict(others, model="logistic", task="grade").groupby("patient_id")["p_G4"].mean()
    shown = test[test["task"] == "grade"].set_index("patient_id")["p_G4"]
    np.testing.assert_allclose(shown, single[shown.index], atol=1e-9)
    value = metrics.set_index(["task", "metric"]).loc[("survival", "c_index"), "value"]
    assert 0.5 < value <= 1  # the first gene shows the outcome


def test_training_rows_are_the_patients_of_development(run_and_others, tmp_path):
    run, others = run_and_others
    run.evaluate(others, tmp_path / "external")
    table = load_run(tmp_path / "external").predictions
    train = table[(table["split"] == "train") & (table["task"] == "survival")]
    assert set(train["patient_id"]) == set(run.predictions.query("task == 'survival'")["patient_id"])
    assert train["risk"].between(0, 100).all()


def test_known_patients_or_unknown_outcomes_alone_cannot_validate(run_and_others, tmp_path):
    run, others = run_and_others
    outcomes_known = [p for p in others if p.expression is not None]
    known = replace(
        others, patients=tuple(replace(p, patient_id=f"P{i:03d}") for i, p in enumerate(outcomes_known, start=3))
    )
    with pytest.raises(DataError, match="new patients with a known outcome"):
        run.evaluate(known, tmp_path / "a")
    nothing = tuple(replace(p, time_days=None, event=None, labels={}) for p in others)
    with pytest.raises(DataError, match="new patients with a known outcome"):
        run.evaluate(replace(others, patients=nothing), tmp_path / "b")


def test_results_of_another_cohort_are_not_overwritten(run_and_others, tmp_path):
    run, others = run_and_others
    run.evaluate(others, tmp_path / "external")
    with pytest.raises(ConfigurationError, match="differs in: evaluated"):
        run.evaluate(replace(others, name="third"), tmp_path / "external")
