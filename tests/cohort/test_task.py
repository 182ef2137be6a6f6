"""Kinds of tasks, and classes in their order."""

from pathlib import Path

import pytest

from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError


def test_task_kinds():
    assert TaskSpec(time="time_days", event="event").is_survival
    assert not TaskSpec(column="grade").is_survival


@pytest.mark.parametrize(
    ("patients", "task", "line"),
    [
        ("table: p.csv", "{time: time_days, event: event, entry: entry_days}", 3),
        ("table: p.csv, columns: {patient_id: id, entry_days: late}", "{time: time_days, event: event}", 2),
        ("table: p.csv, endpoints: {x: {time: a, event: b, entry: c}}", "{time: time_days, event: event}", 2),
    ],
)
def test_left_truncation_is_refused_with_the_reason(tmp_path: Path, patients: str, task: str, line: int) -> None:
    path = tmp_path / "cohort.yaml"
    path.write_text(f"name: c\npatients: {{{patients}}}\ntasks: {{os: {task}}}\n")
    with pytest.raises(ConfigurationError, match=rf"line {line}: .*left truncation, which is not supported") as caught:
        read_cohort_file(path)
    assert "\n" not in str(caught.value)


def test_classes_are_trained_by_their_order_where_that_is_declared(tmp_path: Path) -> None:
    path = tmp_path / "cohort.yaml"
    text = "name: c\npatients: {table: p.csv}\ntasks: {grade: {column: grade, classes: [G2, G3], ordinal: %s}}\n"
    trained = {}
    for value in ("true", "false", "cumulative_logits"):
        path.write_text(text % value)
        task = read_cohort_file(path).tasks["grade"]
        assert TaskSpec(**task.model_dump(mode="json")) == task
        trained[value] = (bool(task.ordinal), task.is_trained_by_order)
    assert trained == {"true": (True, False), "false": (False, False), "cumulative_logits": (True, True)}
    for value, found in (("cumulative", "'cumulative'"), ("[x]", r"\['x'\]"), ("null", "None"), ("2", "2")):
        path.write_text(text % value)
        required = rf"line 3: tasks.grade.ordinal: must be true, false or cumulative_logits\. Found {found}\.$"
        with pytest.raises(ConfigurationError, match=required):
            read_cohort_file(path)


def test_ordered_classes_are_declared_with_their_order(tmp_path: Path) -> None:
    path = tmp_path / "cohort.yaml"
    text = "name: c\npatients: {table: p.csv}\ntasks: {grade: {column: grade, %s}}\n"
    path.write_text(text % "classes: [G2, G3], ordinal: true")
    assert read_cohort_file(path).tasks["grade"].ordinal
    path.write_text(text % "ordinal: true")
    with pytest.raises(ConfigurationError, match="`ordinal` needs `classes` in their order"):
        read_cohort_file(path)
