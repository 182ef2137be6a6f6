"""Sections of the report: values for the template, computed from the tables of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from subfuse.errors import DataError, preview
from subfuse.report import figures
from subfuse.report.run_files import Explanation, RunFiles, read_table
from subfuse.report.statements import (
    LOWER_IS_BETTER,
    MODALITY_NAMES,
    best_models,
    excluded_patients,
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
)

TOP_GENES = 12
MAX_CURVE_POINTS = 400  # more are not visible, and only make the file larger
CHANCE = 0.5  # of the C-index and the AUC


@dataclass(frozen=True)
class Drawn:
    """A figure with what surrounds it."""

    svg: Markup
    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class PlainTable:
    """A table of texts; `numeric` names the right-aligned columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: frozenset[str] = frozenset()


def cohort_section(run: RunFiles) -> dict[str, Any]:
    """Returns the flow of patients, the exclusions by reason and the gene-set coverage."""
    exclusions, coverage = run.cohort["exclusions"], run.cohort["gene_set_coverage"]
    return {
        "flow": _flow(run),
        "exclusions": None if exclusions.empty else _exclusion_table(exclusions),
        "no_exclusions": "Nothing was excluded."
        if (run.folder / "cohort" / "exclusions.csv").exists()
        else "The run keeps no list of exclusions.",
        "coverage": coverage.fillna("").to_dict("records"),
    }


def task_section(run: RunFiles, task: str, *, index: int) -> dict[str, Any]:
    """Returns one task: its metrics as printed, comparisons and figures of the main model."""
    metrics = run.metrics[run.metrics["task"] == task]
    models = list(dict.fromkeys(metrics["model"]))
    headline, main = headline_of(metrics), main_model(list(metrics["model"]))
    columns = [headline, *(metric for metric in dict.fromkeys(metrics["metric"]) if metric != headline)]
    notes: list[str] = []
    rows = [_metric_row(metrics, model, columns, notes) for model in models]
    tested = run.test_predictions(task, main)
    is_survival = headline == "c_index"
    drawn = _survival_figures(run, task, main) if is_survival else _classification_figures(tested, main)
    compared = run.comparisons[run.comparisons["task"] == task] if len(run.comparisons) else run.comparisons
    return {
        "index": index,
        "name": task,
        "title": task.capitalize(),
        "lede": _task_lede(tested, is_survival=is_survival),
        "table_caption": "Mean over test folds with the 95 % bootstrap interval over patients below; best value bold; "
        f"↓ lower is better.{'' if is_survival else ' AUC to F1 are averages over classes (macro).'}",
        "metrics": [{"name": metric_name(metric), "lower_is_better": metric in LOWER_IS_BETTER} for metric in columns],
        "rows": rows,
        "notes": notes,
        "forest": _forest(metrics, headline, main),
        "comparisons": None if compared.empty else _comparison_table(compared),
        "comparisons_notes": [] if compared.empty else _comparison_notes(compared),
        "comparisons_caption": "" if compared.empty else _comparison_caption(compared),
        **drawn,
    }


def explained_patient(run: RunFiles, explanation: Explanation) -> dict[str, Any]:
    """Returns one explained prediction, without its pictures."""
    content = explanation.content
    patient, task, model = (str(content[key]) for key in ("patient_id", "task", "model"))
    row = _predicted_row(run, explanation)
    subtitle = [task.capitalize(), model_name(model), f"model of fold {content['fold']}"]
    if "split" in row:
        subtitle.append("not seen in training" if row["split"] == "test" else f"{row['split']} patient of this model")
    return {
        "name": patient,
        "subtitle": " · ".join(subtitle),
        "facts": [*_prediction_facts(content["prediction"]), *_outcome_facts(row)],
        "figures": [*_ledger_figure(explanation), *_gene_figures(explanation)],
    }


def training_section(run: RunFiles) -> dict[str, Any]:
    """Returns epochs per model, learning curves of the main model, settings and failed jobs."""
    rows, drawn = [], []
    for task in run.tasks:
        models = list(dict.fromkeys(run.metrics.loc[run.metrics["task"] == task, "model"]))
        for model in models:
            logs = [read_table(path) for path in sorted((run.folder / task / model).glob("fold_*/log.csv"))]
            logs = [log for log in logs if {"epoch", "validation_loss"} <= set(log.columns)]
            if not logs:
                continue
            rows.append(_epoch_row(task, model, logs))
            if model == main_model(models) and "train_task" in logs[0]:
                drawn.append(_learning_figure(task, model, logs))
    settings = [pair for part in ("training", "architecture") for pair in flattened(run.config.get(part, {}), part)]
    columns = ("Task", "Model", "Folds", "Epochs", "Chosen epoch", "Validation loss")
    return {
        "table": PlainTable(columns, rows, frozenset(columns[2:])) if rows else None,
        "figures": drawn,
        "settings": settings,
        "failures": None if run.failures.empty else _failure_table(run.failures),
    }


def flattened(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Returns nested settings as pairs of dotted key and text."""
    if isinstance(value, Mapping):
        return [pair for key, item in value.items() for pair in flattened(item, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(str(item) for item in value))]
    return [(name, "none" if value is None else str(value))]


def _flow(run: RunFiles) -> list[dict[str, Any]]:
    patients, exclusions = run.cohort["patients"], run.cohort["exclusions"]
    if patients.empty:
        return [_box(run.predictions["patient_id"].nunique(), "patients with predictions")]
    excluded = len(excluded_patients(exclusions) - set(patients["patient_id"]))
    boxes = []
    if len(exclusions):
        boxes = [_box(len(patients) + excluded, "patients found"), _box(excluded, "excluded", removed=True)]
    boxes.append(_box(len(patients), "in the cohort"))
    if {"n_slides", "has_expression"} <= set(patients.columns):
        slides, expression = has_slides(patients), has_expression(patients)
        n_slides = int(patients["n_slides"].fillna(0).sum())
        boxes += [
            _box(int(slides.sum()), f"with slides ({n_slides} slides)"),
            _box(int(expression.sum()), "with expression"),
            _box(int((slides & expression).sum()), "with both"),
        ]
    if "n_patches" in run.cohort["slides"]:
        boxes.append(_box(int(run.cohort["slides"]["n_patches"].sum()), "patches"))
    return boxes


def _box(count: int, label: str, *, removed: bool = False) -> dict[str, Any]:
    return {"count": f"{count:,}".replace(",", "\u202f"), "label": label, "removed": removed}


def _exclusion_table(exclusions: pd.DataFrame) -> PlainTable:
    grouped = exclusions.groupby(["level", "reason"], sort=False)["id"].agg(["size", list]).reset_index()
    grouped = grouped.sort_values(["level", "size"], ascending=[True, False], key=_levels_first, kind="stable")
    rows = [
        (str(row["level"]), str(row["reason"]), str(row["size"]), preview(sorted(row["list"]), limit=4))
        for _, row in grouped.iterrows()
    ]
    return PlainTable(("Level", "Reason", "Count", "Which"), rows, frozenset({"Count"}))


def _levels_first(column: pd.Series) -> pd.Series:
    order = {"patient": 0, "slide": 1, "expression": 2, "gene": 3}
    return column.map(lambda level: order.get(level, 4)) if column.name == "level" else column


def _task_lede(tested: pd.DataFrame, *, is_survival: bool) -> str:
    if is_survival:
        events = tested["event"].astype(str) == "True"
        median = tested["time_days"].median() / 365.25
        return f"{len(tested)} test patients, {int(events.sum())} events; median observed time {median:.1f} years."
    counts = tested["label"].value_counts().reindex(_classes(tested), fill_value=0)
    detail = ", ".join(f"{name} {count}" for name, count in counts.items())
    return f"{len(tested)} test patients: {detail}."


_NOT_MEASURED: dict[Any, Any] = dict.fromkeys(("value", "lower", "upper"), np.nan) | {
    "reason": "not measured for this model"
}


def _metric_row(metrics: pd.DataFrame, model: str, columns: Sequence[str], notes: list[str]) -> dict[str, Any]:
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
                "interval": "no interval"
                if np.isnan([row["lower"], row["upper"]]).any()
                else f"{number(row['lower'])}–{number(row['upper'])}",
                "best": model in best.get(metric, ()),
                "note": _note_number(row["reason"], notes),
            }
        )
    detail = MODALITY_NAMES.get(modalities_of(model), "slides + expression" if modalities_of(model) else "")
    n_patients = int(rows.iloc[0]["n_patients"])
    if n_patients != metrics["n_patients"].max():  # models may need a modality that some patients lack
        detail = f"{detail} n = {n_patients}".strip()
    return {
        "model": model,
        "name": model_name(model),
        "detail": detail,
        "cells": cells,
    }


def _note_number(reason: Any, notes: list[str]) -> int | None:
    if not isinstance(reason, str) or not reason:
        return None
    if reason not in notes:
        notes.append(reason)
    return notes.index(reason) + 1


def _forest(metrics: pd.DataFrame, headline: str, main: str) -> Drawn | None:
    rows = metrics[(metrics["metric"] == headline) & metrics["value"].notna()]
    if rows.empty:
        return None
    rows = rows.sort_values("value", ascending=False, kind="stable")
    estimates = [
        figures.Estimate(model_label(row["model"]), row["value"], row["lower"], row["upper"])
        for _, row in rows.iterrows()
    ]
    name = metric_name(headline)
    svg = figures.forest_plot(estimates, label=name, highlight=model_label(main), reference=CHANCE)
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
                model_name(row["model"]),
                number(row["difference"], signed=True),
                interval_text(row["lower"], row["upper"]) if defined else "",
                *(_bare_p(row[name]) if defined else "" for name in ("p_value", "p_adjusted")),
            ]
        )
    return PlainTable(columns, rows, frozenset(columns[1:]))


def _comparison_notes(comparisons: pd.DataFrame) -> list[str]:
    """Returns one line per reason, with the models that it concerns."""
    explained = comparisons.dropna(subset=["reason"])
    return [
        f"{', '.join(model_name(model) for model in rows['model'])}: {reason}"
        for reason, rows in explained.groupby("reason", sort=False)
    ]


def _comparison_caption(comparisons: pd.DataFrame) -> str:
    first = comparisons.iloc[0]
    return (
        f"{metric_name(first['metric'])} of each model minus that of {model_name(first['reference'])} on the same "
        f"patients: negative favours {model_name(first['reference'])}. p adjusted for the number of models (Holm)."
    )


def _bare_p(value: float) -> str:
    return p_text(value).removeprefix("p ").removeprefix("= ")


def _classes(predictions: pd.DataFrame) -> list[str]:
    """Returns the classes of a task, in the order of the columns; other tasks' columns are empty."""
    names = [
        column for column in map(str, predictions) if column.startswith("p_") and predictions[column].notna().any()
    ]
    return [name.removeprefix("p_") for name in names]


def _classification_figures(tested: pd.DataFrame, model: str) -> dict[str, Any]:
    classes = _classes(tested)
    known = tested.dropna(subset=["label", *(f"p_{name}" for name in classes)]) if classes else tested.iloc[:0]
    known = known[known["label"].isin(classes)]
    if len(classes) < 2 or known.empty:
        return {"figures": [], "confusion": None, "remarks": [f"{model_name(model)} has no test predictions to draw."]}
    label = known["label"].map(classes.index).to_numpy()
    probabilities = known[[f"p_{name}" for name in classes]].to_numpy(dtype=float)
    remarks = []
    if len(known) < len(tested):
        remarks.append(
            f"{len(tested) - len(known)} test patients without a label or a prediction are not in the figures."
        )
    return {
        "figures": [
            drawn
            for drawn in (
                _roc_figure(label, probabilities, classes, model),
                _calibration_figure(label, probabilities, classes, model),
            )
            if drawn is not None
        ],
        "confusion": _confusion(label, probabilities.argmax(axis=1), classes, model),
        "remarks": remarks,
    }


def _roc_figure(label: np.ndarray, probabilities: np.ndarray, classes: Sequence[str], model: str) -> Drawn | None:
    from sklearn.metrics import roc_auc_score, roc_curve

    grid = np.linspace(0, 1, 201)
    curves, interpolated, areas = {}, [], []
    for index, name in enumerate(classes):
        is_class = label == index
        if is_class.all() or not is_class.any():
            continue
        false_positive, true_positive, _ = roc_curve(is_class, probabilities[:, index])
        thin = np.unique(np.linspace(0, len(false_positive) - 1, MAX_CURVE_POINTS).astype(int))
        areas.append(float(roc_auc_score(is_class, probabilities[:, index])))
        curves[f"{name} ({number(areas[-1])})"] = (false_positive[thin], true_positive[thin])
        interpolated.append(np.interp(grid, false_positive, true_positive))
    if not curves:
        return None
    macro = f"macro ({number(float(np.mean(areas)))})"
    curves[macro] = (np.r_[0, grid], np.r_[0, np.mean(interpolated, axis=0)])
    return Drawn(
        Markup(figures.roc_curves(curves, emphasis=macro)),
        title="ROC",
        caption=f"{model_name(model)}: each class against the rest, test patients of all folds pooled; area in "
        "brackets. It differs from the mean of the folds' areas in the table.",
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
        Markup(figures.calibration_curves(curves)),
        title="Calibration",
        caption=f"{model_name(model)}, pooled test patients in {n_bins} bins of about equal size per class. On the "
        "dashed line, a predicted 70 % happens in 70 % of patients.",
        alt=f"Observed frequency against predicted probability of the classes {', '.join(classes)}.",
    )


def _confusion(label: np.ndarray, predicted: np.ndarray, classes: Sequence[str], model: str) -> dict[str, Any]:
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (label, predicted), 1)
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    return {
        "caption": f"{model_name(model)}, pooled test patients. Rows: true class, columns: predicted; percent of the "
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


def _survival_figures(run: RunFiles, task: str, model: str) -> dict[str, Any]:
    from subfuse.evaluation.risk_groups import log_rank, risk_groups

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
    drawn = Drawn(
        Markup(figures.kaplan_meier_curves([curve for curve in curves if curve is not None])),
        title="Predicted risk groups",
        caption=f"Kaplan-Meier estimate of test patients by the risk that {model_name(model)} predicts; low and high "
        "are split at the median risk of each fold's training patients. Bands: 95 % interval; ticks: censored. "
        f"{outcome}.",
        alt=f"Kaplan-Meier curves of predicted risk groups ({sizes} patients). {outcome}.",
    )
    return {"figures": [drawn], "confusion": None, "remarks": []}


def _survival_curve(name: str, patients: pd.DataFrame) -> figures.SurvivalCurve | None:
    from subfuse.evaluation.risk_groups import kaplan_meier

    if patients.empty:
        return None
    time_days = patients["time_days"].to_numpy(dtype=float)
    event = (patients["event"].astype(str) == "True").to_numpy()
    curve = kaplan_meier(time_days, event, np.unique(np.r_[0.0, time_days]))
    return figures.SurvivalCurve(
        name=f"{name} risk",
        time_days=curve["time_days"].to_numpy(),
        survival=curve["survival"].to_numpy(),
        lower=curve["lower"].to_numpy(),
        upper=curve["upper"].to_numpy(),
        censored_days=time_days[~event],
        follow_up_days=time_days,
    )


def _predicted_row(run: RunFiles, explanation: Explanation) -> dict[str, Any]:
    """Returns the patient's row of predictions.csv in this fold; empty for a patient of another cohort."""
    table, content = run.predictions, explanation.content
    chosen = (table["patient_id"] == content["patient_id"]) & (table["task"] == content["task"])
    chosen &= (table["model"] == content["model"]) & (table["fold"] == content["fold"])
    rows = table[chosen].to_dict("records")
    return {str(key): value for key, value in rows[0].items()} if rows else {}


def _prediction_facts(prediction: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    for name, value in prediction.items():
        if value is None or isinstance(value, str) or name.startswith("contribution_"):
            continue
        if name in ("has_slides", "has_expression"):
            facts.append((name.removeprefix("has_").capitalize(), "yes" if value else "no"))
        elif name.startswith("survival_"):
            facts.append((f"Survival at {_duration(float(name.split('_')[1]))}", f"{value:.0%}"))
        elif name.startswith("p_"):
            facts.append((f"Probability of {name.removeprefix('p_')}", f"{value:.0%}"))
        else:
            facts.append(("Risk" if name == "risk" else name, number(float(value))))
    return facts


def _duration(days: float) -> str:
    return f"{days / 365.25:.2g} years" if days >= 365 else f"{days / 30.44:.0f} months"


def _outcome_facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = []
    if isinstance(row.get("label"), str):
        facts.append(("True class", row["label"]))
    if not pd.isna(row.get("time_days", np.nan)):
        event = "event" if str(row["event"]) == "True" else "censored"
        facts.append(("Outcome", f"{event} at {_duration(row['time_days'])}"))
    return facts


def _ledger_figure(explanation: Explanation) -> list[Drawn]:
    ledger = explanation.ledger
    is_baseline = ledger["modality"] == "baseline"
    if is_baseline.all():
        return []
    values = {
        (str(row["subspace"]), str(row["modality"])): float(row["contribution"])
        for row in ledger[~is_baseline].to_dict("records")
    }
    modalities = list(dict.fromkeys(modality for _, modality in values))
    svg = figures.contribution_bars(values, subspaces=explanation.subspaces, modalities=modalities)
    baseline, total = float(ledger.loc[is_baseline, "contribution"].sum()), float(ledger["contribution"].sum())
    return [
        Drawn(
            Markup(svg),
            title="Contributions",
            caption=f"Shapley shares of {_score_name(explanation.content)}: the baseline {number(baseline)}, an "
            f"average training patient, and the bars add up to {number(total)}.",
            alt="; ".join(f"{' '.join(row)} {number(value, signed=True)}" for row, value in values.items()),
        )
    ]


def _score_name(content: Mapping[str, Any]) -> str:
    probabilities = {name: value for name, value in content["prediction"].items() if name.startswith("p_")}
    if not probabilities:
        return "the mean hazard logit (higher is worse)"
    predicted = max(probabilities, key=lambda name: probabilities[name])
    return f"the logit of {predicted.removeprefix('p_')} relative to the mean over classes"


def _gene_figures(explanation: Explanation) -> list[Drawn]:
    drawn, gaps = [], explanation.content.get("gap", {})
    for subspace in explanation.subspaces:
        rows = explanation.genes[explanation.genes["subspace"] == subspace].dropna(subset=["contribution"])
        rows = rows[rows["contribution"] != 0]
        if rows.empty:
            continue
        order = rows["contribution"].abs().sort_values(ascending=False, kind="stable").index[:TOP_GENES]
        genes, contributions = (rows.loc[order, column].tolist() for column in ("gene", "contribution"))
        svg = figures.gene_bars(genes, contributions)
        gap = f" (completeness gap {gaps[subspace]:.1g})" if subspace in gaps else ""
        drawn.append(
            Drawn(
                Markup(svg),
                title=f"Top genes, {subspace}",
                caption=f"{len(genes)} of {len(rows)} genes with an influence, by integrated gradients{gap}.",
                alt="; ".join(f"{g} {number(c, signed=True)}" for g, c in zip(genes, contributions, strict=True)),
            )
        )
    return drawn


def _epoch_row(task: str, model: str, logs: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    epochs = [len(log) for log in logs]
    chosen = [int(log["epoch"].to_numpy()[log["validation_loss"].argmin()]) + 1 for log in logs]  # counted from one
    losses = [float(log["validation_loss"].min()) for log in logs]
    return (
        task.capitalize(),
        model_name(model),
        str(len(logs)),
        _span(epochs),
        _span(chosen),
        f"{min(losses):.3f} to {max(losses):.3f}" if len(losses) > 1 else f"{losses[0]:.3f}",
    )


def _span(values: Sequence[int]) -> str:
    return f"{min(values)} to {max(values)}" if min(values) < max(values) else str(values[0])


def _learning_figure(task: str, model: str, logs: Sequence[pd.DataFrame]) -> Drawn:
    longest = max(len(log) for log in logs)
    losses = {
        name: np.array([np.pad(log[name].to_numpy(dtype=float), (0, longest - len(log)), constant_values=np.nan)
                        for log in logs])
        for name in ("train_task", "validation_loss")
    }  # fmt: skip
    return Drawn(
        Markup(figures.learning_curves(losses["train_task"], losses["validation_loss"])),
        title=f"Learning curves, {task}",
        caption=f"Task loss of {model_name(model)}, one line per fold.",
        alt=f"Training and validation loss of {model_name(model)} over {longest} epochs.",
    )


def _failure_table(failures: pd.DataFrame) -> PlainTable:
    rows = [tuple(str(row[name]) for name in ("task", "model", "fold", "reason")) for _, row in failures.iterrows()]
    return PlainTable(("Task", "Model", "Fold", "Reason"), rows, frozenset({"Fold"}))
