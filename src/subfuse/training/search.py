"""Search for a model's settings on the inner validation patients of one fold."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from subfuse.cohort.cohort import Cohort
from subfuse.cohort.fold import Fold
from subfuse.errors import ConfigurationError
from subfuse.training.distillation.teacher import Teacher
from subfuse.training.fitting import train_fold
from subfuse.training.models import is_linear
from subfuse.training.settings import TrainingPlan

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

_VARIED = ("lr", "weight_decay", "dropout")


@dataclass(frozen=True)
class SearchResult:
    """The plan with the settings that validated best, and all that were tried."""

    plan: TrainingPlan  # without a search
    trials: pd.DataFrame  # trial, the varied settings, validation_score (lower is better); one row per trial


def search_settings(
    cohort: Cohort, fold: Fold, *, task: str, model_name: str, plan: TrainingPlan, teacher: Teacher | None = None
) -> SearchResult:
    """Returns the settings with the lowest validation score after the plan's number of trials (Optuna's TPE sampler).

    Learning rate, weight decay and dropout vary; the first trial is the settings as they are. A trial trains one
    network, also of an ensemble. Only the fold's training and validation patients are looked at. The plan of a linear
    model is returned unchanged: its fit chooses the penalty by cross-validation.

    Args:
        cohort: A prepared cohort.
        fold: Who trains and validates.
        task: Name of the task.
        model_name: Name of the model.
        plan: What is not varied, the first trial, the number of trials, and the seed of the sampler and of every
            training.
        teacher: See `train_fold`.

    Raises:
        ConfigurationError: Optuna is not installed.
    """
    found, columns = plan.model_copy(update={"search": 0}), ["trial", *_VARIED, "validation_score"]
    if is_linear(model_name):
        return SearchResult(found, pd.DataFrame(columns=columns))
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError("a search needs Optuna. Found none. Run: pip install 'subfuse[search]'") from error

    def validation_score(trial: "BaseTrial") -> float:
        tried = _varied(found, trial)
        alone = tried.model_copy(update={"training": tried.training.model_copy(update={"members": 1})})
        fitted = train_fold(cohort, fold, task=task, model_name=model_name, plan=alone, teacher=teacher)
        return float(fitted.details["validation_score"])

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=plan.seed))
    training, architecture = plan.training, plan.architecture
    study.enqueue_trial({"lr": training.lr, "weight_decay": training.weight_decay, "dropout": architecture.dropout})
    study.optimize(validation_score, n_trials=plan.search)
    best = _varied(found, optuna.trial.FixedTrial(study.best_params))
    rows = [{"trial": trial.number, **trial.params, "validation_score": trial.value} for trial in study.trials]
    return SearchResult(best, pd.DataFrame(rows, columns=columns))


def _varied(plan: TrainingPlan, trial: "BaseTrial") -> TrainingPlan:
    changed = {
        "lr": trial.suggest_float("lr", 3e-5, 3e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-3, 10.0, log=True),
    }
    dropout = {"dropout": trial.suggest_float("dropout", 0.0, 0.6)}
    training, architecture = plan.training.model_copy(update=changed), plan.architecture.model_copy(update=dropout)
    return plan.model_copy(update={"training": training, "architecture": architecture})
