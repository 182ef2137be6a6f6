"""Figures of one model on one task, from its test predictions: ROC, calibration, confusion, curves, numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from subfuse.errors import DataError, counted, listed
from subfuse.evaluation.metrics import duration, number, p_text
from subfuse.evaluation.predictions import COMPETING, competing_events, predicted_classes
from subfuse.evaluation.regression.columns import (
    PREDICTED_VALUE,
    VALUE,
    holds_values,
    observed_values,
    predicted_values,
)
from subfuse.report.figures.results import (
    SurvivalCurve,
    calibration_curves,
    decision_curves,
    predicted_against_measured,
    roc_curves,
    survival_curves,
)
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import Drawn
from subfuse.training.models import model_title

_ALL, _NOBODY = "treat everybody", "treat nobody"
_MAX_CURVE_POINTS = 400  # more are not visible, and only make the file larger


def classification_figures(tested: pd.DataFrame, model: str) -> dict[str, Any]:
    """Returns ROC and calibration curves and the confusion matrix of one model's test predictions."""
    classes = predicted_classes(tested)
    known = tested.dropna(subset=["label", *(f"p_{name}" for name in classes)]) if classes else tested.iloc[:0]
    known = known[known["label"].isin(classes)]
    if len(classes) < 2 or known.empty:
        return {"figures": [], "confusion": None, "remarks": [f"{model_title(model)} has no test predictions to draw."]}
    label = known["label"].map(classes.index).to_numpy()
    probabilities = known[[f"p_{name}" for name in classes]].to_numpy(dtype=float)
    remarks = []
    if len(known) < len(tested):
        remarks.append(
            f"Not in the figures: {counted(len(tested) - len(known), 'test patient')} without a label or a prediction."
        )
    return {
        "figures": [
            drawn
            for drawn in (
                _roc_figure(label, probabilities, classes, model, is_pooled=known["fold"].nunique() > 1),
                _calibration_figure(label, probabilities, classes, model),
            )
            if drawn is not None
        ],
        "confusion": _confusion(label, probabilities.argmax(axis=1), classes, model),
        "remarks": remarks,
    }


def regression_figures(tested: pd.DataFrame, model: str) -> dict[str, Any]:
    """Returns the figure of predicted against measured numbers of one model's test patients, folds pooled."""
    known = tested.dropna(subset=[VALUE, PREDICTED_VALUE]) if holds_values(tested) else tested.iloc[:0]
    if len(known) < 2 or known[VALUE].nunique() < 2:
        return {"figures": [], "confusion": None, "remarks": [f"{model_title(model)} has no test predictions to draw."]}
    predicted, measured = predicted_values(known), observed_values(known)
    line = ""
    if np.ptp(predicted) > 0:
        slope, intercept = np.polyfit(predicted, measured, 1)
        line = f" (slope {number(float(slope))}, intercept {number(float(intercept))})"
    drawn = Drawn(
        Markup(predicted_against_measured(predicted, measured)),
        title="Predicted against measured",
        caption=f"One point per test patient, as {model_title(model)} predicts it. On the dashed line, predictions are "
        f"right; the solid one fits the points best{line}. A slope below 1: predictions differ too much.",
        alt=f"Measured against predicted values of {counted(len(known), 'test patient')}{line}.",
    )
    left_out = len(tested) - len(known)
    remarks = [f"Not in the figure: {counted(left_out, 'test patient')} without a prediction."] if left_out else []
    return {"figures": [drawn], "confusion": None, "remarks": remarks}


def survival_figures(run: RunFiles, task: str, model: str) -> dict[str, Any]:
    """Returns the curves of the risk groups that one model predicts; a remark where there are none.

    Kaplan-Meier estimates, or cumulative incidences (Aalen-Johansen) where events of other causes compete.
    """
    from subfuse.evaluation.survival.risk_groups import log_rank, risk_groups

    table = run.predictions
    rows = table[(table["task"] == task) & (table["model"] == model)]
    rows = rows[(rows["repeat"] == rows["repeat"].min()) & rows["risk"].notna() & rows["time_days"].notna()]
    try:
        groups = risk_groups(rows)
    except DataError as error:  # for example an external cohort without training rows
        return {"figures": [], "confusion": None, "remarks": [f"No risk groups: {error}"]}
    curves = [_survival_curve(name, groups[groups["group"] == name]) for name in ("low", "high")]
    test = log_rank(groups)
    outcome = f"Log-rank {p_text(test.value)}" if test.is_defined else f"Log-rank test undefined: {test.reason}"
    sizes = ", ".join(f"{name} {int((groups['group'] == name).sum())}" for name in ("low", "high"))
    competes = COMPETING in groups
    estimate = "Cumulative incidence (Aalen-Johansen)" if competes else "Kaplan-Meier estimate"
    beside = (
        " Events of other causes end the time in which the event can happen; the test compares hazards of the cause."
    )
    drawn = Drawn(
        Markup(survival_curves([curve for curve in curves if curve is not None], of_event=competes)),
        title="Predicted risk groups",
        caption=f"{estimate} of test patients by the risk that {model_title(model)} predicts; low and high "
        "are split at the median risk of each fold's training patients. Bands: 95 % interval; ticks: censored. "
        f"{outcome}.{beside if competes else ''}",
        alt=f"{estimate} of predicted risk groups ({sizes} patients). {outcome}.",
    )
    reliability = _reliability_figure(run, task, model)
    untested = "run `subfuse audit`" if run.audit is None else "the audit has no groups of patients for it"
    remarks = [] if reliability else [f"No figure of the calibration of the survival curves: {untested}."]
    return {"figures": [drawn, *reliability], "confusion": None, "remarks": remarks}


def decision_figure(run: RunFiles, task: str, model: str) -> list[Drawn]:
    """Returns what acting on one model is worth, beside the clinical model, everybody and nobody; as audited."""
    rows = [row for row in (run.audit["tables"] if run.audit else {}).get("decision_curves", ()) if row["task"] == task]
    of_model = {(row["model"], row["outcome"], row["threshold"]): row for row in rows if row["net_benefit"] is not None}
    thresholds = sorted({threshold for _, _, threshold in of_model})
    outcomes = list(dict.fromkeys(outcome for name, outcome, _ in of_model if name == model))
    if not outcomes:
        return []
    others = dict.fromkeys(str(row["reference"]) for row in rows if row["reference"] not in (None, model))

    def curve(name: str, outcome: str, what: str) -> np.ndarray:
        found = [of_model.get((name, outcome, threshold), {}).get(what) for threshold in thresholds]
        return np.array([np.nan if value is None else value for value in found], dtype=float)

    panels = {}
    for outcome in outcomes:
        curves = {model_title(name): curve(name, outcome, "net_benefit") for name in (model, *others)}
        panels[outcome] = {name: values for name, values in curves.items() if np.isfinite(values).any()} | {
            _ALL: curve(model, outcome, "treat_all"),
            _NOBODY: np.zeros(len(thresholds)),
        }
    best = {outcome: float(np.nanmax(curves[model_title(model)])) for outcome, curves in panels.items()}
    shown = listed(f"{number(value)} for {outcome}" for outcome, value in best.items())
    return [
        Drawn(
            Markup(decision_curves(panels, np.array(thresholds), defaults=(_ALL, _NOBODY))),
            title="Decision curves",
            caption=f"What it is worth to act on {model_title(model)} where the probability reaches a threshold: "
            "patients rightly treated, less those wrongly treated at the odds of the threshold, as a share of all. "
            "Only a curve above both grey lines is worth having. With bands in the table of the audit."
            f"{_cause_specific(run, task)}",
            alt=f"Net benefit against threshold of {listed(next(iter(panels.values())))}; the highest of "
            f"{model_title(model)}: {shown}.",
        )
    ]


def _cause_specific(run: RunFiles, task: str) -> str:
    """Returns what probabilities of an event by some time mean where events of other causes compete."""
    if competing_events(run.predictions[run.predictions["task"] == task]) is None:
        return ""
    return " Cause-specific: probabilities as they would be if no other cause could come first."


def _reliability_figure(run: RunFiles, task: str, model: str) -> list[Drawn]:
    """Returns predicted against observed probabilities of an event by the horizon of the audit, if it has them."""
    tables = run.audit["tables"] if run.audit else {}
    groups, measures = (
        [row for row in tables.get(name, ()) if (row["task"], row["model"]) == (task, model)]
        for name in ("reliability", "calibration")
    )
    if not groups:
        return []
    predicted, observed = (np.array([row[name] for row in groups], dtype=float) for name in ("predicted", "observed"))
    counts = np.array([row["n_patients"] for row in groups])
    horizons = [row["horizon_days"] for row in measures if row["horizon_days"] is not None]
    by = f" by {duration(horizons[0])}" if horizons else ""
    described = ", ".join(f"{number(p)} and {number(o)}" for p, o in zip(predicted, observed, strict=True))
    return [
        Drawn(
            Markup(calibration_curves({f"event{by}": (predicted, observed, counts)})),
            title="Calibration",
            caption=f"{model_title(model)}: mean predicted probability of an event{by} against its Kaplan-Meier "
            f"estimate in {len(groups)} groups of test patients from low to high risk.{_cause_specific(run, task)}",
            alt=f"Predicted and observed probabilities of an event{by}, by group: {described}.",
        )
    ]


def _roc_figure(
    label: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], model: str, *, is_pooled: bool
) -> Drawn | None:
    from sklearn.metrics import roc_auc_score, roc_curve

    grid = np.linspace(0, 1, 201)
    curves, interpolated, areas = {}, [], []
    for index, name in enumerate(classes):
        is_class = label == index
        if is_class.all() or not is_class.any():
            continue
        false_positive, true_positive, _ = roc_curve(is_class, probabilities[:, index])
        thin = np.unique(np.linspace(0, len(false_positive) - 1, _MAX_CURVE_POINTS).astype(int))
        areas.append(float(roc_auc_score(is_class, probabilities[:, index])))
        curves[f"{name} ({number(areas[-1])})"] = (false_positive[thin], true_positive[thin])
        interpolated.append(np.interp(grid, false_positive, true_positive))
    if not curves:
        return None
    macro = f"macro ({number(float(np.mean(areas)))})"
    curves[macro] = (np.r_[0, grid], np.r_[0, np.mean(interpolated, axis=0)])
    return Drawn(
        Markup(roc_curves(curves, emphasis=macro)),
        title="ROC",
        caption=f"{model_title(model)}: each class against the rest, area in brackets."
        + (" Folds are pooled: it differs from the mean of their areas in the table." if is_pooled else ""),
        alt=f"Receiver operating characteristics with area under the curve: {', '.join(curves)}.",
    )


def _calibration_figure(
    label: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], model: str
) -> Drawn | None:
    n_bins = int(np.clip(len(label) // 15, 2, 8))
    curves = {}
    for index, name in enumerate(classes):
        predicted = probabilities[:, index]
        edges = np.unique(np.quantile(predicted, np.linspace(0, 1, n_bins + 1)))
        place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, max(len(edges) - 2, 0))
        count = np.bincount(place)
        used = count > 0
        mean = np.bincount(place, weights=predicted)[used] / count[used]
        observed = np.bincount(place, weights=(label == index).astype(float))[used] / count[used]
        curves[name] = (mean, observed, count[used])
    return Drawn(
        Markup(calibration_curves(curves)),
        title="Calibration",
        caption=f"{model_title(model)}, pooled test patients in {n_bins} bins of about equal size per class. On the "
        "dashed line, a predicted 70 % happens in 70 % of patients.",
        alt=f"Observed frequency against predicted probability of the classes {listed(classes)}.",
    )


def _confusion(label: np.ndarray, predicted: np.ndarray, classes: Sequence[str], model: str) -> dict[str, Any]:
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (label, predicted), 1)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    return {
        "caption": f"{model_title(model)}, pooled test patients. Rows: true class, columns: predicted; percent of the "
        "true class.",
        "classes": classes,
        "rows": [
            {
                "name": name,
                "cells": [
                    {"count": int(count), "share": f"{share:.3f}", "percent": f"{share:.0%}"}
                    for count, share in zip(counts[index], shares[index], strict=True)
                ],
            }
            for index, name in enumerate(classes)
        ],
    }


def _survival_curve(name: str, patients: pd.DataFrame) -> SurvivalCurve | None:
    from subfuse.evaluation.survival.competing_events import cumulative_incidence
    from subfuse.evaluation.survival.risk_groups import kaplan_meier

    if patients.empty:
        return None
    time_days = patients["time_days"].to_numpy(dtype=float)
    event = (patients["event"].astype(str) == "True").to_numpy()
    steps, competing = np.unique(np.r_[0.0, time_days]), competing_events(patients)
    if competing is None:
        curve = kaplan_meier(time_days, event, steps)
    else:
        curve = cumulative_incidence(time_days, event, competing, steps)
        event = event | competing  # neither is a tick of the censored
    return SurvivalCurve(
        name=f"{name} risk",
        time_days=curve["time_days"].to_numpy(),
        probability=curve["survival" if competing is None else "incidence"].to_numpy(),
        lower=curve["lower"].to_numpy(),
        upper=curve["upper"].to_numpy(),
        censored_days=time_days[~event],
        follow_up_days=time_days,
    )
