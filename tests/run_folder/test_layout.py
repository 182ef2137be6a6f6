from pathlib import Path

import pandas as pd
import pytest
from three_patients import PATIENTS

from subfuse.errors import ConfigurationError
from subfuse.run_folder.layout import claim_folder


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
