"""Tables of patients, and folds drawn from them."""

import pandas as pd

from subfuse.cohort.drawn_folds import stratified_folds


def table_of(events: list, grades: list | None = None) -> pd.DataFrame:
    patients = [f"p{i:03d}" for i in range(len(events))]
    return pd.DataFrame({"patient_id": patients, "event": pd.array(events, dtype="boolean"), "grade": grades})


def draw(patients: pd.DataFrame, folds: int = 5, stratify=("event",), seed: int = 0, validation: float = 0.15):
    return stratified_folds(patients, folds=folds, validation=validation, stratify=list(stratify), seed=seed)
