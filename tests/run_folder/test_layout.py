import json
from pathlib import Path

import pandas as pd
import pytest

from subfuse.errors import ConfigurationError
from subfuse.run_folder.layout import changed_since, claim_folder

PATIENTS = pd.DataFrame(
    {
        "patient_id": ["P1", "P2", "P3"],
        "cohort": "a",
        "site": "x",
        "time_days": [10.0, 20.0, 30.0],
        "event": [True, False, True],
        "grade": ["G2", "G3", "G4"],
        "n_slides": 1,
        "has_expression": True,
    }
)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        pytest.param(
            PATIENTS.replace({"grade": {"G3": "G4"}}).replace({"patient_id": {"P3": "P4"}}),
            "patients have changed (new: P4; gone: P3; other grade: P2)",
            id="patients and an outcome",
        ),
        pytest.param(
            PATIENTS,
            "the same patients are divided by other rules (`splits` of the cohort file, --folds or --seed)",
            id="rules",
        ),
    ],
)
def test_other_folds_are_explained_by_what_has_changed(tmp_path: Path, now: pd.DataFrame, told: str) -> None:
    for folder, table in (("run/cohort", PATIENTS), ("prepared", now)):
        (tmp_path / folder).mkdir(parents=True)
        table.to_csv(tmp_path / folder / "patients.csv", index=False)
    description = {"prepared": str(tmp_path / "prepared"), "seed": 0}
    (tmp_path / "run" / "config.yaml").write_text("prepared: ../prepared\nseed: 0\nfolds: [b]\n")

    with pytest.raises(ConfigurationError) as error:
        claim_folder(tmp_path / "run", description | {"folds": ["a"]})

    assert f"(differs in: folds): {told}. Choose another --out" in str(error.value)


@pytest.mark.parametrize(
    ("now", "files", "told"),
    [
        (PATIENTS, {"patients.csv": "1", "expression.h5ad": "2"}, ""),
        (PATIENTS.replace({"grade": {"G3": "G4"}}), {"patients.csv": "9", "expression.h5ad": "2"}, "other grade: P2"),
        (PATIENTS, {"patients.csv": "1", "expression.h5ad": "9"}, "other expression.h5ad"),
        (PATIENTS, {"patients.csv": "1", "splits/default/fold_0.json": "9"}, "other expression.h5ad, folds"),
        (PATIENTS, None, ""),  # prepared by a version that recorded nothing
    ],
)
def test_a_cohort_that_was_prepared_again_is_told_from_that_of_the_run(tmp_path, now, files, told):
    before = {"patients.csv": "1", "expression.h5ad": "2"}
    for folder, table, known in (("run/cohort", PATIENTS, before), ("prepared", now, files)):
        (tmp_path / folder).mkdir(parents=True)
        table.to_csv(tmp_path / folder / "patients.csv", index=False)
        (tmp_path / folder / "provenance.json").write_text(json.dumps({} if known is None else {"files": known}))
    assert changed_since(tmp_path / "run", tmp_path / "prepared") == told
