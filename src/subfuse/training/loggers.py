"""Where the rows of the log go: always `log.csv`, and one experiment tracker by name."""

import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.loggers import Logger

from subfuse.errors import ConfigurationError
from subfuse.files import atomic_path

_LoggerName = Literal["csv", "tensorboard", "mlflow", "wandb"]
_PROJECT = "subfuse"  # in trackers that group runs


def write_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes one row per epoch (or penalty) as CSV, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def tracker(name: _LoggerName, folder: Path) -> Iterator[Logger | None]:
    """Yields the tracker of one training, or None for `csv`, which needs none; it is closed afterwards.

    - `tensorboard`: event files in `folder/tensorboard`.
    - `mlflow`: the SQLite store `folder/mlflow.db`, or the one that the environment variable MLFLOW_TRACKING_URI names.
    - `wandb`: Weights & Biases, configured by its own environment variables; it sends data to its server unless
      WANDB_MODE=offline, which needs no account and writes to `folder/wandb`.

    Args:
        name: Name of the tracker.
        folder: Of the training; its last three parts name the run.

    Raises:
        ConfigurationError: The tracker is not installed, or its server refuses.
    """
    if name == "csv":
        yield None
        return
    logger, status = _open(name, folder), "failed"
    try:
        yield logger
        status = "success"
    finally:
        logger.finalize(status)
        if name == "wandb":  # whose run stays open, so that the next training of this process would go on in it
            import wandb

            wandb.finish(exit_code=int(status == "failed"))


def require_tracker(name: _LoggerName) -> None:
    """Raises a ConfigurationError unless a tracker's package is installed; says how to install it."""
    packages = _PACKAGES.get(name, ())
    if packages and not any(sys.modules.get(package) or find_spec(package) for package in packages):
        remedy = "pip install wandb" if name == "wandb" else "pip install 'subfuse[track]'"
        raise ConfigurationError(f"logger {name} is not installed. Install it with: {remedy}.")


def _open(name: _LoggerName, folder: Path) -> Logger:
    require_tracker(name)
    return _LOGGERS[name](folder, "/".join(folder.resolve().parts[-3:]))


def _tensorboard(folder: Path, run: str) -> Logger:
    from lightning.fabric.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="")


def _mlflow(folder: Path, run: str) -> Logger:
    from lightning.pytorch.loggers import MLFlowLogger

    folder.mkdir(parents=True, exist_ok=True)
    store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve() / 'mlflow.db'}")
    return MLFlowLogger(experiment_name=_PROJECT, run_name=run, tracking_uri=store)


def _wandb(folder: Path, run: str) -> Logger:
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    project = os.environ.get("WANDB_PROJECT", _PROJECT)
    logger = WandbLogger(name=run, project=project, save_dir=folder)
    import wandb

    try:
        logger.experiment  # noqa: B018  # logs in where it must: better now than after the first epoch
    except wandb.Error as error:
        remedy = "Run `wandb login`, or keep the log on this machine with WANDB_MODE=offline."
        raise ConfigurationError(f"logger wandb cannot start ({error}). {remedy}") from None
    return logger


_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",), "wandb": ("wandb",)}
_LOGGERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
