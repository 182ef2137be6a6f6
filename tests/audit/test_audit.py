import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audited_tables import QUICK, found, run_of
from drawn_predictions import cohort, predictions

from subfuse.audit import audit as audit_module
from subfuse.audit.audit import audit_predictions, audit_run
from subfuse.cohort.cohort import Cohort
from subfuse.errors import ConfigurationError, DataError
from subfuse.evaluation.floors import LEAST
from subfuse.evaluation.intervals import evaluate_predictions


def test_fusion_that_helps_and_fusion_that_does_not(patients: pd.DataFrame) -> None:
    helps = audit_predictions(run_of(patients, {"subspace": 0.1, "snn": 2.0, "abmil": 3.0}), **QUICK)
    hinders = audit_predictions(run_of(patients, {"subspace": 2.0, "snn": 0.1, "abmil": 3.0}), **QUICK)

    assert any(
        "Subspace fusion is better than the best single modality, SNN" in text
        for text in found(helps, "fusion benefit", "ok")
    )
    assert any(
        text.startswith("fusion does not help: Subspace fusion is worse")
        for text in found(hinders, "fusion benefit", "warning")
    )
    assert any("rescues" in text for text in found(helps, "fusion benefit"))
    table = helps.tables["fusion"].set_index(["model", "reference_is"])["difference"]
    assert table[("subspace", "best single modality")] > 0
    assert ("mean of SNN and ABMIL", "best single modality") in table.index
    assert ("subspace", "late fusion") in table.index


@pytest.mark.parametrize("task", ["survival", "grade"])
def test_too_few_patients_have_no_interval_no_p_and_no_verdict(task: str) -> None:
    few = cohort(n=40)
    if task == "survival":
        few["event"] = np.arange(40) < LEAST - 1
    else:
        few["label"] = np.where(np.arange(40) < LEAST - 1, "G4", np.where(np.arange(40) % 2, "G2", "G3"))
    table = run_of(few, {"subspace": 0.1, "snn": 1.0, "abmil": 2.0, "cox": 2.0}, task=task)

    metrics = evaluate_predictions(table, n_bootstrap=20)
    audit = audit_predictions(table, n_bootstrap=20)

    assert metrics[["lower", "upper", "lower_delong", "upper_delong"]].isna().all(axis=None)
    assert metrics["reason"].str.contains(f"no interval: {LEAST - 1} ").all()
    for check in ("fusion benefit", "label permutation", "linear baseline"):
        findings = [f for f in audit.findings if f.check == check and f.model]
        assert findings, check
        assert all(f.level == "note" and f"{LEAST} are needed" in f.found for f in findings), check
    assert {f.level for f in audit.findings if f.check == "calibration"} == {"note"}
    if task == "survival":  # sets of classes hold for so many patients whatever their class
        assert {f.level for f in audit.findings if f.check == "promised coverage"} == {"note"}
    assert not [f.found for f in audit.findings if re.search(r"\bp [=<] ", f.found)]
    assert audit.tables["calibration"]["p_before"].isna().all()
    ratios = audit.tables["hazard_ratios"]
    assert ratios.empty is (task == "grade")
    assert ratios["hazard_ratio"].isna().all()


def test_classification_is_audited_too(patients: pd.DataFrame) -> None:
    audit = audit_predictions(run_of(patients, {"concat": 0.3, "snn": 1.0, "abmil": 2.0}, task="grade"), **QUICK)

    assert found(audit, "patient leakage", "ok")
    assert len(found(audit, "label permutation", "ok")) == 3
    assert any("expected calibration error" in text for text in found(audit, "calibration"))
    assert set(audit.tables["rescued"]["change"]) == {"rescued", "lost"}


def test_the_smallest_table_is_audited_and_what_cannot_be_is_said() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(2, size=80)
    second = 1 / (1 + np.exp(-(2 * label - 1 + generator.normal(size=80))))
    table = pd.DataFrame({"patient_id": range(80), "label": label, "p_0": 1 - second, "p_1": second})

    audit = audit_predictions(table, **QUICK)

    notes = " ".join(finding.found for finding in audit.of_level("note"))
    for words in ("column split is missing", "patients across splits: cannot be checked", "it needs the inputs",
                  "it needs the fitted models", "models whose modalities are unknown"):  # fmt: skip
        assert words in notes
    assert found(audit, "label permutation", "ok")


def test_other_names_of_modalities_are_declared(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"ours": 0.1, "rna": 2.0, "histology": 3.0})

    audit = audit_predictions(
        table, modalities={"ours": ["slides", "expression"], "rna": ["expression"], "histology": ["slides"]}, **QUICK
    )

    assert any("ours is better than the best single modality, rna" in text for text in found(audit, "fusion benefit"))


def test_a_person_on_both_sides_is_a_failure_and_left_out(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"subspace": 0.5})
    leaked = table[(table["fold"] == 0) & (table["split"] == "test")].iloc[:7].assign(split="train")

    audit = audit_predictions(pd.concat([table, leaked]), **QUICK)

    assert audit.findings[0].level == "failure"
    assert "7 persons are tested by models that trained" in audit.findings[0].found


def test_two_samples_of_one_tcga_patient_are_one_person(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"subspace": 0.5})
    fold = table["fold"] == 0
    test_id = table.loc[fold & (table["split"] == "test"), "patient_id"].iloc[0]
    train_id = table.loc[fold & (table["split"] == "train"), "patient_id"].iloc[0]
    names = {test_id: "TCGA-02-0047-01A", train_id: "TCGA-02-0047-02A"}

    audit = audit_predictions(table.replace({"patient_id": names}), **QUICK)

    assert any("TCGA-02-0047" in text for text in found(audit, "patient leakage", "failure"))


def test_incomplete_rows_are_left_out_and_counted(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"subspace": 0.5, "snn": 1.0}).astype({"event": object})
    table.loc[(table["model"] == "snn") & (table["patient_id"] == "TCGA-003"), "risk"] = np.nan
    table.loc[table["patient_id"] == "TCGA-004", "event"] = None

    audit = audit_predictions(table, **QUICK)

    assert any("without a finite prediction" in text for text in found(audit, "completeness", "warning"))
    assert any("without a usable outcome" in text for text in found(audit, "completeness", "note"))


@pytest.mark.parametrize("drop", [["patient_id"], ["risk"], ["event"], ["time_days"]])
def test_a_table_without_predictions_is_an_error(patients: pd.DataFrame, drop: list[str]) -> None:
    with pytest.raises(DataError, match="predictions need the column"):
        audit_predictions(predictions(patients).drop(columns=drop))


def test_a_run_is_audited_as_a_whole(run: Path, cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_module, "_cohort", lambda folder, config: (cohort, ""))

    audit = audit_run(run, n_bootstrap=50)

    checks = {finding.check for finding in audit.findings}
    assert {"fitted outside training", "selection", "slide leakage", "expression leakage", "outcome in disguise",
            "modality shuffle", "fusion benefit", "calibration", "labels", "patient leakage"} <= checks  # fmt: skip
    assert not audit.of_level("failure")
    assert {"concat, slides shuffled", "concat, expression shuffled"} <= set(audit.tables["fusion"]["model"])


def test_an_evaluation_of_other_patients_sends_to_the_run_itself(tmp_path: Path) -> None:
    assert audit_module._cohort(tmp_path, {"prepared": None, "trained": "run"}) == (
        None, "these patients are not those of development. Audit the run that they evaluate.",
    )  # fmt: skip


def test_without_the_prepared_cohort_what_needs_it_is_named(run: Path) -> None:
    audit = audit_run(run, n_bootstrap=50)

    notes = {
        finding.check for finding in audit.of_level("note") if "does not name its prepared cohort" in finding.found
    }
    assert notes == {
        "slide leakage", "expression leakage", "outcome in disguise", "modality shuffle", "confounding",
        "declared strata",
    }  # fmt: skip
    (fitted,) = [finding for finding in audit.findings if finding.check == "fitted outside training"]
    assert (fitted.level, "nothing could be checked" in fitted.found) == ("note", True)


def test_what_is_not_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="must be a finished run"):
        audit_run(tmp_path)
