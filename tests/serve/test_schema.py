"""What the HTTP interface answers: complete, unchangeable, and without numbers made up for what is unknown."""

from typing import get_args

import pytest
from pydantic import ValidationError

from subfuse.serve import schema
from subfuse.serve.schema import Answer, Job, Outcome, PatientSummary, SlideInfo

ANSWERS = [value for value in vars(schema).values() if isinstance(value, type) and issubclass(value, Answer)]
SUMMARY = {
    "patient_id": "007", "split": "test", "n_predictions": 1,
    "outcome": {"time_days": None, "event": None, "label": "G4", "value": None}, "risk": None, "risk_percentile": None,
    "probabilities": {"G2": 0.25, "G4": 0.75}, "predicted_class": "G4", "predicted_value": None,
    "has_slides": True, "has_expression": False, "explained": False,
}  # fmt: skip


def test_an_answer_is_read_back_as_it_was_sent_and_what_is_unknown_is_null():
    answer = PatientSummary.model_validate(SUMMARY)
    assert answer.model_dump() == SUMMARY
    assert PatientSummary.model_validate_json(answer.model_dump_json()) == answer
    assert '"risk":null' in answer.model_dump_json()
    assert answer.patient_id == "007"


def test_an_answer_does_not_change_once_it_is_made():
    answer = PatientSummary.model_validate(SUMMARY)
    with pytest.raises(ValidationError, match="frozen"):
        answer.risk = 0.0


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_nothing_is_filled_in_for_what_an_answer_lacks(answer):
    assert all(field.is_required() for field in answer.model_fields.values())


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_every_answer_is_described_and_says_in_its_schema_what_may_be_null(answer):
    described = answer.model_json_schema()
    assert described["description"].endswith(".")
    for name, field in answer.model_fields.items():
        may_be_null = type(None) in get_args(field.annotation)
        options = [option.get("type") for option in described["properties"][name].get("anyOf", [])]
        assert ("null" in options) is may_be_null, name


@pytest.mark.parametrize(("kind", "content"), [
    (Outcome, {"time_days": "soon", "event": None, "label": None}),
    (Job, {"job_id": "a", "patient_id": "P", "state": "lost", "done": 0, "total": 1, "error": None}),
    (SlideInfo, {"picture": "photograph"}), (PatientSummary, SUMMARY | {"probabilities": {"G2": None}}),
])  # fmt: skip
def test_words_and_numbers_of_another_kind_are_refused(kind, content):
    with pytest.raises(ValidationError):
        kind.model_validate(content)
