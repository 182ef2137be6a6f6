"""A number as outcome: who is compared, when patients are too few, and how tables tell it from other tasks."""

import numpy as np
import pandas as pd
import pytest
from drawn_numbers import N, predicted

from subfuse.errors import DataError
from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.predictions import read_tasks
from subfuse.evaluation.regression.outcome import NumberOutcome


def test_a_table_with_predicted_values_is_regression() -> None:
    (task,) = read_tasks(predicted(noise=1, model="linear"))
    assert task.outcome == NumberOutcome()
    assert (task.classes, task.headline) == (None, "concordance")
    with pytest.raises(DataError, match=r"must fill risk, predicted_value or p_<class>"):
        list(read_tasks(predicted(noise=1, model="linear").assign(predicted_value=np.nan)))


def test_every_pair_of_different_numbers_is_compared_once() -> None:
    rows = predicted(noise=0, model="linear").assign(value=np.arange(N) // 2)
    comparable = NumberOutcome().comparable(rows)[0]
    assert comparable.sum() == N * (N - 1) / 2 - N / 2
    assert not (comparable & comparable.T).any()
    value = rows["value"].to_numpy()
    assert (value[:, None] > value)[comparable].all()


def test_fewer_than_five_patients_have_no_interval_and_say_so() -> None:
    rows = predicted(noise=1, model="linear")
    outcome = NumberOutcome()
    assert outcome.too_few(rows.head(4)) == "4 test patients, 5 are needed"
    assert outcome.too_few(rows.head(5)) is None
    assert outcome.suffices(rows.head(10), 10)
    assert not outcome.suffices(rows.head(9), 10)
    assert outcome.counts(rows) == {"n_patients": N, "n_events": pd.NA}


def test_the_model_that_sees_more_is_better_by_concordance() -> None:
    rows = pd.concat([predicted(noise=0.2, model="good"), predicted(noise=3, model="bad", seed=1)], ignore_index=True)
    (row,) = compare_models(rows, reference="bad", n_bootstrap=200).to_dict("records")
    assert (row["model"], row["metric"]) == ("good", "concordance")
    assert row["lower"] > 0
    assert row["p_value"] < 0.05
