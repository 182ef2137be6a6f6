"""High- and low-risk groups from thresholds fitted on training patients, their survival curves and log-rank test."""

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from subfuse.errors import DataError, preview
from subfuse.evaluation.floors import LEAST
from subfuse.evaluation.metrics import Metric
from subfuse.evaluation.predictions import COMPETING, FOLD, PATIENT, competing_events, events, risks, times_days

GROUPS = ("high", "low")


def risk_groups(predictions: pd.DataFrame) -> pd.DataFrame:
    """Returns the risk group of every test patient: high above the training patients' median risk, else low.

    Each fold's model has its own threshold, the median risk of its own training patients (split `train`), so the
    groups do not depend on who else is tested and may be pooled over folds. A patient who is tested by several models
    (repeats, or an external cohort) is in the high group if at least half of them say so: one row per patient, as the
    log-rank test requires.

    Args:
        predictions: Rows of predictions.csv of one survival task and one model, all splits.

    Returns:
        Columns cohort, patient_id, time_days, event, n_models, share_high, group (`high` or `low`), and `competing`
        where the task tells causes apart.

    Raises:
        DataError: More than one task or model, no test patients, or a fold without training patients.
    """
    _check_single(predictions)
    tested = predictions[predictions["split"] == "test"]
    training = predictions[predictions["split"] == "train"]
    threshold = pd.Series(risks(training), index=training.index).groupby([training[c] for c in FOLD]).median()
    of_fold = threshold.reindex(pd.MultiIndex.from_frame(tested[FOLD])).to_numpy()
    unknown = np.isnan(of_fold)
    if unknown.any():
        raise DataError(
            f"risk groups need the training patients' risks of each fold. "
            f"Fold {tested['fold'][unknown].iloc[0]} has no rows of split train. "
            f"Add the training rows of the run that made the model."
        )
    table = pd.DataFrame(
        {
            **{column: tested[column].to_numpy() for column in PATIENT},
            "time_days": times_days(tested),
            "event": events(tested),
            "is_high": risks(tested) > of_fold,
        }
    )
    competing = competing_events(tested)
    told = {} if competing is None else {COMPETING: (COMPETING, "first")}
    table = table if competing is None else table.assign(**{COMPETING: competing})
    groups = table.groupby(PATIENT, as_index=False).agg(
        time_days=("time_days", "first"),
        event=("event", "first"),
        n_models=("is_high", "size"),
        share_high=("is_high", "mean"),
        **told,
    )
    groups["group"] = np.where(groups["share_high"] >= 0.5, "high", "low")
    return groups


def log_rank(groups: pd.DataFrame) -> Metric:
    """Returns the p-value of the log-rank test between the high and the low group of `risk_groups`.

    Of the event of one cause, its hazards are compared: others count as censored.

    NaN with the reason if a group is empty, or fewer than 5 patients have an event.
    """
    is_high = (groups["group"] == "high").to_numpy()
    empty = [name for name, members in zip(GROUPS, (is_high, ~is_high), strict=True) if not members.any()]
    if empty:
        return Metric(np.nan, f"no patient in the {' and the '.join(empty)} risk group")
    time_days, event = times_days(groups), events(groups)
    if event.sum() < LEAST:
        return Metric(np.nan, f"{event.sum()} events among the test patients, {LEAST} are needed")
    from lifelines.statistics import logrank_test  # slow to import

    test = logrank_test(time_days[is_high], time_days[~is_high], event[is_high], event[~is_high])
    return Metric(float(test.p_value))


def kaplan_meier(
    time_days: Float[np.ndarray, " patient"],
    event: Bool[np.ndarray, " patient"],
    times: Float[np.ndarray, " time"],
) -> pd.DataFrame:
    """Returns the Kaplan-Meier estimate of survival at the given times, with 95 % interval and numbers at risk.

    Args:
        time_days: Event time or last contact, in days.
        event: True where the event was observed.
        times: Days at which to report, from zero on. The estimate is a step function: pass the sorted distinct
            `time_days` for a curve. Beyond the last follow-up it is unknown: NaN, with nobody at risk.

    Returns:
        Columns time_days, survival, lower, upper (log-log interval), n_at_risk (followed at least until then).

    Raises:
        ValueError: No patients, or times before zero.
    """
    if len(time_days) == 0 or (times < 0).any():
        raise ValueError(
            f"kaplan_meier needs one or more patients and times from zero on. "
            f"Found {len(time_days)} patients, times {preview(times)}."
        )
    from lifelines import KaplanMeierFitter  # slow to import

    fitter = KaplanMeierFitter().fit(time_days, event)
    interval = fitter.confidence_interval_
    position = np.searchsorted(interval.index.to_numpy(), times, side="right") - 1
    known = times <= time_days.max()
    lower, upper = (np.where(known, interval.iloc[position, side].to_numpy(), np.nan) for side in (0, 1))
    survival = np.where(known, fitter.survival_function_.iloc[position, 0].to_numpy(), np.nan)
    n_at_risk = (time_days[None, :] >= times[:, None]).sum(axis=1)
    columns = {"time_days": times, "survival": survival, "lower": lower, "upper": upper, "n_at_risk": n_at_risk}
    return pd.DataFrame(columns)


def _check_single(predictions: pd.DataFrame) -> None:
    for column in ("task", "model"):
        found = predictions[column].unique().tolist()
        if len(found) != 1:
            raise DataError(f"risk groups are those of one {column}. Found {len(found)}: {found}. Select one.")
    if not (predictions["split"] == "test").any():
        raise DataError("risk groups need rows of split test. Found none.")
