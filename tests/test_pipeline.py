"""What explaining and reporting tell, and that neither makes a finished run a failure."""

from types import SimpleNamespace

import pandas as pd
import pytest

from subfuse import pipeline
from subfuse.cli import main, training
from subfuse.pipeline import patients_to_explain, telling_next
from subfuse.runs import run as runs

pytestmark = pytest.mark.walk


def predicted(*, slides: bool, expression: bool) -> pd.DataFrame:
    known = {"patient_id": ["a", "b", "c"], "risk": [0.1, 0.9, 0.5], "split": "test", "model": "subspace"}
    return pd.DataFrame(known | {"has_slides": slides, "has_expression": expression})


@pytest.mark.parametrize(("slides", "expression"), [(True, True), (True, False), (False, True)])
def test_patients_of_a_cohort_with_one_modality_are_explained_too(slides, expression):
    assert patients_to_explain(predicted(slides=slides, expression=expression), 2) == ["b", "a"]


def test_patients_with_both_modalities_are_explained_first():
    some = predicted(slides=True, expression=True).assign(has_expression=[True, False, True])
    assert patients_to_explain(some, 2) == ["c", "a"]


def test_it_is_said_that_nobody_can_be_explained(make_cohort, tmp_path, caplog, monkeypatch):
    nobody = SimpleNamespace(
        predictions=predicted(slides=False, expression=False), explain_cohort=lambda *_, **__: None
    )
    monkeypatch.setattr(pipeline, "load_run", lambda *_, **__: nobody)
    monkeypatch.setattr(pipeline, "write_report", lambda folder: folder / "report.html")
    pipeline.explain_and_report(tmp_path, make_cohort(2))
    assert "not explained: single patients" in caplog.text
    assert pd.read_csv(tmp_path / "explanations" / "failures.csv")["what"].tolist() == ["single patients"]


def test_a_report_that_fails_is_a_warning_of_a_finished_validation(tmp_path, capsys, caplog, monkeypatch):
    finished = SimpleNamespace(evaluate=lambda *_, **__: pd.DataFrame())
    monkeypatch.setattr(runs, "load_run", lambda *_, **__: finished)
    monkeypatch.setattr(training, "read_chosen_cohort", lambda *_: None)
    monkeypatch.setattr(training, "print_metrics", lambda *_: None)
    monkeypatch.setattr(pipeline, "write_report", lambda _: 1 / 0)
    assert main(["evaluate", "run", "--cohort", "other", "--out", str(tmp_path)]) == 0
    assert "Report: not written, see the warning" in capsys.readouterr().out
    assert "the report could not be written: " in caplog.text


def test_the_last_step_says_what_follows():
    told = []
    progress = telling_next(lambda *step: told.append(step), "now the report")
    assert progress is not None
    progress(1, 2, "a")
    progress(2, 2, "b")
    assert told == [(1, 2, "a"), (2, 2, "b; now the report")]
    assert telling_next(None, "now the report") is None
