import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from small_cohort import deal_folds
from subfuse.cohort.bags import BagReader, FeatureCache, InputStandardiser
from subfuse.cohort.batches import collate, make_target
from subfuse.errors import DataError
from subfuse.training.fitting import train_fold
from subfuse.training.problem import assign
from subfuse.training.selection import NETWORK_SHARES
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from subfuse.training.step import TaskData, drop_modalities, paired
from subfuse.training.stored_model import load_fitted
from subfuse.training.trainer import OPTIMIZERS

SMALL = ArchitectureSettings(embed_dim=32, max_grid=8, dropout=0.0, table_size=32)
BRIEF = TrainingSettings(epochs=3, batch_size=4, lr=3e-3)


def train(cohort, model="subspace", task="survival", settings=BRIEF, seed=1, fold=0, **kwargs):
    return train_fold(
        cohort,
        deal_folds(cohort)[fold],
        task=task,
        model_name=model,
        plan=TrainingPlan(training=settings, architecture=SMALL, seed=seed),
        **kwargs,
    )


def read_log(folder):
    with open(folder / "log.csv") as file:
        return list(csv.DictReader(file))


def weights_of(fitted):
    return torch.cat([value.flatten().double() for value in fitted.model.state_dict().values()])


def change_patient(cohort, patient_id, **changes):
    patients = tuple(replace(p, **changes) if p.patient_id == patient_id else p for p in cohort)
    return replace(cohort, patients=patients)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make_cohort):
    cohort = make_cohort()
    first, again, other = train(cohort), train(cohort), train(cohort, seed=2)
    assert torch.equal(weights_of(first), weights_of(again))
    assert not torch.equal(weights_of(first), weights_of(other))


def test_the_first_network_of_an_ensemble_is_the_one_trained_alone(make_cohort, tmp_path):
    cohort, told = make_cohort(), []
    ensemble = train(
        cohort,
        settings=BRIEF.model_copy(update={"members": 2}),
        log_path=tmp_path / "log.csv",
        progress=lambda done, total, message: told.append((done, total)),
    )
    alone = train(cohort)
    first, second = ensemble.model.members
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in alone.model.state_dict().items())
    assert not torch.equal(first.head.weight, second.head.weight)
    assert told == [(done, 6) for done in range(1, 7)]
    assert len(read_log(tmp_path)) == len(read_log(tmp_path / "member_1")) == 3

    ensemble.save(tmp_path / "model")
    again = load_fitted(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(cohort.patients), ensemble.predict(cohort.patients))


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


def test_the_log_has_a_row_per_epoch_and_the_subspaces_conflict_rate(make_cohort, tmp_path):
    train(make_cohort(), log_path=tmp_path / "log.csv")
    rows = read_log(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(0 <= float(row["gradient_conflict"]) <= 1 for row in rows)
    assert all(np.isfinite(float(row["validation_loss"])) for row in rows)


@pytest.mark.walk
def test_the_weights_kept_are_those_of_the_lowest_validation_loss(make_cohort, tmp_path):
    settings = TrainingSettings(
        epochs=12, batch_size=4, lr=5e-2, patience=12, selection="loss"
    )  # a rate that overfits soon
    cohort = make_cohort()
    long = train(cohort, settings=settings, log_path=tmp_path / "log.csv")
    losses = [float(row["validation_loss"]) for row in read_log(tmp_path)]
    validation = assign(cohort, deal_folds(cohort)[0], cohort.tasks["survival"], "subspace").validation
    batch = collate([BagReader(long.standardiser).read(p) for p in validation], n_genes=len(cohort.genes))
    with torch.inference_mode():
        loss = long.objective(long.model(**batch.inputs()), make_target(validation, cohort.tasks["survival"], ()))
    assert float(loss.terms["task"]) == pytest.approx(min(losses), rel=1e-4)


def test_early_stopping_stops_after_patience(make_cohort, tmp_path):
    settings = TrainingSettings(epochs=60, batch_size=4, lr=5e-2, patience=2, selection="loss")
    train(make_cohort(), settings=settings, log_path=tmp_path / "log.csv")
    losses = [float(row["validation_loss"]) for row in read_log(tmp_path)]
    assert len(losses) < 60
    assert int(np.argmin(losses)) == len(losses) - 3


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


def test_dropped_modalities_hit_only_patients_with_both_and_never_both(make_cohort):
    cohort = make_cohort()
    reader = BagReader(InputStandardiser.fit(cohort.patients, cohort.genes, FeatureCache()))
    batch = collate([reader.read(p) for p in cohort], n_genes=len(cohort.genes))
    dropped = drop_modalities(batch, 0.999, np.random.default_rng(0).random(len(cohort)))
    assert not paired(dropped).any()
    assert (dropped.patch_mask.any(dim=1) | dropped.expression_mask).all()
    assert dropped.patch_mask[1].any()  # slides only: kept
    assert dropped.expression_mask[0]  # expression only: kept
    kept = drop_modalities(batch, 0.0, np.random.default_rng(0).random(len(cohort)))
    assert torch.equal(paired(kept), paired(batch))


@pytest.mark.parametrize(("task", "model"), [("survival", "subspace"), ("grade", "subspace")])
def test_what_is_fitted_before_training_comes_from_training_patients_only(make_cohort, task, model):
    cohort, brief = make_cohort(), BRIEF.model_copy(update={"epochs": 1})
    fold = deal_folds(cohort)[0]
    before = train(cohort, model, task, brief)
    for name in fold.validation:
        large = np.full(len(cohort.genes), 1e3, np.float32)
        cohort = change_patient(cohort, name, expression=large, time_days=1.0, slides=(), labels={"grade": "G4"})
    after = train(cohort, model, task, brief)
    assert before.objective.to_dict() == after.objective.to_dict()  # time bins, class weights
    for part in ("mean", "scale"):
        ours, theirs = (getattr(fitted.standardiser.expression, part) for fitted in (before, after))
        np.testing.assert_array_equal(ours, theirs)
    assert before.recipe == after.recipe  # with the size of the grid


def test_the_learning_rate_rises_evenly_and_falls_as_a_cosine(make_cohort, tmp_path):
    cohort = make_cohort()
    n_train = len(assign(cohort, deal_folds(cohort)[0], cohort.tasks["survival"], "snn").train)
    settings = TrainingSettings(epochs=10, batch_size=n_train, lr=2e-3, warmup=0.3, patience=10)  # an update per epoch
    train(cohort, "snn", settings=settings, log_path=tmp_path / "log.csv")
    rates = [float(row["lr"]) / 2e-3 for row in read_log(tmp_path)]
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1])
    assert rates[3:] == pytest.approx([0.5 * (1 + np.cos(np.pi * step / 7)) for step in range(7)])


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_weight_decay_is_a_penalty_with_adam_and_decoupled_with_adamw(make_cohort, monkeypatch, name):
    made, kind = [], OPTIMIZERS[name]
    monkeypatch.setitem(OPTIMIZERS, name, lambda *args, **options: made.append(kind(*args, **options)) or made[-1])
    settings = TrainingSettings(epochs=1, optimizer=name, lr=1e-3, weight_decay=0.7)
    train(make_cohort(), "snn", settings=settings)
    (optimizer,) = made
    assert type(optimizer) is {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[name]
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.7
    assert group["decoupled_weight_decay"] is (name == "adamw")


def test_mixed_precision_trains_to_nearly_the_same_weights_and_keeps_them_in_single_precision(make_cohort):
    cohort = make_cohort()
    settings = BRIEF.model_copy(update={"accelerator": "cpu", "modality_dropout": 0.0})
    mixed = settings.model_copy(update={"precision": "bf16-mixed"})
    single, rounded = train(cohort, settings=settings), train(cohort, settings=mixed)
    assert not torch.equal(weights_of(single), weights_of(rounded))
    assert all(value.dtype != torch.bfloat16 for value in rounded.model.state_dict().values())
    start = train(cohort, settings=settings.model_copy(update={"lr": 1e-12, "weight_decay": 0.0}))
    moved = weights_of(single) - weights_of(start)
    assert (weights_of(rounded) - weights_of(single)).norm() < 0.5 * moved.norm()


def test_modalities_are_hidden_while_training_and_never_while_validating(make_cohort, monkeypatch):
    cohort, seen = make_cohort(), []
    share = TaskData.share

    def watched(data, patients, **options):
        drawn = share(data, patients, **options)
        hidden = [p.patient_id for batch in drawn.batches for p, both in zip(patients, paired(batch), strict=False)
                  if p.slides and p.expression is not None and not both]  # fmt: skip
        seen.append(({p.patient_id for p in patients}, len(hidden)))
        return drawn

    monkeypatch.setattr(TaskData, "share", watched)
    train(cohort, settings=BRIEF.model_copy(update={"modality_dropout": 0.6, "batch_size": len(cohort)}))
    validation = set(deal_folds(cohort)[0].validation)
    hidden = {kind: [n for ids, n in seen if (ids <= validation) is kind] for kind in (False, True)}
    assert min(hidden[False]) > 0
    assert hidden[True] == [0] * BRIEF.epochs


def test_what_is_predicted_of_an_unknown_patient_is_the_mean_over_training_patients(make_cohort):
    cohort = make_cohort()
    fitted, fold = train(cohort), deal_folds(cohort)[0]
    seen = assign(cohort, fold, cohort.tasks["survival"], "subspace").train
    assert 0 < len(seen) < len(cohort)
    with torch.inference_mode():
        shares = [fitted.model(**batch.inputs()).subspace_logits for p in seen for batch in fitted.batches([p])]
    torch.testing.assert_close(fitted.baseline_logits, torch.cat(shares).mean(dim=0))


LINE = BRIEF.model_copy(update={"linear_path": True, "epochs": 1})


@pytest.mark.parametrize(
    ("task", "model", "linear"), [("survival", "concat", "cox-both"), ("grade", "snn", "logistic")]
)
def test_a_linear_path_is_the_linear_model_of_the_training_patients_and_lies_with_the_weights(
    make_cohort, tmp_path, task, model, linear
):
    cohort = make_cohort()
    fold = deal_folds(cohort)[0]
    fold = replace(fold, train=tuple(sorted(fold.train)))  # inner folds depend on the order
    plan = TrainingPlan(training=LINE, architecture=SMALL)
    fitted = train_fold(cohort, fold, task=task, model_name=model, plan=plan)
    alone = train_fold(cohort, replace(fold, validation=()), task=task, model_name=linear, plan=plan)
    assert fitted.details["network_share"] == float(fitted.model.share)
    assert fitted.details["network_share"] in NETWORK_SHARES
    assert fitted.subspaces == ("all", "linear_path")
    fitted.model.share.zero_()
    batches = list(fitted.batches(cohort.patients[3:]))
    with torch.inference_mode():
        logits = torch.cat([fitted.model(**batch.inputs()).logits for batch in batches])
        expected = torch.cat([alone.model(**batch.inputs()).logits for batch in batches])
    intercepts = fitted.model.line.head.bias if task == "survival" else torch.zeros(2)
    torch.testing.assert_close(logits, expected + intercepts, rtol=0, atol=1e-5)
    fitted.save(tmp_path)
    table = load_fitted(tmp_path).predict(cohort.patients)
    pd.testing.assert_frame_equal(table, fitted.predict(cohort.patients))
    assert not table["contribution_all"].fillna(0).any()
    assert table["contribution_linear_path"].std() > 0


def test_validation_patients_do_not_change_the_linear_path(make_cohort):
    cohort = make_cohort()
    other = cohort
    for name in deal_folds(cohort)[0].validation:
        other = change_patient(other, name, expression=np.full(10, 9, np.float32), time_days=1.0)
    before, after = (train(c, "snn", settings=LINE).model.line.state_dict() for c in (cohort, other))
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_linear_path_reads_what_the_cohort_and_the_model_have(make_cohort):
    cohort = make_cohort()
    without = replace(cohort, patients=tuple(replace(p, slides=()) for p in cohort if p.expression is not None))
    assert train(cohort, "abmil", settings=LINE).recipe.linear_path == ("slides",)
    assert train(without, "concat", settings=LINE).recipe.linear_path == ("expression",)
    assert train(cohort, "cox", settings=LINE).recipe.linear_path == ()
    assert train(cohort, "snn").recipe.linear_path == ()  # unless asked for
