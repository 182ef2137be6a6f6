import numpy as np
import pandas as pd
import pytest
from fold_tables import draw, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from subfuse.cohort.drawn_folds import default_stratification, repeated_folds, site_folds, stratified_folds
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError


@settings(deadline=None)
@given(
    events=st.lists(st.sampled_from([True, False, None]), min_size=8, max_size=60),
    folds=st.integers(2, 6),
    validation=st.floats(0.05, 0.5),
    seed=st.integers(0, 9),
)
def test_patients_never_cross_folds_and_each_is_tested_once(events, folds, validation, seed):
    patients = table_of(events)
    drawn = draw(patients, folds, seed=seed, validation=validation)
    everybody = sorted(patients["patient_id"])
    assert sorted(patient for fold in drawn for patient in fold.test) == everybody
    for fold in drawn:
        assert sorted(fold.train + fold.validation + fold.test) == everybody
        assert fold.train
        assert fold.validation
    sizes = [len(fold.test) for fold in drawn]
    assert max(sizes) - min(sizes) <= 1


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=20, max_size=80), st.integers(0, 9))
def test_strata_are_spread_evenly(events, seed):
    patients = table_of(events).set_index("patient_id")
    folds = draw(patients.reset_index(), 4, seed=seed)
    for value in (True, False):
        counts = [int((patients.loc[list(fold.test), "event"] == value).sum()) for fold in folds]
        if sum(counts) >= 4:
            assert max(counts) - min(counts) <= 1


def test_validation_keeps_the_mixture_and_the_share():
    patients = table_of([True] * 30 + [False] * 70).set_index("patient_id")
    for fold in draw(patients.reset_index(), validation=0.2):
        assert len(fold.validation) == 16
        assert int(patients.loc[list(fold.validation), "event"].sum()) in (4, 5, 6)


def test_row_order_does_not_matter_but_the_seed_does():
    patients = table_of([True, False] * 20)
    shuffled = patients.sample(frac=1, random_state=1)
    assert draw(patients) == draw(shuffled)
    assert draw(patients) != draw(patients, seed=1)


def test_combined_columns_with_rare_strata_merged():
    patients = table_of([True, False] * 20, ["G2", "G2", "G4", "G4"] * 9 + ["G3", None, "G1", "G1"])
    folds = draw(patients, stratify=("event", "grade"))
    grades = patients.set_index("patient_id")["grade"]
    assert len(folds) == 5
    assert all(3 <= (grades[list(fold.test)] == "G2").sum() <= 4 for fold in folds)


def test_no_stratification():
    assert len(draw(table_of([None] * 11), 3, stratify=())) == 3


def test_too_few_patients_and_unknown_columns():
    with pytest.raises(DataError, match=r"5 folds need at least 5 patients. Found 4. Use fewer folds"):
        draw(table_of([True] * 4))
    with pytest.raises(DataError, match=r"2 folds need at least 3 patients. Found 2"):
        draw(table_of([True] * 2), 2)
    assert len(draw(table_of([True] * 5))) == 5
    assert len(draw(table_of([True] * 3), 2)) == 2
    with pytest.raises(ConfigurationError, match=r"splits.stratify: age must be a column .* patient_id, event"):
        draw(table_of([True] * 9), stratify=("age",))


# --- whole sites, repeats --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=4, max_size=12),
    folds=st.integers(2, 4),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_sites_are_tested_once_and_never_cross(sizes, folds, seed, data):
    sites = [None if s == 0 else f"h{s}" for s, n in enumerate(sizes) for _ in range(n)]
    patients = table_of(data.draw(st.lists(st.booleans(), min_size=len(sites), max_size=len(sites)))).assign(site=sites)
    site_of = patients.assign(site=patients["site"].fillna("?")).set_index("patient_id")["site"]
    drawn = site_folds(patients, folds=folds, validation=0.2, stratify=["event"], seed=seed)
    assert sorted(p for fold in drawn for p in fold.test) == sorted(patients["patient_id"])
    for fold in drawn:
        assert fold.train
        assert fold.validation
        assert sorted(fold.train + fold.validation + fold.test) == sorted(patients["patient_id"])
        assert not {site_of[p] for p in fold.test} & {site_of[p] for p in fold.train + fold.validation}


def test_sites_are_balanced_in_number_and_mixture():
    random = np.random.default_rng(0)
    sites = np.repeat(np.arange(30), random.integers(2, 20, size=30))
    events = random.random(len(sites)) < random.random(30)[sites]  # sites differ in their share of events
    patients = table_of([bool(event) for event in events]).assign(site=[f"s{s}" for s in sites])
    event_of = patients.set_index("patient_id")["event"]
    for seed in range(5):
        drawn = site_folds(patients, folds=5, validation=0.1, stratify=["event"], seed=seed)
        for fold in drawn:
            assert 0.9 < len(fold.test) * 5 / len(patients) < 1.1
            assert 0.8 < event_of[list(fold.test)].sum() * 5 / events.sum() < 1.2


def test_one_site_per_fold_leaves_one_site_out():
    patients = table_of([True, False] * 7).assign(site=[f"s{i % 3}" for i in range(14)])
    tested = site_folds(patients, folds=3, validation=0.2, stratify=[], seed=0)
    expected = [tuple(group["patient_id"]) for _, group in patients.groupby("site")]
    assert sorted(fold.test for fold in tested) == sorted(expected)
    with pytest.raises(DataError, match=r"4 folds of whole sites need at least 4 sites. Found 3 \(s0, s1, s2\)"):
        site_folds(patients, folds=4, validation=0.2, stratify=[], seed=0)
    with pytest.raises(DataError, match="two patients of other sites"):
        site_folds(patients[[0 in (i, i % 3) for i in range(14)]].assign(site=["a"] * 4 + ["b"]), folds=2,
                   validation=0.2, stratify=[], seed=0)  # fmt: skip


def test_two_patients_of_other_sites_suffice():
    patients = table_of([True] * 4).assign(site=["a", "a", "b", "b"])
    assert {fold.test for fold in site_folds(patients, folds=2, validation=0.5, stratify=[], seed=0)} == {
        ("p000", "p001"),
        ("p002", "p003"),
    }


def test_a_site_of_one_patient_is_tested():
    patients = table_of([True] * 5).assign(site=["a", "b", "b", "c", "c"])
    sizes = [len(fold.test) for fold in site_folds(patients, folds=3, validation=0.5, stratify=[], seed=0)]
    assert sorted(sizes) == [1, 2, 2]


def test_a_site_is_dealt_before_those_of_half_its_size_and_similar_sites_in_any_order():
    sizes = {"large": 21, "a": 10, "b": 9}
    patients = table_of([True] * 40).assign(site=[site for site, n in sizes.items() for _ in range(n)])
    similar = patients[patients["site"] != "large"]
    first = {
        frozenset(similar.set_index("patient_id").loc[list(fold.test), "site"])
        for seed in range(20)
        for fold in site_folds(similar, folds=2, validation=0.2, stratify=[], seed=seed)[:1]
    }
    assert first == {frozenset("a"), frozenset("b")}
    for seed in range(20):
        assert len(site_folds(patients, folds=2, validation=0.2, stratify=[], seed=seed)[0].test) == 21


def test_folds_keep_the_mixture_of_events_else_of_the_first_label_and_of_several_cohorts():
    survival, grade, subtype = (
        TaskSpec(time="time_days", event="event"),
        TaskSpec(column="grade"),
        TaskSpec(column="subtype"),
    )
    one, two = pd.DataFrame({"cohort": ["a", "a"]}), pd.DataFrame({"cohort": ["a", "b", "b"]})
    assert default_stratification({"grade": grade, "survival": survival}, one) == ("event",)
    assert default_stratification({"grade": grade, "subtype": subtype}, one) == ("grade",)
    assert default_stratification({"grade": grade}, two) == ("cohort", "grade")


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 50), repeats=st.integers(1, 4), by=st.sampled_from(["patient", "site"]))
def test_repeats_are_drawn_anew_from_one_seed(seed, repeats, by):
    patients = table_of([True, False, True] * 9).assign(site=[f"s{i % 9}" for i in range(27)])
    options = {"folds": 3, "validation": 0.2, "stratify": ["event"]}
    drawn = repeated_folds(patients, repeats=repeats, seed=seed, by=by, **options)
    once = site_folds if by == "site" else stratified_folds
    assert len(drawn) == repeats
    assert drawn[0] == once(patients, seed=seed, **options)
    assert drawn == repeated_folds(patients, repeats=repeats, seed=seed, by=by, **options)
    if by == "patient":
        assert len(set(drawn)) == repeats
    for folds in drawn:
        assert sorted(p for fold in folds for p in fold.test) == sorted(patients["patient_id"])


# --- given folds -----------------------------------------------------------------------------------------------------


# --- files -----------------------------------------------------------------------------------------------------------
