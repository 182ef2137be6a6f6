"""A fold: nobody on two sides, strata, and how validation patients are drawn."""

import pickle

import numpy as np
import pytest
from fold_tables import table_of
from hypothesis import given
from hypothesis import strategies as st

from subfuse.cohort.fold import Fold, strata_of, with_validation
from subfuse.errors import ConfigurationError, DataError


def test_a_fold_refuses_shared_and_repeated_patients():
    with pytest.raises(DataError, match=r"validation and test patients must differ. Found in both: b"):
        Fold(("a",), ("b",), ("b", "c"))
    with pytest.raises(DataError, match="listed once"):
        Fold(("a", "a"), ("b",), ("c",))


def test_a_fold_is_named_by_its_patients_and_their_sides():
    fold = Fold(("a", "c"), ("b",), ("d",))
    assert fold.development == ("a", "b", "c")
    assert fold.sha256 == Fold(("a", "c"), ("b",), ("d",)).sha256
    others = [Fold(("a",), ("b", "c"), ("d",)), Fold(("a", "c"), ("d",), ("b",)), Fold(("a", "c"), ("b",), ("e",))]
    assert len({fold.sha256, *(other.sha256 for other in others)}) == 4


def test_a_fold_of_ten_thousand_patients_is_sent_in_less_than_a_hundred_kilobytes():
    names = [f"TCGA-{i % 97:02d}-{i * 7919 % 10_000:04d}" for i in range(10_000)]
    fold = Fold(tuple(sorted(names[:7000])), tuple(sorted(names[7000:8000])), ('Ü, "x"', *sorted(names[8000:])))
    sent = pickle.dumps(fold)
    assert len(sent) < 100_000
    assert pickle.loads(sent) == fold


def test_patients_alike_in_all_columns_share_a_stratum_and_rare_ones_are_put_together():
    event = [True, True, False, False, None, True]
    table = table_of(event, ["G2", "G2", "G2", "G2", "G2", "G4"])

    every, frequent = strata_of(table, ["event", "grade"], 1), strata_of(table, ["event", "grade"], 2)

    assert every[0] == every[1] != every[2] == every[3]
    assert len(set(every.tolist())) == 4  # unknown is a stratum of its own
    assert frequent[4] == frequent[5] == 0
    assert frequent[0] == frequent[1] != frequent[2] == frequent[3]
    assert set(frequent[:4].tolist()) == {1, 2}
    assert set(strata_of(table, [], 2).tolist()) == {0}
    with pytest.raises(ConfigurationError, match=r"splits\.stratify: age must be a column of the patients\."):
        strata_of(table, ["event", "age"], 1)


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4), share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_validation_patients_are_spread_over_the_strata_in_proportion(sizes, share, seed):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    others = np.array([f"p{i:02d}" for i in np.random.default_rng(seed).permutation(len(strata))], dtype=object)
    fold = with_validation(others, strata, share, np.random.default_rng(seed), np.array(["t"], dtype=object))

    n_chosen = len(fold.validation)
    assert n_chosen == min(max(1, round(share * len(others))), len(others) - 1)
    assert fold.development == tuple(sorted(others))
    assert fold.test == ("t",)
    chosen = np.isin(others, fold.validation)
    for stratum, size in enumerate(sizes):
        assert abs(chosen[strata == stratum].sum() - size * n_chosen / len(others)) <= 1 + 1e-9
