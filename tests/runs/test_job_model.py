"""The model of a job is the one that was trained for it, wherever its folder was copied to."""

import shutil

import numpy as np
import pytest
from brief_run import run

from subfuse.errors import DataError
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import read_config
from subfuse.runs.job_model import load_job

pytestmark = pytest.mark.walk


@pytest.fixture
def cohort(make_cohort):
    return make_cohort(30)


def test_a_loaded_model_predicts_what_its_job_predicted_and_no_other_takes_its_place(cohort, tmp_path):
    out = tmp_path / "run"
    predictions = run(cohort, out, models=["cox", "cox-slides"], task="survival").predictions
    config, job = read_config(out), Job("survival", "cox", 0)

    fitted = load_job(job, out, config)
    rows = predictions.query("model == 'cox' and fold == 0 and split == 'test'").set_index("patient_id")
    tested = [patient for patient in cohort if patient.patient_id in rows.index]
    found = fitted.predict(tested).set_index("patient_id").loc[rows.index]
    np.testing.assert_allclose(found["risk"], rows["risk"], rtol=1e-5)

    kept = tmp_path / "kept"
    shutil.copytree(job.folder(out), kept)
    for other, differing in (
        (Job("survival", "cox-slides", 0), "model"),
        (Job("survival", "cox", 1), "split_sha256"),
    ):
        shutil.rmtree(job.folder(out))
        shutil.copytree(other.folder(out), job.folder(out))
        with pytest.raises(DataError, match=rf"of {job} is required\. Found another one, which differs in {differing}"):
            load_job(job, out, config)
    shutil.rmtree(job.folder(out))
    with pytest.raises(DataError, match=r"model\.json"):
        load_job(job, out, config)
    shutil.copytree(kept, job.folder(out))
    assert load_job(job, out, config).details == fitted.details
