"""One task of audited predictions, with what every check asks: what models read and reach, and how chance is drawn."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from subfuse.errors import ConfigurationError, preview
from subfuse.evaluation.intervals import grouping
from subfuse.evaluation.predictions import TaskPredictions, read_tasks
from subfuse.evaluation.ranked_patients import ranked_patients
from subfuse.training.models import COLUMNS, EXPRESSION, SLIDES, main_model, modalities_of, reads_columns_alone

N_BOOTSTRAP = 1000


@dataclass(frozen=True)
class AuditedTask(TaskPredictions):
    """All rows of one task, and what its checks have in common."""

    modalities: Mapping[str, frozenset[str]]  # of every model; empty where unknown
    values: Mapping[str, float]  # of every model, see `headline_value`
    n_bootstrap: int  # replicates of every bootstrap
    seed: int  # of bootstrap, permutations and exchange
    led_by: str | None = None  # the model that the task is about, where it is not `main_model`

    @property
    def main(self) -> str:
        """The model that the task is about."""
        return self.led_by or main_model(self.models)

    @property
    def trivial(self) -> tuple[str, ...]:
        """Models, of any project, that read nothing but columns of the patients' table."""
        return tuple(model for model, reads in self.modalities.items() if reads_columns_alone(reads))


def audited_tasks(
    table: pd.DataFrame,
    given: Mapping[str, Collection[str]] | None = None,
    *,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> list[AuditedTask]:
    """Returns the tasks of a table of predictions.

    Args:
        table: Columns of predictions.csv.
        given: Model to the modalities it reads; the others read what this package's model of that name reads.
        n_bootstrap: Replicates of every bootstrap.
        seed: Of bootstrap, permutations and exchange.
    """
    tasks = []
    for task in read_tasks(table):
        modalities = {m: frozenset((given or {}).get(m, ())) or modalities_of(m) for m in task.models}
        values = {model: headline_value(task, model) for model in task.models}
        tasks.append(AuditedTask(task.name, task.rows, task.outcome, modalities, values, n_bootstrap, seed))
    return tasks


def headline_value(task: TaskPredictions, model: str) -> float:
    """Returns a model's headline metric, mean over folds as in `evaluate_predictions`; NaN where undefined."""
    by, _ = grouping(task)
    found = [g.metrics[task.headline].value for g in ranked_patients(task.of_model(model), task.outcome, by=by)]
    defined = [value for value in found if np.isfinite(value)]
    return float(np.mean(defined)) if defined else np.nan


def check_modalities(given: Mapping[str, Collection[str]], models: Collection[str]) -> None:
    """Refuses modalities of a model that is not there, and words that are none.

    Raises:
        ConfigurationError: Names the model, and what there is.
    """
    known = SLIDES | EXPRESSION | COLUMNS
    for model, read in given.items():
        if model not in models:
            raise ConfigurationError(
                f"modalities: a model of the predictions is required. Found {model}; they have {preview(models, 12)}."
            )
        if not read or not known.issuperset(read):
            raise ConfigurationError(
                f"modalities of {model}: some of {preview(sorted(known))} are required. Found "
                f"{preview(name for name in read if name not in known) or 'none'}."
            )
