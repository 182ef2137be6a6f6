"""A job's files: which there are, what they were made from, and when they are done again."""

from pathlib import Path

import pandas as pd
import pytest

from subfuse.errors import DataError
from subfuse.run_folder.explanations import explanations_of
from subfuse.run_folder.job import Job, chosen_by, jobs_of, lost_of_jobs


def test_jobs_have_a_folder_each_apart_from_those_of_explanations(tmp_path):
    jobs = [Job("grade", model, fold, repeat) for model in ("snn", "mcat") for fold in (0, 1) for repeat in (0, 1, 2)]
    folders = {job.folder(tmp_path) for job in jobs}
    assert len(folders) == len(jobs)
    assert not any(explanations_of(tmp_path) in folder.parents for folder in folders)


def test_jobs_are_those_of_the_predictions_whatever_they_are_called():
    table = pd.DataFrame({"task": "NA", "model": ["snn", "snn", "cox"], "fold": [0, 0, 1], "repeat": [0, 0, 2]})
    found = jobs_of(table)
    assert [job for job, _ in found] == [Job("NA", "snn", 0), Job("NA", "cox", 1, 2)]
    assert [len(rows) for _, rows in found] == [2, 1]


JOBS = [Job("grade", model, fold, repeat) for model in ("snn", "mcat") for fold in range(3) for repeat in range(3)]
INPUTS = {"patients": "1", "slides": "2"}


def finish(job: Job, out: Path) -> None:
    """Files of a finished job, empty but for the predictions."""
    job.begin(out, INPUTS)
    for name in ("model.json", "model.safetensors", "log.csv"):
        (job.folder(out) / name).touch()
    table = pd.DataFrame({"patient_id": ["A"], "task": job.task, "model": job.model, "fold": job.fold_index})
    job.write_predictions(out, table.assign(repeat=job.repeat), provenance={"seconds": 1})


def test_folds_and_repeats_have_names_and_seeds_of_their_own():
    of_one_model = [job for job in JOBS if job.model == "snn"]
    assert len({job.fold_name for job in of_one_model}) == len({job.seed(3) for job in of_one_model}) == 9
    assert (Job("grade", "snn", 0).fold_name, Job("grade", "snn", 0, 1).fold_name) == ("0", "1.0")
    assert {JOBS[0].seed(3), *(Job("os", model, 0).seed(3) for model in ("snn", "cox"))} == {3}  # of the fold, alike
    assert len({str(job) for job in JOBS}) == len(JOBS)


def test_predictions_come_last_and_a_change_of_them_is_noticed(tmp_path):
    job = JOBS[0]
    finish(job, tmp_path)
    assert job.is_finished(tmp_path)
    assert job.is_trained(tmp_path)
    assert job.provenance(tmp_path)["seconds"] == 1
    assert not job.remove_changed_predictions(tmp_path)
    path = job.folder(tmp_path) / "predictions.csv"
    path.write_text(path.read_text().replace("A", "B"))
    with pytest.raises(DataError, match=r"predictions\.csv"):
        job.predictions(tmp_path)
    assert job.remove_changed_predictions(tmp_path)
    assert job.missing_files(tmp_path) == [path]
    assert job.is_trained(tmp_path)
    assert job.predictions(tmp_path) is None


def test_files_made_from_other_inputs_go_and_those_of_the_same_stay(tmp_path):
    job = JOBS[0]
    assert job.changed_inputs(tmp_path, INPUTS) == ()
    finish(job, tmp_path)
    before = sorted(job.folder(tmp_path).iterdir())
    job.begin(tmp_path, dict(INPUTS))
    assert sorted(job.folder(tmp_path).iterdir()) == before
    for other, named in (({**INPUTS, "slides": "9"}, ("slides",)), ({"patients": "1"}, ("slides",)),
                         ({**INPUTS, "genes": "3"}, ("genes",))):  # fmt: skip
        finish(job, tmp_path)
        assert job.changed_inputs(tmp_path, other) == named
        job.begin(tmp_path, other)
        assert [path.name for path in job.folder(tmp_path).iterdir()] == ["inputs.json"]
        assert job.changed_inputs(tmp_path, other) == ()
        job.begin(tmp_path, INPUTS)
    finish(job, tmp_path)
    (job.folder(tmp_path) / "inputs.json").unlink()
    assert job.changed_inputs(tmp_path, INPUTS) == ("no record of its inputs",)


def test_checkpoints_go_once_they_are_not_needed(tmp_path):
    job = JOBS[0]
    finish(job, tmp_path)
    inner = job.folder(tmp_path) / "search" / "last.ckpt"
    inner.parent.mkdir()
    for path in (inner, job.folder(tmp_path) / "last.ckpt"):
        path.touch()
    job.finish(tmp_path)
    assert not list(tmp_path.rglob("last.ckpt"))
    assert job.is_finished(tmp_path)


def test_a_file_of_a_job_is_lost_where_another_job_has_its_model(tmp_path):
    table = pd.DataFrame({"task": "grade", "model": "snn", "fold": [0, 1], "repeat": 0})
    first, second = (job for job, _ in jobs_of(table))
    assert lost_of_jobs(tmp_path, table) == []  # a run that was copied without its models
    finish(first, tmp_path)
    assert len(lost_of_jobs(tmp_path, table)) == 3
    finish(second, tmp_path)
    assert lost_of_jobs(tmp_path, table) == []
    weights = second.folder(tmp_path) / "model.safetensors"
    weights.unlink()
    assert lost_of_jobs(tmp_path, table) == [weights]


@pytest.mark.parametrize(("differing", "changes"), [
    ("", {}), ("task", {"task": "os"}), ("model", {"model": "cox"}), ("seed", {"details": {"seed": 4}}),
    ("split_sha256", {"details": {"split_sha256": "a"}}),
])  # fmt: skip
def test_a_model_of_another_job_is_noticed(tmp_path, differing, changes):
    job = Job("grade", "snn", 1)
    recorded = {"split_sha256": "b", "seed": job.seed(3)} | changes.get("details", {})
    found = {"task": "grade", "model": "snn"} | changes | {"details": recorded}
    config = {"folds": ["a", "b"], "seed": 3}
    if not differing:
        job.check_model(tmp_path, config, **found)
        return
    with pytest.raises(DataError, match=rf"model of grade · snn · fold 1 is required\..* differs in {differing}: "):
        job.check_model(tmp_path, config, **found)


@pytest.mark.parametrize(("columns", "chosen"), [
    (["epoch", "validation_loss"], "validation_loss"), (["validation_auc", "validation_loss"], "validation_auc"),
    (["validation_loss", "validation_c_index"], "validation_c_index"),
])  # fmt: skip
def test_a_log_says_what_its_model_was_chosen_by(columns, chosen):
    assert chosen_by(pd.DataFrame(columns=columns)) == chosen
