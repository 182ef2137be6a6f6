"""Predictions of numbers with noise."""

import numpy as np
import pandas as pd

N = 40


def predicted(*, noise: float, model: str, seed: int = 0) -> pd.DataFrame:
    """Two folds whose model sees the number with noise."""
    random = np.random.default_rng(seed)
    value = np.random.default_rng(7).normal(size=N)
    return pd.DataFrame(
        {
            "patient_id": [f"p{i:02}" for i in range(N)], "cohort": "c", "task": "purity", "model": model,
            "repeat": 0, "fold": np.arange(N) % 2, "split": "test", "time_days": np.nan, "event": None, "label": None,
            "risk": np.nan, "value": value, "predicted_value": value + noise * random.normal(size=N),
        }
    )  # fmt: skip
