"""One task in the report: metrics with intervals, paired comparisons, figures of the main model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from subfuse.errors import counted
from subfuse.evaluation.metrics import CHANCE, LOWER_IS_BETTER, metric_title, number, p_value_text, signed_interval
from subfuse.evaluation.predictions import SurvivalOutcome, competing_events
from subfuse.evaluation.regression.outcome import NumberOutcome
from subfuse.report.figures.results import Estimate, forest_plot
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import (
    Drawn,
    PlainTable,
    Section,
    best_models,
    headline_of,
    inputs_of,
    mixture_told,
    model_label,
    singular,
    titled,
)
from subfuse.report.summary import fusion_sentence, measured_on, tested_sentence, unrelated_sentence
from subfuse.report.task_figures import (
    classification_figures,
    decision_figure,
    regression_figures,
    survival_figures,
)
from subfuse.training.models import model_title


def task_section(run: RunFiles, task: str, *, index: int) -> Section:
    """Returns one task: its metrics as printed, comparisons and figures of the main model."""
    metrics = run.metrics[run.metrics["task"] == task]
    models = list(dict.fromkeys(metrics["model"]))
    headline, main = headline_of(metrics), run.main_model(task)
    columns = [headline, *(metric for metric in dict.fromkeys(metrics["metric"]) if metric != headline)]
    notes: list[str] = []
    rows = [_metric_row(metrics, model, columns, notes, run.covariates) for model in models]
    tested = run.test_predictions(task, main)
    if headline == SurvivalOutcome.headline:
        drawn = survival_figures(run, task, main)
    elif headline == NumberOutcome.headline:
        drawn = regression_figures(tested, main)
    else:
        drawn = classification_figures(tested, main)
    drawn["figures"] += decision_figure(run, task, main)
    drawn["remarks"] += _beside_lines(run, task, models)
    students = run.students[run.students["task"] == task] if len(run.students) else run.students
    compared = run.comparisons[run.comparisons["task"] == task] if len(run.comparisons) else run.comparisons
    content = {
        "index": index,
        "name": task,
        "lede": " ".join(
            filter(None, (tested_sentence(run, task, main), unrelated_sentence(run, task), fusion_sentence(run, task)))
        ),
        "table_caption": f"{measured_on(run, metrics)}, the 95 % bootstrap interval over patients below; best value "
        f"bold; ↓ lower is better.{_beside_values(tested, headline)}",
        "metrics": [{"name": metric_title(metric), "lower_is_better": metric in LOWER_IS_BETTER} for metric in columns],
        "rows": rows,
        "notes": notes,
        "forest": _forest(metrics, headline, main, run.covariates),
        "comparisons": None if compared.empty else _comparison_table(compared),
        "comparisons_notes": [] if compared.empty else _comparison_notes(compared),
        "comparisons_caption": "" if compared.empty else _comparison_caption(compared),
        "students": None if students.empty else _student_table(students),
        "students_caption": "" if students.empty else _student_caption(students),
        **drawn,
    }
    parts = [f"{counted(len(columns), 'metric')} of {counted(len(models), 'model')}"]
    parts += ["paired comparisons"] if content["comparisons"] else []
    parts += ["figures"] if content["figures"] else []
    return Section(f"task-{index}", titled(task), ", ".join(parts), "task.html.j2", content)


def _beside_values(tested: pd.DataFrame, headline: str) -> str:
    """Returns what the values of the table mean, beside their names."""
    if headline == NumberOutcome.headline:
        return " R² is below 0 where the mean of the patients says more; the error has the unit of the value."
    if headline != SurvivalOutcome.headline:
        return " AUC to F1 are averages over classes (macro)."
    if competing_events(tested) is None:
        return ""
    return " Cause-specific: who had an event of another cause counts as censored at its time."


_NOT_MEASURED: dict[Any, Any] = dict.fromkeys(("value", "lower", "upper"), np.nan) | {
    "reason": "not measured for this model"
}


def _metric_row(
    metrics: pd.DataFrame, model: str, columns: Sequence[str], notes: list[str], covariates: Sequence[str]
) -> dict[str, Any]:
    best = best_models(metrics)
    rows = metrics[metrics["model"] == model].set_index("metric")
    cells = []
    for metric in columns:
        row = dict(rows.loc[metric]) if metric in rows.index else _NOT_MEASURED
        cells.append(
            {
                "metric": metric,
                "full": repr(float(row["value"])),
                "defined": not np.isnan(row["value"]),
                "text": number(row["value"]),
                "interval": _span(row["lower"], row["upper"]),
                "best": model in best.get(metric, ()),
                "note": _note_number(row["reason"], notes),
            }
        )
    detail = inputs_of(model, covariates)
    n_patients = int(rows.iloc[0]["n_patients"])
    if n_patients != metrics["n_patients"].max():  # models may need a modality that some patients lack
        detail = ", ".join(part for part in (detail, f"n = {n_patients}") if part)
    return {
        "model": model,
        "name": model_title(model),
        "detail": detail,
        "cells": cells,
    }


def _beside_lines(run: RunFiles, task: str, models: Sequence[str]) -> list[str]:
    """Returns how much networks say beside their linear paths; empty where no model has one."""
    mixtures = {model: mixture_told(run.details(task, model)) for model in models}
    told = [f"{model_title(model)}: {mixture}" for model, mixture in mixtures.items() if mixture]
    return [f"Networks are mixed with linear models of the same inputs. {'. '.join(told)}."] if told else []


def _note_number(reason: Any, notes: list[str]) -> int | None:
    if not isinstance(reason, str) or not reason:
        return None
    reason = singular(reason)
    if reason not in notes:
        notes.append(reason)
    return notes.index(reason) + 1


def _forest(metrics: pd.DataFrame, headline: str, main: str, covariates: Sequence[str]) -> Drawn | None:
    rows = metrics[(metrics["metric"] == headline) & metrics["value"].notna()]
    if rows.empty:
        return None
    rows = rows.sort_values("value", ascending=False, kind="stable")
    estimates = [
        Estimate(model_label(row["model"], covariates), row["value"], row["lower"], row["upper"])
        for _, row in rows.iterrows()
    ]
    name = metric_title(headline)
    svg = forest_plot(estimates, label=name, highlight=model_label(main, covariates), reference=CHANCE)
    described = "; ".join(f"{row.name} {number(row.value)}" for row in estimates)
    return Drawn(
        Markup(svg),
        title=name,
        caption=f"{name} with 95 % interval; the dashed line is chance. Overlapping intervals of two models do not "
        "decide between them, the paired comparison does.",
        alt=f"Forest plot of {name}: {described}.",
    )


def _comparison_table(comparisons: pd.DataFrame) -> PlainTable:
    columns = ("Model", "Difference", "95 % interval", "p", "p adjusted")
    rows: list[list[str]] = []
    for row in comparisons.to_dict("records"):
        defined = not np.isnan(row["difference"])
        rows.append(
            [
                model_title(row["model"]),
                number(row["difference"], signed=True),
                signed_interval(row["lower"], row["upper"]) if defined else "",
                *(p_value_text(row[name]) if defined else "" for name in ("p_value", "p_adjusted")),
            ]
        )
    return PlainTable(columns, rows, frozenset(columns[1:]))


def _student_table(students: pd.DataFrame) -> PlainTable:
    columns = (
        "Model",
        metric_title(students["metric"].iloc[0]),
        "95 % interval",
        "Minus student",
        "95 % interval of it",
    )
    rows = [
        [
            row["title"],
            number(row["value"]),
            _span(row["lower"], row["upper"]),
            *(
                (
                    number(row["difference"], signed=True),
                    signed_interval(row["difference_lower"], row["difference_upper"]),
                )
                if not np.isnan(row["difference"])
                else ("", "")
            ),
        ]
        for row in students.to_dict("records")
    ]
    return PlainTable(columns, rows, frozenset(columns[1:]))


def _student_caption(students: pd.DataFrame) -> str:
    return (
        f"The {int(students['n_patients'].min())} test patients with slides. A student reads slides alone, and learned "
        "from the teacher of its fold, which reads expression too. Positive differences favour the other model."
    )


def _span(lower: float, upper: float) -> str:
    return "no interval" if np.isnan([lower, upper]).any() else f"{number(lower)}–{number(upper)}"


def _comparison_notes(comparisons: pd.DataFrame) -> list[str]:
    """Returns one line per reason, with the models that it concerns."""
    explained = comparisons.dropna(subset=["reason"])
    return [
        f"{', '.join(model_title(model) for model in rows['model'])}: {singular(str(reason))}"
        for reason, rows in explained.groupby("reason", sort=False)
    ]


def _comparison_caption(comparisons: pd.DataFrame) -> str:
    first = comparisons.iloc[0]
    return (
        f"{metric_title(first['metric'])} of each model minus that of {model_title(first['reference'])} on the same "
        f"patients: negative favours {model_title(first['reference'])}. p adjusted (Holm) "
        "over all comparisons of the task."
    )
