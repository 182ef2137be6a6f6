"""What can be promised to a patient: sets of classes, and lower bounds of survival, that hold for a stated share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.evaluation.censoring import SurvivalCurves
from subfuse.evaluation.floors import LEAST_VALIDATION, too_few_calibrated
from subfuse.evaluation.metrics import NORMAL_95
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    SurvivalOutcome,
    TaskPredictions,
    class_probabilities,
    curve_columns,
    events,
    label_indices,
    survival_curves,
    times_days,
)
from subfuse.evaluation.survival.risk_groups import kaplan_meier

PROMISED = 0.9
CONFORMAL_COLUMNS = (
    "task", "model", "column", "stratum", "promised", "coverage", "lower", "upper", "p_value", "size",
    "n_patients", "reason",
)  # fmt: skip
_EVERYBODY = ""  # column and stratum of the row of all patients
_DRAWS = 9999  # for the p-value
_SHORTEST = 1e-6  # days by which a time is divided


@dataclass(frozen=True)
class SetsOfClasses:
    """The promise that a patient's class is in a set."""

    classes: tuple[str, ...]

    what: ClassVar = "sets of classes"
    size: ClassVar = "{:.1f} classes in the mean"

    def needed(self, tested: pd.DataFrame) -> list[str] | None:
        """Returns the columns that validation patients must have; None where test patients lack a prediction."""
        return [*(f"p_{name}" for name in self.classes), "label"]

    def kept(self, known: pd.DataFrame, tested: pd.DataFrame) -> dict[str, np.ndarray]:
        """Returns the size of the promise to each test patient, and what became of it."""
        label, probabilities = label_indices(tested, self.classes), class_probabilities(tested, self.classes)
        of_known = class_probabilities(known, self.classes), label_indices(known, self.classes)
        sets = conformal_sets(*of_known, probabilities)
        return {"size": sets.sum(axis=1), "held": sets[np.arange(len(tested)), label]}

    def too_few(self, kept: pd.DataFrame) -> str | None:
        """Returns why these test patients cannot tell whether it is kept; None where they suffice."""
        return too_few_calibrated(len(kept))

    def share(self, kept: pd.DataFrame) -> dict[str, Any]:
        """Returns for how many patients it held, with their number and the size."""
        found = {"size": float(kept["size"].mean()), "n_patients": len(kept)}
        return found | _chances(float(kept["held"].mean()), len(kept), kept)


class BoundsOfSurvival:
    """The promise that a patient lives to a day; methods as those of `SetsOfClasses`."""

    what = "lower bounds of survival"
    size = "half of them beyond {:.0f} days"

    def needed(self, tested: pd.DataFrame) -> list[str] | None:
        """Returns the columns of outcome and curve; None without a curve."""
        return None if survival_curves(tested) is None else ["time_days", "event", *curve_columns(tested).values()]

    def kept(self, known: pd.DataFrame, tested: pd.DataFrame) -> dict[str, np.ndarray]:
        """Returns the bound in days, and the follow-up."""
        columns = curve_columns(tested)
        curves, new = (
            SurvivalCurves(np.array(list(columns)), rows[list(columns.values())].to_numpy(dtype=np.float64))
            for rows in (known, tested)
        )
        bound = survival_bounds(times_days(known), events(known), curves, new)
        return {"size": bound, "time_days": times_days(tested), "event": events(tested)}

    def too_few(self, kept: pd.DataFrame) -> str | None:
        """Returns why these test patients cannot tell; None where they, and those with an event, suffice."""
        return too_few_calibrated(len(kept)) or SurvivalOutcome().too_few(kept)

    def share(self, kept: pd.DataFrame) -> dict[str, Any]:
        """Returns the Kaplan-Meier estimate of the share of patients who live to their bound."""
        bound = np.maximum(kept["size"].to_numpy(dtype=np.float64), _SHORTEST)
        lived = kept["time_days"].to_numpy(dtype=np.float64) / bound
        before = np.nextafter(1.0, 0.0)  # who dies on the day of the bound has lived to it
        known = np.minimum(before, lived.max(keepdims=True))
        estimate = kaplan_meier(lived, kept["event"].to_numpy(dtype=bool), known).iloc[0]
        share, n_at_risk = float(estimate["survival"]), float(estimate["n_at_risk"])
        found = {"size": float(np.median(kept["size"])), "n_patients": len(kept)}
        if share == 0:
            return found | _chances(0.0, len(kept), kept)
        if known[0] < before:
            return found | {"coverage": np.nan, "reason": "nobody was followed to the bound"}
        return found | _chances(share, n_at_risk / share, kept)  # as many as would tell as much uncensored (Peto 1977)


def promise_of(task: TaskPredictions) -> SetsOfClasses | BoundsOfSurvival:
    """Returns what can be promised to the patients of a task."""
    return BoundsOfSurvival() if task.classes is None else SetsOfClasses(task.classes)


def conformal_table(task: TaskPredictions, model: str, columns: pd.DataFrame) -> pd.DataFrame:
    r"""Returns for how many test patients the promises of split conformal prediction hold, overall and per stratum.

    Every fold's promises are fitted on its validation patients, of whom each fold needs `LEAST_VALIDATION`. They
    chose the epoch of a network too, which makes promises a little too bold; coverage among test patients, of the
    first repeat with folds pooled, tells by how much.

    - Classes: `conformal_sets`; `size` is the mean number of classes in a set.
    - Survival: `survival_bounds`; `coverage` is the Kaplan-Meier estimate of the share who live as long as their
      bound, on the axis of time divided by the bound; `size` is the median bound in days.
    - `lower`, `upper`: Wilson's interval, for the patients who were tested.
    - Of fewer than 20 test patients, or 5 events, nothing is told; `reason` says so.
    - `p_value`: how probable it is that a promise p holds for so few although it is kept. Who validated counts too:
      with n known patients the share of new ones for whom it holds varies as Beta(n + 1 - k, k),
      :math:`k = \lfloor (n + 1)(1 - p) \rfloor` (Vovk 2012), in each fold.

    Args:
        task: Rows of all models and splits.
        model: Whose predictions are looked at.
        columns: One column per grouping of patients, by cohort and patient_id; None where a patient is in no stratum.

    Returns:
        Columns `CONFORMAL_COLUMNS`; the first row, of no column, is of all patients.
    """
    rows = task.of_model(model)
    rows = rows[rows["repeat"] == rows["repeat"].min()]
    known = {"task": task.name, "model": model, "promised": PROMISED}
    promise = promise_of(task)
    folds = [_kept_promises(fold, promise) for _, fold in rows.groupby(FOLD) if (fold["split"] == "test").any()]
    reasons = [found for found in folds if isinstance(found, str)]
    if reasons:
        return pd.DataFrame([known | {"reason": reasons[0], "n_patients": 0}], columns=list(CONFORMAL_COLUMNS))
    kept = pd.concat([found for found in folds if not isinstance(found, str)]).set_index(PATIENT)
    groups = [(_EVERYBODY, _EVERYBODY, kept), *_strata(kept, columns)]
    found = [known | {"column": column, "stratum": name} | _share(promise, part) for column, name, part in groups]
    return pd.DataFrame(found, columns=list(CONFORMAL_COLUMNS))


def conformal_sets(
    probabilities: Float[np.ndarray, "known class"],
    label: Int[np.ndarray, " known"],
    new: Float[np.ndarray, "patient class"],
) -> Bool[np.ndarray, "patient class"]:
    r"""Returns which classes are in each new patient's set, which holds the true class with the probability `PROMISED`.

    All classes that are as probable as the true class of the k-th least sure of the n known patients was,
    :math:`k = \lfloor (n + 1)(1 - p) \rfloor` for the promise p (Sadinle, Lei and Wasserman 2019: the smallest sets on
    average). That holds for patients who are drawn as the known ones were, whatever the model. A set may be empty.

    Args:
        probabilities: Of patients whom the model was not trained on.
        label: Their classes.
        new: Probabilities of other patients.

    Raises:
        ValueError: Too few known patients for the promise.
    """
    return new >= least_probability(probabilities, label)


def least_probability(probabilities: Float[np.ndarray, "known class"], label: Int[np.ndarray, " known"]) -> float:
    """Returns how probable a class must be to be in a patient's set, see `conformal_sets`."""
    scores = np.sort(probabilities[np.arange(len(label)), label])
    return float(scores[_rank(len(label)) - 1])


def survival_bounds(
    time_days: Float[np.ndarray, " known"],
    event: Bool[np.ndarray, " known"],
    curves: SurvivalCurves,
    new: SurvivalCurves,
) -> Float[np.ndarray, " patient"]:
    r"""Returns the day to which each new patient lives with the probability `PROMISED`.

    Where the predicted survival of a patient at death, :math:`S(T \mid x)`, falls below q with the promised
    probability, the bound is the first day on which the patient's curve is as low as q. The distribution of
    :math:`-\log S(T \mid x)`, the Cox-Snell residual, is estimated by Kaplan-Meier of the known patients, together with
    one patient of residual 0 in the place of the new one; without censoring that is split conformal prediction.

    Relative to Candès, Lei and Ren (2023, JRSS B 85: 24-45), who need every patient's time of censoring: residuals are
    taken to be censored independently of their size. No bound lies beyond the last day of the curves.

    Args:
        time_days: Death or last contact of patients whom the model was not trained on.
        event: True where death was observed.
        curves: Their predicted survival.
        new: Predicted survival of other patients.

    Raises:
        ValueError: Too few known patients for the promise.
    """
    return day_of_level(new, least_survival(time_days, event, curves))


def least_survival(
    time_days: Float[np.ndarray, " known"], event: Bool[np.ndarray, " known"], curves: SurvivalCurves
) -> float:
    """Returns q, how low the predicted survival of a patient falls before the bound, see `survival_bounds`."""
    _rank(len(time_days))
    last = curves.days[-1]
    level = curves.at(np.minimum(time_days, last))
    observed = event & (time_days <= last)
    order = np.lexsort((~observed, -level))  # from the highest level, the smallest residual; deaths before the censored
    level, observed = level[order], observed[order]
    at_risk = np.arange(len(level), 0, -1)
    steps = np.where(observed, 1 - 1 / at_risk, 1.0)
    below = 1 - len(level) / (len(level) + 1) * np.cumprod(np.append(1.0, steps[:-1]))  # share of smaller residuals
    return float(level[np.flatnonzero(below <= 1 - PROMISED + 1e-12)[-1]])


def day_of_level(curves: SurvivalCurves, level: float) -> Float[np.ndarray, " patient"]:
    """Returns the first day on which each curve is at most the level, and the last day where none is."""
    days = np.append(0.0, curves.days)
    survival = np.concatenate([np.ones((len(curves.survival), 1)), curves.survival], axis=1)
    survival = np.minimum.accumulate(survival, axis=1)
    right = np.argmax(survival <= level, axis=1)
    row, left = np.arange(len(survival)), np.maximum(right - 1, 0)
    high, low = survival[row, left], survival[row, right]
    share = np.where(high > low, (high - level) / np.where(high > low, high - low, 1.0), 0.0)
    bound = days[left] + share * (days[right] - days[left])
    return np.where(survival[:, -1] > level, days[-1], bound)


def _rank(n_known: int) -> int:
    """Returns which of the known patients, from the worst, sets the limit."""
    rank = int(np.floor((n_known + 1) * (1 - PROMISED) + 1e-9))
    if rank < 1:
        needed = int(np.ceil(1 / (1 - PROMISED) - 1e-9)) - 1
        raise ValueError(f"a promise of {PROMISED:.0%} needs {needed} known patients. Found {n_known}.")
    return rank


def _share(promise: SetsOfClasses | BoundsOfSurvival, kept: pd.DataFrame) -> dict[str, Any]:
    few = promise.too_few(kept)
    return promise.share(kept) if few is None else {"n_patients": len(kept), "reason": few}


def _kept_promises(fold: pd.DataFrame, promise: SetsOfClasses | BoundsOfSurvival) -> pd.DataFrame | str:
    """Returns the fold's test patients with the size of their promise and what became of it, or why there is none."""
    tested = fold[fold["split"] == "test"]
    needed = promise.needed(tested)
    if needed is None:
        return "its predictions hold no survival curve"
    known = fold[fold["split"] == "validation"].dropna(subset=needed)
    if len(known) < LEAST_VALIDATION:
        return f"a fold has {len(known)} validation patients with outcome and prediction, {LEAST_VALIDATION} are needed"
    return tested[PATIENT].assign(fold=tested["fold"], n_known=len(known), **promise.kept(known, tested))


def _strata(kept: pd.DataFrame, columns: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    for column in columns:
        values = columns[column].reindex(kept.index)
        for name, part in kept.groupby(values.to_numpy()):
            yield str(column), str(name), part


def _chances(share: float, n_tested: float | int, kept: pd.DataFrame) -> dict[str, float]:
    """Returns Wilson's interval, and the p-value of a promise that is kept."""
    z2 = NORMAL_95**2
    centre = share + z2 / (2 * n_tested)
    half = NORMAL_95 * np.sqrt(share * (1 - share) / n_tested + z2 / (4 * n_tested**2))
    ends = ((centre + side * half) / (1 + z2 / n_tested) for side in (-1, 1))
    lower, upper = (float(np.clip(end, 0.0, 1.0)) for end in ends)
    draw, held, n_drawn = np.random.default_rng(0), np.zeros(_DRAWS), 0
    for _, fold in kept.groupby("fold"):
        n_known = int(fold["n_known"].iloc[0])
        rank, n = _rank(n_known), max(1, round(n_tested * len(fold) / len(kept)))
        held += draw.binomial(n, draw.beta(n_known + 1 - rank, rank, size=_DRAWS))
        n_drawn += n
    p_value = (1 + (held / n_drawn <= share + 1e-9).sum()) / (1 + _DRAWS)
    return {"coverage": share, "lower": lower, "upper": upper, "p_value": float(p_value)}
