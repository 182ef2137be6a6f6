"""Kinds of tasks, and classes in their order."""

from pathlib import Path

import pytest

from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.task import TaskSpec
from subfuse.errors import ConfigurationError


def test_task_kinds():
    assert TaskSpec(time="time_days", event="event").is_survival
    assert not TaskSpec(column="grade").is_survival


def test_ordered_classes_are_declared_with_their_order(tmp_path: Path) -> None:
    path = tmp_path / "cohort.yaml"
    text = "name: c\npatients: {table: p.csv}\ntasks: {grade: {column: grade, %s}}\n"
    path.write_text(text % "classes: [G2, G3], ordinal: true")
    assert read_cohort_file(path).tasks["grade"].ordinal
    path.write_text(text % "ordinal: true")
    with pytest.raises(ConfigurationError, match="`ordinal` needs `classes` in their order"):
        read_cohort_file(path)
