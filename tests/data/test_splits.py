import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subfuse.data.splits import Fold, given_folds, read_folds, stratified_folds, unlisted_patients, write_folds
from subfuse.errors import ConfigurationError, DataError


def table_of(events: list, grades: list | None = None) -> pd.DataFrame:
    patients = [f"p{i:03d}" for i in range(len(events))]
    return pd.DataFrame({"patient_id": patients, "event": pd.array(events, dtype="boolean"), "grade": grades})


def draw(patients: pd.DataFrame, folds: int = 5, stratify=("event",), seed: int = 0, validation: float = 0.15):
    return stratified_folds(patients, folds=folds, validation=validation, stratify=list(stratify), seed=seed)


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
    assert all(3 <= (grades[list(fold.test)] == "G2").sum() <= 4 for fold in folds)


def test_no_stratification():
    assert len(draw(table_of([None] * 11), 3, stratify=())) == 3


def test_too_few_patients_and_unknown_columns():
    with pytest.raises(DataError, match=r"5 folds need at least 5 patients. Found 4"):
        draw(table_of([True] * 4))
    with pytest.raises(ConfigurationError, match=r"splits.stratify: age must be a column .* patient_id, event"):
        draw(table_of([True] * 9), stratify=("age",))


def test_a_fold_refuses_shared_and_repeated_patients():
    with pytest.raises(DataError, match=r"validation and test patients must differ. Found in both: b"):
        Fold(("a",), ("b",), ("b", "c"))
    with pytest.raises(DataError, match="listed once"):
        Fold(("a", "a"), ("b",), ("c",))


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
    return given_folds(
        folder, patients["patient_id"].tolist(), validation=0.3, seed=0, patients=patients, stratify=["event"]
    )


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
        ("train,val\np1,gone\np2,\n", r"splits_1.csv: at least two train and one val .* Found 2 and 0 among 6"),
        ("train,test\np1,p2\n", r"splits_1.csv: a column `val` \(test patients\) is required"),
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
    write_folds(tmp_path, folds)
    assert read_folds(tmp_path) == folds
    write_folds(tmp_path, folds[:3])
    assert read_folds(tmp_path) == folds[:3]


def test_changed_fold_files_are_noticed(tmp_path):
    write_folds(tmp_path, draw(table_of([True, False] * 5), folds=2))
    path = tmp_path / "fold_1.json"
    content = json.loads(path.read_text())
    content["train"], content["test"] = content["test"], content["train"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"fold_1.json: the patients do not match the recorded hash"):
        read_folds(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", '{"sha256": "x", "train": 3, "validation": [], "test": []}'])
def test_broken_fold_files(tmp_path, content):
    write_folds(tmp_path, draw(table_of([True, False] * 5), folds=2))
    (tmp_path / "fold_0.json").write_text(content)
    with pytest.raises(DataError, match=r"fold_0\.json"):
        read_folds(tmp_path)


def test_gap_in_fold_files(tmp_path):
    write_folds(tmp_path, draw(table_of([True, False] * 5), folds=3))
    (tmp_path / "fold_1.json").unlink()
    with pytest.raises(DataError, match=r"Found fold_0\.json, fold_2\.json"):
        read_folds(tmp_path)


@pytest.mark.real_data
def test_published_folds(real_data):
    labels = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv")
    patients = pd.DataFrame({"patient_id": labels["case_id"], "event": labels["os_event"] == 1})
    folder = real_data / "tcga_gbmlgg" / "splits"
    folds = given_folds(
        folder, patients["patient_id"].tolist(), validation=0.15, seed=0, patients=patients, stratify=["event"]
    )
    assert [len(fold.test) for fold in folds] == [114, 114, 114, 114, 113]
    assert set(np.concatenate([fold.test for fold in folds])) == set(labels["case_id"])
    assert unlisted_patients(folder, patients["patient_id"]) == ()
