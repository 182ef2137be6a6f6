"""How long models took to train and to explain: written beside each model, told by the run's provenance."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from subfuse.files import read_json
from subfuse.run_folder.job import jobs_of
from subfuse.run_folder.names import PROVENANCE

Seconds = dict[str, dict[str, float]]  # task -> model -> seconds, over its folds


def training_seconds(run: Path, predictions: pd.DataFrame) -> Seconds:
    """Returns how long each model was trained; nothing of models that keep no record."""
    return _summed(
        ((job.task, job.model, job.folder(run) / PROVENANCE) for job, _ in jobs_of(predictions)), "training_seconds"
    )


def explaining_seconds(folders: Iterable[tuple[str, str, Path]]) -> Seconds:
    """Returns how long the models were explained over the cohort.

    Args:
        folders: Task, model, and the folder of what explains the model of a fold.
    """
    return _summed(((task, model, folder / PROVENANCE) for task, model, folder in folders), "explaining_seconds")


def _summed(files: Iterable[tuple[str, str, Path]], key: str) -> Seconds:
    total: Seconds = {}
    for task, model, path in files:
        seconds = read_json(path).get(key) if path.exists() else None
        if isinstance(seconds, int | float):
            of_task = total.setdefault(task, {})
            of_task[model] = of_task.get(model, 0.0) + seconds
    return {task: {model: round(sum_, 1) for model, sum_ in models.items()} for task, models in total.items()}
