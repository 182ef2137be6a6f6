"""Patients whose probabilities, or curves, are true up to a factor that recalibration finds."""

import numpy as np
import pandas as pd

from subfuse.evaluation.calibration_slopes import SLOPE_COLUMNS

NO_SLOPES = pd.DataFrame(columns=list(SLOPE_COLUMNS))
DAYS = np.array([200.0, 500.0, 900.0, 1400.0])


def split_of(n: int, fold: int, folds: int) -> np.ndarray:
    distance = (np.arange(n) - fold) % folds
    return np.select([distance == 0, distance == 1], ["test", "validation"], "train")


def classified(n: int, classes: tuple[str, ...], *, sharpened: float, repeats: int = 1) -> pd.DataFrame:
    """Rows whose true probabilities have logits divided by `sharpened`."""
    generator = np.random.default_rng(0)
    logits = 1.2 * generator.normal(size=(n, len(classes)))
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = (truth.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1)
    told = np.exp(sharpened * logits)
    told /= told.sum(axis=1, keepdims=True)
    table = pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], "cohort": "c", "task": "grade", "model": "snn",
                          "label": np.array(classes)[label]})  # fmt: skip
    table[[f"p_{name}" for name in classes]] = told
    parts = [
        table.assign(repeat=repeat, fold=fold, split=split_of(n, fold, 3))
        for repeat in range(repeats)
        for fold in range(3)
    ]
    return pd.concat(parts, ignore_index=True)


def survived(n: int, *, factor: float) -> pd.DataFrame:
    """Rows whose true hazards are the predicted ones times `factor`."""
    generator = np.random.default_rng(1)
    hazard = np.exp(generator.normal(size=n)) / 1200
    survival_time, last_contact = generator.exponential(1 / (factor * hazard)), generator.uniform(0, 5000, n)
    table = pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], "cohort": "c", "task": "survival", "model": "snn",
                          "time_days": np.ceil(np.minimum(survival_time, last_contact)),
                          "event": survival_time <= last_contact, "risk": np.log(hazard)})  # fmt: skip
    for day in DAYS:
        table[f"survival_{day:g}"] = np.exp(-hazard * day)
    return pd.concat(
        [table.assign(repeat=0, fold=fold, split=split_of(n, fold, 3)) for fold in range(3)], ignore_index=True
    )


def measure(table: pd.DataFrame, name: str) -> pd.Series:
    return table.set_index("measure").loc[name]
