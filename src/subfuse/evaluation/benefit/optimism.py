"""What random folds promise beyond folds of whole hospitals: the optimism gap."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.evaluation.bootstrap import BootstrapWeights, mean_over_folds, percentile_interval
from subfuse.evaluation.intervals import grouping
from subfuse.evaluation.predictions import PATIENT, TaskPredictions
from subfuse.evaluation.ranked_patients import ranked_patients

OPTIMISM_COLUMNS = (
    "task", "model", "metric", "random_folds", "held_out", "gap", "lower", "upper", "n_patients", "reason",
)  # fmt: skip


def optimism_gap(task: TaskPredictions, held_out: TaskPredictions, *, n_bootstrap: int, seed: int) -> pd.DataFrame:
    """Returns how much better every model is in random folds than where the hospitals of its test patients are unseen.

    The headline metric of either is the mean over its folds, of the patients whom both test. The interval draws these
    patients with replacement, the same for both: it is about patients, not about hospitals, of which there may be few.
    A part of a gap is no optimism: patients of one hospital may be more alike, and so harder to rank.

    Args:
        task: Rows of all models over random folds.
        held_out: The same over folds of whole hospitals.
        n_bootstrap: Replicates.
        seed: Of the replicates.

    Returns:
        Columns `OPTIMISM_COLUMNS`, one row per model that both have; `gap` is random folds minus hospitals held out.
    """
    bootstrap = BootstrapWeights.draw(task.tested, n_bootstrap, np.random.default_rng(seed))
    rows = [_row(task, held_out, model, bootstrap) for model in task.models if model in held_out.models]
    return pd.DataFrame(rows, columns=list(OPTIMISM_COLUMNS))


def _row(task: TaskPredictions, held_out: TaskPredictions, model: str, bootstrap: BootstrapWeights) -> dict[str, Any]:
    both = [part.of_model(model) for part in (task, held_out)]
    known = [pd.MultiIndex.from_frame(rows.loc[rows["split"] == "test", PATIENT]).unique() for rows in both]
    common = known[0].intersection(known[1])
    both = [rows[(rows["split"] != "test") | pd.MultiIndex.from_frame(rows[PATIENT]).isin(common)] for rows in both]
    tested = both[0][both[0]["split"] == "test"].drop_duplicates(PATIENT)
    found = {"task": task.name, "model": model, "metric": task.headline, "n_patients": len(tested)}
    if not len(common):
        unknown = dict.fromkeys(("random_folds", "held_out", "gap", "lower", "upper"), np.nan)
        return {**found, **unknown, "reason": "no patient is tested by both"}
    random_folds, of_sites = (
        _headline(part, rows, bootstrap) for part, rows in zip((task, held_out), both, strict=True)
    )
    gaps, few = random_folds - of_sites, task.outcome.too_few(tested)
    lower, upper = percentile_interval([gaps[1:]])[:2] if few is None else (np.nan, np.nan)
    return {**found, "random_folds": random_folds[0], "held_out": of_sites[0], "gap": gaps[0],
            "lower": lower, "upper": upper, "reason": few}  # fmt: skip


def _headline(
    task: TaskPredictions, rows: pd.DataFrame, bootstrap: BootstrapWeights
) -> Float[np.ndarray, " weighting"]:
    """Returns the mean over folds of the headline metric: its value, then that of every replicate."""
    by, _ = grouping(task)
    groups = ranked_patients(rows, task.outcome, by=by)
    defined = [group for group in groups if group.metrics[task.headline].is_defined]
    if not defined:
        return np.full(1 + len(bootstrap.weights), np.nan)
    return mean_over_folds([group.weighted_headline(bootstrap.after_ones(group.patients)) for group in defined])[0]
