"""Columns of predictions that hold a number for every patient."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.errors import DataError

VALUE, PREDICTED_VALUE = "value", "predicted_value"  # of regression: what was measured, and what a model says


def holds_values(rows: pd.DataFrame) -> bool:
    """Returns whether these rows of a task are of regression: they fill the column `predicted_value`."""
    return PREDICTED_VALUE in rows and bool(rows[PREDICTED_VALUE].notna().any())


def observed_values(rows: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    """Returns the column `value`.

    Raises:
        DataError: A value is missing.
    """
    return known_numbers(rows, VALUE, rows[VALUE])


def predicted_values(rows: pd.DataFrame) -> Float[np.ndarray, " patient"]:
    """Returns the column `predicted_value`.

    Raises:
        DataError: A value is missing.
    """
    return known_numbers(rows, PREDICTED_VALUE, rows[PREDICTED_VALUE])


def known_numbers(rows: pd.DataFrame, name: str, values: pd.Series) -> Float[np.ndarray, " patient"]:
    """Returns the values as numbers.

    Raises:
        DataError: A value is missing; names the first patient.
    """
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    missing = ~np.isfinite(numbers)
    if missing.any():
        row = rows[missing].iloc[0]
        raise DataError(
            f"{name} must be known for every evaluated patient. Found {row[name]} for {missing.sum()} rows, the first "
            f"patient {row['patient_id']} (task {row['task']}, model {row['model']}, fold {row['fold']}). "
            f"Leave out rows without an outcome; a model that predicts nothing has failed."
        )
    return numbers
