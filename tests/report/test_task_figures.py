"""Figures of a task's predictions, and who is missing from them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fake_run import write_fake_run

from subfuse.report import write_report
from subfuse.report.run_files import read_run
from subfuse.report.task_figures import decision_figure, survival_figures


def test_areas_of_the_roc_curves_are_those_of_the_predictions(run, text):
    from sklearn.metrics import roc_auc_score

    tested = pd.read_csv(run / "predictions.csv").query("task == 'grade' and model == 'subspace' and split == 'test'")
    areas = {name: roc_auc_score(tested["label"] == name, tested[f"p_{name}"]) for name in ("G2", "G3", "G4")}
    shown = ", ".join(f"{name} ({area:.3f})" for name, area in areas.items())
    macro = f"macro ({np.mean(list(areas.values())):.3f})"
    assert f"Receiver operating characteristics with area under the curve: {shown}, {macro}." in text


def test_a_survival_run_without_training_rows_says_why_there_are_no_risk_groups(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("survival",), optional=False)
    table = pd.read_csv(run / "predictions.csv")
    table[table["split"] == "test"].to_csv(run / "predictions.csv", index=False)
    assert "No risk groups:" in write_report(run).read_text()


def test_patients_without_a_prediction_are_counted_not_drawn(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=60, tasks=("grade",), optional=False)
    table = pd.read_csv(run / "predictions.csv")
    lost = (table["model"] == "subspace") & (table["split"] == "test") & (np.arange(len(table)) % 10 == 0)
    table.loc[lost, [column for column in table if column.startswith("p_")]] = np.nan
    table.to_csv(run / "predictions.csv", index=False)
    assert (
        f"Not in the figures: {lost.sum()} test patients without a label or a prediction"
        in write_report(run).read_text()
    )


@pytest.mark.parametrize("audited", [True, False])
def test_calibration_of_survival_is_drawn_from_the_audit_or_said_to_be_missing(tmp_path, audited):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    if audited:
        known = {"task": "survival", "model": "subspace"}
        groups = [known | {"group": 1, "n_patients": 20, "predicted": 0.25, "observed": 0.3}]
        measures = [known | {"horizon_days": 1096}]
        tables = {"reliability": groups, "calibration": measures}
        drawn, remarks = survival_parts(run, {"findings": [], "tables": tables})
        assert (
            drawn[-1].alt == "Predicted and observed probabilities of an event by 3 years, by group: 0.250 and 0.300."
        )
        assert remarks == []
    else:
        drawn, remarks = survival_parts(run, None)
        assert remarks == ["No figure of the calibration of the survival curves: run `subfuse audit`."]
    assert len(drawn) == 1 + audited


def survival_parts(run, audit):
    found = survival_figures(replace(read_run(run), audit=audit), "survival", "subspace")
    return found["figures"], found["remarks"]


def test_decision_curves_are_those_of_the_audit_for_the_model_and_the_one_beside_it(tmp_path):
    run = write_fake_run(tmp_path / "run", patients=40, tasks=("survival",), optional=False)
    rows = [
        {"task": task, "model": model, "outcome": "event by day 1095", "threshold": threshold, "reference": "clinical",
         "net_benefit": None if model == "clinical" and threshold > 0.5 else benefit, "treat_all": 0.4 - threshold}
        for task, model, benefit in (("survival", "subspace", 0.3), ("survival", "clinical", 0.2), ("grade", "snn", 1))
        for threshold in (0.1, 0.5, 0.9)
    ]  # fmt: skip
    audited = replace(read_run(run), audit={"findings": [], "tables": {"decision_curves": rows}})

    (drawn,) = decision_figure(audited, "survival", "subspace")

    assert drawn.alt == (
        "Net benefit against threshold of Subspace fusion, Clinical model, treat everybody, treat nobody; the highest "
        "of Subspace fusion: 0.300 for event by day 1095."
    )
    assert "Clinical model" in drawn.svg
    unknown = [row | {"net_benefit": None} for row in rows]
    for audit in (None, {"findings": [], "tables": {}}, {"findings": [], "tables": {"decision_curves": unknown}}):
        assert decision_figure(replace(audited, audit=audit), "survival", "subspace") == []
