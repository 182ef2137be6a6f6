"""Commands that compute on tables alone load nothing that trains."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from drawn_predictions import cohort, predictions
from fake_run import write_fake_run
from PIL import Image

REFUSES = """
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in HEAVY, f"{name} is imported"

HEAVY = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Refuses())

from subfuse.cli import main

code = main(sys.argv[2:])
assert not HEAVY & set(sys.modules)
sys.exit(code)
"""


def run_without(heavy: str, *command: str | Path) -> str:
    """Output of a command that may import none of the named libraries."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSES, heavy, *map(str, command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def cohort_file(tmp_path) -> Path:
    """Patients with expression, and one image each."""
    names = [f"P{index:02}" for index in range(20)]
    outcomes = pd.DataFrame({"patient_id": names, "time_days": range(100, 120), "event": [True, False] * 10})
    outcomes.to_csv(tmp_path / "patients.csv", index=False)
    genes = pd.DataFrame({gene: range(1, 21) for gene in ("EGFR", "TP53", "CD68", "CD163")}, index=names)
    genes.to_csv(tmp_path / "genes.csv", index_label="patient_id")
    (tmp_path / "slides").mkdir()
    for name in names:
        Image.new("RGB", (64, 64), "pink").save(tmp_path / "slides" / f"{name}.png")
    path = tmp_path / "cohort.yaml"
    path.write_text(
        "name: small\npatients: {table: patients.csv}\nslides: {folder: slides, mpp: 0.5}\n"
        "expression: {table: genes.csv, unit: tpm}\ntasks: {survival: {time: time_days, event: event}}\n"
        "splits: {folds: 2}\n",
        encoding="utf-8",
    )
    return path


def test_a_cohort_is_checked_without_torch(cohort_file):
    assert "expression: 20 patients" in run_without("torch,lightning,timm,lazyslide", "check", cohort_file)


def test_help_loads_no_table():
    assert "COMMAND" in run_without("torch,pandas,numpy,matplotlib", "--help")


def test_a_report_is_written_without_torch(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=20)
    assert "Report:" in run_without("torch,lightning", "report", run)


def test_a_table_of_predictions_is_audited_without_torch(tmp_path):
    predictions(cohort(n=60), model="theirs").to_csv(tmp_path / "theirs.csv", index=False)
    assert "Checked, nothing" in run_without("torch,lightning", "audit", tmp_path / "theirs.csv")
