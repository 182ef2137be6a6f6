"""What a model adds to a trivial one: both predictions combined by two weights, against the trivial one alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.evaluation.comparisons import compare_pairs
from subfuse.evaluation.floors import LEAST_VALIDATION
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    Outcome,
    TaskPredictions,
    columns_with,
    events,
    label_indices,
    times_days,
)
from subfuse.evaluation.regression.columns import PREDICTED_VALUE, observed_values

ADDED_COLUMNS = (
    "task", "metric", "model", "trivial", "difference", "lower", "upper", "p_value", "p_adjusted",
    "n_patients", "fitted_on", "reason",
)  # fmt: skip
VALIDATION, OTHER_FOLDS, TRAINING = "validation patients", "test patients of other folds", "training patients"
PENALTY = 0.01  # half of it times the squared weights, per event or patient: finite where a model orders everybody
_LEAST_WEIGHT = 1e-3  # of the trivial model, whose order remains where nothing is added
WEIGHTLESS = "its weight is 0 in all folds"
_TINY = 1e-7
_Loss = Callable[[np.ndarray], tuple[float, np.ndarray]]  # parameters -> value and gradient


@dataclass(frozen=True)
class Combination:
    """Test rows with two models' predictions combined; none, with the reason, where no weights can be fitted."""

    rows: pd.DataFrame
    fitted_on: str = ""
    reason: str | None = None
    largest_weight: float = np.nan  # over the folds, of the model that is added


def added_value(
    task: TaskPredictions, trivial: str, models: Sequence[str], *, n_bootstrap: int, seed: int
) -> pd.DataFrame:
    """Returns by how much the headline metric rises when a model's predictions are added to those of a trivial one.

    - Survival: a Cox model of both risks.
    - Classes: a logarithmic pool (Genest and Zidek 1986), logistic regression on both vectors of log probabilities
      with one weight per model and one intercept per class; of two classes, on both log odds.
    - Numbers: least squares of both, with an intercept.

    Predictions are centred and scaled within the fold. Weights are fitted anew in every fold on its validation
    patients, where all folds have `LEAST_VALIDATION` whom both predict (survival: events; classes: and some of each),
    else on the patients whom the repeat's other folds test and it does not, as the models there predict them, else on
    its training patients, whom the models know too well. Weights are not negative: predictions are used as they are
    meant or not at all, and a model without weight in any fold adds nothing: it has no interval and no p-value of its
    own, and `WEIGHTLESS` as reason. The trivial model alone is recalibrated in the same way, which moves the order of
    three classes or more.

    Args:
        task: Rows of all models and splits.
        trivial: The model that is there already.
        models: Whose predictions are added to it, one at a time.
        n_bootstrap: Replicates for up to five models; see `replicates_of_family`.
        seed: Of the replicates.

    Returns:
        Columns `ADDED_COLUMNS`, the model that adds most first. `p_adjusted` is Holm's over these models.
    """
    combined = {f"{trivial} + {model}": combine(task, trivial, model) for model in models}
    alone = combine(task, trivial, trivial).rows
    alone = alone if len(alone) else task.tested_by(trivial)
    parts = [found.rows.assign(model=name) for name, found in combined.items()]
    both = TaskPredictions(task.name, pd.concat([alone, *parts], ignore_index=True), task.outcome)
    pairs = [(name, trivial) for name in combined]
    table = compare_pairs(both, pairs, n_bootstrap=n_bootstrap, seed=seed)
    unfitted = [found.reason for found in combined.values()]
    table = table.assign(
        model=list(models),
        trivial=trivial,
        fitted_on=[found.fitted_on for found in combined.values()],
        reason=[own or compared for own, compared in zip(unfitted, table["reason"], strict=True)],
    )
    is_weightless = np.array([found.largest_weight == 0 for found in combined.values()])
    table.loc[is_weightless, ["lower", "upper", "p_value"]] = np.nan
    table.loc[is_weightless, ["difference", "reason"]] = 0.0, WEIGHTLESS
    return table[list(ADDED_COLUMNS)].sort_values("difference", ascending=False, ignore_index=True, kind="stable")


def combine(task: TaskPredictions, trivial: str, model: str) -> Combination:
    """Returns the test rows of patients whom both models predict in the same fold, combined as in `added_value`."""
    rows, inputs = _both(task, trivial, model)
    tested = (rows["split"] == "test").to_numpy()
    folds = [np.asarray(part) for part in rows.groupby(FOLD).indices.values()]
    folds = [part for part in folds if tested[part].any()]
    if not folds:
        return Combination(rows.iloc[:0], reason="no patient is predicted by both models in the same fold")
    for fitted_on, split in ((VALIDATION, "validation"), (OTHER_FOLDS, "test"), (TRAINING, "train")):
        own = [part[(rows["split"].to_numpy() == split)[part]] for part in folds]
        fitting = _of_other_folds(rows, own) if fitted_on == OTHER_FOLDS else own
        if all(task.outcome.suffices(rows.iloc[part], LEAST_VALIDATION) for part in fitting):
            scaled = inputs.copy()
            for part, scale in zip(folds, own, strict=True):
                scaled[part] = _scaled(inputs[part], inputs[scale])
            parts = [
                _combined(rows, scaled, task.outcome, fit=fit, test=part[tested[part]])
                for part, fit in zip(folds, fitting, strict=True)
            ]
            found = pd.concat([part for part, _ in parts], ignore_index=True)
            return Combination(found, fitted_on, largest_weight=max(weight for _, weight in parts))
    what = task.outcome.words["fitted on"]
    reason = f"weights need {LEAST_VALIDATION} {what} in validation or training of each fold, or in its other folds"
    return Combination(rows.iloc[:0], reason=reason)


def cox_weights(
    risk: Float[np.ndarray, "patient 2"], time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> Float[np.ndarray, " 2"]:
    """Returns the two weights of highest partial likelihood (Breslow's ties), less the penalty; none negative."""
    order = np.argsort(-time_days, kind="stable")
    risk, time_days, event = risk[order], time_days[order], event[order]
    at_risk = np.searchsorted(-time_days, -time_days, side="right")[event] - 1  # the last of those followed as long

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = risk @ weights
        hazard = np.exp(score - score.max())
        total = np.cumsum(hazard)[at_risk]
        mean = np.cumsum(hazard[:, None] * risk, axis=0)[at_risk] / total[:, None]
        value = (np.log(total) + score.max() - score[event]).mean() + PENALTY / 2 * weights @ weights
        return float(value), (mean - risk[event]).mean(axis=0) + PENALTY * weights

    return _minimum(loss, 2)


def pool_weights(
    log_probability: Float[np.ndarray, "patient class 2"], label: Int[np.ndarray, " patient"]
) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " class"]]:
    """Returns the two weights and the intercepts of highest likelihood, less the penalty; no weight is negative."""
    from scipy.special import log_softmax

    n_classes = log_probability.shape[1]
    row, truth = np.arange(len(label)), np.eye(n_classes)[label]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, intercepts = parameters[:2], np.append(0.0, parameters[2:])
        logs = log_softmax(log_probability @ weights + intercepts, axis=1)
        residual = np.exp(logs) - truth
        slope = np.einsum("pc,pcm->m", residual, log_probability) / len(label) + PENALTY * weights
        value = -logs[row, label].mean() + PENALTY / 2 * weights @ weights
        return float(value), np.append(slope, residual.mean(axis=0)[1:])

    found = _minimum(loss, 1 + n_classes)
    return found[:2], np.append(0.0, found[2:])


def value_weights(
    predicted: Float[np.ndarray, "patient 2"], value: Float[np.ndarray, " patient"]
) -> tuple[Float[np.ndarray, " 2"], float]:
    """Returns the two weights and the intercept of least squared error, less the penalty; no weight is negative."""
    spread = float(value.std()) or 1.0
    centre, of_value = predicted.mean(axis=0), (value - value.mean()) / spread

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        residual = (predicted - centre) @ weights - of_value
        slope = (predicted - centre).T @ residual / len(value) + PENALTY * weights
        return float(residual @ residual / (2 * len(value)) + PENALTY / 2 * weights @ weights), slope

    weights = spread * _minimum(loss, 2)
    return weights, float(value.mean() - centre @ weights)


def _minimum(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], n_parameters: int
) -> Float[np.ndarray, " parameter"]:
    from scipy.optimize import minimize

    bounds = [(_LEAST_WEIGHT, None), (0.0, None), *[(None, None)] * (n_parameters - 2)]
    start = np.append([0.5, 0.5], np.zeros(n_parameters - 2))
    return minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-8}).x


def _both(
    task: TaskPredictions, trivial: str, model: str
) -> tuple[pd.DataFrame, Float[np.ndarray, "patient output 2"]]:
    """Returns the trivial model's rows that both have, and both predictions: risks or log probabilities."""
    key = [*FOLD, "split", *PATIENT]
    tables = [task.of_model(name).set_index(key, drop=False) for name in (trivial, model)]
    common = tables[0].index.intersection(tables[1].index)
    tables = [table.loc[common].reset_index(drop=True) for table in tables]
    return tables[0], np.stack([task.outcome.log_scores(table) for table in tables], axis=2)


def _of_other_folds(rows: pd.DataFrame, own: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns for each fold the rows of the other folds of its repeat, of patients who are not in it."""
    repeat = [rows["repeat"].iloc[part[0]] for part in own]
    patient = rows.groupby(PATIENT).ngroup().to_numpy()
    others = [
        np.concatenate([part for j, part in enumerate(own) if j != i and repeat[i] == repeat[j]] or [own[i][:0]])
        for i in range(len(own))
    ]
    return [rest[~np.isin(patient[rest], patient[part])] for rest, part in zip(others, own, strict=True)]


def _scaled(
    inputs: Float[np.ndarray, "patient output 2"], of: Float[np.ndarray, "scaling output 2"]
) -> Float[np.ndarray, "patient output 2"]:
    """Returns both predictions centred and scaled by those of some patients; a constant one is zero."""
    if of.shape[1] > 1:  # log probabilities: only their differences between classes matter
        inputs, of = (values - values.mean(axis=1, keepdims=True) for values in (inputs, of))
    centre = of.mean(axis=0)
    spread = np.sqrt(((of - centre) ** 2).mean(axis=(0, 1)))
    return (inputs - centre) / np.where(spread > _TINY, spread, np.inf)


def _combined(
    rows: pd.DataFrame,
    scaled: Float[np.ndarray, "patient output 2"],
    outcome: Outcome,
    *,
    fit: np.ndarray,
    test: np.ndarray,
) -> tuple[pd.DataFrame, float]:
    """Returns a fold's test rows with the combined prediction, and the weight of the model that is added."""
    fitting, tested = rows.iloc[fit], rows.iloc[test].copy()
    tested[columns_with(rows, "survival_", "contribution_")] = np.nan
    if outcome.kind == "regression":
        weights, mean = value_weights(scaled[fit, 0], observed_values(fitting))
        return tested.assign(**{PREDICTED_VALUE: mean + scaled[test, 0] @ weights}), float(weights[1])
    if outcome.classes is None:
        weights = cox_weights(scaled[fit, 0], times_days(fitting), events(fitting))
        return tested.assign(risk=scaled[test, 0] @ weights), float(weights[1])
    from scipy.special import softmax

    weights, intercepts = pool_weights(scaled[fit], label_indices(fitting, outcome.classes))
    tested[outcome.predicted] = softmax(scaled[test] @ weights + intercepts, axis=1)
    return tested, float(weights[1])
