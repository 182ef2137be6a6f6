import csv
import sys

import pytest

from conftest import deal_folds
from subfuse.errors import ConfigurationError
from subfuse.training.fitting import train_fold
from subfuse.training.loggers import make_logger
from subfuse.training.settings import ArchitectureSettings, TrainingSettings


def train(cohort, folder, logger, epochs=2):
    return train_fold(
        cohort,
        deal_folds(cohort)[0],
        task="survival",
        model_name="snn",
        settings=TrainingSettings(epochs=epochs, logger=logger, accelerator="cpu"),
        architecture=ArchitectureSettings(embed_dim=16),
        seed=1,
        log_path=folder / "log.csv",
    )


def read_log(folder):
    with open(folder / "log.csv") as file:
        return list(csv.DictReader(file))


def test_tensorboard_shows_the_numbers_of_the_log(make_cohort, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(make_cohort(), tmp_path, "tensorboard")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rows = read_log(tmp_path)
    for name in ("train_loss", "validation_loss", "validation_c_index", "lr"):
        shown = {event.step: event.value for event in events.Scalars(name)}
        assert shown == {int(row["epoch"]): pytest.approx(float(row[name]), rel=1e-6) for row in rows}
    assert "gradient_cosine" not in events.Tags()["scalars"]  # undefined for a single subspace


@pytest.mark.parametrize(
    ("name", "module", "remedy"),
    [
        ("tensorboard", "lightning.fabric.loggers", r"subfuse\[track\]"),
        ("mlflow", "lightning.pytorch.loggers", r"subfuse\[track\]"),
        ("wandb", "lightning.pytorch.loggers", "pip install wandb"),
    ],
)
def test_a_tracker_that_is_not_installed_is_named_with_its_remedy(name, module, remedy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=remedy):
        make_logger(name, tmp_path)


def test_the_log_alone_needs_no_tracker(tmp_path):
    assert make_logger("csv", tmp_path) is None
