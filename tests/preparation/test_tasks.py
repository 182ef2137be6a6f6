"""Covariates that are an outcome under another name are said before anything is trained."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from subfuse.cohort.cohort import Patient
from subfuse.cohort.task import TaskSpec
from subfuse.errors import DataError
from subfuse.preparation.declared_columns import resolve_covariates
from subfuse.preparation.tasks import resolve_classes, resolve_tasks, tasks_left_out, told_by_covariates

N = 24
TASKS = {
    "diagnosis": TaskSpec(column="diagnosis", classes=("a", "b", "c")),
    "survival": TaskSpec(time="time_days", event="event"),
}


def told(n: int = N, **columns: list) -> list[str]:
    generator = np.random.default_rng(0)
    patients = pd.DataFrame({"patient_id": [f"P{i}" for i in range(n)], "diagnosis": np.resize(["a", "b", "c"], n)})
    patients["event"] = pd.array(generator.random(n) < 0.5, dtype="boolean")
    patients = patients.assign(**{name: list(values)[:n] for name, values in columns.items()})
    names = resolve_covariates(list(columns), patients, TASKS, develops=True)
    return told_by_covariates(names, patients, TASKS)


def test_a_covariate_that_is_the_diagnosis_is_told_once_with_its_remedy() -> None:
    (text,) = told(therapy=np.resize(["x", "y", "z"], N).tolist(), age=[str(40 + i * 7 % 31) for i in range(N)])
    assert "alone tells class a of diagnosis for all 24 patients. Remove therapy from `covariates`" in text


def test_a_number_that_tells_the_event_is_told() -> None:
    event = np.random.default_rng(0).random(N) < 0.5
    (text,) = told(score=[str(3.5 + i if dead else 0.1) for i, dead in enumerate(event)])
    assert "score alone tells the event of survival" in text


@pytest.mark.parametrize("n", [6, N])
def test_other_covariates_and_few_patients_are_no_alarm(n: int) -> None:
    therapy = np.resize(["x", "y", "z"], N)
    therapy[:3] = ["y", "z", "x"]
    assert not told(n, therapy=therapy.tolist() if n == N else np.resize(["x", "y", "z"], N).tolist())


@pytest.mark.parametrize(
    "labels",
    [
        ["0,5", "1,5", "2,25"],
        ["2.5.2019", "3.5.2019", "4.6.2020"],
        ["05/2019", "06/2019", "2/2020"],
        ["Mai 2019", "Juni 2019", "Okt. 2020"],
        ["1.5 cm", "2 cm", "4 cm"],
        ["<1", "2", "2.5"],
    ],
)
def test_a_measurement_or_date_in_another_writing_is_no_class(labels: list[str]) -> None:
    patients = pd.DataFrame({"ki67": labels * 4})
    with pytest.raises(DataError, match=r"Found 3 different .*Group them in the table"):
        resolve_classes({"ki67": TaskSpec(column="ki67")}, patients, patients, develops=True)


def classes_of(labels: list[str]) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    patients = pd.DataFrame({"g": labels * 4})
    tasks, warnings = resolve_classes({"g": TaskSpec(column="g")}, patients, patients, develops=True)
    return tasks["g"].classes, warnings


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (
            ["2", "2.0", "3"],
            r"more than case, zeros or separators\. Found 2 \(4 patients\) and 2\.0 \(4\)\. Write 2 in",
        ),
        (["G2", "G 2", "G3"], r"G2 \(4 patients\) and G 2 \(4\)"),
        (["G2", "G-2", "G3"], r"G2 .* and G-2"),
        (["2", "02", "3"], r"2 .* and 02"),
        (["IDH-mutant", "IDH mutant", "wildtype"], r"IDH-mutant .* and IDH mutant"),
        (["II", "ii", "III"], r"must differ in more than case\. Found II .* and ii"),
    ],
)
def test_two_spellings_of_a_class_are_refused(labels, found) -> None:
    with pytest.raises(DataError, match=found):
        classes_of(labels)
    patients = pd.DataFrame({"g": labels * 4})
    declared = {"g": TaskSpec(column="g", classes=tuple(labels))}
    assert resolve_classes(declared, patients, patients, develops=True)[0]["g"].classes == tuple(labels)


@pytest.mark.parametrize(
    "labels", [["+", "-"], ["IDH+", "IDH-"], ["1-3", "13"], ["<60", ">60"], ["3+4", "3-4"], ["0", "1+", "2+", "3+"]]
)
def test_signs_tell_classes_apart(labels) -> None:
    assert set(classes_of(labels)[0] or ()) == set(labels)


def test_a_label_in_another_spelling_than_declared_is_told_with_it() -> None:
    patients = pd.DataFrame({"g": ["G2", "G3", "G 2"] * 4})
    with pytest.raises(DataError, match="G 2 and G2 differ only in case, zeros or separators: write G2 in these cells"):
        resolve_classes({"g": TaskSpec(column="g", classes=("G2", "G3"))}, patients, patients, develops=True)


def test_a_class_that_may_mean_unknown_is_told() -> None:
    (text,) = classes_of(["G2", "G3", "Pending"])[1]
    assert text.startswith("tasks.g: 'Pending' (4 patients) is a class of g: where it means unknown, empty these cells")
    assert not classes_of(["G2", "G3", "none"])[1]


def test_shares_may_be_classes() -> None:
    patients = pd.DataFrame({"pdl1": ["<1%", "1-49%", "50%"] * 4})
    tasks, _ = resolve_classes({"pdl1": TaskSpec(column="pdl1")}, patients, patients, develops=True)
    assert tasks["pdl1"].classes == ("1-49%", "50%", "<1%")


def test_labels_that_are_left_out_are_no_class_and_their_patients_no_outcome() -> None:
    patients = pd.DataFrame({"grade": ["G2", "G3", "G4"] * 4})
    task = TaskSpec(column="grade", classes=("G2", "G3"), leave_out=("G4",))
    tasks, warnings = resolve_classes({"low": task}, patients, patients, develops=True)
    assert (tasks["low"].classes, warnings) == (("G2", "G3"), ())
    assert task.known(patients["grade"]).dropna().unique().tolist() == ["G2", "G3"]
    known, left_out = (Patient("p", "c", labels={"grade": label}) for label in ("G2", "G4"))
    assert known.has_outcome(task)
    assert left_out.outcome(task) == (None,)
    with pytest.raises(DataError, match=r"Found G5. Add them to `classes`, or to `leave_out`"):
        resolve_classes({"low": task}, patients.replace("G4", "G5"), patients, develops=True)


@pytest.mark.parametrize("classes", [("G2", "G4"), None])
def test_what_is_left_out_is_no_class_and_needs_classes(classes: tuple[str, ...] | None) -> None:
    with pytest.raises(ValidationError, match="`leave_out` needs `classes`, and lists other labels"):
        TaskSpec(column="grade", classes=classes, leave_out=("G4",))


def test_a_task_that_leaves_nobody_out_is_written_as_ever() -> None:
    task = TaskSpec(column="grade", classes=("G2", "G3"))
    nothing = dict.fromkeys(["time", "event"])
    assert task.model_dump(mode="json") == {**nothing, "column": "grade", "classes": ["G2", "G3"], "ordinal": False}
    assert TaskSpec(**task.model_copy(update={"leave_out": ("G4",)}).model_dump()).leave_out == ("G4",)


def assumed(**columns: list) -> tuple[set[str], list[str]]:
    """Returns the tasks of patients where no cohort file names any, and what is told of those left out."""
    event = pd.array(np.resize([True, False], N), dtype="boolean")
    patients = pd.DataFrame({"patient_id": [f"P{i}" for i in range(N)], "event": event}).assign(**columns)
    return set(resolve_tasks(None, patients, develops=True)), tasks_left_out(None, patients, develops=True)


def test_a_task_that_nobody_named_and_nothing_can_learn_is_left_out_and_told() -> None:
    grades = np.resize(["G2", "G3"], N).tolist()
    assert assumed(grade=grades) == ({"survival", "grade"}, [])
    tasks, (text,) = assumed(grade=grades, diagnosis=["Glioblastoma"] * N)
    assert tasks == {"survival", "grade"}
    assert text.startswith("tasks.diagnosis: at least two classes of diagnosis are required. Found Glioblastoma.")
    tasks, (text,) = assumed(grade=grades, diagnosis=[f"text {i}" for i in range(N)])
    assert tasks == {"survival", "grade"}
    assert f"Found {N} different values" in text
    tasks, (text,) = assumed(grade=grades, event=pd.array([False] * N, dtype="boolean"))
    assert tasks == {"grade"}
    assert "patients with an event are required" in text


def test_a_task_that_is_named_or_the_only_one_is_refused_and_not_left_out() -> None:
    nobody = pd.array([None] * N, dtype="boolean")
    patients = pd.DataFrame({"patient_id": range(N), "event": nobody, "diagnosis": "Glioblastoma"})
    for declared in (None, {"diagnosis": TaskSpec(column="diagnosis")}):
        tasks = resolve_tasks(declared, patients, develops=True)
        with pytest.raises(
            DataError, match=r"tasks.diagnosis: .*Found Glioblastoma. Declare `tasks` .* without diagnosi"
        ):
            resolve_classes(tasks, patients, patients, develops=True)
    assert set(resolve_tasks(None, patients, develops=False)) == {"diagnosis"}
    assert tasks_left_out(None, patients, develops=False) == []
