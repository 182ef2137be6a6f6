"""Survival at one, three and five years from the predictions of one model, on days that all models share."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

HORIZONS_DAYS = (365, 1095, 1825)
_LARGEST_LOG = 700.0  # beyond it an exponential overflows; survival is 0 or 1 long before
HORIZON_COLUMNS = tuple(f"survival_{days}" for days in HORIZONS_DAYS)


@dataclass(frozen=True)
class FollowUp:
    """What is known of a model's training patients where its predictions are read as survival at `HORIZONS_DAYS`."""

    last_day: float  # of the follow-up of all
    last_event_day: float  # where the last, open time bin of a curve ends
    log_baseline: tuple[float, ...] | None  # log of Breslow's cumulative hazard at each horizon; None: a curve is read

    @classmethod
    def of(cls, trained: pd.DataFrame, *, has_curve: bool) -> "FollowUp":
        """Returns it of training patients: risk, time_days, event, all known.

        Args:
            trained: The training patients.
            has_curve: The model predicts a survival curve, and not log hazards alone.
        """
        time_days, event = trained["time_days"].to_numpy(float), trained["event"].to_numpy(bool)
        last_day = float(time_days.max()) if len(trained) else 0.0
        last_event_day = float(time_days[event].max()) if event.any() else last_day
        risk = trained["risk"].to_numpy(float)
        return cls(last_day, last_event_day, None if has_curve else _log_baseline(risk, time_days, event))

    def at_horizons(self, predicted: pd.DataFrame) -> pd.DataFrame:
        """Returns one model's predictions with survival at `HORIZONS_DAYS` in place of its own days."""
        curves = [str(name) for name in predicted if str(name).startswith("survival_")]
        table = predicted.drop(columns=curves).assign(reason=None)
        if "risk" not in table or table["risk"].isna().all():
            return table
        if self.log_baseline is None:
            found = _of_curves(predicted, curves, self.last_event_day)
        else:
            found = _of_log_hazards(predicted["risk"].to_numpy(float), np.array(self.log_baseline))
        known = np.array(HORIZONS_DAYS) <= self.last_day
        table[list(HORIZON_COLUMNS)] = np.where(known, found, np.nan)
        if not known.all():
            unknown = ", ".join(str(days) for days, is_known in zip(HORIZONS_DAYS, known, strict=True) if not is_known)
            reason = f"no survival at {unknown} days: follow-up of the training patients ends before"
            table.loc[table["risk"].notna(), "reason"] = reason
        return table


def with_horizons(predicted: pd.DataFrame, trained: pd.DataFrame) -> pd.DataFrame:
    """Returns one model's predictions with its own survival columns replaced by those of `HORIZONS_DAYS`.

    A model that predicts a survival curve (discrete hazards) is read between its days with a constant hazard. Its last,
    open time bin ends with the last event of the training patients: after it, as in a Kaplan-Meier curve, survival
    stays until the end of their follow-up. A model that predicts log hazards (Cox) is read with Breslow's baseline
    (1974) of its training patients. Where their follow-up ends before a horizon nothing is known: NaN, and the column
    `reason` says so.

    Args:
        predicted: Columns of `predictions.csv` of new patients.
        trained: The model's training patients: risk, time_days, event, all known.
    """
    has_curve = any(str(name).startswith("survival_") for name in predicted)
    return FollowUp.of(trained, has_curve=has_curve).at_horizons(predicted)


def _of_curves(
    predicted: pd.DataFrame, columns: list[str], last_event_day: float
) -> Float[np.ndarray, "patient horizon"]:
    """Returns survival between the days of a curve; the risk is minus the sum of the curve and its value at the end."""
    columns = sorted(columns, key=_days)
    curve = predicted[columns].to_numpy(float)
    end = np.clip(-predicted["risk"].to_numpy(float) - curve.sum(axis=1), 0, curve[:, -1])
    days = [0.0, *map(_days, columns)]
    days.append(max(last_event_day, days[-1] + 1.0))
    survival = np.column_stack([np.ones(len(curve)), curve, end])
    logs = np.log(np.maximum(survival, np.finfo(float).tiny))
    return np.exp(np.stack([np.interp(HORIZONS_DAYS, days, row) for row in logs]))


def _log_baseline(
    risk: Float[np.ndarray, " patient"], time_days: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> tuple[float, ...]:
    """Returns Breslow's baseline at the horizons: at each event, 1 over the summed hazard ratios of those at risk."""
    days = time_days[event]
    log_steps = np.array([-np.logaddexp.reduce(risk[time_days >= day]) for day in days])
    return tuple(float(np.logaddexp.reduce(log_steps[days <= horizon])) for horizon in HORIZONS_DAYS)


def _of_log_hazards(
    risk: Float[np.ndarray, " patient"], log_baseline: Float[np.ndarray, " horizon"]
) -> Float[np.ndarray, "patient horizon"]:
    return np.exp(-np.exp(np.clip(risk[:, None] + log_baseline, -_LARGEST_LOG, _LARGEST_LOG)))


def _days(column: str) -> float:
    return float(column.removeprefix("survival_"))
