import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subfuse.cohort.drawn_folds import default_stratification, repeated_folds, site_folds, stratified_folds
from subfuse.cohort.fold import Fold
from subfuse.cohort.fold_files import read_repeats, write_repeats
from subfuse.cohort.given_folds import given_folds, unlisted_patients
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError, DataError


def table_of(events: list, grades: list | None = None) -> pd.DataFrame:
    patients = [f"p{i:03d}" for i in range(len(events))]
    return pd.DataFrame({"patient_id": patients, "event": pd.array(events, dtype="boolean"), "grade": grades})


def draw(patients: pd.DataFrame, folds: int = 5, stratify=("event",), seed: int = 0, validation: float = 0.15):
    return stratified_folds(patients, folds=folds, validation=validation, stratify=list(stratify), seed=seed)


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


def test_a_fold_refuses_shared_and_repeated_patients():
    with pytest.raises(DataError, match=r"validation and test patients must differ. Found in both: b"):
        Fold(("a",), ("b",), ("b", "c"))
    with pytest.raises(DataError, match="listed once"):
        Fold(("a", "a"), ("b",), ("c",))


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


@pytest.fixture
def folder(tmp_path):
    """Two folds of six patients; TCGA patients by slide barcode, lists of unequal length."""
    (tmp_path / "splits_0.csv").write_text(",train,val\n0,p1,p4\n1,p2,TCGA-02-0047-01Z-00\n2,p3,\n3,p5,\n")
    (tmp_path / "splits_1.csv").write_text(",train,val\n0,p4,p1\n1,TCGA-02-0047,p2\n2,gone,\n")
    return tmp_path


def patients_of(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": names, "event": [True, False] * 3})


def read_given(folder, patients: pd.DataFrame):
    return given_folds(folder, patients, validation=0.3, stratify=["event"], seed=0)


def test_a_test_column_is_the_test_fold_and_val_validates(folder):
    (folder / "splits_0.csv").write_text(",train,val,test\n0,p1,p3,p4\n1,p2,,\n")
    (folder / "splits_1.csv").write_text("train,test\np1,p2\np3,\np4,\n")
    (folder / "splits_1_bool.csv").write_text(",train,val,test\np1,True,False,False\n")
    first, second = read_given(folder, patients_of("p1", "p2", "p3", "p4", "p5", "p6"))
    assert (first.train, first.validation, first.test) == (("p1", "p2"), ("p3",), ("p4",))
    assert second.test == ("p2",)
    assert sorted(second.train + second.validation) == ["p1", "p3", "p4"]
    (folder / "splits_1.csv").write_text("train,val,test\np1,p2,p2\np3,,\n")
    with pytest.raises(DataError, match=r"splits_1\.csv: val and test patients must differ\. Found in both: p2"):
        read_given(folder, patients_of("p1", "p2", "p3", "p4", "p5", "p6"))


def test_val_column_is_the_test_fold(folder):
    patients = patients_of("p1", "p2", "p3", "p4", "p5", "TCGA-02-0047")
    first, second = read_given(folder, patients)
    assert first.test == ("TCGA-02-0047", "p4")
    assert sorted(first.train + first.validation) == ["p1", "p2", "p3", "p5"]
    assert len(first.validation) == 1
    assert sorted(second.train + second.validation) == ["TCGA-02-0047", "p4"]
    warnings = unlisted_patients(folder, patients["patient_id"])
    assert "1 patients of the folds are not in the cohort (gone)" in warnings[0]
    assert "2 patients of the cohort are never tested (p3, p5)" in warnings[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train,val\np1,p1\np2,p9\n", r"splits_1.csv: train and val patients must differ. Found in both: p1"),
        ("train,val\np1,p4\np2,\n", r"splits_1.csv: a patient is tested in one fold only. p4: also in splits_0.csv"),
        ("train,val\np1,gone\np2,\n", r"splits_1.csv: at least two train .* Found 2, 0 and 0 among 6"),
        ("train,other\np1,p2\n", r"splits_1.csv: a column `val` \(test patients\) is required"),
    ],
)
def test_bad_given_folds(folder, content, message):
    (folder / "splits_1.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_given(folder, patients_of("p1", "p2", "p3", "p4", "p5", "p6"))


def test_folder_without_folds(tmp_path):
    with pytest.raises(DataError, match=r"at least two, is required. Found 0"):
        unlisted_patients(tmp_path, ["a"])


# --- files -----------------------------------------------------------------------------------------------------------


def test_written_folds_read_back_in_order(tmp_path):
    folds = draw(table_of([True, False] * 15), folds=12)
    write_repeats(tmp_path, [folds])
    assert read_repeats(tmp_path)[0] == folds
    write_repeats(tmp_path, [folds[:3]])
    assert read_repeats(tmp_path)[0] == folds[:3]
    assert read_repeats(tmp_path) == (folds[:3],)


def test_repeats_read_back_and_leave_nothing_behind(tmp_path):
    patients = table_of([True, False] * 8)
    repeats = repeated_folds(patients, folds=3, repeats=3, validation=0.2, stratify=(), seed=0)
    write_repeats(tmp_path, repeats)
    assert read_repeats(tmp_path) == repeats
    assert read_repeats(tmp_path)[0] == repeats[0]
    assert (tmp_path / "repeat_2" / "fold_1.json").exists()
    write_repeats(tmp_path, repeats[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold_0.json", "fold_1.json", "fold_2.json", "repeat_1"]
    assert read_repeats(tmp_path) == repeats[:2]


def test_exchanged_and_missing_fold_files_are_noticed(tmp_path):
    repeats = repeated_folds(table_of([True, False] * 8), folds=3, repeats=2, validation=0.2, stratify=(), seed=0)
    write_repeats(tmp_path, repeats)
    first, second = tmp_path / "fold_1.json", tmp_path / "repeat_1" / "fold_1.json"
    content = first.read_text()
    first.write_text(second.read_text())
    with pytest.raises(DataError, match=r"fold_1.json: fold 1 of repeat 0 is required. Found another fold's"):
        read_repeats(tmp_path)
    first.write_text(content)
    second.unlink()
    with pytest.raises(DataError, match=r"repeat_1/fold_1.json: a complete fold file is required"):
        read_repeats(tmp_path)


def test_changed_fold_files_are_noticed(tmp_path):
    write_repeats(tmp_path, [draw(table_of([True, False] * 5), folds=2)])
    path = tmp_path / "fold_1.json"
    content = json.loads(path.read_text())
    content["train"], content["test"] = content["test"], content["train"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"fold_1.json: the patients do not match the recorded hash"):
        read_repeats(tmp_path)[0]


@pytest.mark.parametrize("content", ["", "{}", '{"sha256": "x", "train": 3, "validation": [], "test": []}'])
def test_broken_fold_files(tmp_path, content):
    write_repeats(tmp_path, [draw(table_of([True, False] * 5), folds=2)])
    (tmp_path / "fold_0.json").write_text(content)
    with pytest.raises(DataError, match=r"fold_0\.json"):
        read_repeats(tmp_path)[0]


def test_folder_without_fold_files(tmp_path):
    with pytest.raises(DataError, match=r"fold_0.json, fold_1.json, ... are required. Found none"):
        read_repeats(tmp_path)[0]


def test_gap_in_fold_files(tmp_path):
    write_repeats(tmp_path, [draw(table_of([True, False] * 5), folds=3)])
    (tmp_path / "fold_1.json").unlink()
    with pytest.raises(DataError, match=r"fold_1\.json: a complete fold file is required"):
        read_repeats(tmp_path)[0]


@pytest.mark.real_data
def test_published_folds(real_data):
    labels = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv")
    patients = pd.DataFrame({"patient_id": labels["case_id"], "event": labels["os_event"] == 1})
    folder = real_data / "tcga_gbmlgg" / "splits"
    folds = given_folds(folder, patients, validation=0.15, stratify=["event"], seed=0)
    assert [len(fold.test) for fold in folds] == [114, 114, 114, 114, 113]
    assert set(np.concatenate([fold.test for fold in folds])) == set(labels["case_id"])
    assert unlisted_patients(folder, patients["patient_id"]) == ()
