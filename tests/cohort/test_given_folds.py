"""Folds that others drew, from their tables."""

import numpy as np
import pandas as pd
import pytest

from subfuse.cohort.fold import Fold
from subfuse.cohort.given_folds import given_folds, unlisted_patients, write_given_folds
from subfuse.errors import DataError


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


def test_validation_patients_are_drawn_from_strata_of_two_and_rarer_ones_are_put_together(tmp_path):
    """Half of them, one of each: of the two who are alone in their site, too."""
    site = {"p0": "A", "p1": "a", "p2": "a", "p3": "b", "p4": "b", "p5": "z"}
    for k in range(2):
        (tmp_path / f"splits_{k}.csv").write_text(f"train,val\np0,t{k}\np1,\np2,\np3,\np4,\np5,\n")
    patients = pd.DataFrame({"patient_id": [*site, "t0", "t1"], "site": [*site.values(), "b", "b"]})
    for seed in range(12):
        for fold in given_folds(tmp_path, patients, validation=0.5, stratify=["site"], seed=seed):
            assert sorted(site[name].replace("z", "A") for name in fold.validation) == ["A", "a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train,val\np1,p1\np2,p9\n", r"splits_1.csv: train and val patients must differ. Found in both: p1"),
        ("train,val\np1,p4\np2,\n", r"splits_1.csv: .* p4: also in splits_0.csv\. .* leave out splits.folder"),
        ("train,val\np1,gone\np2,\n", r"splits_1.csv: at least two train .* Found 2, 0 and 0 among 6"),
        ("train,other\np1,p2\n", r"splits_1.csv: a column `val` \(test patients\) is required"),
    ],
)
def test_bad_given_folds(folder, content, message):
    (folder / "splits_1.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_given(folder, patients_of("p1", "p2", "p3", "p4", "p5", "p6"))


def test_written_folds_read_back_and_replace_those_of_an_earlier_larger_number(tmp_path):
    names = [f"p{i}" for i in range(6)]
    folds = [Fold(tuple(sorted(set(names) - {a, b})), (a,), (b,)) for a, b in zip(names[3:], names[:3], strict=True)]
    write_given_folds(tmp_path, folds)
    assert read_given(tmp_path, patients_of(*names)) == tuple(folds)
    write_given_folds(tmp_path, folds[:2])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold_0.csv", "fold_1.csv"]
    assert read_given(tmp_path, patients_of(*names)) == tuple(folds[:2])


def test_a_patient_of_the_folds_that_is_spelt_otherwise_is_said_to_be_like_that_of_the_cohort(folder):
    (folder / "splits_1.csv").write_text("train,val\np4,P1\nTCGA-02-0047,p2\n")
    (warning, _) = unlisted_patients(folder, ["p1", "p2", "p3", "p4", "p5", "TCGA-02-0047"])
    assert "1 patients of the folds are not in the cohort (P1" in warning
    assert "p1" in warning


def test_folder_without_folds(tmp_path):
    with pytest.raises(DataError, match=r"at least two, is required. Found 0"):
        unlisted_patients(tmp_path, ["a"])


@pytest.mark.real_data
def test_published_folds(real_data):
    labels = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv")
    patients = pd.DataFrame({"patient_id": labels["case_id"], "event": labels["os_event"] == 1})
    folder = real_data / "tcga_gbmlgg" / "splits"
    folds = given_folds(folder, patients, validation=0.15, stratify=["event"], seed=0)
    assert [len(fold.test) for fold in folds] == [114, 114, 114, 114, 113]
    assert set(np.concatenate([fold.test for fold in folds])) == set(labels["case_id"])
    assert unlisted_patients(folder, patients["patient_id"]) == ()


def test_folds_of_slides_are_folds_of_their_patients(folder):
    (folder / "splits_0.csv").write_text(",train,val,test\n0,s1a,s3,s4\n1,s1b,,\n2,s2,,\n")
    (folder / "splits_1.csv").write_text(",train,val,test\n0,s3,s4,s1a\n1,s2,,s1b\n")
    patients = patients_of("p1", "p2", "p3", "p4", "p5", "p6")
    owners = {"s1a": "p1", "s1b": "p1", "s2": "p2", "s3": "p3", "s4": "p4"}
    folds = given_folds(folder, patients, validation=0.3, stratify=["event"], seed=0, owners=owners)
    assert folds == (Fold(("p1", "p2"), ("p3",), ("p4",)), Fold(("p2", "p3"), ("p4",), ("p1",)))
    (warning,) = unlisted_patients(folder, patients["patient_id"], owners)
    assert "4 patients of the cohort are never tested (p2, p3, p5, p6)" in warning
    (folder / "splits_1.csv").write_text(",train,val,test\n0,s3,s4,s1a\n1,s2,s1b,\n")
    with pytest.raises(DataError, match=r"splits_1\.csv: val and test patients must differ\. Found in both: p1"):
        given_folds(folder, patients, validation=0.3, stratify=["event"], seed=0, owners=owners)
