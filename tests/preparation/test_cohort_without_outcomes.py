"""Cohorts that are only to be predicted: no tasks, no outcome columns, outcomes of some patients."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from subfuse.cohort.cohort import read_cohort
from subfuse.errors import ConfigurationError
from subfuse.preparation.prepare import prepare

IDS = [f"P{i}" for i in range(6)]
SURVIVAL = {"survival": {"time": "time_days", "event": "event"}}


def write(folder: Path, patients: dict[str, list], **content: object) -> Path:
    genes = ("EGFR", "CD44", "GFAP", "CD3D", "CD163", "VWF")
    values = np.random.default_rng(0).uniform(1, 9, (len(IDS), len(genes)))
    pd.DataFrame(values, columns=list(genes), index=IDS).to_csv(folder / "expression.csv", index_label="patient_id")
    pd.DataFrame({"patient_id": IDS, **patients}).to_csv(folder / "patients.csv", index=False)
    content = {
        "name": "clinic",
        "role": "external",
        "patients": {"table": "patients.csv"},
        "expression": {"table": "expression.csv", "unit": "tpm"},
        **content,
    }
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("patients", "tasks"),
    [
        ({}, {}),
        ({"age": [60] * 6}, {}),
        ({"age": [60] * 6}, {"tasks": SURVIVAL | {"grade": {"column": "grade"}}}),
        ({"grade": ["G2", "", "", "", "", ""]}, {"tasks": {"grade": {"column": "grade"}}}),
        ({"grade": [""] * 6}, {"tasks": {"grade": {"column": "grade"}}}),
        ({"time_days": [9, "", "", "", "", ""], "event": [1, "", "", "", "", ""]}, {"tasks": SURVIVAL}),
    ],
)
def test_an_external_cohort_needs_no_outcome(tmp_path, patients, tasks):
    done = prepare(write(tmp_path, patients, **tasks), tmp_path / "prepared")
    cohort = read_cohort(tmp_path / "prepared")
    assert [patient.patient_id for patient in cohort] == IDS
    assert not len(done.exclusions[done.exclusions["level"] == "patient"])
    absent = "tasks" in tasks and "grade" not in patients and "event" not in patients
    assert any("no patient has an outcome of grade, survival" in text for text in done.warnings) == absent


def test_a_cohort_to_develop_on_needs_one(tmp_path):
    with pytest.raises(ConfigurationError, match=r"at least one is required to develop models.* `role: external`"):
        prepare(write(tmp_path, {"age": [60] * 6}, role="develop"), tmp_path / "prepared")
