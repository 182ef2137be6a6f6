"""What predictors have in common, on one of invented jobs."""

from pathlib import Path

import pytest

from subfuse.errors import ConfigurationError
from subfuse.run_folder.job import Job
from subfuse.runs.prediction.predictor import Predictor


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
