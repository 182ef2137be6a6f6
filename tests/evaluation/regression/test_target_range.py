import numpy as np
import pandas as pd
import pytest
from drawn_numbers import predicted

from subfuse.evaluation.regression.target_range import notes_of_range, other_range

SHARES = np.random.default_rng(0).beta(2, 2, 60)


@pytest.mark.parametrize("factor", [100.0, 0.01, 30.4, 1000.0])
def test_another_unit_is_seen_in_either_direction(factor):
    assert "Another unit?" in other_range(SHARES, SHARES[:20] * factor)
    assert "Another unit?" in other_range(np.r_[0.0, SHARES], SHARES[:20] * factor)  # whose range begins at 0


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [6, 12, 40])
def test_other_patients_of_the_same_kind_raise_no_alarm(seed, n):
    random = np.random.default_rng(seed)
    for draw in (lambda n: random.beta(2, 2, n), lambda n: random.lognormal(0, 1, n), lambda n: random.normal(0, 1, n)):
        assert other_range(draw(60), draw(n)) == ""
    shifted = random.normal(0.3, 1, n)  # a little older patients
    assert other_range(random.normal(0, 1, 60), shifted) == ""


def test_a_value_that_all_share_is_no_unit():
    assert other_range(np.arange(20.0), np.full(6, 0.0)) == ""


def test_few_patients_tell_nothing():
    assert other_range(SHARES, SHARES[:4] * 100) == other_range(SHARES[:4], SHARES * 100) == ""


def test_the_note_names_task_and_both_ranges_of_new_patients_alone():
    known = predicted(noise=0.1, model="linear")
    new = known.assign(split="new", value=known["value"] * 100)
    (note,) = notes_of_range(pd.concat([new, new.assign(model="other")]), known)
    low, high = known["value"].min(), known["value"].max()
    assert note.startswith("purity: ")
    assert f"those of training ({low:g} to {high:g}): they go from {low * 100:g} to {high * 100:g}. Another" in note
    assert notes_of_range(new.assign(split="test"), known) == []
    assert notes_of_range(new.assign(value=np.nan), known) == []
    assert notes_of_range(new, pd.DataFrame()) == []
