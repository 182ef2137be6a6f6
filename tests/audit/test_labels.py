"""Outcomes that cannot carry a claim, and hospitals that give them away."""

import drawn_numbers
import numpy as np
import pandas as pd
import pytest
from audited_tables import QUICK, found, run_of

from subfuse.audit.audit import audit_predictions
from subfuse.audit.labels import label_findings
from subfuse.evaluation.predictions import read_tasks

pytestmark = pytest.mark.walk


def test_one_follow_up_of_all_patients_is_a_warning(patients: pd.DataFrame) -> None:
    (task,) = read_tasks(run_of(patients, {"theirs": 1.0}).assign(time_days=1000))
    warnings = [f.found for f in label_findings(task, None) if f.level == "warning"]
    assert warnings == ["the follow-up of every patient is 1000 days"]


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        (lambda t: t.assign(time_days=t["time_days"] / 30), "warning", "months or years rather than days"),
        (lambda t: t.assign(event=t["patient_id"] < "TCGA-005"), "warning", "events among 150"),
        (lambda t: t.assign(event=True), "warning", "an event for 100%"),
        (lambda t: t.assign(event=t["event"] ^ ((t["fold"] == 1) & (t["patient_id"] == "TCGA-001"))), "failure",
         "different outcomes"),
    ],
)  # fmt: skip
def test_labels_that_cannot_carry_a_claim(patients: pd.DataFrame, change, level: str, words: str) -> None:
    audit = audit_predictions(change(run_of(patients, {"subspace": 0.5})), **QUICK)

    assert any(words in text for text in found(audit, "labels", level))


def test_a_site_that_gives_the_label_away_is_named(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"snn": 0.5}, task="grade")
    site = patients["label"].map({"G2": "A", "G3": "B", "G4": "B"})
    known = pd.DataFrame({"patient_id": patients["patient_id"], "site": site})

    named = audit_predictions(table, patients=known, **QUICK)
    silent = audit_predictions(table, patients=known.assign(site=np.resize(["A", "B"], len(known))), **QUICK)

    assert "Cramér's V of 2 sites" in found(named, "site and label", "warning")[0]
    assert found(silent, "site and label", "ok")


@pytest.mark.parametrize("factor", [1, 100])
def test_numbers_in_another_unit_than_in_training_are_a_warning(factor: int) -> None:
    known = drawn_numbers.predicted(noise=0.1, model="linear").assign(fold=0)
    tested = known.assign(patient_id="new" + known["patient_id"], value=known["value"] * factor)
    (task,) = read_tasks(pd.concat([known.assign(split="train"), tested]))
    warnings = [f.found for f in label_findings(task, None) if f.level == "warning"]
    assert any("outside those of training" in text for text in warnings) == (factor != 1)


@pytest.mark.parametrize(("n", "is_enough"), [(9, False), (10, True)])
def test_ten_patients_of_a_class_are_enough(patients: pd.DataFrame, n: int, is_enough: bool) -> None:
    table = run_of(patients, {"snn": 0.5}, task="grade")
    rare = np.isin(table["patient_id"], patients["patient_id"].iloc[:n])
    (task,) = read_tasks(
        table.assign(label=np.where(rare, "G4", np.where(table["patient_id"] > "TCGA-080", "G3", "G2")))
    )

    levels = [f.level for f in label_findings(task, None) if "G4: " in f.found]

    assert levels == ["ok" if is_enough else "warning"]


@pytest.mark.parametrize(("n", "is_enough"), [(19, False), (20, True)])
def test_twenty_events_are_enough(patients: pd.DataFrame, n: int, is_enough: bool) -> None:
    table = run_of(patients, {"snn": 0.5})
    (task,) = read_tasks(table.assign(event=np.isin(table["patient_id"], patients["patient_id"].iloc[:n])))

    levels = [f.level for f in label_findings(task, None) if f.found.startswith(f"{n} events among")]

    assert levels == ["ok" if is_enough else "warning"]


@pytest.mark.parametrize(("n", "is_enough"), [(4, False), (5, True)])
def test_a_site_of_five_patients_is_enough(patients: pd.DataFrame, n: int, is_enough: bool) -> None:
    (task,) = read_tasks(run_of(patients, {"snn": 0.5}))
    known = pd.DataFrame(
        {"patient_id": patients["patient_id"], "site": np.where(np.arange(len(patients)) < n, "A", "B")}
    )

    silent = [f for f in label_findings(task, known) if "fewer than two sites with 5 patients" in f.found]

    assert (not silent) == is_enough
