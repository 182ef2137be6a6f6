"""Patients and files of several projects about them; subfuse is imported late, once its shapes are checked."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    from drawn_predictions import cohort
    from foreign_files import N

    patients = cohort(n=N).assign(idh=np.resize(["wildtype", "mutant"], N))
    return patients.assign(patient_id=[f"TCGA-{i % 3:02d}-{i:04d}" for i in range(N)])


@pytest.fixture
def folder(tmp_path: Path, people: pd.DataFrame) -> Path:
    """Our predictions, a clinical model's, those of a project like MCAT, and the patients."""
    from drawn_predictions import predictions
    from foreign_files import N

    ours = predictions(people, noise=0.5)
    ours.drop(columns="label").to_csv(tmp_path / "ours.csv", index=False)
    tested = ours[ours["split"] == "test"]
    clinical = predictions(people, noise=3.0, seed=2)
    clinical = clinical[clinical["split"] == "test"][["patient_id", "risk", "fold"]]
    clinical.assign(fold="f" + clinical["fold"].astype(str)).to_csv(tmp_path / "clinical.csv", index=False)
    dumped = pd.DataFrame(
        {
            "slide_id": [f"{p.lower()}-01z-00-dx1.0f3a" for p in tested["patient_id"]],
            "risk": -np.log(tested["time_days"]) + np.sin(np.arange(N)),
            "disc_label": 0,
            "survival": (tested["time_days"] / 30.4375).round(2),
            "censorship": 1 - tested["event"].astype(int),
        }
    )
    dumped.to_csv(tmp_path / "mcat.csv", index=False)
    people[["patient_id", "time_days", "event", "idh"]].to_csv(tmp_path / "patients.csv", index=False)
    return tmp_path
