"""What late fusion is made of, and what a comparison must show before a model is called better."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import cohort, predictions

from subfuse.audit.audited_task import AuditedTask, audited_tasks
from subfuse.audit.findings import SIGNIFICANCE
from subfuse.audit.fusion import (
    Comparisons,
    Contest,
    fusion_benefit,
    fusion_contest,
    late_fusion,
    ordered_share,
    rescue,
)
from subfuse.audit.simple_baselines import compare_with_simple
from subfuse.evaluation.predictions import read_tasks

SINGLE = {"snn": {"expression"}, "abmil": {"slides"}}
MODALITIES = {**SINGLE, "subspace": {"slides", "expression"}, "mean": {"slides"}}


def task_of(noises: dict[str, float], name: str = "survival", *, patients: int = 30) -> AuditedTask:
    rows = [
        predictions(cohort(n=patients), task=name, model=model, noise=noise, seed=index)
        for index, (model, noise) in enumerate(noises.items())
    ]
    (task,) = audited_tasks(pd.concat(rows, ignore_index=True), {m: MODALITIES[m] for m in noises if m in MODALITIES})
    return task


def fused(task: AuditedTask) -> pd.DataFrame:
    late = late_fusion(task, list(SINGLE))
    assert late is not None
    return late.sort_values(["fold", "split", "patient_id"]).reset_index(drop=True)


def test_late_fusion_of_risks_is_the_same_on_every_scale_of_a_model() -> None:
    task = task_of({"snn": 1.0, "abmil": 1.5})
    is_snn = (task.rows["model"] == "snn").to_numpy()
    risk = task.rows["risk"].to_numpy()
    stretched = np.where(is_snn, np.arcsinh(risk) * 1e4, risk)  # keeps every order

    pd.testing.assert_frame_equal(fused(replace(task, rows=task.rows.assign(risk=stretched))), fused(task))


def test_late_fusion_is_the_mean_rank_of_risk_within_fold_and_split() -> None:
    task = task_of({"snn": 1.0, "abmil": 1.5})

    late = fused(task)

    key = ["fold", "split", "patient_id"]
    tables = [task.of_model(model).sort_values(key).reset_index(drop=True) for model in SINGLE]
    shares = []
    for table in tables:
        below = [
            (group["risk"].to_numpy()[:, None] > group["risk"].to_numpy()).sum(axis=1) + 0.5
            for _, group in table.groupby(["fold", "split"])
        ]
        size = table.groupby(["fold", "split"])["risk"].transform("size")
        shares.append(np.concatenate(below) / size)
    np.testing.assert_allclose(late["risk"], np.mean(shares, axis=0))
    assert set(late["model"]) == {"mean of SNN and ABMIL"}


def test_late_fusion_of_classes_is_the_mean_probability() -> None:
    task = task_of({"snn": 1.0, "abmil": 1.5}, "grade")

    late = fused(task)

    key, columns = ["fold", "split", "patient_id"], [f"p_{name}" for name in task.classes]
    parts = [task.of_model(model).sort_values(key)[columns].to_numpy() for model in SINGLE]
    np.testing.assert_allclose(late[columns], np.mean(parts, axis=0))


def test_late_fusion_takes_the_best_model_of_each_modality_and_the_patients_of_both() -> None:
    task = task_of({"snn": 1.0, "abmil": 1.5, "mean": 9.0})
    rows = task.rows[~((task.rows["model"] == "snn") & (task.rows["patient_id"] == "TCGA-003"))]
    assert task.values["abmil"] > task.values["mean"]

    late = late_fusion(replace(task, rows=rows), [*SINGLE, "mean"])
    worst = late_fusion(task, ["abmil", "mean"])

    assert set(late["model"]) == {"mean of SNN and ABMIL"}
    assert set(task.rows["patient_id"]) - set(late["patient_id"]) == {"TCGA-003"}
    assert worst is None


def told(lower: float, upper: float, p_adjusted: float, *, reference: str) -> Comparisons:
    row = {"task": "survival", "metric": "c_index", "model": "subspace", "reference": reference, "n_patients": 30}
    row |= {"difference": (lower + upper) / 2, "lower": lower, "upper": upper, "reason": None}
    # the unadjusted value alone would do
    return Comparisons(pd.DataFrame([row | {"p_value": 0.001, "p_adjusted": p_adjusted}]))


CLEAR, UNCLEAR = SIGNIFICANCE - 0.001, SIGNIFICANCE
EVIDENCE = pytest.mark.parametrize(
    ("lower", "upper", "p_adjusted", "level", "words"),
    [
        pytest.param(0.01, 0.09, CLEAR, "ok", "Subspace fusion is better than", id="better"),
        pytest.param(0.01, 0.09, UNCLEAR, None, "is not shown to be better than", id="not after adjustment"),
        pytest.param(0.0, 0.09, CLEAR, None, "is not shown to be better than", id="interval touches zero"),
        pytest.param(-0.09, -0.01, CLEAR, "warning", "is worse than", id="worse"),
    ],
)


@pytest.fixture(scope="module")
def contest() -> Contest:
    task = task_of({"subspace": 1.0, "snn": 1.5}, patients=24)
    return fusion_contest(task)


@EVIDENCE
def test_better_is_said_of_fusion_with_interval_and_adjusted_p(
    contest: Contest, lower, upper, p_adjusted, level, words
) -> None:
    benefit = fusion_benefit(contest, told(lower, upper, p_adjusted, reference="snn"))

    verdict, rescued, alone = benefit.findings
    assert "rescues" in rescued.found
    assert alone.found == "no model of slides alone is compared: the best single modality may be missing"
    assert verdict.level == (level or "warning")
    assert pd.Series([verdict.found]).str.contains(words).all()
    assert benefit.differences[["model", "reference", "p_adjusted"]].to_numpy().tolist() == [
        ["subspace", "snn", p_adjusted]
    ]


@EVIDENCE
def test_better_than_linear_is_said_with_interval_and_adjusted_p(
    contest: Contest, lower, upper, p_adjusted, level, words
) -> None:
    rows, of_snn = contest.task.rows, contest.task.modalities["snn"]
    task = replace(
        contest.task,
        rows=rows.replace({"model": {"snn": "cox"}}),
        modalities={"subspace": contest.task.modalities["subspace"], "cox": of_snn},
        values={"subspace": 0.7, "cox": 0.6},
    )
    told_of_cox = told(lower, upper, p_adjusted, reference="cox")
    (_, verdict) = compare_with_simple(task, told_of_cox)

    assert verdict.level == (level or "note")
    assert pd.Series([verdict.found]).str.contains(words).all()


def test_worse_is_said_of_fusion_with_interval_and_adjusted_p(contest: Contest) -> None:
    verdicts = [
        fusion_benefit(contest, told(lower, upper, p_adjusted, reference="snn")).findings[0].found
        for lower, upper, p_adjusted in ((-0.09, -0.01, UNCLEAR), (-0.09, 0.0, CLEAR))
    ]
    assert all("is not shown to be better" in found for found in verdicts)


def test_a_comparison_turned_round_changes_sign_and_keeps_its_p() -> None:
    comparisons = told(0.25, 0.75, 0.02, reference="snn")
    turned = comparisons.row("snn", "subspace")
    expected = {"model": "snn", "reference": "subspace", "difference": -0.5, "lower": -0.75, "upper": -0.25}
    assert turned.items() >= (expected | {"p_adjusted": 0.02}).items()
    assert comparisons.row("subspace", "snn")["lower"] == 0.25
    with pytest.raises(KeyError, match="snn and abmil are not compared"):
        comparisons.row("snn", "abmil")


def test_the_ordered_share_of_a_patient_by_hand() -> None:
    before = np.zeros((4, 4), bool)  # the last was lost before anything happened
    before[0, 1] = before[0, 2] = before[1, 2] = True
    share = ordered_share(before, np.array([3.0, 1.0, 1.0, 9.0]))
    np.testing.assert_allclose(share, [1.0, 0.75, 0.75, np.nan])


def test_who_is_rescued_and_who_is_lost() -> None:
    patients = pd.DataFrame({"patient_id": list("abcd"), "cohort": "c", "task": "grade", "repeat": 0, "fold": 0,
                             "split": "test", "label": list("XXYY")})  # fmt: skip
    ours = patients.assign(model="ours", p_X=[0.9, 0.9, 0.9, 0.1]).assign(p_Y=lambda t: 1 - t["p_X"])
    theirs = patients.assign(model="theirs", p_X=[0.9, 0.1, 0.1, 0.9]).assign(p_Y=lambda t: 1 - t["p_X"])
    (task,) = read_tasks(pd.concat([ours, theirs], ignore_index=True))

    finding, changed = rescue(task, "ours", "theirs")

    assert dict(zip(changed["patient_id"], changed["change"], strict=True)) == {
        "b": "rescued",
        "c": "lost",
        "d": "rescued",
    }
    assert "ours rescues 2 and loses 1 of 4 patients against theirs" in finding.found
    assert finding.level == "note"


def test_nobody_is_told_to_prefer_a_model_that_is_not_shown_to_be_related_to_the_outcome(contest: Contest) -> None:
    comparisons = told(-0.09, 0.09, UNCLEAR, reference="snn")
    remedies = [fusion_benefit(contest, comparisons, unrelated).findings[0].remedy for unrelated in ((), ("snn",))]
    assert remedies[0].startswith("Prefer SNN, which is simpler")
    assert remedies[1].startswith("SNN is no alternative: it is not shown to be related to the outcome")
