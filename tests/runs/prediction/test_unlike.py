"""What most models say of a patient, and when it is said of a cohort."""

import warnings

import pandas as pd

from subfuse.runs.prediction.unlike import joint_unlike, unlike_cells, unlike_notes


def table(cells_of_patients: list[list[str | None]], task: str = "grade") -> pd.DataFrame:
    rows = [
        {"task": task, "model": "snn", "patient_id": f"P{i}", "fold": fold, "unlike": cell}
        for i, cells in enumerate(cells_of_patients)
        for fold, cell in enumerate(cells)
    ]
    return pd.DataFrame(rows).astype({"unlike": object})


def test_most_models_must_say_it():
    assert unlike_cells([["a", "b"], []]).tolist() == ["a; b", None]
    found = joint_unlike(table([["a; b", "a", None], ["a", None, None], [None] * 3]), ["patient_id"])
    assert found.tolist() == ["a", None, None]


def test_it_is_said_of_one_patient_and_of_more_than_chance_calls_so():
    (note,) = unlike_notes(table([["expression"]]))
    assert note.startswith("1 of 1 patient (P0) unlike those of training, by expression: ")
    assert note.endswith("Of patients like those of training 5% are called so too")
    ordinary = [[None]] * 38
    assert unlike_notes(table([["expression"]] * 2 + ordinary)) == []
    (note,) = unlike_notes(table([["expression"]] * 7 + ordinary))
    assert "7 of 45 patients (P0, P1, P2, P3, P4 and 2 more)" in note
    assert unlike_notes(table(ordinary)) == []


def test_tasks_are_named_where_not_all_say_it():
    both = [table([["expression"]]), table([[None]], task="survival")]
    (note,) = unlike_notes(pd.concat(both))
    assert note.startswith("grade · SNN: 1 of 1")
    with warnings.catch_warnings(action="error"):  # of pandas, where models of a task do not stand together
        mixed = [table([["expression"]], task=task).assign(model=model) for model in "ba" for task in ("b", "a")]
        assert len(unlike_notes(pd.concat(mixed))) == 1
    assert len(unlike_notes(pd.concat([both[0], both[0].assign(task="other")]))) == 1
