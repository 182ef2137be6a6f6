"""What a model of two modalities has beyond their sum: variance of its predictions when modalities are exchanged."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.evaluation.metrics import NORMAL_95

INTERACTION = "interaction"


def variance_shares(
    grids: Sequence[Float[np.ndarray, "patient patient output"]], *, modalities: tuple[str, str]
) -> pd.DataFrame:
    r"""Returns which shares of the variance are owed to either modality, and to what they are together only.

    A grid holds the predictions :math:`f_{ij}` from the first modality of patient i and the second of patient j. With
    patients drawn at random, :math:`f_{ij} = \mu + a_i + b_j + c_{ij}` (functional analysis of variance, Hoeffding
    1948); the variances of the three parts are estimated without bias from the mean squares of the two-way layout
    without replication (a negative one is zero). Shares are means over grids, weighted by their patients, since models
    of folds have scales of their own; of several outputs, variances are added. Intervals are normal, of the jackknife
    that leaves out one patient at a time.

    Args:
        grids: One per model of a fold; of three patients or more.
        modalities: Names of the first and the second one.

    Returns:
        Columns part (both modalities, then `INTERACTION`), share, lower, upper (95 %), n_patients. Shares add up to 1;
        NaN where predictions are all the same.

    Raises:
        ValueError: Fewer than three patients in a grid.
    """
    if not grids or min(len(grid) for grid in grids) < 3:
        raise ValueError(f"grids of three patients or more are required. Found {[len(grid) for grid in grids]}.")
    sizes = np.array([len(grid) for grid in grids], dtype=np.float64)
    shares = np.stack([_shares(grid) for grid in grids])
    value = sizes @ shares / sizes.sum()
    without = []
    for place, grid in enumerate(grids):
        for patient in range(len(grid)):
            kept = np.delete(np.arange(len(grid)), patient)
            changed = shares.copy()
            changed[place] = _shares(grid[np.ix_(kept, kept)])
            without.append(sizes @ changed / sizes.sum())
    left_out = np.stack(without)
    n = len(left_out)
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean(axis=0)) ** 2).sum(axis=0))
    lower, upper = np.clip([value - NORMAL_95 * error, value + NORMAL_95 * error], 0.0, 1.0)
    columns = {"part": [*modalities, INTERACTION], "share": value, "lower": lower, "upper": upper}
    return pd.DataFrame(columns).assign(n_patients=n)


def _shares(grid: Float[np.ndarray, "patient patient output"]) -> Float[np.ndarray, "3"]:
    n = len(grid)
    first, second = grid.mean(axis=1), grid.mean(axis=0)
    rest = grid - first[:, None] - second[None] + grid.mean(axis=(0, 1))
    mean_square = (rest**2).sum() / (n - 1) ** 2
    variances = [
        float(n * ((part - part.mean(axis=0)) ** 2).sum() / (n - 1) - mean_square) / n for part in (first, second)
    ]
    parts = np.maximum([*variances, mean_square], 0.0)
    spread = float(((grid - grid.mean(axis=(0, 1))) ** 2).mean())
    return parts / parts.sum() if spread > 1e-12 * max(1.0, float((grid**2).mean())) else np.full(3, np.nan)
