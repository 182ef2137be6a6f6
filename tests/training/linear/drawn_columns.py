"""Drawn patients whose columns know something of their severity, and what another project predicts of them."""

import numpy as np
import pandas as pd
from drawn_predictions import cohort, predictions


def people(n: int = 90, seed: int = 0) -> pd.DataFrame:
    """Patients with age, sex, a marker, hospital and batch; ages of some are unknown."""
    random, patients = np.random.default_rng(100 + seed), cohort(seed, n=n)
    near = patients["severity"] + random.normal(size=n)
    return patients.assign(
        age=(55 + 10 * near).round(1).where(random.random(n) > 0.1),
        sex=np.where(random.random(n) > 0.5, "male", "female"),
        idh=np.where(near > 0, "wildtype", "mutant"),
        site=np.array(["A", "B", "C"])[np.digitize(near + random.normal(size=n), [-0.5, 0.7])],
        batch=np.where(patients["severity"] + 2 * random.normal(size=n) > 0, "01", "02"),
    )


def theirs(patients: pd.DataFrame, task: str = "survival", splits: str = "test") -> pd.DataFrame:
    """Predictions of a model that this package does not know, of some splits."""
    return predictions(patients, task=task, model="theirs")[lambda rows: rows["split"].isin(splits.split())]
