"""Does a cohort's follow-up mean what its table says? Warnings about units, flipped events, ages and times of zero."""

import re

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

_DAYS_PER_YEAR = 365.25
_LONGEST_YEARS = 50  # of follow-up: longer than a study lasts
_LONGEST_WHOLE, _LONGEST_MONTHS = 400, 600  # of times that may be months: whole ones, which days are too, and others
_SHARE_OF_LIMIT = 0.1  # of patients whose time is the longest: followed for so long and no longer
_LIMITS_IN_DAYS = {28, 30, 31, 42, 90, 91, 100, 182, 183, 365, 366}  # of short follow-up; 60 and 120 are of months too
_MIN_PER_SIDE = 10  # events and censored patients that a judgement on flipped events needs
_FLIP_EVIDENCE = 5.0  # difference of two standard normal statistics: by chance once in some 5,000 cohorts
_AGE = re.compile(r"^age(?:_|$)", re.IGNORECASE)


def outcome_warnings(patients: pd.DataFrame, *, is_unit_open: bool = False) -> tuple[str, ...]:
    """Returns what looks wrong with time, event and age: another unit, times of zero, no censoring, a flipped event.

    Args:
        patients: Columns `time_days` and `event`; also judged or used where present: `age` or `age_...`, and `grade`,
            both as text.
        is_unit_open: See `follow_up_warnings`.
    """
    follow_up = follow_up_warnings(patients, section="patients", is_unit_open=is_unit_open)
    ages = [_age_warning(str(name), patients[name]) for name in patients if _AGE.match(str(name))]
    return (*follow_up, *(warning for warning in ages if warning))


def follow_up_warnings(
    patients: pd.DataFrame, *, section: str, column: str = "time_days", is_unit_open: bool = False
) -> tuple[str, ...]:
    """Returns what looks wrong with time and event.

    Args:
        patients: See `outcome_warnings`.
        section: Of the cohort file that declares their columns.
        column: What the time is called there.
        is_unit_open: Whether times are taken for days because nothing says their unit.
    """
    known = patients.dropna(subset=["time_days", "event"])
    if known.empty:
        return ()
    time, event = known["time_days"].to_numpy(dtype=float), known["event"].to_numpy(dtype=bool)
    warnings = (
        _unit_warning(time, section, column) or (_months_warning(time, section, column) if is_unit_open else ""),
        _zero_warning(time, column), _share_warning(event), _flip_warning(known),
    )  # fmt: skip
    return tuple(warning for warning in warnings if warning)


def _unit_warning(time: Float[np.ndarray, " patient"], section: str, column: str) -> str:
    """Follow-up of a cancer cohort lasts some months to some decades: median above 60 days, maximum above 250."""
    median, longest = np.median(time), time.max()
    if median < 60 and longest < 250 and not _has_limit_in_days(time):
        unit = "years" if longest < 40 else "months"
        return (
            f"{column} looks like {unit}: median {median:g}, maximum {longest:g}. It must be in days; where it "
            f"holds {unit}, declare `{section}.time_unit: {unit}`."
        )
    if longest > _LONGEST_YEARS * _DAYS_PER_YEAR:
        return (
            f"{column} reaches {longest / _DAYS_PER_YEAR:.0f} years: median {median:g}, maximum {longest:g}. Check "
            f"its unit and `{section}.time_unit`."
        )
    return ""


def _months_warning(time: Float[np.ndarray, " patient"], section: str, column: str) -> str:
    """Months of a long follow-up may be as large as days of a short one; only the name of a column tells them apart.

    Fractions of days come of a conversion: only whole times are taken for days from a little more than a year on.
    """
    longest, fractions = time.max(), time != np.round(time)
    most = _LONGEST_MONTHS if 2 * int(fractions.sum()) > len(time) else _LONGEST_WHOLE
    if len(time) < _MIN_PER_SIDE or longest >= most or _has_limit_in_days(time):
        return ""
    return (
        f"{column} looks like months: median {np.median(time):g}, maximum {longest:g}, taken for days since nothing "
        f"says its unit. Declare `{section}.time_unit: months`, or days where it holds days."
    )


def _has_limit_in_days(time: Float[np.ndarray, " patient"]) -> bool:
    """Returns whether many patients were followed up to the same day and no longer, as for 90-day mortality."""
    longest = time.max()
    return bool(longest in _LIMITS_IN_DAYS and (time == longest).mean() >= _SHARE_OF_LIMIT)


def _zero_warning(time: Float[np.ndarray, " patient"], column: str) -> str:
    n_zero = int((time == 0).sum())
    if not n_zero:
        return ""
    return f"{column} is 0 for {n_zero} patient(s). Check that this is not an unknown follow-up, which is left empty."


def _share_warning(event: Bool[np.ndarray, " patient"]) -> str:
    if not event.any():
        return (
            "event is false for every patient: survival can be neither learned nor evaluated. Check that true means an "
            "event."
        )
    if event.mean() > 0.95:
        return f"event is true for {event.mean():.0%} of the patients. Check that true means an observed event."
    return ""


def _flip_warning(known: pd.DataFrame) -> str:
    """Risk factors decide where the table has them, else the times alone.

    Age and grade raise the rate of deaths in gliomas, but not that of leaving a study alive. If they foretell the end
    of follow-up without an event much better than the event, the two are interchanged. Times alone say less: with
    flipped events those who died, early, appear as censored.
    """
    time, event = known["time_days"].to_numpy(dtype=float), known["event"].to_numpy(dtype=bool)
    if min(event.sum(), (~event).sum()) < _MIN_PER_SIDE:
        return ""
    check = "Check that true means an observed event."
    evidence = {
        name: (trend_statistic(values, time, ~event), trend_statistic(values, time, event))
        for name, values in _risk_factors(known).items()
    }
    if evidence:
        name = max(evidence, key=lambda name: abs(evidence[name][0] - evidence[name][1]))
        censoring, events = evidence[name]
        if censoring - events > _FLIP_EVIDENCE:
            return (
                f"event may be flipped: {name} foretells the end of follow-up without an event (z = {censoring:.1f}) "
                f"better than the event (z = {events:.1f}). {check}"
            )
        if events - censoring > _FLIP_EVIDENCE:
            return ""
    with_event, without = np.median(time[event]), np.median(time[~event])
    if with_event > 2 * without:
        return (
            f"event may be flipped: median time is {with_event:g} days with and {without:g} without an event. {check}"
        )
    return ""


def _risk_factors(known: pd.DataFrame) -> dict[str, Float[np.ndarray, " patient"]]:
    factors = {}
    for name in known:
        if _AGE.match(str(name)):
            factors[str(name)] = pd.to_numeric(known[name], errors="coerce").to_numpy(dtype=float)
        elif name == "grade":
            digits = known[name].astype("string").str.extract(r"([1-4])", expand=False)
            factors["grade"] = pd.to_numeric(digits, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return factors


def trend_statistic(
    factor: Float[np.ndarray, " patient"], time: Float[np.ndarray, " patient"], event: Bool[np.ndarray, " patient"]
) -> float:
    """Returns the log-rank test for trend of a factor: standard normal without effect, positive if it raises the rate.

    The score test of Cox's proportional hazards with one covariate, tied times as Breslow does. 0 where no event tells
    anything. Patients with an unknown (NaN) factor are left out.
    """
    known = np.isfinite(factor)
    order = np.argsort(-time[known], kind="stable")  # the longest first: sums so far are sums over those at risk
    factor, time, event = factor[known][order], time[known][order], event[known][order]
    last_tied = np.searchsorted(-time, -time, side="right") - 1
    at_risk = last_tied + 1.0
    mean = np.cumsum(factor)[last_tied] / at_risk
    variance = np.cumsum(factor**2)[last_tied] / at_risk - mean**2
    information = variance[event].sum()
    return float((factor - mean)[event].sum() / np.sqrt(information)) if information > 1e-12 else 0.0


def _age_warning(name: str, cells: pd.Series) -> str:
    ages = pd.to_numeric(cells, errors="coerce").dropna().to_numpy(dtype=float)
    too_high, negative = int((ages > 120).sum()), int((ages < 0).sum())
    if too_high:
        found = f"{name} exceeds 120 for {too_high} patient(s), up to {ages.max():g}"
        if ages.max() > 120 * 12:
            return f"{found}: it looks like days. It must be in years: divide by {_DAYS_PER_YEAR:g}."
        if 2 * too_high > len(ages):
            return f"{found}: it looks like months. It must be in years: divide by 12."
        return f"{found}. It must be in years: correct the cells."
    if negative:
        return f"{name} is negative for {negative} patient(s), down to {ages.min():g}. Empty the cells."
    return ""
