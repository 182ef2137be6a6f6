"""How far networks differ that say the same of a patient: those of an ensemble, and those of several folds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from subfuse.evaluation.predictions import SPREAD, columns_with
from subfuse.evaluation.regression.columns import PREDICTED_VALUE

_LEAST = 2  # networks


def quantities(table: pd.DataFrame) -> list[str]:
    """Returns the columns of predictions whose spread is told: probabilities, survival, risk percentile, numbers."""
    return columns_with(table, "risk_percentile", "survival_", "p_", PREDICTED_VALUE)


def with_spread(table: pd.DataFrame, networks: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns predictions with `spread_<column>` beside them, the standard deviation over these networks.

    Args:
        table: Of one fold's model.
        networks: The same rows of every network of its ensemble; of one, the spread is unknown.
    """
    names = quantities(table)
    if len(networks) < _LEAST:
        return table.assign(**{f"{SPREAD}{name}": np.nan for name in names})
    values = np.stack([network[names].to_numpy(dtype=np.float64) for network in networks])
    spread = values.std(axis=0, ddof=1)
    return table.assign(**{f"{SPREAD}{name}": spread[:, i] for i, name in enumerate(names)})


def joint_spread(predicted: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Returns `spread_<column>` over the networks of all folds, by these keys.

    The law of total variance: that of the folds' predictions, and the mean of those within folds where a fold has
    several networks. Of one network in all, nothing is known. Folds share training patients: the spread says how much a
    prediction hangs on who trained and on initial weights, and is too small for a standard error.
    """
    names = quantities(predicted)
    between = predicted.groupby(list(keys), sort=False)[names].var(ddof=1)
    squares = (predicted[[f"{SPREAD}{name}" for name in names]] ** 2).set_axis(names, axis="columns")
    within = squares.groupby([predicted[key] for key in keys], sort=False).mean()
    total = (between.fillna(0.0) + within.fillna(0.0)).where(between.notna() | within.notna())
    return (total**0.5).add_prefix(SPREAD)
