import csv
import sys
from types import ModuleType, SimpleNamespace

import pytest

from small_cohort import deal_folds
from subfuse.errors import ConfigurationError
from subfuse.runs.cross_validation import cross_validate
from subfuse.training.fitting import train_fold
from subfuse.training.loggers import tracker, write_log
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

SHOWN = ("train_loss", "validation_loss", "validation_c_index", "lr")
UNDEFINED = "gradient_cosine"  # of a single subspace


def train(cohort, folder, logger, **settings):
    return train_fold(
        cohort,
        deal_folds(cohort)[0],
        task="survival",
        model_name="snn",
        plan=TrainingPlan(
            training=TrainingSettings(epochs=2, logger=logger, **settings),
            architecture=ArchitectureSettings(embed_dim=16),
            seed=1,
        ),
        log_path=folder / "log.csv",
    )


def logged(folder, name):
    """A column of the log by epoch."""
    with open(folder / "log.csv") as file:
        return {int(row["epoch"]): pytest.approx(float(row[name]), rel=1e-6) for row in csv.DictReader(file)}


class StandIn(ModuleType):
    """What Lightning's logger uses of `wandb`, kept in memory: one run at a time, as theirs."""

    def __init__(self, refusal=""):
        super().__init__("wandb")
        self.refusal, self.run, self.runs = refusal, None, []
        self.Error = type("Error", (Exception,), {})

    def init(self, **options):
        if self.refusal:
            raise self.Error(self.refusal)
        self.run = SimpleNamespace(options=options, config={}, rows=[], exit_code=None)
        self.run.config = SimpleNamespace(update=lambda values, allow_val_change: vars(self.run).update(given=values))
        self.run.log = self.run.rows.append
        self.runs.append(self.run)
        return self.run

    def finish(self, exit_code):
        self.run.exit_code, self.run = exit_code, None


@pytest.fixture
def wandb(monkeypatch):
    """Installs a stand-in in the place of `wandb`; `wandb.refusal` is why its server refuses."""
    from lightning.pytorch.loggers import wandb as theirs

    module = StandIn()
    parts = {"wandb.sdk": {}, "wandb.sdk.lib": {"RunDisabled": type(None)}, "wandb.wandb_run": {"Run": type(None)}}
    monkeypatch.setitem(sys.modules, "wandb", module)
    for name, content in parts.items():
        part = ModuleType(name)
        vars(part).update(content)
        monkeypatch.setitem(sys.modules, name, part)
    monkeypatch.setattr(theirs, "_WANDB_AVAILABLE", True)
    return module


def test_tensorboard_shows_the_numbers_of_the_log(make_cohort, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(make_cohort(), tmp_path, "tensorboard")
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in SHOWN:
        assert {event.step: event.value for event in events.Scalars(name)} == logged(tmp_path, name)
    assert UNDEFINED not in events.Tags()["scalars"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:mlflow")
def test_mlflow_stores_the_numbers_of_the_log(make_cohort, tmp_path):
    client_of = pytest.importorskip("mlflow.tracking").MlflowClient
    folder = tmp_path / "survival" / "snn" / "fold_0"
    train(make_cohort(), folder, "mlflow")
    client = client_of(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("subfuse").experiment_id])
    assert (run.info.run_name, run.info.status) == ("survival/snn/fold_0", "FINISHED")
    assert run.data.params["epochs"] == "2"
    for name in SHOWN:
        assert {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)} == logged(folder, name)
    assert UNDEFINED not in run.data.metrics
    with tracker("mlflow", folder):  # whose folder is there already
        assert (folder / "mlflow.db").exists()


def test_wandb_gets_a_run_of_its_own_for_every_network(make_cohort, tmp_path, wandb):
    folder = tmp_path / "survival" / "snn" / "fold_0"
    train(make_cohort(), folder, "wandb", members=2)
    assert [run.options["name"] for run in wandb.runs] == ["survival/snn/fold_0", "snn/fold_0/member_1"]
    for run, place in zip(wandb.runs, (folder, folder / "member_1"), strict=True):
        assert (run.options["project"], run.options["dir"], run.exit_code) == ("subfuse", str(place), 0)
        assert run.given["epochs"] == 2
        for name in SHOWN:
            assert {row["trainer/global_step"]: row[name] for row in run.rows} == logged(place, name)
        assert run.rows
        assert all(UNDEFINED not in row for row in run.rows)


def test_the_log_of_a_single_epoch_has_its_columns_and_its_row(tmp_path):
    write_log(tmp_path / "log.csv", [{"epoch": 1, "lr": 0.5}])
    assert (tmp_path / "log.csv").read_text() == "epoch,lr\n1,0.5\n"


def test_wandb_is_told_of_a_failure_and_of_the_project_of_its_variable(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "glioma")
    with pytest.raises(KeyError), tracker("wandb", tmp_path):
        raise KeyError
    assert (wandb.runs[0].exit_code, wandb.runs[0].options["project"]) == (1, "glioma")


def test_wandb_without_an_account_is_one_line_with_both_remedies(tmp_path, wandb):
    wandb.refusal = "No API key configured."
    with pytest.raises(ConfigurationError, match=r"No API key .* `wandb login`.* WANDB_MODE=offline"):
        tracker("wandb", tmp_path).__enter__()


@pytest.mark.filterwarnings("ignore:::wandb", "ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_wandb_itself_needs_no_account_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        with tracker("wandb", tmp_path) as logger:
            logger.log_metrics({"validation_loss": 0.5}, step=0)
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 2


@pytest.mark.parametrize(
    ("name", "packages", "remedy"),
    [
        ("tensorboard", ("tensorboard", "tensorboardX"), r"subfuse\[track\]"),
        ("mlflow", ("mlflow",), r"subfuse\[track\]"),
        ("wandb", ("wandb",), "pip install wandb"),
    ],
)
def test_a_tracker_that_is_not_installed_is_named_with_its_remedy_before_a_run_begins(
    name, packages, remedy, make_cohort, tmp_path, monkeypatch
):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=remedy):
        tracker(name, tmp_path).__enter__()
    cohort = make_cohort(12)
    plan = TrainingPlan(training=TrainingSettings(logger=name))
    with pytest.raises(ConfigurationError, match=remedy):
        cross_validate(cohort, task="grade", models=["snn"], folds=deal_folds(cohort), plan=plan, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_log_alone_needs_no_tracker(tmp_path):
    with tracker("csv", tmp_path) as logger:
        assert logger is None
