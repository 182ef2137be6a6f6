import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from small_cohort import deal_folds
from subfuse.errors import ConfigurationError, DataError
from subfuse.training.checkpoint import Checkpoint, TrainingState, random_state
from subfuse.training.fitting import train_fold
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

SETTINGS = TrainingSettings(epochs=4, batch_size=4, lr=3e-3)


class Interruption(Exception):
    """Stops a training between two epochs."""


def train(cohort, path=None, *, settings=SETTINGS, seed=1, fold=0, stop_after=None, model="concat"):
    def progress(done, total, what):
        if done == stop_after:
            raise Interruption

    return train_fold(
        cohort,
        deal_folds(cohort)[fold],
        task="survival",
        model_name=model,
        plan=TrainingPlan(
            training=settings, architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=16), seed=seed
        ),
        checkpoint_path=path,
        progress=progress,
    )


def weights_of(fitted):
    return torch.cat([value.flatten() for value in fitted.model.state_dict().values()])


@pytest.mark.walk
@pytest.mark.parametrize(("model", "linear_path"), [("concat", True), ("subspace", False)])
def test_a_resumed_training_ends_with_the_same_weights(make_cohort, tmp_path, model, linear_path):
    cohort, path = make_cohort(), tmp_path / "last.ckpt"
    options = {"model": model, "settings": SETTINGS.model_copy(update={"linear_path": linear_path})}
    with pytest.raises(Interruption):
        train(cohort, path, stop_after=1, **options)
    torch.rand(5)  # of whoever goes on
    with pytest.raises(Interruption):
        train(cohort, path, stop_after=3, **options)
    resumed, whole = train(cohort, path, **options), train(cohort, **options)
    assert torch.equal(weights_of(resumed), weights_of(whole))
    assert resumed.describe() == whole.describe()


def test_an_ensemble_is_resumed_at_the_network_it_was_at(make_cohort, tmp_path):
    cohort, path = make_cohort(), tmp_path / "last.ckpt"
    settings = SETTINGS.model_copy(update={"members": 3, "epochs": 2})
    with pytest.raises(Interruption):
        train(cohort, path, stop_after=3, settings=settings)
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.ckpt")} == {"last.ckpt", "member_1/last.ckpt"}
    resumed, whole = train(cohort, path, settings=settings), train(cohort, settings=settings)
    assert torch.equal(weights_of(resumed), weights_of(whole))


def test_a_finished_training_is_not_trained_again(make_cohort, tmp_path):
    cohort, path = make_cohort(), tmp_path / "last.ckpt"
    whole = train(cohort, path)
    assert torch.equal(weights_of(train(cohort, path, stop_after=4)), weights_of(whole))


def other_outcome(cohort):
    patients = [replace(p, time_days=p.time_days + 1.0) if p.patient_id == "P007" else p for p in cohort]
    return replace(cohort, patients=tuple(patients))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda cohort: {"cohort": other_outcome(cohort)}, "data_sha256"),
        (lambda cohort: {"cohort": cohort, "settings": SETTINGS.model_copy(update={"lr": 1e-3})}, "training"),
        (lambda cohort: {"cohort": cohort, "seed": 2}, "seed"),
        (lambda cohort: {"cohort": cohort, "fold": 1}, "data_sha256, split_sha256"),
        (lambda cohort: {"cohort": cohort, "model": "snn"}, "model"),
    ],
)
def test_the_checkpoint_of_another_training_is_refused(make_cohort, tmp_path, change, named):
    cohort, path = make_cohort(), tmp_path / "last.ckpt"
    with pytest.raises(Interruption):
        train(cohort, path, stop_after=1)
    with pytest.raises(ConfigurationError, match=f"another training .differs in: .*{named}"):
        train(path=path, **change(cohort))


@pytest.mark.parametrize(("written", "asked"), [({"a": 1}, {"a": 1, "b": 2}), ({"a": 1, "b": 2}, {"a": 1})])
def test_what_one_of_two_descriptions_lacks_is_a_difference(tmp_path, written, asked):
    model, path = torch.nn.Linear(1, 1), tmp_path / "last.ckpt"
    optimizer = torch.optim.SGD(model.parameters())
    Checkpoint(path, written).save(TrainingState({}), model, optimizer, [random_state(torch.device("cpu"))])
    with pytest.raises(ConfigurationError, match=r"differs in: b\)"):
        Checkpoint(path, asked).load(model, optimizer, 0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named(make_cohort, tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"last\.ckpt must be a complete checkpoint"):
        train(make_cohort(), path)


def test_a_checkpoint_is_never_unpickled_into_objects(make_cohort, tmp_path):
    path, made = tmp_path / "last.ckpt", tmp_path / "made"

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(made),)

    torch.save({"description": Code()}, path)
    with pytest.raises(DataError, match="complete checkpoint"):
        train(make_cohort(), path)
    assert not made.exists()


OTHER_CONTENT = {
    "no description": lambda content: [content],
    "a description that is a list": lambda content: content | {"description": [1, 2]},
    "no weights": lambda content: {name: part for name, part in content.items() if name != "model"},
    "weights of another model": lambda content: content | {"model": {"other": torch.zeros(2)}},
    "a state of other names": lambda content: content | {"state": {"other": 1}},
    "nothing of this process": lambda content: content | {"random_states": []},
    "optimiser": lambda content: content | {"optimizer": 3},
}


@pytest.mark.parametrize("what", OTHER_CONTENT)
def test_a_checkpoint_of_other_content_is_named_in_one_line(tmp_path, what):
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters())
    checkpoint = Checkpoint(tmp_path / "last.ckpt", {"seed": 1})
    checkpoint.save(TrainingState({}), model, optimizer, [random_state(torch.device("cpu"))])
    checkpoint.load(model, optimizer, 0)
    torch.save(OTHER_CONTENT[what](torch.load(checkpoint.path, weights_only=True)), checkpoint.path)
    with pytest.raises(DataError, match=r"last\.ckpt must be a complete checkpoint") as caught:
        checkpoint.load(model, optimizer, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="a device that is full is required")
def test_a_checkpoint_on_a_full_disk_names_the_disk(tmp_path, monkeypatch):
    def on_full_disk(**place):
        path = tmp_path / "part"
        path.symlink_to("/dev/full")
        return os.open(path, os.O_WRONLY), str(path)

    monkeypatch.setattr("subfuse.files.tempfile.mkstemp", on_full_disk)
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigurationError, match=r"last\.ckpt: free disk space is required"):
        Checkpoint(tmp_path / "last.ckpt", {}).save(
            TrainingState({}), model, torch.optim.SGD(model.parameters()), [random_state(torch.device("cpu"))]
        )


def test_the_best_epoch_is_the_first_with_the_lowest_score_and_nan_is_never_best():
    model, state = torch.nn.Linear(1, 1), TrainingState({})
    for epoch, score in enumerate([float("nan"), 2.0, 1.0, 1.0, 3.0]):
        with torch.no_grad():
            model.bias.fill_(epoch)
        assert not state.is_over(epochs=9, patience=3)
        state.record({"epoch": epoch}, (score, 0.0), model)
    assert (state.best_epoch, float(state.best_weights["bias"])) == (2, 2.0)
    assert state.is_over(epochs=9, patience=2)
    assert state.is_over(epochs=5, patience=9)


def test_a_training_without_any_score_is_over_when_patience_is():
    model, state = torch.nn.Linear(1, 1), TrainingState({})
    for _ in range(3):
        assert not state.is_over(epochs=9, patience=2)
        state.record({}, (float("nan"), 0.0), model)
    assert state.is_over(epochs=9, patience=2)


def test_the_mean_of_weights_is_that_of_a_moving_average_and_starts_at_the_first_epoch():
    model, state = torch.nn.Linear(1, 1), TrainingState({})
    values = [3.0, -1.0, 4.0, 1.5]
    for epoch, value in enumerate(values):
        with torch.no_grad():
            model.bias.fill_(value)
        state.record({"epoch": epoch}, (0.0, 0.0), model)
        state.average(model)
        weights = 0.8 ** torch.arange(epoch, -1, -1.0)  # as docs/training.md says
        expected = (weights * torch.tensor(values[: epoch + 1])).sum() / weights.sum()
        torch.testing.assert_close(state.mean_weights["bias"], expected[None])
