"""Covariates of words: what they are called, how they are coded, and what a model reads of them."""

import numpy as np
import pandas as pd
import pytest

from subfuse.cohort.covariates import (
    WEIGHT,
    CovariateCoding,
    check_values,
    completeness,
    known_values,
    level_names,
    numeric_names,
)
from subfuse.errors import DataError

IDH = ["mutant", "wildtype", "unknown", "mutant", "mutant", "Wildtype", None, "mutant"]
NAMES = ("idh=mutant", "idh=unknown", "idh=wildtype")


def known(values: list[str | None]) -> list[dict[str, str | float]]:
    return [{} if value is None else {"idh": value} for value in values]


def test_words_of_a_column_have_one_scale_that_of_two_words_is_their_spread():
    coding = CovariateCoding.fit(NAMES, known(IDH))
    shares = np.array([4, 1, 2]) / 7  # of the seven who are known
    scale = np.sqrt((shares * (1 - shares)).sum() / 2)
    found = coding.transform({"idh": "WILDTYPE"})
    np.testing.assert_allclose(found, WEIGHT * (np.array([0, 0, 1]) - shares) / scale, rtol=1e-5)
    two = CovariateCoding.fit(level_names("sex", ["f", "m"]), [{"sex": word} for word in "fffm"])
    one = CovariateCoding.fit(("sex=m",), [{"sex": word} for word in "fffm"])
    assert two.transform({"sex": "m"})[1] == pytest.approx(one.transform({"sex": "m"})[0])


def test_a_word_that_training_never_saw_says_nothing_and_is_named():
    training = [value for value in IDH if value != "unknown"]
    coding = CovariateCoding.fit(NAMES, known(training))
    for value in ("unknown", "R132H", None):
        assert not coding.transform(*known([value])).any()
    assert coding.transform({"idh": "mutant"})[1] == 0  # of a word that training lacks
    two = CovariateCoding.fit(("idh=mutant", "idh=wildtype"), known(training))
    np.testing.assert_allclose(coding.transform({"idh": "mutant"})[[0, 2]], two.transform({"idh": "mutant"}))
    notes = coding.notes(dict(zip("abc", known(["unknown", None, "mutant"]), strict=True)))
    assert len(notes) == 2
    assert "idh: unknown never occurred in training, which had mutant, wildtype" in notes[1]


def test_a_number_is_standardised_and_one_that_is_unknown_is_the_mean():
    ages = [{"age": 40.0}, {"age": "60"}, {}, {"age": 50.0}]
    coding = CovariateCoding.fit(("age",), ages)
    assert coding.levels == {"age": ()}
    spread = np.std([40.0, 60.0, 50.0])
    np.testing.assert_allclose(coding.transform({"age": "70"}), [WEIGHT * 20 / spread], rtol=1e-5)
    assert coding.transform({}).tolist() == [0.0]
    assert np.isnan(coding.encode({})).all()
    (note,) = coding.notes({"P1": {"age": 1.0}, "P2": {}})
    assert note.startswith("age: unknown for 1 of 2 patients (P2), taken as that of an average training patient.")
    assert coding.notes({"P1": {"age": 1.0}}) == []


def test_a_number_that_is_none_is_refused_with_its_patient():
    check_values(("age", "sex=m"), {"P1": {"age": 3.0, "sex": "m"}, "P2": {}})
    for value in ("old", float("inf")):
        with pytest.raises(DataError, match=r"covariates: age must be a number\. Found .* for P2\. Correct or empty"):
            check_values(("age",), {"P1": {"age": 3.0}, "P2": {"age": value}})


def test_columns_that_are_numbers_for_most_are_numbers_and_what_is_known_is_counted_by_column():
    table = pd.DataFrame({
        "patient_id": ["P1", "P2", "P3", "P4"],
        "age": ["61", "old", None, "50"],
        "half": ["1", "2", "x", "y"],
        "sex": ["m", "f", None, None],
    })  # fmt: skip
    assert numeric_names(("age", "half"), table) == ("age",)
    assert completeness(("age", "sex=f", "sex=m", "half=1"), table) == {"age": 3, "sex": 2, "half=1": 4}
    assert known_values(("sex=m", "age"), table) == {
        "P1": {"age": "61", "sex": "m"}, "P2": {"age": "old", "sex": "f"}, "P3": {}, "P4": {"age": "50"}
    }  # fmt: skip
