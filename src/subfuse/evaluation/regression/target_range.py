"""Whether the numbers of other patients are of the kind that training had, or written in another unit."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.evaluation.regression.columns import VALUE

_LEAST_PATIENTS = 5
_LARGEST_SHARE = 0.5  # of patients outside training's range: of patients like those of training some lie there
_SMALLEST_SPREAD = 0.05  # of the range of all, to that of training's middle half: shares among per cents


def other_range(trained: Float[np.ndarray, " trained"], tested: Float[np.ndarray, " tested"]) -> str:
    """Returns what is said of numbers in another range than those of training; nothing of others, or of few.

    Example:
        >>> other_range(np.linspace(0.1, 0.9, 20), np.linspace(10, 90, 20))
        '20 of 20 values lie outside those of training (0.1 to 0.9): they go from 10 to 90. Another unit?'
    """
    if min(len(trained), len(tested)) < _LEAST_PATIENTS:
        return ""
    low, high = trained.min(), trained.max()
    n_outside = int(((tested < low) | (tested > high)).sum())
    goes = f"they go from {tested.min():g} to {tested.max():g}. Another unit?"
    if n_outside > _LARGEST_SHARE * len(tested):
        return f"{n_outside} of {len(tested)} values lie outside those of training ({low:g} to {high:g}): {goes}"
    lower, upper = np.quantile(trained, [0.25, 0.75])
    if 0 < np.ptp(tested) < _SMALLEST_SPREAD * (upper - lower):
        return f"values differ far less than those of training ({low:g} to {high:g}): {goes}"
    return ""


def notes_of_range(predicted: pd.DataFrame, known: pd.DataFrame) -> list[str]:
    """Returns for every task whose new patients have numbers in another range what is said of them.

    Args:
        predicted: Predictions, of which the rows of split `new` with a known `value` are judged.
        known: The run's own predictions; none where nothing is known of training.
    """
    if VALUE not in predicted or VALUE not in known:
        return []
    notes = []
    for task, rows in predicted[predicted["split"] == "new"].groupby("task", sort=False):
        trained, tested = (of_patients(table) for table in (known[known["task"] == task], rows))
        told = other_range(trained, tested)
        notes += [f"{task}: {told} Check the column in the clinical table, and prepare it again"] if told else []
    return notes


def of_patients(rows: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    """Returns the known `value` of every patient of a task, once."""
    return rows.dropna(subset=[VALUE]).drop_duplicates("patient_id")[VALUE].to_numpy(dtype=np.float64)
