"""Provenance in the report: the command that repeats the run, and what exactly it was made of."""

import shlex
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from subfuse.errors import counted
from subfuse.evaluation.metrics import metric_title
from subfuse.files import sha256_of_file
from subfuse.report.figures.results import learning_curves
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import Drawn, PlainTable, Section, flattened, titled
from subfuse.run_folder.job import chosen_by
from subfuse.run_folder.names import AUDIT, COMPARISONS, CONFIG, METRICS, PREDICTIONS
from subfuse.run_folder.tables import RESULTS_SHA256
from subfuse.training.models import main_model, model_title

_PARTS = {"failures": "failed jobs", "table": "epochs", "figures": "learning curves", "settings": "settings"}


def training_section(run: RunFiles) -> Section | None:
    """Returns epochs per model, learning curves of the main model, settings and failed jobs; None without any."""
    rows, drawn = [], []
    for task in run.tasks:
        models = list(dict.fromkeys(run.metrics.loc[run.metrics["task"] == task, "model"]))
        for model in models:
            logs = [job.log(run.folder) for job in run.jobs(task, model)]
            logs = [log for log in logs if {"epoch", "validation_loss"} <= set(log.columns)]
            if not logs:
                continue
            rows.append(_epoch_row(task, model, logs))
            if model == main_model(models) and "train_task" in logs[0]:
                drawn.append(_learning_figure(task, model, logs))
    settings = [pair for part in ("training", "architecture") for pair in flattened(run.config.get(part, {}), part)]
    columns = ("Task", "Model", "Folds", "Epochs", "Best epoch", "Validation loss there", "Judged by")
    content = {
        "failures": None if run.failures.empty else _failure_table(run.failures),
        "table": PlainTable(columns, rows, frozenset(columns[2:6])) if rows else None,
        "figures": drawn,
        "settings": settings,
    }
    parts = [name for part, name in _PARTS.items() if content[part]]
    return (
        Section("training", "Training", ", ".join(parts).capitalize(), "training.html.j2", content) if parts else None
    )


def _epoch_row(task: str, model: str, logs: Sequence[pd.DataFrame]) -> tuple[str, ...]:
    epochs = [len(log) for log in logs]
    best = [_best_epoch(log) for log in logs]
    chosen = [int(row["epoch"]) + 1 for row in best]  # counted from one
    losses = [float(row["validation_loss"]) for row in best]
    by = Counter(metric_title(chosen_by(log).removeprefix("validation_")) for log in logs)
    return (
        titled(task),
        model_title(model),
        str(len(logs)),
        _span(epochs),
        _span(chosen),
        f"{min(losses):.3f} to {max(losses):.3f}" if len(losses) > 1 else f"{losses[0]:.3f}",
        ", ".join(name if n == len(logs) else f"{name} in {counted(n, 'fold')}" for name, n in by.items()),
    )


def _best_epoch(log: pd.DataFrame) -> pd.Series:
    """Returns the row of the best epoch: the highest ranking, the lower loss where tied; or the lowest loss."""
    columns = list(dict.fromkeys([chosen_by(log), "validation_loss"]))
    return log.sort_values(columns, ascending=[name == "validation_loss" for name in columns], kind="stable").iloc[0]


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
        Markup(learning_curves(losses["train_task"], losses["validation_loss"])),
        title=f"Learning curves, {task}",
        caption=f"Task loss of {model_title(model)}, one line per fold.",
        alt=f"Training and validation loss of {model_title(model)} over {longest} epochs.",
    )


def _failure_table(failures: pd.DataFrame) -> PlainTable:
    rows = [tuple(str(row[name]) for name in ("task", "model", "fold", "reason")) for _, row in failures.iterrows()]
    return PlainTable(("Task", "Model", "Fold", "Reason"), rows, frozenset({"Fold"}))


_DESCRIBED = (
    "cohort",
    "n_patients",
    "seed",
    "tasks",
    "models",
    "repeats",
    "search",
    "allow_inputs",
    "trained",
    "evaluated",
)
_HASHED = (CONFIG, PREDICTIONS, METRICS, COMPARISONS, AUDIT)


def provenance_section(run: RunFiles) -> Section:
    """Returns the command and the groups of facts: run, splits, versions, prepared data, hashes of the run's files."""
    known = {key: value for key, value in run.provenance.items() if key not in ("command", RESULTS_SHA256)}
    groups = {
        "Run": flattened({key: run.config[key] for key in _DESCRIBED if key in run.config} | known),
        "Splits": [(f"fold {k}, sha256", str(fold)) for k, fold in enumerate(run.config.get("folds") or ())],
        "Prepared data": [*([("now", changed_sentence(run))] if run.changed else []), *flattened(run.prepared)],
        "Files of this run, sha256": [
            (name, sha256_of_file(run.folder / name)) for name in _HASHED if (run.folder / name).exists()
        ],
    }
    content = {
        "command": command(run),
        "groups": [{"name": name, "pairs": pairs} for name, pairs in groups.items() if pairs],
    }
    gist = "The command that repeats the run, versions, hashes of data and results"
    return Section("provenance", "Provenance", gist, "provenance.html.j2", content)


def changed_sentence(run: RunFiles) -> str:
    """Returns that the prepared cohort is not any more what the run was made from, which stands all the same."""
    return (
        f"the prepared cohort has changed since ({run.changed}). The run stands, for the cohort as it was; "
        "`subfuse crossval` with another --out makes one of the cohort as it is."
    )


def command(run: RunFiles) -> str:
    """Returns what to type to repeat the run, from its folder's parent; a call from Python if it was made by one."""
    recorded = run.provenance.get("command", "")
    text = recorded if isinstance(recorded, str) else shlex.join(str(part) for part in recorded)
    if text.startswith("subfuse ") or "prepared" not in run.config or run.config["prepared"] is None:
        return "" if text == "Python" else text
    name = run.folder.resolve().name
    options = {"task": list(run.config.get("tasks", ())), "models": list(run.config.get("models", ()))}
    options |= {key: run.config[key] for key in ("repeats", "allow_inputs") if run.config.get(key)}
    arguments = "".join(f",\n    {key}={value!r}" for key, value in options.items())
    return (
        "import yaml, subfuse\n"
        "from subfuse.training.settings import TrainingPlan\n\n"
        f'config = yaml.safe_load(open("{name}/{CONFIG}", encoding="utf-8"))\n'
        "subfuse.cross_validate(\n"
        f'    subfuse.read_cohort("{name}/" + config["prepared"]){arguments},\n'
        "    plan=TrainingPlan(**{key: config[key] for key in TrainingPlan.model_fields if key in config}),\n"
        f'    out="{name}-again",\n)'
    )
