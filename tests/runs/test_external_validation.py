import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import CLASSES, cohort, predictions

from small_cohort import deal_folds, unchecked
from subfuse.errors import ConfigurationError, DataError
from subfuse.evaluation.comparisons import COMPARISON_COLUMNS
from subfuse.evaluation.survival.horizons import HORIZON_COLUMNS
from subfuse.files import read_json, read_table
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.cross_validation import cross_validate
from subfuse.runs.external_validation import (
    mean_predictions,
    on_one_scale,
    risk_percentile,
    with_percentiles,
    with_recalibrated,
)
from subfuse.runs.run import load_run

pytestmark = pytest.mark.walk


@pytest.fixture(scope="module")
def kept() -> list:
    """Holds the folder of one run for all tests, which write elsewhere."""
    return []


@pytest.fixture
def run_and_others(kept, make_cohort, tmp_path_factory):
    """A finished run on 24 patients, and 14 further patients of the same kind."""
    everybody = make_cohort(38)
    known = everybody.select([p.patient_id for p in everybody.patients[:24]])
    others = everybody.select([p.patient_id for p in everybody.patients[24:]])
    if not kept:
        kept.append(tmp_path_factory.mktemp("kept") / "run")
        options = {"task": ["survival", "grade"], "models": ["cox", "logistic"], "allow_inputs": ["GENE0"]}
        with unchecked():
            cross_validate(known, folds=deal_folds(known), out=kept[0], **options)
    moved = tuple(replace(patient, cohort="elsewhere") for patient in others)
    return load_run(kept[0]), replace(others, name="elsewhere", patients=moved)


def test_a_percentile_is_the_share_of_training_patients_below():
    trained = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(risk_percentile(np.array([0.5, 2.5, 9.0, np.nan]), trained), [0, 50, 100, np.nan])
    assert risk_percentile(np.array([2.0]), np.array([1.0, 2.0, 2.0, 3.0])) == 50  # as many above as below
    assert np.isnan(risk_percentile(np.array([1.0]), trained[:0])).all()


def test_percentiles_do_not_depend_on_the_scale_of_a_folds_risks(run_and_others):
    known = run_and_others[0].predictions.query("task == 'survival'")
    stretched = known.assign(risk=np.where(known["fold"] == 1, known["risk"] * 7 + 100, known["risk"]))
    columns = [with_percentiles(table)["risk_percentile"] for table in (known, stretched)]
    pd.testing.assert_series_equal(*columns)


def test_models_on_one_scale_keep_their_mean_and_spread_over_the_folds(run_and_others):
    known = run_and_others[0].predictions.query("task == 'survival'")
    stretched = known.assign(risk=np.where(known["fold"] == 1, known["risk"] * 7 + 100, known["risk"]))
    before, after = (table.query("split == 'train'").groupby("fold")["risk"].agg(["mean", "std"])
                     for table in (stretched, on_one_scale(stretched)))  # fmt: skip
    np.testing.assert_allclose(after, np.broadcast_to(before.mean(), after.shape))
    ranks = [table.groupby("fold")["risk"].rank() for table in (known, on_one_scale(stretched))]
    pd.testing.assert_series_equal(*ranks)


def test_a_patient_has_the_mean_of_the_models_and_says_where_they_cannot_be_averaged():
    predicted = pd.DataFrame(
        {
            "patient_id": ["A", "A", "B", "B"], "cohort": "c", "task": "grade", "model": "snn", "repeat": 0,
            "fold": [0, 1, 0, 1], "split": "new", "time_days": np.nan, "event": None, "label": None, "risk": np.nan,
            "risk_percentile": np.nan, "p_G2": [0.2, 0.4, 0.3, 0.7], "p_G4": [0.8, 0.6, 0.7, 0.3],
            "contribution_tumour": [1.0, 2.0, 3.0, 4.0], "has_slides": False, "has_expression": True,
        }
    )  # fmt: skip
    table = mean_predictions(predicted).set_index("patient_id")
    np.testing.assert_allclose(table["p_G2"], [0.3, 0.5])
    np.testing.assert_allclose(table["contribution_tumour"], [1.5, np.nan])  # the models see B in different classes
    assert table["n_models"].tolist() == [2, 2]
    survival = predicted.drop(columns=["p_G2", "p_G4"]).assign(
        task="survival", risk=[1.0, 3.0, 0.0, 1.0], survival_365=0.5, survival_1825=[0.2, np.nan, 0.3, np.nan]
    )
    table = mean_predictions(survival).set_index("patient_id")
    assert table["risk"].tolist() == [2.0, 0.5]
    assert table["survival_1825"].tolist() == [0.2, 0.3]
    assert set(table["reason"]) == {"survival_1825: follow-up of the training patients of 1 of 2 models ends before"}


def test_promises_of_several_models_are_those_of_most_of_them():
    predicted = pd.DataFrame(
        {
            "patient_id": [*"AAABBB"], "cohort": "c", "task": "grade", "model": "snn", "repeat": 0,
            "fold": [0, 1, 2] * 2, "split": "new", "time_days": np.nan, "event": None, "label": None, "risk": np.nan,
            "risk_percentile": np.nan, "p_G2": 0.4, "p_G4": 0.6, "has_slides": True, "has_expression": True,
            "promised_days": [1, 2, 9, 4, np.nan, 4], "in_set_G2": [1, 1, 0, 0, 1, 0],
            "in_set_G4": [1, 0, 0, 1, np.nan, 1], "expected_change": [0.1, 0.3, np.nan, *[np.nan] * 3],
        }
    )  # fmt: skip
    table = mean_predictions(predicted).set_index("patient_id")
    np.testing.assert_allclose(table["expected_change"], [0.2, np.nan])  # of the models that know it
    np.testing.assert_array_equal(table["in_set_G2"], [1, 0])
    np.testing.assert_array_equal(table["in_set_G4"], [0, np.nan])  # one model has too few validation patients
    np.testing.assert_array_equal(table["promised_days"], [2, np.nan])


def test_new_patients_are_recalibrated_by_the_validation_patients_of_each_model_alone(run_and_others):
    run, others = run_and_others
    table = run.predictions.copy()
    first = table["split"].eq("train") & (table.groupby(["task", "model", "fold", "split"]).cumcount() < 12)
    table.loc[first, "split"] = "validation"  # linear models have none of their own
    predicted = replace(run, predictions=table).predict(others, task="grade")
    after = [name for name in predicted if name.startswith("recalibrated_p_")]
    before = [name.removeprefix("recalibrated_") for name in after]

    np.testing.assert_allclose(predicted[after].sum(axis=1), 1.0)
    assert (predicted[after].to_numpy() != predicted[before].to_numpy()).any()
    shown = run.predict(others, task="grade")
    pd.testing.assert_frame_equal(predicted[list(shown)], shown)  # what the models say stays
    for side, stays in (("test", True), ("validation", False)):
        told = table.assign(label=table["label"].mask(table["split"] == side, "G2"))
        again = replace(run, predictions=told).predict(others, task="grade")
        assert np.allclose(again[after], predicted[after]) == stays
    means = mean_predictions(predicted).set_index("patient_id")
    np.testing.assert_allclose(means[after[0]], predicted.groupby("patient_id")[after[0]].mean()[means.index])
    one_without = predicted.assign(**{after[0]: predicted[after[0]].mask(predicted["fold"] == 0)})
    assert mean_predictions(one_without)[after[0]].isna().all()


def test_patients_of_the_run_are_recalibrated_by_the_validation_patients_of_their_model_alone():
    people = cohort()
    survival = predictions(people)
    for fold, days in enumerate((200, 300, 400)):  # time bins of their own
        curve = np.exp(-days / 2000 * np.exp(survival["risk"] / 10.0**fold - 7 * fold / 10.0**fold))
        survival[f"survival_{days}"] = curve.where(survival["fold"] == fold)
    known = pd.concat([survival, predictions(people, task="grade")], ignore_index=True)
    few = (known["fold"] == 1) & (known["split"] == "validation")
    known.loc[few & (known.groupby(["task", "fold", "split"]).cumcount() > 8), "split"] = "train"

    shown = with_recalibrated(known)

    pd.testing.assert_frame_equal(shown[list(known)], known)
    before = ["survival_200", "survival_400", *(f"p_{name}" for name in CLASSES)]
    after = [f"recalibrated_{name}" for name in before]
    assert shown[after].notna().equals(known[before].notna().mul(known["fold"] != 1, axis=0).set_axis(after, axis=1))
    of_classes = shown.loc[(shown["task"] == "grade") & (shown["fold"] == 2)]
    odds = np.log(of_classes[before[2:]].to_numpy()), np.log(of_classes[after[2:]].to_numpy())
    ratio = np.diff(odds[1], axis=1) / np.diff(odds[0], axis=1)
    assert np.allclose(ratio, ratio[0, 0])  # one temperature
    assert not np.isclose(ratio[0, 0], 1)
    for side, stays in (("test", True), ("train", True), ("validation", False)):
        changed = known["split"] == side
        told = known.assign(
            time_days=known["time_days"].mask(changed, 5.0),
            label=known["label"].mask(changed & known["label"].notna(), "G2"),
        )
        again = with_recalibrated(told)
        assert [np.allclose(again[name], shown[name], equal_nan=True) for name in after] == [stays] * len(after)


def test_every_new_patient_is_tested_once_by_the_mean_of_all_folds(run_and_others, tmp_path):
    run, others = run_and_others
    metrics = run.evaluate(others, tmp_path / "external")
    table = load_run(tmp_path / "external").predictions
    test = table[table["split"] == "test"]
    assert set(test["patient_id"]) == {p.patient_id for p in others if p.expression is not None}
    assert not test.duplicated(["task", "model", "patient_id"]).any()
    single = run.predict(others, model="logistic", task="grade").groupby("patient_id")["p_G4"].mean()
    shown = test[test["task"] == "grade"].set_index("patient_id")["p_G4"]
    np.testing.assert_allclose(shown, single[shown.index], atol=1e-9)
    value = metrics.set_index(["task", "metric"]).loc[("survival", "c_index"), "value"]
    assert 0.5 < value <= 1  # the first gene shows the outcome
    of_models = run.predict(others, task="survival").groupby("patient_id")
    shown = test[test["task"] == "survival"].set_index("patient_id")
    for column in ("risk", "risk_percentile"):  # each keeps its own meaning
        np.testing.assert_allclose(shown[column], of_models[column].mean()[shown.index], atol=1e-9)
    assert shown["risk_percentile"].between(0, 100).all()


def test_patients_without_any_outcome_are_predicted_with_survival_at_the_horizons(run_and_others):
    run, others = run_and_others
    unknown = tuple(replace(p, time_days=None, event=None, labels={}) for p in others)
    predicted = run.predict(replace(others, patients=unknown, tasks={}))
    known = run.predict(others)
    assert set(predicted["split"]) == {"new"}
    assert predicted[["time_days", "event", "label"]].isna().all(axis=None)
    columns = ["patient_id", "task", "fold", "risk", "p_G2", *HORIZON_COLUMNS, "reason"]
    pd.testing.assert_frame_equal(predicted[columns], known[columns])
    survival = predicted[predicted["task"] == "survival"]
    longest = run.predictions.query("split == 'train' and task == 'survival'").groupby("fold")["time_days"].max()
    for column in HORIZON_COLUMNS:
        reached = survival["fold"].map(longest) >= float(column.removeprefix("survival_"))
        assert survival[column].notna().tolist() == reached.tolist()
    assert (survival["reason"].notna() == survival[list(HORIZON_COLUMNS)].isna().any(axis=1)).all()


def test_training_rows_are_the_patients_of_development(run_and_others, tmp_path):
    run, others = run_and_others
    run.evaluate(others, tmp_path / "external")
    table = load_run(tmp_path / "external").predictions
    train = table[(table["split"] == "train") & (table["task"] == "survival")]
    assert set(train["patient_id"]) == set(run.predictions.query("task == 'survival'")["patient_id"])
    assert train["risk_percentile"].between(0, 100).all()
    assert not train["risk"].between(0, 100).all()  # a percentile is never called a risk
    for command in (lambda run: run.predict(others), lambda run: run.explain(run.cohort(), "P003")):
        with pytest.raises(ConfigurationError, match=r"external evaluates .* and holds no models of its own\. Give "):
            command(load_run(tmp_path / "external"))


def test_known_patients_or_unknown_outcomes_alone_cannot_validate(run_and_others, tmp_path):
    run, others = run_and_others
    outcomes_known = [p for p in others if p.expression is not None]
    known = replace(
        others, patients=tuple(replace(p, patient_id=f"P{i:03d}") for i, p in enumerate(outcomes_known, start=3))
    )
    with pytest.raises(DataError, match=r"All \d+ patients of elsewhere took part in the run"):
        run.evaluate(known, tmp_path / "a")
    lacking = replace(others.patients[-1], time_days=None, event=None, labels={})
    with pytest.raises(
        DataError, match=r"Of the \d+ patients of elsewhere, \d+ took part in the run, the others have no"
    ):
        run.evaluate(replace(known, patients=(*known.patients, lacking)), tmp_path / "c")
    nothing = tuple(replace(p, time_days=None, event=None, labels={}) for p in others)
    with pytest.raises(DataError, match=r"The 14 patients of elsewhere have no outcome"):
        run.evaluate(replace(others, patients=nothing), tmp_path / "b")
    assert not [path for path in tmp_path.iterdir() if path.name in "abc"]  # free for the corrected call


def test_patients_whom_the_run_knows_are_left_out_and_named(run_and_others, tmp_path, caplog):
    run, others = run_and_others
    shared = run.predictions["patient_id"].iloc[0]
    patients = (replace(others.patients[0], patient_id=shared), *others.patients[1:])
    metrics = run.evaluate(replace(others, patients=patients), tmp_path / "external")
    said = f"1 of {len(others)} patients took part in the run, by their identifiers, and are left out: {shared}"
    assert metrics["n_patients"].max() == len(others) - 1
    assert caplog.messages.count(said) == 1
    assert said in read_json(tmp_path / "external" / "provenance.json")["notes"]

    run.evaluate(others, tmp_path / "others")
    assert caplog.messages.count(said) == 1


def test_results_of_another_cohort_are_not_overwritten(run_and_others, tmp_path):
    run, others = run_and_others
    run.evaluate(others, tmp_path / "external")
    with pytest.raises(ConfigurationError, match="differs in: evaluated"):
        run.evaluate(replace(others, name="third"), tmp_path / "external")


def test_nothing_of_an_earlier_state_of_the_cohort_is_left_beside_a_new_evaluation(run_and_others, tmp_path):
    run, others = run_and_others
    out = tmp_path / "external"
    run.evaluate(others, out)
    old = [out / "report.html", out / "audit.json", out / "explanations" / "P" / "survival" / "a.csv"]
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of the earlier state")
    corrected = replace(others, patients=tuple(replace(p, time_days=1.0, event=True) for p in others))
    metrics = run.evaluate(corrected, out)
    assert [path for path in old if path.exists() and path.read_text() == "of the earlier state"] == []
    pd.testing.assert_frame_equal(metrics, run.evaluate(corrected, tmp_path / "fresh"))


def test_the_documented_columns_are_those_of_the_files(run_and_others, tmp_path):
    run, others = run_and_others
    run.evaluate(others, tmp_path / "external")
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    section = text.split("\n## Columns\n")[1].split("\n## ")[0]
    predictions, metrics, comparisons = (
        {name for row in re.findall(r"^\|([^|]*)\|", part, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}
        for part in section.split("\nOf `")[1:4]
    )
    tables = [read_predictions(run.folder / "predictions.csv"), run.predict(others),
              mean_predictions(run.predict(others)), load_run(tmp_path / "external").predictions]  # fmt: skip
    kinds = ("survival_", "p_", "contribution_", "spread_")
    placeholders = dict(
        zip(kinds, ("survival_<days>", "p_<class>", "contribution_<subspace>", "spread_..."), strict=True)
    )
    written = {
        next((placeholders[kind] for kind in kinds if name.startswith(kind)), name) for t in tables for name in t
    }
    # of tasks with a cause, of models with validation patients, and of regression
    others = {"competing", "expected_change", "in_set_<class>", "promised_days", "value", "predicted_value"}
    assert written | others == predictions
    assert set(read_table(run.folder / "metrics.csv")) == metrics
    assert set(COMPARISON_COLUMNS) == comparisons


def test_a_class_that_training_lacks_is_left_out_of_its_task_alone(run_and_others, tmp_path, caplog):
    run, others = run_and_others
    changed = tuple(
        replace(patient, labels={"grade": "oligo"} if i < 2 else patient.labels) for i, patient in enumerate(others)
    )
    metrics = run.evaluate(replace(others, patients=changed), tmp_path / "external")
    n_patients = metrics.groupby("task")["n_patients"].max()
    assert n_patients["survival"] == len(others)
    assert n_patients["grade"] == len(others) - 2
    (said,) = [message for message in caplog.messages if "no training patient had" in message]
    assert said.startswith("grade: 2 patients of a class that no training patient had (oligo; training had")
    assert changed[0].patient_id in said


def test_explanations_of_another_cohort_leave_those_of_the_run(run_and_others, make_cohort, tmp_path):
    run, others = run_and_others
    run = load_run(shutil.copytree(run.folder, tmp_path / "run"))
    known = make_cohort(38).select(run.predictions["patient_id"].unique())
    own = run.explain_cohort(known, model="cox")
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    elsewhere = run.explain_cohort(others, model="cox")
    assert (own.name, elsewhere.name) == ("cohort", "cohort-elsewhere")
    assert len(before) > 3
    assert {path: path.read_bytes() for path in own.rglob("*") if path.is_file()} == before


def test_a_patient_of_no_fold_is_explained_by_one_model_of_each_repeat(run_and_others, make_cohort):
    run, others = run_and_others
    known = make_cohort(38).select(run.predictions["patient_id"].unique())
    strangers = [replace(patient, patient_id=f"new-{i}") for i, patient in enumerate(others.patients[:3])]
    jobs = [(job, run.fitted(job)) for job in run.jobs(model="cox")]

    def times(cohort):
        tested = [p.patient_id for job, fitted in jobs for p in run._tested(job, fitted, cohort).patients]
        return {tested.count(patient.patient_id) for patient in cohort}

    n_repeats = len({job.repeat for job, _ in jobs})
    assert len(jobs) > n_repeats
    assert times(replace(known, patients=(*known.patients, *strangers))) == {n_repeats}
    assert times(others) == {len(jobs)}
