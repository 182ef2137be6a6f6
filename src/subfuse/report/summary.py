"""The summary of the report: five lines that a clinician understands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from subfuse.report.run_files import RunFiles
from subfuse.report.statements import (
    best_models,
    counted,
    excluded_patients,
    fusion_benefit,
    has_expression,
    has_slides,
    headline_of,
    interval_text,
    main_model,
    metric_name,
    modalities_of,
    model_label,
    model_name,
    number,
    p_text,
    singular,
)

NO_CALIBRATION = "Whether predicted probabilities come true was not tested: run `subfuse audit` on this run."


@dataclass(frozen=True)
class Line:
    """One line of the summary: a heading and its sentences, of which there is one per task at most."""

    heading: str
    sentences: tuple[str, ...]


def summary(run: RunFiles) -> tuple[Line, ...]:
    """Returns the patients, how well outcomes are ranked, what fusion adds, whether probabilities hold, cautions."""
    return (
        Line("Patients", (cohort_sentence(run),)),
        Line("Accuracy", tuple(_accuracy(run, task) for task in run.tasks)),
        Line("Fusion", _once([(task, fusion_sentence(run, task)) for task in run.tasks])),
        Line("Probabilities", _once([(task, calibration_sentence(run, task)) for task in run.tasks])),
        Line("Before use", (_before_use(run),)),
    )


def _once(sentences: list[tuple[str, str]]) -> tuple[str, ...]:
    """Returns one sentence per task, or a single one if it is the same for all."""
    if len({sentence for _, sentence in sentences}) == 1:
        return (sentences[0][1],)
    return tuple(f"{task.capitalize()}: {sentence}" for task, sentence in sentences)


def cohort_sentence(run: RunFiles) -> str:
    """Returns how many patients there are, with which data, and how they were tested."""
    patients = run.cohort["patients"]
    n_patients = len(patients) if len(patients) else run.predictions["patient_id"].nunique()
    parts = []
    if {"n_slides", "has_expression"} <= set(patients.columns):
        slides, expression = has_slides(patients), has_expression(patients)
        parts.append(
            f"{int(slides.sum())} with slides, {int(expression.sum())} with gene expression, "
            f"{int((slides & expression).sum())} with both"
        )
    if len(run.cohort["exclusions"]):
        parts.append(f"{len(excluded_patients(run.cohort['exclusions']))} excluded")
    detail = f" ({'; '.join(parts)})" if parts else ""
    return f"{counted(n_patients, 'patient')}{detail}; {_tested_how(run)}."


def _tested_how(run: RunFiles) -> str:
    tested = run.predictions.loc[run.predictions["split"] == "test", ["repeat", "fold"]].drop_duplicates()
    n_repeats = tested["repeat"].nunique()
    if "trained" in run.config:
        return f"an external cohort, predicted by the finished models of {run.config['trained']}"
    if len(tested) < 2:
        return "predicted by models that never saw them"
    repeats = f", {counted(n_repeats, 'time')} over" if n_repeats > 1 else ""
    return f"each is predicted by models that never saw them, in {len(tested) // n_repeats} folds{repeats}"


def _accuracy(run: RunFiles, task: str) -> str:
    metrics = run.metrics[run.metrics["task"] == task]
    headline, main = headline_of(metrics), main_model(list(metrics["model"]))
    rows = metrics[metrics["metric"] == headline].set_index("model")
    start, highest = f"{task.capitalize()}: ", _highest(metrics, headline, main, run.covariates)
    row = dict(rows.loc[main]) if main in rows.index else {"value": np.nan}
    if np.isnan(row["value"]):
        return f"{start}{metric_name(headline)} of {model_name(main)} is undefined{highest}."
    meaning = _meaning(headline, row["value"])
    interval = interval_text(row["lower"], row["upper"])
    interval = interval if interval == "no interval" else f"95 % interval {interval}"
    return f"{start}{meaning}{model_name(main)}, {metric_name(headline)} {number(row['value'])}, {interval}{highest}."


def _meaning(headline: str, value: float) -> str:
    share = f"{value:.0%}".replace("%", "\u00a0% of pairs (chance: 50\u00a0%)")
    if headline == "c_index":
        return f"of two patients, the one with the earlier event gets the higher risk in {share}: "
    if headline == "auc":
        return f"of two patients, the one who has a class gets the higher probability of it in {share}: "
    return ""


def _highest(metrics: pd.DataFrame, headline: str, main: str, covariates: Sequence[str]) -> str:
    best = best_models(metrics).get(headline, set())
    if not best or main in best:
        return ""
    rows = metrics[(metrics["metric"] == headline) & metrics["model"].isin(best)]
    return f"; the highest is {model_label(rows['model'].iloc[0], covariates)} with {number(rows['value'].iloc[0])}"


def fusion_sentence(run: RunFiles, task: str) -> str:
    """Returns whether the main model is better than the best model of one modality."""
    metrics = run.metrics[run.metrics["task"] == task]
    model = main_model(list(metrics["model"]))
    comparisons = run.comparisons[run.comparisons["task"] == task] if len(run.comparisons) else run.comparisons
    if len(modalities_of(model)) == 1:
        return "No model here uses both modalities."
    benefit = fusion_benefit(metrics, comparisons, model=model)
    if benefit is None:
        return f"Whether {model_name(model)} is better than one modality alone was not tested."
    against = f"the best single modality, {model_label(benefit.unimodal, run.covariates)}"
    evidence = (
        f"difference {number(benefit.gain, signed=True)}, 95 % interval "
        f"{interval_text(benefit.lower, benefit.upper)}, adjusted {p_text(benefit.p_adjusted)}"
    )
    sentence = {
        "better": f"{model_name(model)} is better than {against} ({evidence}).",
        "worse": f"{model_name(model)} is worse than {against} ({evidence}).",
        "open": f"This cohort does not show that {model_name(model)} is better than {against} ({evidence}).",
    }
    return sentence[benefit.verdict]


def calibration_sentence(run: RunFiles, task: str) -> str:
    """Returns what the audit says of the main model's probabilities."""
    model = main_model(list(run.metrics.loc[run.metrics["task"] == task, "model"]))
    finding = next(
        (
            found
            for found in _findings(run)
            if (found["check"], found["task"], found.get("model")) == ("calibration", task, model)
        ),
        None,
    )
    if finding is None:
        return NO_CALIBRATION
    detail = singular(str(finding["found"]).removeprefix(f"{model}: "))
    detail = detail.removeprefix("not tested, ").removeprefix("cannot be checked, ")
    words = {
        "ok": f"no sign that the probabilities of {model_name(model)} are off",
        "warning": f"recalibrate the probabilities of {model_name(model)} before use",
    }
    return f"{words.get(finding['level'], f'the probabilities of {model_name(model)} were not tested')} ({detail})."


def _findings(run: RunFiles) -> list[Mapping[str, Any]]:
    return list(run.audit.get("findings", ())) if run.audit else []


def _before_use(run: RunFiles) -> str:
    if run.audit is None:
        audit = "This run was not audited for leakage and other mistakes: run `subfuse audit` on it."
    else:
        levels = [finding["level"] for finding in _findings(run)]
        failures, warnings = levels.count("failure"), levels.count("warning")
        audit = f"The audit found {counted(failures, 'failure')} and {counted(warnings, 'warning')}."
        audit += " Do not use these results before the failures are settled." if failures else ""
    external = "" if "trained" in run.config else " Patients of other hospitals may be predicted worse."
    return f"{audit}{external} For research only: not for decisions about patients."
