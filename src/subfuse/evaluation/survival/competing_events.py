"""How often an event happens where others may come first."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.evaluation.survival.risk_groups import kaplan_meier

_EVENT, _OTHER = 1, 2  # codes of scikit-survival; 0 is censored


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
    from sksurv.nonparametric import cumulative_incidence_competing_risks  # slow to import

    code = np.where(event, _EVENT, np.where(competing, _OTHER, 0))
    with np.errstate(divide="ignore", invalid="ignore"):  # before the first event there is no interval
        days, estimate, interval = cumulative_incidence_competing_risks(code, time_days, conf_type="log-log")
    steps = np.vstack([estimate[_EVENT], interval[_EVENT]])
    steps = np.where(np.isnan(steps), estimate[_EVENT], steps)
    return np.hstack([np.zeros((3, 1)), steps])[:, np.searchsorted(days, times, side="right")].T
