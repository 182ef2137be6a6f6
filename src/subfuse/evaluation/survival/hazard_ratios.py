"""Hazard ratio of the predicted risk, alone and adjusted for what the clinic knows anyway."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from subfuse.errors import DataError
from subfuse.evaluation.floors import LEAST_OF_CATEGORY
from subfuse.evaluation.predictions import FOLD, PATIENT, SurvivalOutcome, events, read_tasks, risks, times_days
from subfuse.evaluation.survival.risk_groups import risk_groups

HAZARD_RATIO_COLUMNS = (
    "task", "model", "comparison", "adjusted_for", "hazard_ratio", "lower", "upper", "p_value",
    "n_patients", "n_events", "reason",
)  # fmt: skip
_ADJUST_FOR = ("age", "grade")
_DIVERGES = "the Cox model does not converge: a covariate separates events or repeats another"
_EVENTS_PER_VARIABLE = 10  # Peduzzi 1995; fewer are noted
_YEARS = 10.0  # age enters per decade


def hazard_ratios(predictions: pd.DataFrame, *, patients: pd.DataFrame | None = None) -> pd.DataFrame:
    """Returns hazard ratios of test patients from a Cox model, for every survival task and model.

    - `per_sd`: per standard deviation of the risk. Risks of different folds' models have different scales: each is
      centred and scaled by its own training patients (split `train`), then averaged over a patient's repeats.
    - `high_vs_low`: above against below the training patients' median risk, as in `risk_groups`.

    Each is given alone, and adjusted for those of age (per decade) and grade that the patients' table has with two
    values or more. Adjusting leaves out patients for whom one of them is unknown, so the unadjusted ratio of the same
    patients is given too where there are fewer (`adjusted_for` "nothing (same patients)").

    Args:
        predictions: Columns of predictions.csv.
        patients: Table with patient_id, possibly cohort, and any of age and grade; None: unadjusted only.

    Returns:
        Columns task, model, comparison, adjusted_for, hazard_ratio, lower, upper (95 %, Wald), p_value (Wald),
        n_patients, n_events, reason. A model that cannot be fitted has NaN and the reason.

    Raises:
        DataError: Columns, outcomes or predictions are missing.
    """
    rows: list[dict[str, Any]] = []
    for task in read_tasks(predictions):
        if task.outcome.kind == "survival":
            for model in task.models:
                known = {"task": task.name, "model": model}
                rows += [{**known, **row} for row in _of_model(task.of_model(model), patients)]
    table = pd.DataFrame(rows, columns=list(HAZARD_RATIO_COLUMNS))
    return table.astype({"n_patients": "Int64", "n_events": "Int64"})


def standardised_risk(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one row per test patient: cohort, patient_id, time_days, event, and `risk` in training SDs.

    Args:
        rows: One model's rows of one survival task, all splits.

    Raises:
        DataError: A fold without training patients, or whose training patients all have the same risk.
    """
    tested, train = rows[rows["split"] == "test"], rows[rows["split"] == "train"]
    scales = pd.Series(risks(train), index=train.index).groupby([train[c] for c in FOLD]).agg(["mean", "std"])
    scales = scales.reindex(pd.MultiIndex.from_frame(tested[FOLD]))
    if not (scales["std"] > 0).all():
        raise DataError(
            "hazard ratios need differing risks of training patients in each fold. Found a fold without rows of split "
            "train, or with equal risks. Add the training rows of the run that made the model."
        )
    table = pd.DataFrame(
        {
            **{column: tested[column].to_numpy() for column in PATIENT},
            "time_days": times_days(tested),
            "event": events(tested),
            "risk": (risks(tested) - scales["mean"].to_numpy()) / scales["std"].to_numpy(),
        }
    )
    return table.groupby(PATIENT, as_index=False).agg(
        time_days=("time_days", "first"), event=("event", "first"), risk=("risk", "mean")
    )


def _of_model(rows: pd.DataFrame, patients: pd.DataFrame | None) -> Iterator[dict[str, Any]]:
    try:
        continuous, groups = standardised_risk(rows), risk_groups(rows)
    except DataError as error:
        for comparison in ("per_sd", "high_vs_low"):
            yield {"comparison": comparison, "adjusted_for": "nothing", **_undefined(str(error))}
        return
    binary = groups.assign(risk=(groups["group"] == "high").astype(float))
    for comparison, table in (("per_sd", continuous), ("high_vs_low", binary)):
        table = table[["time_days", "event", "risk", *PATIENT]]
        yield {"comparison": comparison, "adjusted_for": "nothing", **hazard_ratio_of(table, [])}
        adjusted, names = _with_covariates(table, patients)
        if names:
            if len(adjusted) < len(table):
                known = {"comparison": comparison, "adjusted_for": "nothing (same patients)"}
                yield {**known, **hazard_ratio_of(adjusted, [])}
            yield {"comparison": comparison, "adjusted_for": ", ".join(names), **hazard_ratio_of(adjusted, names)}


def _with_covariates(table: pd.DataFrame, patients: pd.DataFrame | None) -> tuple[pd.DataFrame, list[str]]:
    """Returns the patients for whom the covariates are known, and which of them can be used."""
    if patients is None:
        return table, []
    on = PATIENT if "cohort" in patients else ["patient_id"]
    available = [name for name in _ADJUST_FOR if name in patients]
    known = patients[[*on, *available]].drop_duplicates(on).astype(dict.fromkeys(on, str))
    joined = table.astype(dict.fromkeys(on, str)).merge(known, on=on, how="left")
    if "age" in available:
        joined["age"] = pd.to_numeric(joined["age"], errors="coerce")
    names = [name for name in available if joined[name].nunique() > 1]
    return joined.dropna(subset=names), names


def hazard_ratio_of(table: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Returns the hazard ratio of `risk` in a Cox model with the covariates, or the reason why it has none.

    Args:
        table: One row per patient: time_days, event, risk and the covariates, all known.
        names: The covariates' columns.
    """
    counts = {"n_patients": len(table), "n_events": int(table["event"].sum())}
    few = SurvivalOutcome().too_few(table)
    if few is not None or table["risk"].nunique() < 2:
        return _undefined(few or "the risk is the same for every patient") | counts
    from lifelines import CoxPHFitter  # slow to import
    from lifelines.exceptions import ConvergenceError, ConvergenceWarning

    design = _design(table, names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of steps on the way; what they lead to is looked at
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            fitted = CoxPHFitter().fit(design, "time_days", "event")
            row = fitted.summary.loc["risk"]
        except (ConvergenceError, ConvergenceWarning):
            return _undefined(_DIVERGES) | counts
        ratio, lower, upper = (float(np.exp(row[name])) for name in ("coef", "coef lower 95%", "coef upper 95%"))
    if not np.isfinite([ratio, lower, upper]).all():
        return _undefined(_DIVERGES) | counts
    n_variables = design.shape[1] - 2
    crowded = f"{counts['n_events']} events for {n_variables} variables: fewer than {_EVENTS_PER_VARIABLE} each"
    note = crowded if counts["n_events"] < _EVENTS_PER_VARIABLE * n_variables else None
    estimate = {"hazard_ratio": ratio, "lower": lower, "upper": upper, "p_value": float(row["p"])}
    return {**estimate, **counts, "reason": note}


def _design(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    design = table[["time_days", "event", "risk"]].copy()
    for name in names:
        if name == "age":
            design["age"] = table["age"] / _YEARS
            continue
        sizes = table[name].map(table[name].value_counts())
        category = table[name].astype(str).where(sizes >= LEAST_OF_CATEGORY, "other")
        design = design.join(pd.get_dummies(category, prefix=name, drop_first=True, dtype=float))
    return design


def _undefined(reason: str) -> dict[str, Any]:
    return {
        **dict.fromkeys(("hazard_ratio", "lower", "upper", "p_value"), np.nan),
        **dict.fromkeys(("n_patients", "n_events"), pd.NA),
        "reason": reason,
    }
