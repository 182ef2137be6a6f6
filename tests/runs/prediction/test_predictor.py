"""What predictors have in common, on one of invented jobs."""

from dataclasses import replace
from pathlib import Path

import pytest
from brief_training import BRIEF, train

from subfuse.cohort.bags import BagReader
from subfuse.errors import ConfigurationError
from subfuse.run_folder.job import Job
from subfuse.runs.prediction.predictor import Predictor
from subfuse.runs.prediction.reference import Reference


class Invented(Predictor):
    folder, device, prepared = Path("models"), "cpu", {}

    def expression_inputs(self):
        return None

    def fitted(self, job):
        raise AssertionError

    def reference(self, job, fitted):
        raise AssertionError

    def _finished(self):
        return [Job("grade", "logistic", 0), Job("survival", "cox", 0), Job("survival", "subspace", 0)]


def test_jobs_are_chosen_by_task_and_model():
    models = Invented()
    assert len(list(models.jobs())) == 3
    assert [job.task for job in models.jobs(model="cox")] == ["survival"]
    assert models.default_model == "subspace"


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"model": "snn"}, "models has no model snn. Name one that it has with --model .*: cox, logistic, subspace"),
        ({"model": "cox", "task": "grade"}, "models has no model cox for task grade. Name one .*: logistic"),
        ({"task": "age"}, "models has no model at all for task age. Its tasks: grade, survival"),
    ],
)
def test_what_there_is_not_is_answered_with_what_there_is(chosen, words):
    with pytest.raises(ConfigurationError, match=words):
        list(Invented().jobs(**chosen))


class OfOneModel(Invented):
    def __init__(self, model):
        self.model = model

    def fitted(self, job):
        return self.model

    def reference(self, job, fitted):
        return Reference()

    def _finished(self):
        return [Job("grade", "subspace", 0)]


def test_what_expression_would_change_is_said_of_whom_lacks_it_and_slides_are_read_once(make_cohort, monkeypatch):
    cohort = make_cohort(70)
    brief = BRIEF.model_copy(update={"epochs": 1, "batch_size": 16})
    models = OfOneModel(train(cohort, task="grade", settings=brief))
    lacking = replace(cohort, patients=tuple(replace(patient, expression=None) for patient in cohort.patients[4:8]))
    with_expression = models.predict(replace(cohort, patients=cohort.patients[4:8]))
    read, read_bag = [], BagReader.read
    monkeypatch.setattr(BagReader, "read", lambda self, p: read.append(p.patient_id) or read_bag(self, p))
    without = models.predict(lacking)
    assert read == [patient.patient_id for patient in lacking]
    assert with_expression["expected_change"].isna().all()
    assert without["expected_change"].between(0.0, 1.0, inclusive="neither").all()
