"""Predictions as JSON: the same names and numbers as in the tables."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from subfuse.evaluation.benefit.conformal import PROMISED


def prediction_document(mean: pd.DataFrame, models: pd.DataFrame, notes: Sequence[str]) -> dict[str, Any]:
    """Returns predictions for a JSON file; what is unknown is left out of its row, be it empty or not a number.

    Args:
        mean: One row per patient, task and model, see `mean_predictions`.
        models: One row per patient and model of a fold.
        notes: What was said of the inputs.
    """
    return {
        "notice": "Research use only. Not a medical device.",
        "promised_probability": PROMISED,
        "patients": _records(mean),
        "models": _records(models),
        "notes": list(notes),
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(name): _plain(value) for name, value in row.items() if pd.notna(value)} for row in table.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
