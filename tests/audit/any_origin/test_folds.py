"""Files of one family have the same folds under the same names."""

from pathlib import Path

import numpy as np
import pandas as pd
from foreign_files import N, change, read

from subfuse.audit.any_origin.folds import with_folds


def test_other_folds_are_a_warning(folder: Path) -> None:
    clinical = pd.read_csv(folder / "clinical.csv")
    change(folder / "clinical.csv", fold=np.arange(N) % 3)

    (finding,) = read(folder, "ours", "clinical").findings
    assert (finding.level, len(clinical)) == ("warning", N)
    assert finding.found.startswith("clinical.csv has other folds than ours.csv: ")


def table(folds: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": list(folds), "fold": list(folds.values())})


def test_the_same_folds_of_other_names_are_renamed_and_missing_ones_filled_in() -> None:
    first, named, without = Path("first.csv"), Path("named.csv"), Path("without.csv")
    tables = {
        first: table({"A": 0, "B": 0, "C": 1, "D": 2}),
        named: table({"D": "z", "C": "y", "A": "x", "B": "x"}),
        without: pd.DataFrame({"patient_id": ["C", "A", "stranger"]}),
    }

    matched, findings = with_folds(tables)

    expected = {"A": 0, "B": 0, "C": 1, "D": 2}
    for path, patients in ((first, "ABCD"), (named, "DCAB"), (without, "CA")):
        found = matched[path].set_index("patient_id")["fold"]
        assert found.to_dict() == {patient: expected[patient] for patient in patients}
        assert "".join(found.index) == patients
    assert [(f.level, f.found) for f in findings] == [
        ("note", "without.csv has no folds: its patients are ranked within those of first.csv")
    ]


def test_names_that_stand_for_two_folds_are_other_folds() -> None:
    first, merged = Path("first.csv"), Path("merged.csv")
    given = table({"A": 5, "B": 5, "C": 5})

    matched, (finding,) = with_folds({first: table({"A": 5, "B": 1, "C": 1}), merged: given})

    assert finding.level == "warning"
    assert finding.found == "merged.csv has other folds than first.csv: 1 of 3 patients are tested in the same"
    assert matched[merged]["fold"].tolist() == given["fold"].tolist()


def test_without_folds_anywhere_nothing_is_made_up() -> None:
    tables = {Path(name): pd.DataFrame({"patient_id": ["A", "B"]}) for name in ("one.csv", "two.csv")}
    assert with_folds(tables) == (tables, [])
