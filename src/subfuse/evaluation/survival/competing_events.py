"""How often an event happens where others may come first.

The estimate is written out: lifelines' AalenJohansenFitter moves times that patients share apart by random amounts, so
that it depends on a draw. The tests compare both where no times are shared.
"""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from subfuse.evaluation.survival.risk_groups import kaplan_meier

_QUANTILE = 1.959963984540054  # of the normal distribution, for 95 %


def cumulative_incidence(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    competing: Bool[np.ndarray, " patient"],
    times: Float[np.ndarray, " time"],
) -> pd.DataFrame:
    """Returns the probability that the event has happened by the given times (Aalen and Johansen 1978).

    One minus the Kaplan-Meier estimate, which takes those with another event for censored, is higher: it counts events
    that would have followed, had the other one not come first.

    Args:
        time_days: Time of the first event of any cause, or last contact, in days.
        event: True where the event of the cause was observed.
        competing: True where an event of another cause was.
        times: Days at which to report, from zero on; beyond the last follow-up the probability is unknown: NaN.

    Returns:
        Columns time_days, incidence, lower, upper (95 %, log-log; the estimate itself before the first event).

    Raises:
        ValueError: No patients, times before zero, or a patient with both events.
    """
    if len(time_days) == 0 or (times < 0).any() or (event & competing).any():
        raise ValueError(
            f"cumulative_incidence needs patients, times from zero on and one event at most of each patient. Found "
            f"{len(time_days)} patients, {int((event & competing).sum())} of them with both events."
        )
    if not competing.any():
        alone = kaplan_meier(time_days, event, times)
        estimates = 1 - alone[["survival", "upper", "lower"]].to_numpy()
    elif not event.any():
        estimates = np.zeros((len(times), 3))
    else:
        estimates = _beside_others(time_days, event, competing, times)
    estimates = np.where((times <= time_days.max())[:, None], estimates, np.nan)
    return pd.DataFrame({"time_days": times, **dict(zip(("incidence", "lower", "upper"), estimates.T, strict=True))})


def _beside_others(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    competing: Bool[np.ndarray, " patient"],
    times: Float[np.ndarray, " time"],
) -> Float[np.ndarray, "time 3"]:
    """Returns the estimate and its interval where both events occur."""
    days = np.unique(time_days)
    at_risk = (time_days >= days[:, None]).sum(axis=1)
    of_cause, of_any = ((here & (time_days == days[:, None])).sum(axis=1) for here in (event, event | competing))
    survival = np.concatenate([[1.0], np.cumprod(1 - of_any / at_risk)])[:-1]  # just before each day
    steps = survival * of_cause / at_risk
    incidence = np.cumsum(steps)
    error = np.sqrt(_variance(incidence, survival, at_risk, of_cause, of_any))
    with np.errstate(divide="ignore", invalid="ignore"):  # before the first event there is no interval
        width = _QUANTILE * error / (incidence * np.log(incidence))
        interval = [incidence ** np.exp(sign * width) for sign in (-1, 1)]
    known = np.stack([incidence, *(np.where(np.isfinite(bound), bound, incidence) for bound in interval)])
    return np.hstack([np.zeros((3, 1)), known])[:, np.searchsorted(days, times, side="right")].T


def _variance(
    incidence: Float[np.ndarray, " day"],
    survival: Float[np.ndarray, " day"],
    at_risk: Int[np.ndarray, " day"],
    of_cause: Int[np.ndarray, " day"],
    of_any: Int[np.ndarray, " day"],
) -> Float[np.ndarray, " day"]:
    """Returns Aalen's variance of the cumulative incidence at every day (Aalen 1978, Annals of Statistics 6).

    A day at which the last patient at risk has an event adds nothing: it would be divided by zero.
    """
    others = np.maximum(at_risk - 1, 1)
    left = np.maximum(at_risk - of_any, 1)
    of_survival = np.where(at_risk > of_any, of_any / (others * left), 0.0)
    of_hazard = survival**2 * of_cause * (at_risk - of_cause) / (at_risk**2 * others)
    of_both = survival * of_cause * (at_risk - of_cause) / (at_risk * left * others)
    of_both[at_risk == of_any] = 0.0
    ahead = np.tril(incidence[:, None] - incidence)  # from each day before to the day
    return ahead**2 @ of_survival + np.cumsum(of_hazard) - 2 * ahead @ of_both
