"""How a network is trained: rates, epochs, what is kept, and what is hidden while training."""

import threading
from contextlib import contextmanager
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from brief_training import BRIEF, read_log, train, weights_of
from lightning.fabric import Fabric
from lightning.fabric.loggers import Logger

from small_cohort import deal_folds
from subfuse.cohort.bags import BagReader
from subfuse.cohort.batches import collate, make_target
from subfuse.errors import ConfigurationError, DataError
from subfuse.model.linear_path import networks_of
from subfuse.training import trainer
from subfuse.training.checkpoint import Checkpoint
from subfuse.training.problem import assign
from subfuse.training.processes import one_process
from subfuse.training.settings import TrainingPlan, TrainingSettings
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


@pytest.mark.parametrize(("warmup", "rising"), [(0.3, [1 / 3, 2 / 3, 1]), (0.0, [1])])
@pytest.mark.parametrize("updates", [1, 3])
def test_the_learning_rate_rises_evenly_and_falls_as_a_cosine(
    make_cohort, tmp_path, monkeypatch, warmup, rising, updates
):
    """The log has the mean over the updates of an epoch; of several, all rise and fall as one."""
    used = []

    def watched(*parameters, **options):
        optimizer = torch.optim.AdamW(*parameters, **options)
        optimizer.register_step_pre_hook(lambda of, *_: used.append(of.param_groups[0]["lr"] / 2e-3))
        return optimizer

    monkeypatch.setitem(OPTIMIZERS, "adamw", watched)
    cohort = make_cohort()
    n_train = len(assign(cohort, deal_folds(cohort)[0], cohort.tasks["survival"], "snn").train)
    settings = TrainingSettings(
        epochs=10, batch_size=-(-n_train // updates), lr=2e-3, warmup=warmup, patience=10, linear_path=False
    )
    train(cohort, "snn", settings=settings, log_path=tmp_path / "log.csv")
    steps = np.arange(10 * updates)
    if updates > 1 and warmup:
        rising = (1 + np.arange(9)) / 9
    falling = steps[: len(steps) - len(rising)]
    expected = np.concatenate([rising, 0.5 * (1 + np.cos(np.pi * falling / len(falling)))])
    assert used == pytest.approx(expected)
    rates = [float(row["lr"]) / 2e-3 for row in read_log(tmp_path)]
    assert rates == pytest.approx(expected.reshape(10, updates).mean(axis=1))


def test_every_patient_is_in_one_joint_batch_of_an_epoch(make_cohort, monkeypatch):
    cohort, seen, share = make_cohort(), [], TaskData.share
    monkeypatch.setattr(
        TaskData, "share", lambda data, patients, **more: seen.append(patients) or share(data, patients, **more)
    )
    train(cohort, "snn", settings=BRIEF.model_copy(update={"batch_size": 1, "accumulate": 3, "linear_path": False}))
    parts = assign(cohort, deal_folds(cohort)[0], cohort.tasks["survival"], "snn")
    sizes = [3, 3, len(parts.train) - 6, len(parts.validation)]
    assert 6 < len(parts.train) < 10
    assert [len(patients) for patients in seen] == sizes * BRIEF.epochs
    epochs = [[p.patient_id for patients in seen[i : i + 3] for p in patients] for i in range(0, len(seen), 4)]
    assert [sorted(ids) for ids in epochs] == [sorted(p.patient_id for p in parts.train)] * BRIEF.epochs
    assert len({tuple(ids) for ids in epochs}) == BRIEF.epochs


class Interruption(Exception):
    """Stops a training between two epochs."""


def test_log_tracker_and_progress_are_told_of_every_epoch_once_though_interrupted(make_cohort, tmp_path, monkeypatch):
    class Recorder(Logger):
        name, version = "recorder", 0

        def __init__(self):
            self.steps, self.rows, self.settings = [], [], []

        def log_hyperparams(self, params):
            self.settings.append(params)

        def log_metrics(self, metrics, step):
            self.steps.append(step)
            self.rows.append(metrics)

    recorders, messages = [], []

    @contextmanager
    def recorded(name, folder):
        assert (name, folder) == ("csv", tmp_path)
        recorders.append(Recorder())
        yield recorders[-1]

    def progress(done, total, message):
        messages.append(message)
        if len(messages) == 3:
            raise Interruption

    monkeypatch.setattr(trainer, "tracker", recorded)
    settings = TrainingSettings(epochs=8, batch_size=4, lr=5e-2, patience=8, selection="loss", linear_path=False)
    options = {"settings": settings, "log_path": tmp_path / "log.csv", "checkpoint_path": tmp_path / "last.ckpt"}
    cohort = make_cohort()
    with pytest.raises(Interruption):
        train(cohort, "snn", **options, progress=progress)
    train(cohort, "snn", **options, progress=progress)
    (tmp_path / "log.csv").unlink()
    train(cohort, "snn", **options, progress=progress)  # nothing is left to train

    rows = read_log(tmp_path)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(8)]
    losses = np.array([float(row["validation_loss"]) for row in rows])
    is_best = losses == np.minimum.accumulate(losses)
    assert 1 < is_best.sum() < 8
    said = [
        f"validation loss {loss:.4f}{', best so far' if best else ''}"
        for loss, best in zip(losses, is_best, strict=True)
    ]
    assert messages == said
    assert [recorder.steps for recorder in recorders] == [[0, 1, 2], list(range(8)), list(range(8))]
    assert all(recorder.settings == [settings.model_dump(mode="json")] for recorder in recorders)
    told = [row["validation_loss"] for row in recorders[1].rows]
    assert told == pytest.approx(losses)
    assert not any({"epoch", "gradient_cosine"} & row.keys() for row in recorders[1].rows)  # of a single subspace


def test_a_training_without_a_finite_metric_is_refused(make_cohort, monkeypatch):
    monkeypatch.setattr(trainer, "validation_metrics", lambda *_: {"validation_loss": float("nan")})
    with pytest.raises(ConfigurationError, match="finite validation metric"):
        train(make_cohort(), "snn", settings=BRIEF.model_copy(update={"selection": "loss", "linear_path": False}))


def test_further_processes_draw_dropout_of_their_own():
    def drawn(rank):
        torch.manual_seed(5)
        network = torch.nn.Linear(1, 1)
        Trainer(BRIEF, 3, MagicMock(spec=Fabric, global_rank=rank))._start(
            network, torch.optim.SGD(network.parameters())
        )
        return float(torch.rand(1))

    torch.manual_seed(5)
    torch.nn.Linear(1, 1)
    undisturbed = float(torch.rand(1))
    assert drawn(0) == undisturbed
    assert len({drawn(rank) for rank in range(4)}) == 4
    assert drawn(1) == drawn(1)


@pytest.mark.parametrize(("model", "is_coordinated"), [("subspace", True), ("late-fusion", False)])
def test_subspaces_are_coordinated_and_branches_of_late_fusion_are_not(make_cohort, model, is_coordinated):
    cohort, settings = make_cohort(16), BRIEF.model_copy(update={"epochs": 1, "linear_path": False})
    paper, none = (
        train(cohort, model, "grade", settings=settings.model_copy(update={"coordination": rule}))
        for rule in ("paper", "none")
    )
    assert torch.equal(paper.model.head.weight, none.model.head.weight) is not is_coordinated


@pytest.mark.walk
def test_beside_a_linear_path_the_mean_of_the_weights_over_epochs_is_kept(make_cohort, tmp_path):
    cohort, path, epochs = make_cohort(48), tmp_path / "last.ckpt", []
    fitted = train(
        cohort,
        checkpoint_path=path,
        progress=lambda *told: epochs.append(torch.load(path, weights_only=True)["model"]),
    )
    shares = 0.8 ** torch.arange(len(epochs) - 1, -1, -1.0)
    (network,) = networks_of(fitted.model)
    for name, value in network.state_dict().items():
        weights = torch.stack([of_epoch[name] for of_epoch in epochs])
        expected = torch.tensordot(shares / shares.sum(), weights, dims=1)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


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
    settings = BRIEF.model_copy(update={"modality_dropout": 0.0})
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
        one_process(TrainingPlan(training=BRIEF)),
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
    assert alone.member(0, 1).progress is alone.progress
    bare = Trainer(BRIEF, 3, alone.fabric).member(1, 2)
    assert (bare.log_path, bare.checkpoint, bare.progress, bare.seed) == (None, None, None, members[1].seed)
    assert alone.member(0, 2).progress is not alone.progress
    members[1].progress(2, 5, "epoch 2")
    assert told == [(7, 15, "network 2 of 3, epoch 2")]


@pytest.mark.parametrize("model", ["abmil", "subspace"])
def test_bags_that_a_thread_reads_ahead_give_the_same_weights_and_log(make_cohort, tmp_path, monkeypatch, model):
    cohort, threads, read = make_cohort(), set(), BagReader.read

    def seen(self, patient):
        threads.add(threading.current_thread() is threading.main_thread())
        return read(self, patient)

    monkeypatch.setattr(BagReader, "read", seen)
    ahead = train(cohort, model, settings=BRIEF, log_path=tmp_path / "ahead" / "log.csv")
    assert False in threads
    threads.clear()
    monkeypatch.setattr(trainer, "one_ahead", contextmanager(lambda items: (yield items)))
    plain = train(cohort, model, settings=BRIEF, log_path=tmp_path / "plain" / "log.csv")
    assert threads == {True}
    assert torch.equal(weights_of(ahead), weights_of(plain))
    assert read_log(tmp_path / "ahead") == read_log(tmp_path / "plain")


def test_a_file_that_is_damaged_in_the_middle_of_training_is_the_same_error_and_no_thread_stays(
    make_cohort, monkeypatch
):
    cohort, before, update = make_cohort(), threading.active_count(), trainer.JointUpdate.__call__
    path = cohort.patients[5].slides[0]

    def damaging(self, share):
        path.write_bytes(b"no features")
        return update(self, share)

    monkeypatch.setattr(trainer.JointUpdate, "__call__", damaging)
    with pytest.raises(DataError, match=path.name):
        train(cohort, "abmil")
    assert threading.active_count() == before
