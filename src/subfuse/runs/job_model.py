"""The trained model of a job of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subfuse.run_folder.job import Job
from subfuse.training.fitted_model import FittedModel
from subfuse.training.stored_model import load_fitted


def load_job(job: Job, out: Path, config: Mapping[str, Any]) -> FittedModel:
    """Returns the model in the folder of a job.

    Args:
        job: The job.
        out: Run folder.
        config: Of the run, see `read_config`.

    Raises:
        DataError: Its files are missing or damaged, or are those of another job.
    """
    found = load_fitted(job.folder(out))
    job.check_model(out, config, task=found.task, model=found.recipe.name, details=found.details)
    return found
