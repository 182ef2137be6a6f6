import json
import re

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import cohort, predictions

from subfuse.audit.audit import audit_predictions
from subfuse.audit.audited_task import audited_tasks, check_modalities
from subfuse.audit.calibration import calibration_findings
from subfuse.audit.comparison_family import compared_with_reference
from subfuse.audit.findings import LEVELS, Audit
from subfuse.audit.labels import label_findings
from subfuse.audit.nulls import permute_labels
from subfuse.errors import ConfigurationError, DataError
from subfuse.evaluation.calibration import CALIBRATION_COLUMNS
from subfuse.evaluation.floors import LEAST, LEAST_CALIBRATED
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.evaluation.predictions import read_tasks
from subfuse.training.models import MODELS

QUICK = {"n_bootstrap": 300}  # fewer cannot show a small p-value of a family


def found(audit: Audit, check: str, level: str | None = None) -> list[str]:
    return [f.found for f in audit.findings if f.check == check and level in (None, f.level)]


def run_of(patients: pd.DataFrame, noises: dict[str, float], *, task: str = "survival") -> pd.DataFrame:
    tables = [
        predictions(patients, task=task, model=model, noise=noise, seed=index)
        for index, (model, noise) in enumerate(noises.items())
    ]
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    return cohort(n=150)


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


@pytest.mark.parametrize(("given", "message"), [
    ({"nobody": ["slides"]}, "modalities: a model of the predictions is required. Found nobody; they have theirs, snn"),
    ({"theirs": ["slides", "genes"]}, "modalities of theirs: some of batch, .*, slides are required. Found genes"),
    ({"theirs": []}, "modalities of theirs: .* Found none"),
])  # fmt: skip
def test_modalities_of_nobody_and_unknown_ones_are_refused(patients: pd.DataFrame, given: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        check_modalities(given, ["theirs", "snn"])
    check_modalities({"theirs": ["slides", "covariates"], "snn": ("expression",)}, ["theirs", "snn"])
    with pytest.raises(ConfigurationError, match="modalities"):
        audit_predictions(run_of(patients, {"theirs": 1.0, "snn": 1.0}), modalities=given)


@pytest.mark.parametrize("name", ["survival", "diagnosis"])
def test_predictions_that_do_not_differ_are_said(patients: pd.DataFrame, name: str) -> None:
    def said(rows: pd.DataFrame) -> list[tuple[str, str]]:
        (task,) = audited_tasks(rows)
        findings, _ = permute_labels(task)
        return [(f.level, f.found) for f in findings if "predicts the same" in f.found]

    table = run_of(patients, {"theirs": 1.0}, task=name)
    columns = [column for column in table.dropna(axis="columns") if str(column).startswith(("risk", "p_"))]
    constant = table.assign(**dict.fromkeys(columns, 1 / len(columns)))
    ((level, text),) = said(constant)
    assert level == "warning"
    assert text.startswith("theirs predicts the same ")
    assert text.endswith(" for all patients of every fold")
    ((level, text),) = said(constant.where(table["fold"] == 0, table))
    assert level == "note"
    assert text.endswith(f" for all patients of 1 of {table['fold'].nunique()} folds")
    assert [level for level, _ in said(constant.assign(model="site"))] == ["note"]
    assert not said(table)


def test_one_follow_up_of_all_patients_is_a_warning(patients: pd.DataFrame) -> None:
    (task,) = read_tasks(run_of(patients, {"theirs": 1.0}).assign(time_days=1000))
    warnings = [f.found for f in label_findings(task, None) if f.level == "warning"]
    assert warnings == ["the follow-up of every patient is 1000 days"]


def test_a_finding_that_begins_with_a_model_is_of_that_model(patients: pd.DataFrame) -> None:
    audit = audit_predictions(run_of(patients, {"subspace": 0.5, "snn": 1.0, "cox": 2.0, "abmil": 3.0}), **QUICK)

    titles = {model: MODELS[model].title for model in ("subspace", "snn", "cox", "abmil")}
    named = [
        (m, f) for f in audit.findings for m, title in titles.items() if f.found.startswith((f"{title}:", f"{title} "))
    ]
    assert {model for model, _ in named} == set(titles)
    assert all(finding.model == model for model, finding in named)
    texts = " ".join(f"{finding.found} {finding.remedy}" for finding in audit.findings)
    assert not re.search(r"\b(subspace|snn|abmil|c_index)\b", texts)  # names of options are for typing


def test_a_pair_has_one_adjusted_p_wherever_it_is_told(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"subspace": 1.0, "snn": 1.1, "cox": 1.2, "abmil": 1.5, "concat": 1.3}, task="survival")
    told = compared_with_reference(table, n_bootstrap=100, seed=0)
    audit = audit_predictions(table, n_bootstrap=100, seed=0)

    assert list(told["model"]) == ["snn", "cox", "abmil", "concat"]
    fusion = audit.tables["fusion"]
    shared = fusion[fusion["model"] == "subspace"].merge(told, left_on="reference", right_on="model")
    assert len(shared) == 1  # the best single modality; late fusion is of the audit alone
    np.testing.assert_allclose(shared["p_adjusted_x"], shared["p_adjusted_y"])
    np.testing.assert_allclose(shared["difference_x"], -shared["difference_y"])
    np.testing.assert_allclose(shared["lower_x"], -shared["upper_y"])
    p_cox = told.set_index("model").loc["cox", "p_adjusted"]
    linear = [text for text in found(audit, "linear baseline") if text.startswith("Subspace fusion ")]
    assert f"adjusted p = {p_cox:.2g}" in linear[0]


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
        findings = [f for f in audit.findings if f.check == check and f.model and "rescues" not in f.found]
        assert findings, check
        assert all(f.level == "note" and f"{LEAST} are needed" in f.found for f in findings), check
    ratios = audit.tables["hazard_ratios"]
    assert ratios.empty is (task == "grade")
    assert ratios["hazard_ratio"].isna().all()


def test_calibration_is_worded_by_its_evidence() -> None:
    rows = pd.DataFrame(
        [
            ("grade", "snn", measure, np.nan, 0.2, p, np.nan, "Platt", np.nan, n, "few", None)
            for measure, p, n in (("expected_calibration_error", p_value, n_patients), ("brier", np.nan, n_patients))
        ]
        for p_value, n_patients in ((0.023, 39), (0.0004, 39), (0.4, 39), (0.0004, LEAST_CALIBRATED - 1))
    )
    tables = [pd.DataFrame(list(row), columns=list(CALIBRATION_COLUMNS)) for row in rows.to_numpy()]
    weak, clear, none, few = (calibration_findings(table)[0] for table in tables)

    assert "some evidence that probabilities are off" in weak.found
    assert "clear evidence that probabilities are off" in clear.found
    assert none.level == "ok"
    assert (few.level, f"{LEAST_CALIBRATED} are needed" in few.found) == ("note", True)
    assert not any("wrong" in finding.found for finding in (weak, clear, none, few))
    assert "cannot be recalibrated" in weak.remedy
    recalibrated = calibration_findings(tables[0].assign(after=0.1))[0]
    assert recalibrated.remedy.startswith("Recalibrate on validation patients (Platt)")


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


def test_noise_is_not_told_from_permuted_outcomes(patients: pd.DataFrame) -> None:
    generator = np.random.default_rng(1)
    table = run_of(patients, {"snn": 1.0}).assign(risk=lambda rows: generator.normal(size=len(rows)))

    assert len(found(audit_predictions(table, **QUICK), "label permutation", "warning")) == 1


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


def test_incomplete_rows_are_left_out_and_counted(patients: pd.DataFrame) -> None:
    table = run_of(patients, {"subspace": 0.5, "snn": 1.0}).astype({"event": object})
    table.loc[(table["model"] == "snn") & (table["patient_id"] == "TCGA-003"), "risk"] = np.nan
    table.loc[table["patient_id"] == "TCGA-004", "event"] = None

    audit = audit_predictions(table, **QUICK)

    assert any("have no prediction" in text for text in found(audit, "completeness", "warning"))
    assert any("have no usable outcome" in text for text in found(audit, "completeness", "note"))


def test_repeats_and_folds_of_several_tasks_fit_into_json(patients: pd.DataFrame) -> None:
    survival = run_of(patients, {"subspace": 0.5, "snn": 1.0})
    table = pd.concat([survival, survival.assign(repeat=1), run_of(patients, {"snn": 1.0}, task="grade")])

    content = json.loads(json.dumps(audit_predictions(table, **QUICK).to_dict(), allow_nan=False))

    assert sum(content["counts"].values()) == len(content["findings"])
    order = [LEVELS.index(finding["level"]) for finding in content["findings"]]
    assert order == sorted(order)
    assert {"fusion", "calibration", "reliability", "hazard_ratios"} <= set(content["tables"])


@pytest.mark.parametrize("drop", [["patient_id"], ["risk"], ["event"], ["time_days"]])
def test_a_table_without_predictions_is_an_error(patients: pd.DataFrame, drop: list[str]) -> None:
    with pytest.raises(DataError, match="predictions need the column"):
        audit_predictions(predictions(patients).drop(columns=drop))
