"""Tables of an audit as the report shows them: every number and the reason of each that is undefined."""

from pathlib import Path

import pandas as pd
import pytest
from fake_run import made_report
from shown_audit import section


def test_each_adjusted_p_says_over_which_comparisons(tmp_path_factory: pytest.TempPathFactory) -> None:
    html = (made_report(tmp_path_factory) / "report.html").read_text(encoding="utf-8")

    assert html.count("p adjusted (Holm) over all comparisons of the task.") == 2
    assert html.count("p adjusted (Holm) over all comparisons of a task;") == 1


def test_both_recalibrations_are_shown_and_why_one_is_undefined() -> None:
    columns = ["task", "model", "measure", "horizon_days", "before", "after", "after_isotonic", "reason",
               "reason_isotonic"]  # fmt: skip
    few, censored = "a fold has fewer than 200 validation patients", "isotonic regression is for classes only"
    rows = [
        ("grade", "snn", "brier", None, 0.5, 0.4, 0.3, None, None),
        ("grade", "concat", "brier", None, 0.6, 0.55, None, None, few),
        ("survival", "snn", "one_calibration_p", 1096.0, 1e-9, 0.25, None, None, censored),
    ]

    (shown,) = section(calibration=pd.DataFrame(rows, columns=columns))["tables"]

    assert shown["table"].columns[3:] == ("As predicted", "Recalibrated", "By isotonic regression")
    assert [row[3:] for row in shown["table"].rows] == [
        ("0.500", "0.400", "0.300"),
        ("0.600", "0.550", "undefined"),
        ("< 0.001", "0.250", "undefined"),
    ]
    assert shown["notes"] == [f"Grade: Concatenation: {few}", f"Survival: SNN: {censored}"]


def test_an_audit_without_isotonic_regression_is_shown(tmp_path: Path) -> None:
    rows = [("grade", "snn", "brier", None, 0.5, 0.4, None)]
    columns = ["task", "model", "measure", "horizon_days", "before", "after", "reason"]

    (shown,) = section(calibration=pd.DataFrame(rows, columns=columns))["tables"]

    assert shown["table"].rows[0][3:] == ("0.500", "0.400", "undefined")
    assert shown["notes"] == []


def test_models_by_what_they_add_stand_first() -> None:
    row = {"task": "survival", "metric": "c_index", "trivial": "clinical", "fitted_on": "validation patients"}
    known = {"model": "subspace", "difference": 0.021, "lower": -0.003, "upper": 0.045, "p_adjusted": 0.08}
    unknown = {"model": "snn", "difference": None, "lower": None, "upper": None, "p_adjusted": None}
    added = pd.DataFrame([row | known | {"reason": None}, row | unknown | {"fitted_on": "", "reason": "3 events"}])

    (table,) = section(added_value=added)["tables"]

    assert table["title"] == "What models add to a trivial one"
    assert [cells[1:] for cells in table["table"].rows] == [
        ("Subspace fusion", "Clinical model", "validation patients", "C-index", "+0.021", "−0.003 to +0.045", "0.080"),
        ("SNN", "Clinical model", "nowhere", "C-index", "undefined", "3 events", ""),
    ]


def test_a_comparison_without_an_interval_is_shown() -> None:
    row = {"task": "survival", "model": "concat", "reference": "snn", "reference_is": "best single modality"}
    unknown = {"metric": "c_index", "difference": None, "lower": None, "upper": None, "p_adjusted": None}

    (table,) = section(fusion=pd.DataFrame([row | unknown]))["tables"]

    assert table["table"].rows[0][2:] == ("SNN (best single modality)", "C-index", "undefined", "no interval", "")


def test_a_stratum_is_shown_with_its_patients_events_and_pairs() -> None:
    row = {"task": "survival", "model": "subspace", "column": "idh", "metric": "c_index", "p_adjusted": 0.2}
    told = {"stratum": "WT", "value": 0.57, "lower": 0.5, "upper": 0.64, "n_patients": 173, "n_events": 120}
    empty = {"stratum": "other", "value": None, "lower": None, "upper": None, "n_patients": 12, "n_events": 0}
    of_classes = {"task": "grade", "metric": "auc", "n_events": None, "n_pairs": None, "reason": None}
    rows = [
        row | told | {"n_pairs": 2400, "reason": None},
        row | empty | {"n_pairs": 0, "reason": "no comparable pair within a fold"},
        row | told | of_classes,
    ]

    (table,) = section(strata=pd.DataFrame(rows).astype({"n_events": "Int64", "n_pairs": "Int64"}))["tables"]

    assert table["table"].columns[6:9] == ("Patients", "Events", "Pairs")
    assert [cells[4:9] for cells in table["table"].rows] == [
        ("0.570", "0.500 to 0.640", "173", "120", "2400"),
        ("undefined", "no comparable pair within a fold", "12", "0", "0"),
        ("0.570", "0.500 to 0.640", "173", "", ""),
    ]


def test_what_hospital_and_batch_explain_is_shown() -> None:
    numbers = {"outcome_share": 0.12, "p_outcome": 0.005, "prediction_share": 0.031, "p_prediction": 0.4}
    told = {"auc": 0.99, "auc_within": None, "p_within": None, "n_values": 2, "n_patients": 90, "strongest": "A, B"}
    row = {"task": "survival", "model": "subspace", "column": "project", "input": "expression", **told, **numbers}

    (table,) = section(confounders=pd.DataFrame([row]))["tables"]

    (cells,) = table["table"].rows
    assert cells == ("Survival", "project", "Expression", "0.990", "undefined", "", "12%", "0.005", "3%", "0.400", "2",
                     "90", "A, B")  # fmt: skip


def test_decision_curves_show_every_tenth_threshold() -> None:
    row = {"task": "survival", "model": "subspace", "outcome": "event", "treat_all": -0.2, "reference": "site",
           "net_benefit": 0.31, "against_default": 0.31, "lower_default": 0.2, "upper_default": 0.4}  # fmt: skip
    known = {"against_reference": 0.1, "lower": -0.05, "upper": 0.2}
    curves = pd.DataFrame([row | known | {"threshold": limit} for limit in (0.05, 0.1, 0.15, 0.3)])

    (table,) = section(decision_curves=curves)["tables"]

    assert [cells[3] for cells in table["table"].rows] == ["0.10", "0.30"]
    assert table["table"].rows[0][4:] == (
        "0.310", "−0.200", "+0.310", "+0.200 to +0.400", "Hospital alone", "+0.100", "−0.050 to +0.200"
    )  # fmt: skip
