"""Whether a result holds in hospitals that a model never saw: random folds against whole hospitals held out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from subfuse.audit.audited_task import AuditedTask
from subfuse.audit.findings import Finding
from subfuse.evaluation.benefit.optimism import optimism_gap
from subfuse.evaluation.metrics import metric_title, number, signed_interval
from subfuse.evaluation.predictions import read_tasks, stacked
from subfuse.run_folder.names import HELD_OUT_SITES, PREDICTIONS
from subfuse.run_folder.tables import read_predictions

CHECK = "hospitals held out"
_WHY = "A model is used where it was not trained: random folds have patients of every hospital in training."


def held_out_findings(folder: Path, tasks: Iterable[AuditedTask]) -> tuple[list[Finding], pd.DataFrame]:
    """Returns whether main models are better in random folds than with whole hospitals held out.

    A warning where the interval of the gap lies above zero, else passed; a note where there is no interval, or where
    hospitals were to be held out and there are no results. Nothing where the run held no hospitals out.

    Args:
        folder: Run folder.
        tasks: Of its predictions.

    Returns:
        A finding per task, and the table of `optimism_gap`.

    Raises:
        DataError: The predictions with hospitals held out cannot be read.
    """
    path = folder / HELD_OUT_SITES / PREDICTIONS
    if not path.exists():
        found = "cannot be told: hospitals were to be held out, and there are no results"
        remedy = "Run crossval with --held-out-sites again: what it prints says what is wrong."
        return ([Finding("note", CHECK, found, _WHY, remedy)] if path.parent.is_dir() else []), pd.DataFrame()
    held_out = {task.name: task for task in read_tasks(read_predictions(path))}
    findings, tables = [], [pd.DataFrame()]
    for task in tasks:
        if task.name in held_out:
            gaps = optimism_gap(task, held_out[task.name], n_bootstrap=task.n_bootstrap, seed=task.seed)
            findings += [_finding(row) for row in gaps[gaps["model"] == task.main].to_dict("records")]
            tables.append(gaps)
    return findings, stacked(tables)


def _finding(row: Mapping[Any, Any]) -> Finding:
    metric, of = metric_title(row["metric"]), {"task": row["task"], "model": row["model"]}
    of_random_folds = f"{number(row['random_folds'])} in random folds"
    values = f"{metric} {number(row['held_out'])} with whole hospitals held out, {of_random_folds}"
    if np.isnan(row["lower"]):
        detail = f"{values}; the gap cannot be told: {row['reason'] or 'the metric is undefined'}"
        return Finding.of_model("note", CHECK, detail, _WHY, "More patients would tell.", **of)
    gap = f"{number(row['gap'], signed=True)} ({signed_interval(row['lower'], row['upper'])})"
    detail, short = f"{values}, a gap of {gap}", f"{number(row['held_out'])}; random folds are above it by {gap}"
    if row["lower"] > 0:
        remedy = "Quote the metric with hospitals held out."
        return Finding.of_model("warning", CHECK, detail, _WHY, remedy, **of, short=short)
    return Finding.of_model("ok", CHECK, detail, **of, short=short)
