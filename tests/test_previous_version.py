"""A prepared folder and two runs of the version before modules were grouped into packages: they still load.

`data/previous_version.tar.xz` holds what that version wrote from `source/`: `prepared/`, `survival/` (subspace,
Cox) and `grade/` (logistic); twelve patients, two folds.
"""

import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.errors import DataError
from subfuse.run_folder.job import Job
from subfuse.runs.run import load_run

pytestmark = pytest.mark.walk

ARCHIVE = Path(__file__).parent / "data" / "previous_version.tar.xz"
RUNS = {"survival": ("subspace", "cox"), "grade": ("logistic",)}


def extracted(root: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders after the one command that the loader asks for."""
    root = extracted(tmp_path_factory.mktemp("previous"))
    command = ["prepare", root / "source" / "cohort.yaml", "--out", root / "prepared", "--workers", "1"]
    assert main([str(part) for part in command]) == 0
    return root


def test_a_prepared_folder_without_hashes_says_which_version_wrote_it_and_what_to_do(tmp_path):
    prepared = extracted(tmp_path) / "prepared"
    with pytest.raises(DataError) as refused:
        read_cohort(prepared)
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(f"{prepared / 'provenance.json'}: ")
    assert "an earlier subfuse (0.1.0) prepared" in message
    assert f"subfuse prepare COHORT.yaml --out {prepared}" in message


def test_prepared_again_it_is_the_same_cohort(upgraded):
    cohort = read_cohort(upgraded / "prepared")
    assert [patient.patient_id for patient in cohort] == [f"P{i:02d}" for i in range(12)]
    assert len(cohort.genes) == 12
    assert cohort.covariates == ("age",)
    assert (cohort.encoder, cohort.patch_dim) == ("small", 8)


@pytest.mark.parametrize("name", RUNS)
def test_stored_models_repeat_their_stored_predictions(name, upgraded):
    run = load_run(upgraded / name)
    assert set(run.predictions["model"]) == set(RUNS[name])
    compared = 0
    for job in run.jobs():
        stored = job_rows(run.predictions, job)
        stored = stored[stored["split"] == "test"].set_index("patient_id")
        again = job_rows(run.predict(run.cohort(), model=job.model, task=job.task), job).set_index("patient_id")
        assert set(again.index) == set(stored.index)
        columns = [c for c in stored.dropna(axis=1, how="all") if c.startswith(("risk", "p_", "contribution_"))]
        assert columns
        np.testing.assert_allclose(again.loc[stored.index, columns], stored[columns], atol=1e-5)
        compared += 1
    assert compared == 2 * len(RUNS[name])


def job_rows(table: pd.DataFrame, job: Job) -> pd.DataFrame:
    return table[(table["model"] == job.model) & (table["task"] == job.task) & (table["fold"] == job.fold_index)]


@pytest.mark.parametrize("name", RUNS)
def test_runs_are_reported_audited_and_predicted_with(name, upgraded, tmp_path, capsys):
    run, cohort, predicted = str(upgraded / name), str(upgraded / "prepared"), tmp_path / "predictions.csv"
    assert main(["report", run]) == 0
    assert (upgraded / name / "report.html").exists()
    assert main(["audit", run]) == 0
    model = RUNS[name][0]
    assert main(["predict", run, "--cohort", cohort, "--model", model, "--out", str(predicted)]) == 0
    assert set(pd.read_csv(predicted)["model"]) == {model}
    assert "Traceback" not in capsys.readouterr().err
