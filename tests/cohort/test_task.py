"""Kinds of tasks, and classes in their order."""

from pathlib import Path

import pytest

from subfuse.cohort.cohort_file import cohort_file_text, read_cohort_file
from subfuse.cohort.task import BinaryTasks, TaskSpec
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


def test_columns_are_tasks_of_two_classes_each(tmp_path: Path) -> None:
    path = tmp_path / "cohort.yaml"
    text = "name: c\npatients: {table: p.csv}\ntasks: {grade: {column: grade}, markers: {columns: [idh, mgmt]%s}}\n"
    path.write_text(text % ", classes: [0, 1], leave_out: [2]")
    tasks = read_cohort_file(path).single_tasks
    assert list(tasks or {}) == ["grade", "markers_idh", "markers_mgmt"]
    assert tasks["markers_mgmt"] == TaskSpec(column="mgmt", classes=("0", "1"), leave_out=("2",))
    assert tasks["grade"] == TaskSpec(column="grade")
    path.write_text(cohort_file_text(read_cohort_file(path)))
    assert read_cohort_file(path).tasks["markers"] == BinaryTasks(
        columns=("idh", "mgmt"), classes=("0", "1"), leave_out=("2",)
    )


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("markers: {columns: [a, b], classes: [x, y, z]}", "tasks.markers: `columns` are tasks of two `classes` each"),
        ("markers: {columns: [a, b], classes: [x, x]}", "two `classes` each"),
        ("markers: {columns: [a, a]}", "`columns` lists distinct columns"),
        ("markers: {columns: []}", "`tasks.markers.columns` must have an entry"),
        ("markers: {columns: a}", r"`tasks.markers.columns` must be a list\. Found 'a': write \[a\]"),
        ("markers: {columns: [a], leave_out: [z]}", "`leave_out` needs `classes`"),
        ("markers: {columns: [a], column: b}", "unknown key `tasks.markers.column`"),
        (
            "markers: {columns: [a/b]}",
            "tasks.markers.columns: the task 'markers_a/b' of a column is named",
        ),
        ("markers: {columns: [a]}, markers_a: {column: b}", "'markers_a' is a task of 'markers' too"),
        ("markers: {columns: [a]}, MARKERS_a: {column: b}", "names must differ in more than upper and lower case"),
    ],
)
def test_columns_that_are_no_tasks_are_refused_in_one_line(tmp_path: Path, tasks: str, message: str) -> None:
    path = tmp_path / "cohort.yaml"
    path.write_text(f"name: c\npatients: {{table: p.csv}}\ntasks: {{{tasks}}}\n")
    with pytest.raises(ConfigurationError, match=f"line 3: .*{message}") as caught:
        read_cohort_file(path)
    assert "\n" not in str(caught.value)
