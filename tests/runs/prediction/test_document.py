"""Predictions as JSON: the numbers of the tables, without what is unknown."""

import json

import numpy as np
import pandas as pd

from subfuse.runs.prediction.document import prediction_document


def test_rows_hold_what_the_tables_hold_and_nothing_unknown():
    models = pd.DataFrame(
        {"patient_id": ["A", "A"], "fold": [0, 1], "risk": [np.nan, 0.1], "event": [None, True], "reason": ["x", None]}
    )
    mean = pd.DataFrame({"patient_id": ["A"], "n_models": np.array([2], np.int64), "promised_days": [12.5]})
    text = json.dumps(prediction_document(mean, models, ["a note"]), allow_nan=False)
    found = json.loads(text)
    assert found["models"] == [
        {"patient_id": "A", "fold": 0, "reason": "x"},
        {"patient_id": "A", "fold": 1, "risk": 0.1, "event": True},
    ]
    assert found["patients"] == [{"patient_id": "A", "n_models": 2, "promised_days": 12.5}]
    assert (found["notes"], found["promised_probability"]) == (["a note"], 0.9)
