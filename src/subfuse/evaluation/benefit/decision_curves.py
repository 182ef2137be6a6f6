"""Decision curves: what it is worth to treat those above a threshold, against all, nobody, or by another model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.evaluation.bootstrap import BootstrapWeights
from subfuse.evaluation.predictions import (
    FOLD,
    PATIENT,
    TaskPredictions,
    class_probabilities,
    columns_with,
    events,
    label_indices,
    stacked,
    times_days,
)
from subfuse.evaluation.survival.horizons import HORIZONS_DAYS, with_horizons

DECISION_COLUMNS = (
    "task", "model", "outcome", "threshold", "net_benefit", "treat_all", "against_default", "lower_default",
    "upper_default", "reference", "against_reference", "lower", "upper", "n_patients", "reason",
)  # fmt: skip
THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
_HORIZON_DAYS = HORIZONS_DAYS[1]  # three years
_COLUMN = f"survival_{_HORIZON_DAYS}"
_UNFOLLOWED = "nobody whose probability reaches the threshold was followed for so long"
_UNDEFINED = dict.fromkeys(
    ("net_benefit", "treat_all", "against_default", "lower_default", "upper_default", "against_reference", "lower",
     "upper"), np.nan
)  # fmt: skip


def decision_curves(
    task: TaskPredictions,
    models: Sequence[str],
    *,
    reference: str | None = None,
    n_bootstrap: int,
    seed: int,
) -> pd.DataFrame:
    r"""Returns the net benefit of treating test patients whose probability of an outcome reaches a threshold.

    At a threshold :math:`t`, one rightly treated patient is worth :math:`(1 - t) / t` wrongly treated ones. The net
    benefit is :math:`(TP - FP\, t / (1 - t)) / n`, with the outcome one class against the rest, or an event within
    three years: there, of the treated, the share :math:`1 - S(h)` by Kaplan-Meier has it. Treating nobody has 0.
    Probabilities share their scale between folds, so the test patients of a repeat are pooled; values are means over
    repeats, on the patients whom all these models predict.

    Args:
        task: Rows of all models and splits; survival needs training rows for models without a curve (`with_horizons`).
        models: Whose predictions decide who is treated.
        reference: One of them, with which the others are compared.
        n_bootstrap: Replicates of the bootstrap.
        seed: Of the replicates.

    Returns:
        Columns `DECISION_COLUMNS`, for `THRESHOLDS`. `against_default` is the net benefit less that of the better one
        of treating all and none, `against_reference` less that of the reference, both with a band of the bootstrap over
        patients that holds 95 % of whole curves (`simultaneous_band`), so that one of many thresholds is not above zero
        by chance.

    References:
        Besag et al. (1995), Stat Sci 10: 3-41 (page 30); Vickers and Elkin (2006), Med Decis Making 26: 565-574;
        Vickers et al. (2008), BMC Med Inform Decis Mak 8: 53.
    """
    bootstrap = BootstrapWeights.draw(task.tested, n_bootstrap, np.random.default_rng(seed))
    cases = list(_cases(task, models))
    measured = {(c.model, c.outcome): _measured(c, bootstrap) for c in cases if c.reason is None}
    tables = [pd.DataFrame(columns=list(DECISION_COLUMNS))]
    for case in cases:
        own = measured.get((case.model, case.outcome))
        other = measured.get((str(reference), case.outcome)) if case.model != reference else None
        numbers = _UNDEFINED | ({} if own is None else _numbers(own, other, has_interval=case.few is None))
        known = {"task": task.name, "model": case.model, "outcome": case.outcome, "reference": reference,
                 "n_patients": len(case.patients.drop_duplicates()), "reason": case.reason or case.few}  # fmt: skip
        table = pd.DataFrame({"threshold": THRESHOLDS, **numbers}).assign(**known)
        is_lost = table["net_benefit"].isna() & (case.reason is None)
        tables.append(table.assign(reason=table["reason"].astype(object).mask(is_lost, _UNFOLLOWED)))
    return stacked(tables)[list(DECISION_COLUMNS)]


def net_benefit(
    probability: Float[np.ndarray, " patient"],
    has_outcome: Bool[np.ndarray, " patient"],
    thresholds: Float[np.ndarray, " threshold"],
    weights: Float[np.ndarray, "weighting patient"],
) -> Float[np.ndarray, "weighting threshold"]:
    """Returns the net benefit of treating those whose probability reaches each threshold, weighted by patient."""
    treated = (probability[:, None] >= thresholds).astype(np.float64)
    right, wrong = (weights * has_outcome) @ treated, (weights * ~has_outcome) @ treated
    return (right - wrong * thresholds / (1 - thresholds)) / weights.sum(axis=1, keepdims=True)


def survival_net_benefit(
    probability: Float[np.ndarray, " patient"],
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    thresholds: Float[np.ndarray, " threshold"],
    weights: Float[np.ndarray, "weighting patient"],
    *,
    horizon_days: float,
) -> Float[np.ndarray, "weighting threshold"]:
    """Returns `net_benefit` where the outcome is an event by a horizon; NaN where nobody treated was followed to it."""
    columns = []
    for limit in thresholds:
        treated = probability >= limit
        share = weights[:, treated].sum(axis=1) / weights.sum(axis=1)
        survival = _survival_at(time_days[treated], event[treated], weights[:, treated], horizon_days)
        benefit = share * (1 - survival) - share * survival * limit / (1 - limit)
        columns.append(np.where(share > 0, benefit, 0.0))
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class _Case:
    """Test patients with a model's probability of one outcome; a patient has a row in every repeat."""

    model: str
    patients: pd.MultiIndex
    repeat: np.ndarray
    few: str | None  # why there are no intervals
    outcome: str
    probability: np.ndarray
    benefit: Callable[..., np.ndarray]  # of probabilities, outcomes, thresholds and weights
    outcomes: tuple[np.ndarray, ...]
    reason: str | None = None  # why nothing is known


def _cases(task: TaskPredictions, models: Sequence[str]) -> Iterator[_Case]:
    if task.classes is None:
        tables, cases = {model: _with_horizon(task, model) for model in models}, _survival_cases
    else:
        tables, cases = {model: task.tested_by(model) for model in models}, partial(_class_cases, task.classes)
    tables = {model: table.set_index([*FOLD, *PATIENT]) for model, table in tables.items()}
    common = next(iter(tables.values())).index
    for table in tables.values():
        common = common.intersection(table.index)
    for model, table in tables.items():
        rows = table.loc[common].reset_index()
        few = task.outcome.too_few(rows.drop_duplicates(PATIENT))
        known = partial(_Case, model, pd.MultiIndex.from_frame(rows[PATIENT]), rows["repeat"].to_numpy(), few)
        yield from (known(*case) for case in cases(rows))


def _class_cases(classes: Sequence[str], rows: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    label, probability = label_indices(rows, classes), class_probabilities(rows, classes)
    for index in range(1 if len(classes) == 2 else 0, len(classes)):
        yield classes[index], probability[:, index], net_benefit, (label == index,)


def _survival_cases(rows: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    probability, outcomes = 1 - rows[_COLUMN].to_numpy(dtype=np.float64), (times_days(rows), events(rows))
    outcome = f"event by day {_HORIZON_DAYS}"
    ends = f"no probability of an {outcome}: training patients or their follow-up are missing"
    reason = ends if np.isnan(probability).any() or rows.empty else None
    yield outcome, probability, partial(survival_net_benefit, horizon_days=float(_HORIZON_DAYS)), outcomes, reason


def _with_horizon(task: TaskPredictions, model: str) -> pd.DataFrame:
    """Returns a model's test rows with the survival at the horizon; missing where neither column nor training tells."""
    rows = task.of_model(model)
    tested = rows[rows["split"] == "test"]
    trained = dict(list(rows[rows["split"] == "train"].groupby(FOLD)))
    parts = []
    for key, fold in tested.groupby(FOLD):
        filled = fold.drop(columns=[n for n in columns_with(fold, "survival_") if fold[n].isna().any()])
        if key in trained:
            filled = with_horizons(filled, trained[key])
        parts.append(filled if _COLUMN in filled else filled.assign(**{_COLUMN: np.nan}))
    return pd.concat(parts)


def _measured(
    case: _Case, bootstrap: BootstrapWeights
) -> tuple[Float[np.ndarray, "weighting threshold"], Float[np.ndarray, "weighting threshold"]]:
    """Returns the net benefit and that of treating all: first of the patients themselves, then of the replicates."""
    weights = bootstrap.after_ones(case.patients)
    parts = []
    for name in np.unique(case.repeat):
        chosen = case.repeat == name
        both, outcomes = (case.probability[chosen], np.ones(chosen.sum())), [each[chosen] for each in case.outcomes]
        parts.append([case.benefit(p, *outcomes, THRESHOLDS, weights[:, chosen]) for p in both])
    model, everybody = (np.mean([part[place] for part in parts], axis=0) for place in (0, 1))
    return model, everybody


def _numbers(
    measured: tuple[np.ndarray, np.ndarray], reference: tuple[np.ndarray, np.ndarray] | None, *, has_interval: bool
) -> dict[str, Float[np.ndarray, " threshold"]]:
    model, everybody = measured
    beyond = model - np.maximum(everybody, 0.0)
    found = {"net_benefit": model[0], "treat_all": everybody[0], "against_default": beyond[0]}
    if has_interval:
        found["lower_default"], found["upper_default"] = simultaneous_band(beyond[1:])
    if reference is not None:
        difference = model - reference[0]
        found["against_reference"] = difference[0]
        if has_interval:
            found["lower"], found["upper"] = simultaneous_band(difference[1:])
    return found


def simultaneous_band(
    replicates: Float[np.ndarray, "replicate threshold"],
) -> list[Float[np.ndarray, " threshold"]]:
    """Returns the ends of a band that holds 95 % of whole curves, by the ranks of their points (Besag 1995).

    Without a value in half of the replicates, a threshold has no band.
    """
    from scipy.stats import rankdata

    known = np.isfinite(replicates)
    usable = known.mean(axis=0) > 0.5
    centre = np.nanmedian(np.where(usable, replicates, 0.0), axis=0)
    filled = np.where(known & usable, replicates, centre)
    ranks = (rankdata(filled, axis=0) - 0.5) / len(filled)
    outermost = np.minimum(ranks, 1 - ranks).min(axis=1)  # of every curve, how far out its most extreme point is
    tail = float(np.quantile(outermost, 0.05))
    return [np.where(usable, np.quantile(filled, level, axis=0), np.nan) for level in (tail, 1 - tail)]


def _survival_at(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    weights: Float[np.ndarray, "weighting patient"],
    horizon_days: float,
) -> Float[np.ndarray, " weighting"]:
    """Returns the weighted Kaplan-Meier estimate at the horizon; NaN where follow-up ends before it."""
    order = np.argsort(time_days, kind="stable")
    time_days, event, weights = time_days[order], event[order], weights[:, order]
    starts = np.unique(time_days, return_index=True)[1]
    starts = starts[time_days[starts] <= horizon_days]
    if len(starts) == 0:
        return np.ones(len(weights))
    at_risk = weights[:, ::-1].cumsum(axis=1)[:, ::-1]
    died = np.add.reduceat(weights * event, starts, axis=1)
    if starts[-1] + 1 < len(time_days):  # the last group ends with the horizon
        last = np.searchsorted(time_days, horizon_days, side="right")
        died[:, -1] = (weights * event)[:, starts[-1] : last].sum(axis=1)
    survived = 1 - np.divide(died, at_risk[:, starts], out=np.zeros_like(died), where=at_risk[:, starts] > 0)
    survival = survived.prod(axis=1)
    followed = (weights * (time_days >= horizon_days)).sum(axis=1) > 0
    return np.where(followed | (survival <= 0), survival, np.nan)
