"""Covariates of words: what they are called, how they are coded, and what a model reads of them."""

import numpy as np
import pytest

from subfuse.cohort.covariates import WEIGHT, CovariateCoding, level_names

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
    notes = coding.notes(dict(zip("abc", known(["unknown", None, "mutant"]), strict=True)))
    assert len(notes) == 2
    assert "idh: unknown never occurred in training, which had mutant, wildtype" in notes[1]
