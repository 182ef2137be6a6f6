"""How a network is trained: rates, epochs, what is kept, and what is hidden while training."""

import numpy as np
import pytest
import torch
from brief_training import BRIEF, read_log, train, weights_of

from small_cohort import deal_folds
from subfuse.cohort.bags import BagReader
from subfuse.cohort.batches import collate, make_target
from subfuse.training.checkpoint import Checkpoint
from subfuse.training.problem import assign
from subfuse.training.processes import one_process
from subfuse.training.settings import TrainingSettings
from subfuse.training.step import TaskData, paired
from subfuse.training.trainer import OPTIMIZERS, Trainer


def test_the_log_has_a_row_per_epoch_and_the_subspaces_conflict_rate(make_cohort, tmp_path):
    train(make_cohort(), log_path=tmp_path / "log.csv")
    rows = read_log(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(0 <= float(row["gradient_conflict"]) <= 1 for row in rows)
    assert all(np.isfinite(float(row["validation_loss"])) for row in rows)


@pytest.mark.walk
def test_the_weights_kept_are_those_of_the_lowest_validation_loss(make_cohort, tmp_path):
    settings = TrainingSettings(
        epochs=12, batch_size=4, lr=5e-2, patience=12, selection="loss", linear_path=False
    )  # a rate that overfits soon
    cohort = make_cohort()
    long = train(cohort, settings=settings, log_path=tmp_path / "log.csv")
    losses = [float(row["validation_loss"]) for row in read_log(tmp_path)]
    validation = assign(cohort, deal_folds(cohort)[0], cohort.tasks["survival"], "subspace").validation
    batch = collate([BagReader(long.standardiser).read(p) for p in validation], n_inputs=len(cohort.genes))
    with torch.inference_mode():
        loss = long.objective(long.model(**batch.inputs()), make_target(validation, cohort.tasks["survival"], ()))
    assert float(loss.terms["task"]) == pytest.approx(min(losses), rel=1e-4)


def test_early_stopping_stops_after_patience(make_cohort, tmp_path):
    settings = TrainingSettings(epochs=60, batch_size=4, lr=5e-2, patience=2, selection="loss")
    train(make_cohort(), settings=settings, log_path=tmp_path / "log.csv")
    losses = [float(row["validation_loss"]) for row in read_log(tmp_path)]
    assert len(losses) < 60
    assert int(np.argmin(losses)) == len(losses) - 3


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


def test_networks_of_an_ensemble_have_seeds_and_files_of_their_own_and_the_first_is_that_trained_alone(tmp_path):
    told = []
    alone = Trainer(
        BRIEF,
        3,
        one_process(BRIEF),
        checkpoint=Checkpoint(tmp_path / "last.ckpt", {"seed": 3}),
        log_path=tmp_path / "log.csv",
        progress=lambda *step: told.append(step),
    )
    members = [alone.member(index, 3) for index in range(3)]
    assert (members[0].seed, members[0].log_path, members[0].checkpoint) == (3, alone.log_path, alone.checkpoint)
    assert len({member.seed for member in members}) == 3
    assert len({member.log_path for member in members}) == len({member.checkpoint.path for member in members}) == 3
    assert all(member.checkpoint.description["seed"] == member.seed for member in members)
    assert members[2].log_path.parent == tmp_path / "member_2"
    assert alone.member(2, 3).seed == members[2].seed != alone.member(2, 3).member(1, 3).seed
    members[1].progress(2, 5, "epoch 2")
    assert told == [(7, 15, "network 2 of 3, epoch 2")]
