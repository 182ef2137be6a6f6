import pandas as pd

from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.preparation.weak_folds import weak_folds

TASKS = {"os": TaskSpec(time="time_days", event="event"), "grade": TaskSpec(column="grade")}
PATIENTS = pd.DataFrame(
    {
        "patient_id": list("abcdefgh"),
        "grade": ["G2", "G2", "G2", "G2", "G3", "G3", "G3", "G4"],
        "time_days": [5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, None],
        "event": pd.array([True, True, False, False, True, True, False, None], dtype="boolean"),
    }
)
WHOLE = Fold(("a", "e", "h"), ("b", "f"), ("c", "d", "g"))  # b dies before f
BARE = Fold(("a", "b", "e"), ("c", "d"), ("f", "g", "h"))  # both alive, both G2


def test_what_a_fold_lacks_is_said_beforehand_with_the_key_that_helps() -> None:
    lines = weak_folds(TASKS, PATIENTS, [WHOLE, BARE], stratify=["event"])
    by_start = {line.split(" in fold")[0]: line for line in lines}
    assert "tasks.os: validation patients with a known outcome have no comparable pair of follow-ups" in by_start
    os_line = by_start["tasks.os: validation patients with a known outcome have no comparable pair of follow-ups"]
    assert "in fold 1: models are chosen by their loss there. Raise `splits.validation`, use fewer folds" in os_line
    assert "stratify" not in os_line  # folds keep the mixture of events already
    rare = next(line for line in lines if "class G4" in line)
    assert "has 1 patient(s), and none to train on in fold 1 and none to test in fold 0" in rare
    for remedy in ("Merge it", "leave it out", "collect more patients", "splits.stratify: [grade]"):
        assert remedy in rare
    assert any("are all of one class in fold 1" in line for line in lines)


def test_folds_that_suffice_are_not_talked_about() -> None:
    common = PATIENTS[PATIENTS["grade"] != "G4"]
    fold = Fold(("a", "e"), ("b", "f"), ("c", "d", "g"))
    assert weak_folds(TASKS, common, [fold], stratify=[]) == []
