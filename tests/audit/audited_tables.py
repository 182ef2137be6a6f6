"""Predictions of several models, and what an audit found in them."""

import pandas as pd
from drawn_predictions import predictions

from subfuse.audit.findings import Audit

QUICK = {"n_bootstrap": 300}  # fewer cannot show a small p-value of a family


def found(audit: Audit, check: str, level: str | None = None) -> list[str]:
    return [f.found for f in audit.findings if f.check == check and level in (None, f.level)]


def run_of(patients: pd.DataFrame, noises: dict[str, float], task: str = "survival") -> pd.DataFrame:
    tables = [
        predictions(patients, task=task, model=model, noise=noise, seed=index)
        for index, (model, noise) in enumerate(noises.items())
    ]
    return pd.concat(tables, ignore_index=True)
