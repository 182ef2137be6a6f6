"""Columns of numbers: filled or refused by the patient who lacks one."""

import numpy as np
import pandas as pd
import pytest

from subfuse.errors import DataError
from subfuse.evaluation.regression.columns import holds_values, observed_values, predicted_values

ROWS = pd.DataFrame(
    {"patient_id": ["a", "b"], "task": "purity", "model": "linear", "fold": 0, "value": [1, 2],
     "predicted_value": [0.5, 2.5]}
)  # fmt: skip


def test_columns_are_read_as_numbers() -> None:
    np.testing.assert_array_equal(observed_values(ROWS), [1.0, 2.0])
    np.testing.assert_array_equal(predicted_values(ROWS), [0.5, 2.5])


@pytest.mark.parametrize(("name", "read"), [("value", observed_values), ("predicted_value", predicted_values)])
def test_a_missing_number_names_the_patient(name, read) -> None:
    with pytest.raises(DataError, match=rf"{name} must be known .* the first patient b \(task purity, model linear"):
        read(ROWS.assign(**{name: [1.0, np.nan]}))


def test_regression_is_known_by_predicted_values_that_are_filled() -> None:
    assert holds_values(ROWS)
    assert not holds_values(ROWS.assign(predicted_value=np.nan))
    assert not holds_values(ROWS.drop(columns="predicted_value"))
