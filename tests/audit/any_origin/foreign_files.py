"""Predictions of others in files, as tests change and read them."""

from pathlib import Path

import pandas as pd

from subfuse.audit.any_origin.prediction_files import read_prediction_files

COLUMNS = {"slide_id": "patient_id", "survival": "time_months", "censorship": "censored"}
N = 90


def read(folder: Path, *names: str, **options):
    return read_prediction_files([folder / f"{name}.csv" for name in names], **options)


def change(path: Path, **columns) -> None:
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)
