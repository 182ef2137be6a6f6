"""Outcomes that may be censored: which orders of patients are known, and how probable it is to be followed so long."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from subfuse.errors import preview

HORIZON_DAYS = 1095.0  # three years
MINIMUM_FOLLOW_UP = 0.1  # share of training patients not yet censored; bounds a censoring weight by 10, Uno's by 100


def known_orders(
    time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> Bool[np.ndarray, "patient patient"]:
    """Returns True where the row's patient is known to have had the event before the column's (Harrell's pairs).

    An event comes before later follow-up of any kind, and before a last contact on the same day; two events on the same
    day have no order.
    """
    return event[:, None] & (
        (time_days > time_days[:, None]) | ((time_days == time_days[:, None]) & ~event)
    )  # (case, patient)


@dataclass(frozen=True)
class CensoringDistribution:
    """Kaplan-Meier estimate of G(t), the probability of not being censored by time t, fitted on training patients.

    At tied times events come before censorings, as in the estimators of Uno and Graf.
    """

    times_days: Float[np.ndarray, " step"]  # increasing, distinct
    uncensored: Float[np.ndarray, " step"]  # G at and after each time, until the next

    @classmethod
    def fit(
        cls, time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
    ) -> "CensoringDistribution":
        """Estimates G from follow-up times (days) and events.

        Raises:
            ValueError: No patients, or times that are missing or negative.
        """
        _check_times(time_days)
        times, position = np.unique(time_days, return_inverse=True)
        n_events = np.bincount(position, weights=event, minlength=len(times))
        n_total = np.bincount(position, minlength=len(times))
        n_at_risk = np.cumsum(n_total[::-1])[::-1] - n_events  # those with an event at this time have already left
        n_censored = n_total - n_events
        staying = np.divide(n_at_risk - n_censored, n_at_risk, out=np.ones(len(times)), where=n_at_risk > 0)
        return cls(times, np.cumprod(staying))

    def at(self, days: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Returns G at these times; one before the first training patient's time."""
        position = np.searchsorted(self.times_days, days, side="right")
        return np.concatenate([[1.0], self.uncensored])[position]

    @property
    def truncation_days(self) -> float:
        """The last time at which G is at least 0.1; beyond it, few training patients would carry all the weight."""
        reliable = self.times_days[self.uncensored >= MINIMUM_FOLLOW_UP]
        return float(reliable[-1]) if len(reliable) else 0.0


@dataclass(frozen=True)
class SurvivalCurves:
    """Predicted survival of patients at some days; 1 at day 0, straight lines between, unknown beyond the last day."""

    days: Float[np.ndarray, " time"]  # increasing, positive
    survival: Float[np.ndarray, "patient time"]

    def at(self, days: Float[np.ndarray, " patient"]) -> Float[np.ndarray, " patient"]:
        """Returns each patient's survival at a day of their own; beyond the last day, the last value."""
        known = np.append(0.0, self.days)
        curve = np.concatenate([np.ones((len(self.survival), 1)), self.survival], axis=1)
        right = np.clip(np.searchsorted(known, days, side="left"), 1, len(known) - 1)
        share = np.clip((days - known[right - 1]) / (known[right] - known[right - 1]), 0.0, 1.0)
        row = np.arange(len(curve))
        return curve[row, right - 1] * (1 - share) + curve[row, right] * share

    def at_horizon(self, horizon_days: float) -> Float[np.ndarray, " patient"]:
        """Returns every patient's survival at one day."""
        return self.at(np.full(len(self.survival), float(horizon_days)))


@dataclass(frozen=True)
class SurvivalSample:
    """Outcomes and predictions of the patients that are ranked together; fields and errors as in `survival_metrics`."""

    time_days: Float[np.ndarray, " patient"]
    event: Bool[np.ndarray, " patient"]
    risk: Float[np.ndarray, " patient"]
    censoring: CensoringDistribution | None = None
    survival: Float[np.ndarray, "patient time"] | None = None
    survival_days: Float[np.ndarray, " time"] | None = None
    horizon_days: float = HORIZON_DAYS

    def __post_init__(self) -> None:
        _check_times(self.time_days)
        if not len(self.time_days) == len(self.event) == len(self.risk):
            raise ValueError(
                f"time_days, event and risk must have one value per patient. "
                f"Found {len(self.time_days)}, {len(self.event)} and {len(self.risk)}."
            )
        if not np.isfinite(self.risk).all():
            raise ValueError(
                f"risk must be finite. Found {np.count_nonzero(~np.isfinite(self.risk))} values that are not."
            )
        _check_survival_curves(self.survival, self.survival_days)

    @property
    def brier_times(self) -> Bool[np.ndarray, " time"]:
        """Which of `survival_days` enter the integrated Brier score."""
        if self.survival_days is None or self.censoring is None:
            return np.zeros(0, dtype=bool)
        return (self.survival_days <= self.censoring.truncation_days) & (self.survival_days < self.time_days.max())


def _check_times(time_days: Float[np.ndarray, " patient"]) -> None:
    if len(time_days) == 0 or not (np.isfinite(time_days) & (time_days >= 0)).all():
        raise ValueError(
            f"times of one or more patients must be finite and not negative, in days. Found {preview(time_days)}."
        )


def _check_survival_curves(
    survival: Float[np.ndarray, "patient time"] | None, survival_days: Float[np.ndarray, " time"] | None
) -> None:
    if survival is None and survival_days is None:
        return
    if survival is None or survival_days is None or survival.shape[1] != len(survival_days):
        raise ValueError("survival needs one column per entry of survival_days. Pass both or neither.")
    if not ((survival >= 0) & (survival <= 1)).all():  # NaN fails too
        raise ValueError("survival must hold probabilities from 0 to 1. Found values outside, or missing ones.")
    if not (np.isfinite(survival_days).all() and (np.diff(survival_days) > 0).all()):
        raise ValueError(f"survival_days must be finite and increase. Found {preview(survival_days)}.")
