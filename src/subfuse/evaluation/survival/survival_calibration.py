"""Whether predicted survival probabilities are true: 1-calibration at a horizon and D-calibration over all times."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.evaluation.censoring import HORIZON_DAYS, SurvivalCurves
from subfuse.evaluation.floors import LEAST_CALIBRATED_EVENTS
from subfuse.evaluation.metrics import Metric

_EXPECTED_PER_GROUP = 5  # events, and patients without; the chi-squared distribution needs as many
_MAX_GROUPS = 10
_D_BINS = 10
_D_PATIENTS_PER_BIN = 5  # expected; the chi-squared distribution needs as many
_MOST_BETWEEN = 0.5  # of the events, between two days of the curves: of more, the straight line there would be judged
_SMALLEST = 1e-6  # of what is divided by
_STEPS = 50  # in which the variance is integrated


def one_calibration(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    curves: SurvivalCurves,
    *,
    horizon_days: float = HORIZON_DAYS,
) -> Metric:
    r"""Returns the p-value of 1-calibration at a horizon; a small one speaks against the probabilities.

    Patients are sorted by predicted survival into groups of equal size: ten, fewer (down to two) where a group would
    have fewer than five expected events or fewer than five patients expected to have none. The squared differences
    between a group's mean predicted probability of an event and one minus its Kaplan-Meier estimate, divided by their
    variance, are compared with chi-squared.

    Relative to Haider: the variance is Greenwood's formula under the group's mean predicted curve :math:`S`,
    :math:`S^2 \int d\Lambda / Y` with :math:`Y` patients at risk. Without censoring it is the binomial
    :math:`S (1 - S) / n` of D'Agostino and Nam, which is too small, and rejects true probabilities, where patients are
    lost before the horizon (Demler 2015). Degrees of freedom are the groups, not one less: nothing is fitted on the
    patients that are tested.

    References:
        D'Agostino and Nam (2003), Handbook of Statistics 23; Demler, Paynter and Cook (2015), Stat Med 34: 1659-1680;
        Haider et al. (2020), JMLR 21(85).
    """
    if horizon_days > curves.days[-1]:
        return Metric(np.nan, f"the predicted curves end on day {curves.days[-1]:.0f}, before day {horizon_days:.0f}")
    table = calibration_groups(time_days, event, curves, horizon_days=horizon_days)
    if len(table) < 2:
        return Metric(np.nan, f"fewer than {LEAST_CALIBRATED_EVENTS} events by day {horizon_days:.0f}")
    if table["observed"].isna().any():
        return Metric(np.nan, f"nobody of a risk group was followed to day {horizon_days:.0f}")
    from scipy.stats import chi2

    difference = (table["observed"] - table["predicted"]).to_numpy()
    squared = difference**2 / np.maximum(table["variance"].to_numpy(), _SMALLEST)
    return Metric(float(chi2.sf(squared.sum(), df=len(table))))


def calibration_groups(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    curves: SurvivalCurves,
    *,
    horizon_days: float = HORIZON_DAYS,
) -> pd.DataFrame:
    """Returns predicted and observed probabilities of an event by the horizon in groups of rising prediction.

    Returns:
        Columns n_patients, predicted (mean), observed (one minus Kaplan-Meier; NaN where nobody was followed until
        the horizon and the last patient had no event), variance (of observed, if the prediction is true). No rows
        with fewer than ten events by the horizon.
    """
    columns = ["n_patients", "predicted", "observed", "variance"]
    if (event & (time_days <= horizon_days)).sum() < LEAST_CALIBRATED_EVENTS:
        return pd.DataFrame(columns=columns)
    probability = 1 - curves.at_horizon(horizon_days)
    groups = _groups(probability)
    grid = np.linspace(0, horizon_days, _STEPS + 1)
    on_grid = np.stack([curves.at_horizon(day) for day in grid], axis=1)  # (patient, time)
    rows = [
        (
            len(group),
            probability[group].mean(),
            _event_share(time_days[group], event[group], horizon_days),
            _predicted_variance(time_days[group], grid, on_grid[group].mean(axis=0)),
        )
        for group in groups
    ]
    return pd.DataFrame(rows, columns=columns)


def d_calibration(
    time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"], curves: SurvivalCurves
) -> Metric:
    r"""Returns the p-value of D-calibration; a small one speaks against the survival curves.

    If the curves are true, the predicted survival at the patients' own event times is uniform. It is counted in ten
    bins; a patient who was last seen at survival :math:`s` is spread evenly over what is below :math:`s`, and a time
    beyond the predicted curve counts as last seen at its end. The counts are compared with equal ones by chi-squared,
    9 degrees of freedom. Spreading makes counts more equal than chance would: with much censoring the test is
    conservative. Undefined where more than half of the events lie between two days of the curves, which are straight
    there whatever the model says.

    References:
        Haider et al. (2020), JMLR 21(85).
    """
    if len(time_days) < _D_BINS * _D_PATIENTS_PER_BIN:
        return Metric(np.nan, f"fewer than {_D_BINS * _D_PATIENTS_PER_BIN} patients")
    seen = event & (time_days <= curves.days[-1])
    if seen.sum() < LEAST_CALIBRATED_EVENTS:
        return Metric(np.nan, f"fewer than {LEAST_CALIBRATED_EVENTS} events by day {curves.days[-1]:.0f}")
    between = np.searchsorted(curves.days, time_days[seen & ~np.isin(time_days, curves.days)])
    if len(between) and (most := np.bincount(between)).max() > _MOST_BETWEEN * seen.sum():
        start, end = np.append(0.0, curves.days)[most.argmax() :][:2]
        return Metric(np.nan, f"no day of the curves between {start:.0f} and {end:.0f}, where most events are")
    from scipy.stats import chisquare

    return Metric(float(chisquare(d_calibration_counts(curves.at(time_days), seen)).pvalue))


def d_calibration_counts(
    survival: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> Float[np.ndarray, " bin"]:
    """Returns how many patients fall into each tenth of predicted survival at their own time.

    Args:
        survival: Predicted survival at the patient's event or last contact.
        event: True where the event was observed.
    """
    edges = np.linspace(0, 1, _D_BINS + 1)
    own = np.clip(np.ceil(survival * _D_BINS).astype(int) - 1, 0, _D_BINS - 1)  # bins (0, 0.1], (0.1, 0.2], ...
    counts = np.bincount(own[event], minlength=_D_BINS).astype(np.float64)
    last_seen = np.maximum(survival[~event], _SMALLEST)[:, None]
    below = np.clip(last_seen - edges[:-1], 0.0, 1 / _D_BINS)  # (patient, bin): the part of each bin below
    return counts + (below / last_seen).sum(axis=0)


def _groups(probability: Float[np.ndarray, " patient"]) -> list[np.ndarray]:
    """Returns positions of patients in groups of rising probability, as many groups as expected counts allow."""
    order = np.argsort(probability, kind="stable")
    for n_groups in range(_MAX_GROUPS, 2, -1):
        groups = np.array_split(order, n_groups)
        expected = np.array([[probability[g].sum(), (1 - probability[g]).sum()] for g in groups])
        if expected.min() >= _EXPECTED_PER_GROUP:
            return groups
    return np.array_split(order, 2)


def _event_share(
    time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"], horizon_days: float
) -> float:
    """Returns one minus the Kaplan-Meier estimate at the horizon."""
    times = np.unique(time_days[event & (time_days <= horizon_days)])
    at_risk = (time_days >= times[:, None]).sum(axis=1)
    events = (event & (time_days == times[:, None])).sum(axis=1)
    survival = float(np.prod(1 - events / at_risk))
    is_known = survival == 0 or time_days.max() >= horizon_days
    return 1 - survival if is_known else np.nan


def _predicted_variance(
    time_days: Float[np.ndarray, " patient"], grid: Float[np.ndarray, " time"], survival: Float[np.ndarray, " time"]
) -> float:
    """Returns Greenwood's variance at the end of the grid for the predicted curve and the observed numbers at risk."""
    logs = -np.log(np.maximum(survival, _SMALLEST))
    middle = (grid[:-1] + grid[1:]) / 2
    at_risk = np.maximum((time_days >= middle[:, None]).sum(axis=1), 1)
    return float(survival[-1] ** 2 * (np.diff(logs) / at_risk).sum())
