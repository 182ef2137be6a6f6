"""Training in the report: epochs, learning curves, settings, failed jobs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from subfuse.report import figures
from subfuse.report.elements import Drawn, PlainTable, flattened
from subfuse.report.run_files import RunFiles, read_table
from subfuse.report.statements import main_model, model_name


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
