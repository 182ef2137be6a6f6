"""Search for a model's settings on the inner validation patients of one fold."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from subfuse.cohort.cohort import Cohort
from subfuse.cohort.drawn_folds import Fold
from subfuse.errors import ConfigurationError
from subfuse.training.fitting import train_fold
from subfuse.training.models import is_linear
from subfuse.training.settings import ArchitectureSettings, TrainingSettings

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

VARIED = ("lr", "weight_decay", "dropout")


@dataclass(frozen=True)
class SearchResult:
    """The settings that validated best, and all that were tried."""

    settings: TrainingSettings
    architecture: ArchitectureSettings
    trials: pd.DataFrame  # trial, the varied settings, validation_score (lower is better); one row per trial


def search_settings(
    cohort: Cohort,
    fold: Fold,
    *,
    task: str,
    model_name: str,
    settings: TrainingSettings,
    architecture: ArchitectureSettings,
    seed: int,
    trials: int,
) -> SearchResult:
    """Returns the settings with the lowest validation score after a number of trials (Optuna's TPE sampler).

    Learning rate, weight decay and dropout vary; the first trial is the settings as they are. A trial trains one
    network, also of an ensemble. Only the fold's training and validation patients are looked at. Linear models are
    returned unchanged: their fit already tries its penalties on the validation patients.

    Args:
        cohort: A prepared cohort.
        fold: Who trains and validates.
        task: Name of the task.
        model_name: Name of the model.
        settings: What is not varied, and the first trial.
        architecture: Likewise.
        seed: Of the sampler and of every training.
        trials: Number of trainings.

    Raises:
        ConfigurationError: Optuna is not installed.
    """
    if is_linear(model_name):
        return SearchResult(settings, architecture, pd.DataFrame(columns=["trial", *VARIED, "validation_score"]))
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError("a search needs Optuna. Found none. Run: pip install 'subfuse[search]'") from error

    def validation_score(trial: "BaseTrial") -> float:
        tried = _varied(settings, architecture, trial)
        fitted = train_fold(
            cohort,
            fold,
            task=task,
            model_name=model_name,
            settings=tried[0].model_copy(update={"members": 1}),
            architecture=tried[1],
            seed=seed,
        )
        return float(fitted.details["validation_score"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    study.enqueue_trial(
        {"lr": settings.lr, "weight_decay": settings.weight_decay, "dropout": architecture.dropout},
        skip_if_exists=True,
    )
    study.optimize(validation_score, n_trials=trials)
    best = _varied(settings, architecture, optuna.trial.FixedTrial(study.best_params))
    rows = [{"trial": trial.number, **trial.params, "validation_score": trial.value} for trial in study.trials]
    return SearchResult(*best, pd.DataFrame(rows, columns=["trial", *VARIED, "validation_score"]))


def _varied(
    settings: TrainingSettings, architecture: ArchitectureSettings, trial: "BaseTrial"
) -> tuple[TrainingSettings, ArchitectureSettings]:
    changed = {
        "lr": trial.suggest_float("lr", 3e-5, 3e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 10.0, log=True),
    }
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    return settings.model_copy(update=changed), architecture.model_copy(update={"dropout": dropout})
