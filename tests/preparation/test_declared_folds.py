"""Folds that a cohort file declares: drawn ones are reproducible, given ones may name slides."""

from pathlib import Path

import pandas as pd

from subfuse.cohort.cohort_file import DrawnSplits, GivenSplits
from subfuse.preparation.declared_folds import declared_folds
from subfuse.slides.source import SlideSource

NAMES = [f"P{i}" for i in range(8)]
PATIENTS = pd.DataFrame({"patient_id": NAMES, "grade": ["G2", "G3"] * 4})
SLIDES = [SlideSource(f"slide-{i}-{k}", name, Path("x.svs"), None) for i, name in enumerate(NAMES) for k in range(2)]


def test_folds_that_name_slides_as_clam_does_are_those_of_their_patients(tmp_path: Path) -> None:
    names = [source.slide_id for source in SLIDES]
    for k, tested in enumerate((names[:8], names[8:])):
        train = [name for name in names if name not in tested]
        table = pd.DataFrame({"train": pd.Series(train[2:]), "val": pd.Series(train[:2]), "test": pd.Series(tested)})
        table.to_csv(tmp_path / f"splits_{k}.csv")
    splits = GivenSplits(folder=tmp_path, validation=0.2, seed=0)
    ((first, second),), unlisted = declared_folds(splits, PATIENTS, (), SLIDES)
    assert (first.test, second.test) == (tuple(NAMES[:4]), tuple(NAMES[4:]))
    assert (first.validation, second.validation) == (("P4",), ("P0",))
    assert unlisted == ()


def test_drawn_folds_are_those_of_their_seed_and_keep_the_mixture() -> None:
    (folds,), unlisted = declared_folds(DrawnSplits(folds=4, validation=0.3, seed=1), PATIENTS, ["grade"], SLIDES)
    grade = PATIENTS.set_index("patient_id")["grade"]
    assert all(sorted(grade[list(fold.test)]) == ["G2", "G3"] for fold in folds)
    assert declared_folds(DrawnSplits(folds=4, validation=0.3, seed=1), PATIENTS, ["grade"], [])[0] == (folds,)
    assert unlisted == ()
