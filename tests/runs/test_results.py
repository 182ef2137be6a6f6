"""What fails after training is told and can be repeated; the training stays a success, and what it made is kept."""

import types
from functools import partial

import pandas as pd
import pytest

from small_cohort import deal_folds
from subfuse import pipeline
from subfuse.cli import main
from subfuse.cohort import cohort as cohort_module
from subfuse.errors import DataError
from subfuse.report import document, summary
from subfuse.run_folder.layout import read_audit
from subfuse.run_folder.names import FAILED_RESULTS
from subfuse.run_folder.tables import read_result
from subfuse.runs import results

STEPS = {
    "metrics.csv": "evaluate_predictions",
    "comparisons.csv": "compared_with_reference",
    "provenance.json": "_provenance",
    "audit.json": "audit_run",
}


def planted(*_, **__):
    raise RuntimeError("planted")


@pytest.fixture
def predictions(make_cohort) -> pd.DataFrame:
    """Chances of two classes for the test patients of two folds."""
    cohort = make_cohort(24)
    tested = [(patient, fold) for fold, part in enumerate(deal_folds(cohort)) for patient in part.test]
    table = pd.DataFrame(tested, columns=["patient_id", "fold"])
    table["label"] = [patient.labels["grade"] for name in table["patient_id"] for patient in cohort.select([name])]
    sure = (table["label"] == "G4") * 0.4 + 0.1 + 0.01 * table.index
    constant = {"cohort": "small", "task": "grade", "model": "snn", "repeat": 0, "split": "test", "risk": None,
                "time_days": None, "event": None, "has_slides": True, "has_expression": True}  # fmt: skip
    return table.assign(p_G2=1 - sure, p_G4=sure, **constant)


@pytest.mark.parametrize("name", STEPS)
def test_a_result_that_fails_is_absent_and_told_and_the_others_are_there(
    name, predictions, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(results, "evaluate_predictions", partial(results.evaluate_predictions, n_bootstrap=5))
    monkeypatch.setattr(results, "audit_run", lambda *_, **__: types.SimpleNamespace(to_dict=dict))
    (tmp_path / name).write_text("of earlier predictions")
    with monkeypatch.context() as patch:
        patch.setattr(results, STEPS[name], planted)
        results.write_results(tmp_path, predictions, {}, seed=0)
    assert (tmp_path / "predictions.csv").exists()
    assert [other for other in STEPS if not (tmp_path / other).exists()] == [name]
    (failed,) = pd.read_csv(tmp_path / FAILED_RESULTS).itertuples()
    assert (failed.what, failed.reason) == (f"{name} was not written", "unexpected RuntimeError: planted")
    assert f"{name} was not written: unexpected RuntimeError: planted. The predictions are kept" in caplog.text
    results.write_results(tmp_path, predictions, {}, seed=0)  # as the same command again does
    assert all((tmp_path / other).exists() for other in STEPS)
    assert not (tmp_path / FAILED_RESULTS).exists()


@pytest.mark.parametrize("name", ["metrics.csv", "comparisons.csv", "failures.csv", "audit.json"])
def test_a_result_that_was_changed_by_hand_is_not_shown_as_the_runs(name, predictions, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "evaluate_predictions", partial(results.evaluate_predictions, n_bootstrap=5))
    monkeypatch.setattr(
        results, "audit_run", lambda *_, **__: types.SimpleNamespace(to_dict=lambda: {"findings": [], "tables": {}})
    )
    (tmp_path / "failures.csv").write_text("task,model,repeat,fold,reason\ngrade,cox,0,1,too few\n")
    results.write_results(tmp_path, predictions, {}, seed=0)
    read = read_audit if name == "audit.json" else partial(read_result, name=name)
    read(tmp_path)
    path = tmp_path / name
    written = path.read_text()
    path.write_text(written.replace('"tables": {}', '"tables": {"a": []}') if name == "audit.json" else f"{written}\n")
    with pytest.raises(DataError, match=rf"{name}: what was written is required\. Found that it was changed since"):
        read(tmp_path)
    results.write_results(tmp_path, predictions, {}, seed=0)  # as the same command again does
    assert name == "failures.csv" or path.read_text() == written
    read(tmp_path)


def test_a_report_is_written_without_the_sections_that_fail(make_cohort, tmp_path, monkeypatch, capsys):
    cohort, run = make_cohort(24), tmp_path / "run"
    monkeypatch.setattr(cohort_module, "read_cohort", lambda _: cohort)
    monkeypatch.setattr(results, "evaluate_predictions", partial(results.evaluate_predictions, n_bootstrap=5))
    for module, names in {
        results: ["audit_run"],
        document: ["model_card", "task_section", "audit_section", "training_section", "provenance_section"],
        summary: ["patients_of_run"],
        pipeline: ["load_run"],
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, planted)
    command = ["crossval", "prepared", "--tasks", "grade", "--models", "logistic", "--folds", "2", "--workers", "1"]
    assert main([*command, "--allow-inputs", "GENE0", "--out", str(run)]) == 0
    assert (
        "who was tested, and what the audit found, is not told: unexpected RuntimeError: planted"
        in capsys.readouterr().err
    )
    report = (run / "report.html").read_text()
    for part in ("model card", "task grade", "audit", "training", "provenance"):
        assert f"Not shown: {part}: unexpected RuntimeError: planted" in report, part
    assert "Not explained: the run: unexpected RuntimeError: planted" in report
    assert "audit.json was not written: unexpected RuntimeError: planted" in report
    assert not (run / "MODEL_CARD.md").exists()
