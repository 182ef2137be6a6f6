"""In which way probabilities of test patients are off: too extreme or too timid (slope), too high or low (level)."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.evaluation.calibration.stages import CurvesOfFold, by_repeat, class_stages, common_horizon, survival_stages
from subfuse.evaluation.floors import LEAST, LEAST_CALIBRATED, LEAST_CALIBRATED_EVENTS, too_few_calibrated
from subfuse.evaluation.metrics import NORMAL_95
from subfuse.evaluation.predictions import events, read_tasks, times_days

SLOPE_COLUMNS = (
    "task", "model", "outcome", "measure", "horizon_days", "before", "lower", "upper", "after", "lower_after",
    "upper_after", "n_patients", "reason",
)  # fmt: skip
SLOPE, LEVEL, RATIO = "calibration_slope", "calibration_in_the_large", "observed_to_expected"
_TINY = 1e-7  # the least probability of an event or class of which a logarithm is taken
_LEAST_SURVIVAL = 1e-300  # its logarithm is finite, and that of the logarithm no outlier
_MOST_STEPS = 50
_SEPARATED = 15.0  # a probability nearer to 0 or 1 by this many log odds for everybody: there is no finite line
_APART = "the probabilities tell all patients apart: no finite line fits best"
_ALIKE = "all patients have the same probability"


@dataclass(frozen=True)
class Estimate:
    """A coefficient with its standard error; NaN with the reason where there is none."""

    value: float
    error: float = np.nan
    reason: str | None = None


def slope_table(predictions: pd.DataFrame) -> pd.DataFrame:
    r"""Returns slope and level of calibration of test patients, as predicted and after recalibration.

    Recalibration and the pooling of folds are those of `calibration_table`. Intervals are Wald's, 95 %.

    - Classes: logistic regression of a class on the log odds of its probability. `calibration_slope` is the slope,
      below 1 where probabilities are too extreme (Cox 1958); `calibration_in_the_large` the intercept with the slope
      held at 1, below 0 where they are too high. Of two classes for the second; of more for each against the rest,
      which is what most readers know, and not the joint model of Van Hoorde (2014).
    - Survival: `calibration_slope` is the coefficient of :math:`\log(-\log S(h|x))` in a Cox model of follow-up until
      the horizon `horizon_days` (Austin 2020); `observed_to_expected` the probability of an event by then, one minus
      Kaplan-Meier, divided by the mean predicted one, with an interval from Greenwood's variance.

    Of several repeats, estimates and standard errors are means: repeating does not pretend to more patients.

    Args:
        predictions: Columns of predictions.csv, with rows of split validation for recalibration.

    Returns:
        Columns `SLOPE_COLUMNS`; `outcome` is the class, empty for survival. No rows for regression. What is undefined
        is NaN with its reason, as with fewer than 20 patients, 5 of a class and of the rest, or 10 events by the
        horizon.

    Raises:
        DataError: Columns, outcomes or predictions are missing.

    References:
        Van Calster et al. (2019), BMC Med 17: 230. Austin, Harrell and van Klaveren (2020), Stat Med 39: 2714-2742.
    """
    rows: list[dict[str, Any]] = []
    for task in (task for task in read_tasks(predictions) if task.outcome.kind != "regression"):
        for model in task.models:
            of_model = task.of_model(model)
            tested = of_model[of_model["split"] == "test"]
            if tested.empty:
                continue
            found = _of_survival(of_model) if task.classes is None else _of_classes(of_model, task.classes)
            n_patients = len(tested[["cohort", "patient_id"]].drop_duplicates())
            rows += [{"task": task.name, "model": model, "n_patients": n_patients, **row} for row in found]
    return pd.DataFrame(rows, columns=list(SLOPE_COLUMNS)).astype({"n_patients": "Int64"})


def logistic_slope(log_odds: Float[np.ndarray, " patient"], is_case: Bool[np.ndarray, " patient"]) -> Estimate:
    """Returns the slope of a logistic regression of an outcome on predicted log odds."""
    if np.ptp(log_odds) < _TINY:
        return Estimate(np.nan, reason=_ALIKE)
    return _logistic(np.stack([log_odds, np.ones_like(log_odds)], axis=1), np.zeros_like(log_odds), is_case)


def logistic_level(log_odds: Float[np.ndarray, " patient"], is_case: Bool[np.ndarray, " patient"]) -> Estimate:
    """Returns the intercept of a logistic regression whose offset are predicted log odds."""
    return _logistic(np.ones((len(log_odds), 1)), log_odds, is_case)


def survival_slope(
    survival: Float[np.ndarray, " patient"],
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    *,
    horizon_days: float,
) -> Estimate:
    """Returns the coefficient of the complementary log-log of predicted survival in a Cox model until the horizon."""
    from lifelines import CoxPHFitter  # slow to import
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning

    predictor = np.log(-np.log(np.clip(survival, _LEAST_SURVIVAL, 1 - _TINY)))
    if np.ptp(predictor) < _TINY:
        return Estimate(np.nan, reason=_ALIKE)
    seen = pd.DataFrame({
        "time_days": np.minimum(time_days, horizon_days),
        "event": event & (time_days <= horizon_days),
        "predictor": predictor,
    })  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps on the way
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            row = CoxPHFitter().fit(seen, "time_days", "event").summary.loc["predictor"]
        except (ConvergenceError, ConvergenceWarning):
            return Estimate(np.nan, reason=_APART)
    return Estimate(float(row["coef"]), float(row["se(coef)"]))


def observed_to_expected(
    survival: Float[np.ndarray, " patient"],
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    *,
    horizon_days: float,
) -> Estimate:
    """Returns the logarithm of observed over expected events by the horizon; the expected number is held fixed."""
    times = np.unique(time_days[event & (time_days <= horizon_days)])
    at_risk = (time_days >= times[:, None]).sum(axis=1)
    died = (event & (time_days == times[:, None])).sum(axis=1)
    alive = float(np.prod(1 - died / at_risk))
    if alive > 0 and time_days.max() < horizon_days:
        return Estimate(np.nan, reason=f"nobody was followed to day {horizon_days:.0f}")
    variance = alive**2 * float((died / (at_risk * np.maximum(at_risk - died, 1)))[died < at_risk].sum())
    expected = max(float(1 - survival.mean()), _TINY)
    return Estimate(float(np.log((1 - alive) / expected)), float(np.sqrt(variance) / (1 - alive)))


def _of_classes(rows: pd.DataFrame, classes: Sequence[str]) -> Iterator[dict[str, Any]]:
    before, after, reason = class_stages(rows, classes)
    for index in [1] if len(classes) == 2 else range(len(classes)):
        for measure, estimate in ((SLOPE, logistic_slope), (LEVEL, logistic_level)):
            stages = []
            for table in (before, after):
                repeats = [] if table is None else [part for _, part in table.groupby("repeat_number")]
                stages.append([_of_class(part, index, classes[index], estimate) for part in repeats])
            yield _row(measure, stages, reason) | {"outcome": classes[index]}


def _of_class(table: pd.DataFrame, index: int, name: str, estimate: Callable[..., Estimate]) -> Estimate:
    is_case = (table["label_index"] == index).to_numpy()
    n_rarer = int(min(is_case.sum(), (~is_case).sum()))
    if (few := too_few_calibrated(len(table))) is not None:
        return Estimate(np.nan, reason=few)
    if n_rarer < LEAST:
        side = "of" if n_rarer == is_case.sum() else "of others than"
        return Estimate(np.nan, reason=f"{n_rarer} test patients {side} class {name}, {LEAST} are needed")
    probability = np.clip(table.iloc[:, index].to_numpy(dtype=np.float64), _TINY, 1 - _TINY)
    return estimate(np.log(probability) - np.log1p(-probability), is_case)


def _of_survival(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    before, after, reason = survival_stages(rows)
    horizon = None if before is None else common_horizon(before)
    for measure, estimate in ((SLOPE, survival_slope), (RATIO, observed_to_expected)):
        stages = [_of_horizon(folds, estimate, horizon) for folds in (before, after)]
        yield _row(measure, stages, reason) | {"horizon_days": np.nan if horizon is None else horizon, "outcome": ""}


def _of_horizon(
    folds: Mapping[Any, CurvesOfFold] | None, estimate: Callable[..., Estimate], horizon_days: float | None
) -> list[Estimate]:
    """Returns the estimate of every repeat, its folds pooled."""
    if folds is None or horizon_days is None:
        return []
    found = []
    for of_repeat in by_repeat(folds):
        rows = pd.concat([fold.rows for fold in of_repeat])
        time_days, event = times_days(rows), events(rows)
        n_events = int((event & (time_days <= horizon_days)).sum())
        if n_events < LEAST_CALIBRATED_EVENTS or len(rows) < LEAST_CALIBRATED:
            few = f"{len(rows)} test patients, {n_events} events by day {horizon_days:.0f}"
            needed = f"{LEAST_CALIBRATED} and {LEAST_CALIBRATED_EVENTS} are needed"
            found.append(Estimate(np.nan, reason=f"{few}: {needed}"))
            continue
        survival = np.concatenate([fold.curves.at_horizon(horizon_days) for fold in of_repeat])
        found.append(estimate(survival, time_days, event, horizon_days=horizon_days))
    return found


def _row(measure: str, stages: Sequence[Sequence[Estimate]], reason: str | None) -> dict[str, Any]:
    """Returns estimates with their intervals; the ratio is estimated as its logarithm.

    Args:
        measure: Which.
        stages: The estimates of all repeats, as predicted and after recalibration; none where there is nothing.
        reason: Why there is nothing.
    """
    found: dict[str, Any] = {"measure": measure, "horizon_days": np.nan}
    columns = (("before", "lower", "upper"), ("after", "lower_after", "upper_after"))
    for names, estimates in zip(columns, stages, strict=True):
        value = float(np.mean([e.value for e in estimates])) if estimates else np.nan
        margin = NORMAL_95 * float(np.mean([e.error for e in estimates])) if estimates else np.nan
        numbers = np.array([value, value - margin, value + margin])
        found |= dict(zip(names, np.exp(numbers) if measure == RATIO else numbers, strict=True))
    undefined = next((e.reason for e in chain.from_iterable(stages) if e.reason is not None), None)
    return found | {"reason": undefined or reason}


def _logistic(
    design: Float[np.ndarray, "patient column"],
    offset: Float[np.ndarray, " patient"],
    is_case: Bool[np.ndarray, " patient"],
) -> Estimate:
    """Returns the first coefficient of highest likelihood, by Newton's method, and its standard error."""
    from scipy.special import expit, log_expit

    def loss(weights: np.ndarray) -> float:
        score = design @ weights + offset
        return -float(np.where(is_case, log_expit(score), log_expit(-score)).sum())

    weights = np.zeros(design.shape[1])
    for _ in range(_MOST_STEPS):
        score = design @ weights + offset
        probability = expit(score)
        information = (design * (probability * (1 - probability))[:, None]).T @ design
        if np.abs(score).min() > _SEPARATED or np.linalg.cond(information) > 1 / np.finfo(float).eps:
            break
        step = np.linalg.solve(information, design.T @ (is_case - probability))
        while loss(weights + step) > loss(weights) + 1e-9 and np.abs(step).max() > 1e-9:
            step /= 2
        weights = weights + step
        if np.abs(step).max() < 1e-9:
            return Estimate(float(weights[0]), float(np.sqrt(np.linalg.inv(information)[0, 0])))
    return Estimate(np.nan, reason=_APART)
