from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from brief_training import BRIEF, SMALL, change_patient, read_log, train, weights_of

from small_cohort import deal_folds
from subfuse.cohort.bags import BagReader
from subfuse.cohort.batches import KeptBags, make_target
from subfuse.cohort.fold import Fold
from subfuse.errors import DataError
from subfuse.evaluation.survival.horizons import with_horizons
from subfuse.model.linear_path import networks_of
from subfuse.training.fitted_model import FittedModel
from subfuse.training.fitting import HEAD_START, predict_sides, train_fold
from subfuse.training.linear.fit import fit_line
from subfuse.training.models import MODELS
from subfuse.training.problem import assign, pose
from subfuse.training.selection import NETWORK_SHARES, network_share
from subfuse.training.settings import TrainingPlan, TrainingSettings
from subfuse.training.step import JointUpdate
from subfuse.training.stored_model import load_fitted


@pytest.mark.walk
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make_cohort):
    cohort = make_cohort()
    first, again, other = train(cohort), train(cohort), train(cohort, seed=2)
    assert torch.equal(weights_of(first), weights_of(again))
    assert not torch.equal(weights_of(first), weights_of(other))


def test_training_and_predicting_ask_torch_for_deterministic_algorithms_only_where_the_plan_does(
    make_cohort, monkeypatch
):
    cohort, asked = make_cohort(), []
    step, reads = JointUpdate.__call__, FittedModel._table

    def watched(what, function):
        def call(*arguments):
            asked.append((what, torch.are_deterministic_algorithms_enabled()))
            return function(*arguments)

        return call

    monkeypatch.setattr(JointUpdate, "__call__", watched("step", step))
    monkeypatch.setattr(FittedModel, "_table", watched("prediction", reads))
    found = []
    for wanted in (False, True):
        fitted = train(cohort, settings=BRIEF.model_copy(update={"deterministic": wanted}))
        found.append((weights_of(fitted), fitted.predict(cohort.patients)))
        assert set(asked) == {("step", wanted), ("prediction", wanted)}
        assert not torch.are_deterministic_algorithms_enabled()
        asked.clear()
    (weights, predictions), (again, predicted_again) = found
    assert torch.equal(weights, again)
    pd.testing.assert_frame_equal(predictions, predicted_again, check_exact=True)


@pytest.mark.walk
def test_the_first_network_of_an_ensemble_is_the_one_trained_alone(make_cohort, tmp_path):
    cohort, told = make_cohort(), []
    ensemble = train(
        cohort,
        settings=BRIEF.model_copy(update={"members": 2}),
        log_path=tmp_path / "log.csv",
        progress=lambda done, total, message: told.append((done, total)),
    )
    first, second = networks_of(ensemble.model)
    (alone,) = networks_of(train(cohort).model)
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in alone.state_dict().items())
    assert not torch.equal(first.head.weight, second.head.weight)
    assert told == [(done, 6) for done in range(1, 7)]
    logs = [read_log(tmp_path), read_log(tmp_path / "member_1")]
    assert [len(log) for log in logs] == [3, 3]

    ensemble.save(tmp_path / "model")
    again = load_fitted(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(cohort.patients), ensemble.predict(cohort.patients))


@pytest.mark.parametrize("settings", [{}, {"linear_path": False}, {"members": 2}])
def test_what_a_search_minimises_is_the_score_of_the_weights_that_are_kept(make_cohort, settings):
    cohort = make_cohort(48)
    fitted = train(cohort, "snn", settings=BRIEF.model_copy(update=settings))
    rows = predict_sides(fitted, cohort, deal_folds(cohort)[0]).query("split == 'validation'")
    time, event, risk = (rows[name].to_numpy() for name in ("time_days", "event", "risk"))
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if event[i] and time[i] < time[j]]
    assert len(pairs) > 5
    ranked = np.mean([(risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j]) for i, j in pairs])
    assert fitted.details["validation_score"] == pytest.approx(-ranked)


@pytest.mark.walk
@pytest.mark.parametrize(
    "change", [{}, {"batch_size": 3, "accumulate": 2, "modality_dropout": 0.5}, {"members": 2, "linear_path": False}]
)
def test_cells_of_bags_train_the_network_that_all_patches_train(change, make_cohort, monkeypatch):
    cohort, settings, read = make_cohort(48), BRIEF.model_copy(update=change), []
    monkeypatch.setattr(
        BagReader, "read", lambda self, p, read_bag=BagReader.read: read.append(p.patient_id) or read_bag(self, p)
    )
    kept = KeptBags()
    fitted = train(cohort, settings=settings, kept=kept)
    assert len(read) == fitted.details["n_train"] + fitted.details["n_validation"] == len({*read})
    of_test = {*deal_folds(cohort)[0].test}
    predicted = predict_sides(fitted, cohort, deal_folds(cohort)[0], kept)
    assert len(read) == len({*read})
    assert of_test.issuperset(read[-len(of_test) :])

    monkeypatch.setitem(MODELS, "subspace", replace(MODELS["subspace"], is_binned=False))
    of_patches = train(cohort, settings=settings)
    torch.testing.assert_close(weights_of(of_patches), weights_of(fitted), rtol=1e-4, atol=1e-5)
    expected = predict_sides(of_patches, cohort, deal_folds(cohort)[0])
    pd.testing.assert_frame_equal(predicted, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.walk
def test_a_patient_whom_training_cannot_read_is_left_out_and_moves_no_other_patients_line(make_cohort, caplog):
    """Expression is known of two validation patients and a test patient alone, of whom two have no slide."""
    cohort = make_cohort(60)
    fold = deal_folds(cohort)[0]
    with_both, without_slides, tested = *fold.validation[2:4], fold.test[3]
    patients = tuple(
        replace(
            patient,
            expression=patient.expression if patient.patient_id in (with_both, without_slides, tested) else None,
            slides=() if patient.patient_id in (without_slides, tested) else patient.slides,
        )
        for patient in cohort
    )
    cohort = replace(cohort, patients=patients)
    fitted = train(cohort, "concat")
    found = predict_sides(fitted, cohort, fold)
    assert "1 of 10 validation patients have no modality that a training patient has" in caplog.text
    assert "1 of 29 test patients have no modality" in caplog.text
    assert not {without_slides, tested} & {*found["patient_id"]}
    assert found["risk"].notna().all()
    plan = TrainingPlan(training=BRIEF, architecture=SMALL, seed=1)
    others = replace(fold, validation=tuple(name for name in fold.validation if name != without_slides))
    without = train_fold(cohort, others, task="survival", model_name="concat", plan=plan)
    expected = predict_sides(without, cohort, others)
    pd.testing.assert_frame_equal(found, expected)
    assert (expected["split"] == "validation").sum() > 8  # more than one batch
    with pytest.raises(ValueError, match=r"a row for each usable patient, 1\. Found 2"):
        fitted.predict(cohort.select([with_both]).patients, line=torch.zeros(2, 4))


def test_training_leaves_the_global_generator_alone(make_cohort):
    cohort = make_cohort()
    torch.manual_seed(5)
    train(cohort)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("model", ["subspace", "concat", "cox"])
def test_test_patients_cannot_influence_anything(make_cohort, model):
    cohort = make_cohort()
    held_out = deal_folds(cohort)[0].test[3]
    garbage = np.full(len(cohort.genes), 1e6, np.float32)
    changed = change_patient(cohort, held_out, expression=garbage, time_days=1.0, event=True, slides=())
    before, after = train(cohort, model), train(changed, model)
    assert torch.equal(weights_of(before), weights_of(after))
    assert before.describe() == after.describe()


def test_a_training_patient_does_influence_the_weights(make_cohort):
    cohort = make_cohort()
    trained_on = deal_folds(cohort)[0].train[4]
    changed = change_patient(cohort, trained_on, time_days=1.0, event=True)
    assert not torch.equal(weights_of(train(cohort)), weights_of(train(changed)))


@pytest.mark.walk
@pytest.mark.parametrize("model", ["subspace", "abmil", "snn", "concat", "cox", "logistic"])
def test_models_learn_a_strong_signal(make_cohort, model):
    cohort = make_cohort(40)
    task = "survival" if model == "cox" else "grade"
    settings = TrainingSettings(epochs=25, batch_size=8, lr=5e-3, patience=25)
    fitted = train(cohort, model, task, settings)
    seen = assign(cohort, deal_folds(cohort)[0], cohort.tasks[task], model).train
    table = fitted.predict(seen)
    if task == "grade":
        correct = (table["p_G4"] > 0.5) == [p.labels["grade"] == "G4" for p in seen]
        assert correct.mean() > 0.85
    else:
        assert np.corrcoef(table["risk"], [np.log(p.time_days) for p in seen])[0, 1] < -0.6


def test_a_model_without_its_modality_is_refused_by_name(make_cohort):
    cohort = make_cohort()
    without = replace(cohort, patients=tuple(replace(p, slides=()) for p in cohort))
    with pytest.raises(DataError, match="abmil needs training and validation patients with slides"):
        train(without, "abmil", "grade")


def test_patients_without_slides_train_and_predict_as_masked(make_cohort):
    cohort = make_cohort()
    without = replace(cohort, patients=tuple(replace(p, slides=()) for p in cohort if p.expression is not None))
    table = train(without).predict(without.patients)
    assert not table["has_slides"].any()
    assert np.isfinite(table["risk"]).all()


def test_what_is_predicted_of_an_unknown_patient_is_the_mean_over_training_patients(make_cohort):
    cohort = make_cohort()
    fitted, fold = train(cohort), deal_folds(cohort)[0]
    seen = assign(cohort, fold, cohort.tasks["survival"], "subspace").train
    assert 0 < len(seen) < len(cohort)
    with torch.inference_mode():
        shares = [fitted.model(**batch.inputs()).subspace_logits for p in seen for batch in fitted.batches([p])]
    torch.testing.assert_close(fitted.baseline_logits, torch.cat(shares).mean(dim=0))


LINE = BRIEF.model_copy(update={"epochs": 1})


@pytest.mark.walk
@pytest.mark.parametrize(("task", "model"), [("survival", "concat"), ("grade", "snn")])
def test_a_linear_path_is_the_linear_model_of_all_who_are_not_tested_and_lies_with_the_weights(
    make_cohort, tmp_path, task, model
):
    cohort, plan = make_cohort(48), TrainingPlan(training=LINE, architecture=SMALL)
    fold = deal_folds(cohort)[0]
    fitted = train_fold(cohort, fold, task=task, model_name=model, plan=plan)
    problem = pose(cohort, fold, cohort.tasks[task], model, plan)
    known = (*problem.parts.train, *problem.parts.validation)
    line, target = problem.recipe.build_linear_path(), make_target(known, cohort.tasks[task], problem.data.classes)
    fit_line(line, problem.data.batches(known, 1), target, problem.objective)
    share = fitted.details["network_share"]
    assert 2 * share in {one + other for one in NETWORK_SHARES for other in NETWORK_SHARES}
    assert float(fitted.model.network_share) == share
    assert float(fitted.model.line_share) == 1 - share + 0.5 * share  # a network starts from half of the line
    assert fitted.subspaces == ("all", "linear_path")
    fitted.model.network_share.zero_()
    fitted.model.line_share.fill_(1.0)
    batches = list(fitted.batches(cohort.patients[3:]))
    with torch.inference_mode():
        logits = torch.cat([fitted.model(**batch.inputs()).logits for batch in batches])
        expected = torch.cat([line(**batch.inputs()).logits for batch in batches])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    fitted.save(tmp_path)
    table = load_fitted(tmp_path).predict(cohort.patients)
    pd.testing.assert_frame_equal(table, fitted.predict(cohort.patients))
    assert not table["contribution_all"].fillna(0).any()
    assert table["contribution_linear_path"].std() > 0


@pytest.mark.walk
@pytest.mark.parametrize(
    ("task", "network", "linear"),
    [("survival", "concat", "cox-both"), ("survival", "snn", "cox"), ("grade", "abmil", "logistic-slides")],
)
def test_where_training_patients_scale_genes_as_everybody_not_tested_does_the_linear_path_is_the_linear_model(
    make_cohort, task, network, linear
):
    """Those who train stand before those who validate, as a linear model takes them: its inner folds are the same."""
    cohort = make_cohort(48)
    names = [patient.patient_id for patient in cohort]
    fold = Fold(tuple(names[:32]), tuple(names[32:40]), tuple(names[40:]))
    for side in (fold.train, fold.validation):
        measured = [patient.patient_id for patient in cohort if patient.patient_id in side and _is_measured(patient)]
        values = np.stack([cohort.select([name]).patients[0].expression for name in measured]).astype(float)
        for name, value in zip(measured, (values - values.mean(axis=0)) / values.std(axis=0), strict=True):
            cohort = change_patient(cohort, name, expression=value.astype(np.float32))
    plan = TrainingPlan(training=LINE, architecture=SMALL)
    line = train_fold(cohort, fold, task=task, model_name=network, plan=plan).model.line
    alone = train_fold(cohort, fold, task=task, model_name=linear, plan=plan).model
    assert alone.head.weight.abs().max() > 0.01
    torch.testing.assert_close(line.head.weight, alone.head.weight.expand_as(line.head.weight), rtol=1e-3, atol=1e-5)


def _is_measured(patient):
    return patient.expression is not None


@pytest.mark.walk
def test_validation_patients_train_the_linear_path_and_test_patients_do_not(make_cohort):
    cohort = make_cohort(48)
    fold = deal_folds(cohort)[0]

    def line_without(names):
        other = cohort
        for name in names:
            other = change_patient(other, name, expression=np.full(10, 9, np.float32), time_days=1.0)
        return train(other, "snn", settings=LINE).model.line.head.weight

    assert torch.equal(line_without(()), line_without(fold.test))
    assert not torch.equal(line_without(()), line_without(fold.validation))


@pytest.mark.parametrize("task", ["survival", "grade"])
def test_validation_patients_are_predicted_by_what_the_linear_path_says_of_them_out_of_fold(
    make_cohort, tmp_path, task
):
    cohort, plan = make_cohort(48), TrainingPlan(training=LINE, architecture=SMALL)
    fold = deal_folds(cohort)[0]
    problem = pose(cohort, fold, cohort.tasks[task], "snn", plan)
    known = (*problem.parts.train, *problem.parts.validation)
    target = make_target(known, cohort.tasks[task], problem.data.classes)
    line = fit_line(problem.recipe.build_linear_path(), problem.data.batches(known, 1), target, problem.objective)
    train_fold(cohort, fold, task=task, model_name="snn", plan=plan).save(tmp_path)
    fitted = load_fitted(tmp_path)
    of_line = line[len(problem.parts.train) :].detach()
    (batch,) = fitted.batches(problem.parts.validation, batch_size=len(cohort))
    with torch.inference_mode():
        started = fitted.model.network(**batch.inputs()).logits + HEAD_START * of_line
    target = make_target(problem.parts.validation, cohort.tasks[task], problem.data.classes)
    assert fitted.details["network_share"] == network_share(started, of_line, problem.objective, target)
    fitted.model.network_share.zero_()
    validation = predict_sides(fitted, cohort, fold).query("split == 'validation'")
    expected = problem.objective.predict(fitted.model.line_share * of_line)
    if task == "survival":
        np.testing.assert_allclose(validation["risk"], expected.risk, atol=1e-5)
    else:
        columns = [f"p_{name}" for name in problem.data.classes]
        np.testing.assert_allclose(validation[columns], expected.probabilities, atol=1e-5)
    in_sample = fitted.predict(problem.parts.validation)["contribution_linear_path"]
    assert not np.allclose(validation["contribution_linear_path"], in_sample, atol=1e-2)
    tables = predict_sides(fitted, cohort, fold).set_index("split")["contribution_linear_path"]
    for split, patients in (("train", problem.parts.train), ("test", problem.parts.test)):
        np.testing.assert_array_equal(tables[split], fitted.predict(patients)["contribution_linear_path"])


def test_the_log_of_a_linear_model_has_its_penalties_and_where_there_is_one_the_c_index(make_cohort, tmp_path):
    logs = {}
    for model, task in (("cox", "survival"), ("logistic", "grade")):
        train(make_cohort(), model, task, log_path=tmp_path / model / "log.csv")
        logs[model] = read_log(tmp_path / model)
    both = {"reads", "penalty", "cross_validated_loss"}
    assert [set(logs[model][0]) for model in logs] == [both | {"cross_validated_c_index"}, both]
    assert all(0 <= float(row["cross_validated_c_index"]) <= 1 for row in logs["cox"])


def test_risks_of_a_cox_model_are_given_curves_by_its_training_patients(make_cohort):
    cohort = make_cohort()
    fold = deal_folds(cohort)[0]
    fitted = train(cohort, "cox")
    table = predict_sides(fitted, cohort, fold)
    bare = table.drop(columns=[name for name in table if name.startswith("survival_")])
    trained = bare[bare["split"] == "train"].dropna(subset=["risk"])
    pd.testing.assert_frame_equal(table, with_horizons(bare, trained).drop(columns="reason"))
    assert table.filter(like="survival_").notna().any().any()
    assert set(table["split"]) == {"train", "test"}


def test_the_narrowest_and_the_widest_patches_of_training_are_kept(make_cohort):
    cohort = make_cohort()
    fold = deal_folds(cohort)[0]
    slides = {p.patient_id: p.slides for p in cohort}
    widths = {slides[fold.train[2]][0]: 112.0, slides[fold.train[3]][0]: 140.0, slides[fold.test[3]][0]: 250.0}
    cohort = replace(cohort, patch_um={**cohort.patch_um, **widths})
    assert train(cohort, "abmil", settings=LINE).patch_um == (112.0, 140.0)
    assert train(replace(cohort, patch_um={}), "abmil", settings=LINE).patch_um is None
    assert train(cohort, "snn", settings=LINE).patch_um is None
