from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from audited_tables import QUICK, found, run_of
from drawn_predictions import cohort, predictions
from lifelines.utils import concordance_index

from small_cohort import deal_folds
from subfuse.audit.audit import audit_predictions
from subfuse.audit.audited_task import AuditedTask, audited_tasks
from subfuse.audit.nulls import permute_labels
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.training.fitting import train_fold
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

pytestmark = pytest.mark.walk


def with_permuted_outcomes(cohort, generator):
    givers = [cohort.patients[i] for i in generator.permutation(len(cohort))]
    return replace(
        cohort,
        patients=tuple(
            replace(taker, slides=(), time_days=giver.time_days, event=giver.event)
            for taker, giver in zip(cohort, givers, strict=True)
        ),
    )


def c_index_of_new_patients(cohort, fold, model):
    fitted = train_fold(
        cohort,
        fold,
        task="survival",
        model_name=model,
        plan=TrainingPlan(
            training=TrainingSettings(epochs=6, batch_size=16, lr=1e-2),
            architecture=ArchitectureSettings(embed_dim=8),
            seed=0,
        ),
    )
    patients = [p for p in cohort if p.patient_id in set(fold.test) and p.expression is not None]
    risk = fitted.predict(patients)["risk"]
    return concordance_index([p.time_days for p in patients], -risk, [p.event for p in patients])


@pytest.mark.parametrize("model", ["cox", "snn"])
def test_models_trained_on_permuted_outcomes_find_nothing(make_cohort, model) -> None:
    cohort = make_cohort(60)
    outcomes = [cohort, *(with_permuted_outcomes(cohort, np.random.default_rng(seed)) for seed in range(4))]
    found = [c_index_of_new_patients(dealt, deal_folds(dealt)[0], model) for dealt in outcomes]
    assert found[0] > 0.6
    standard_error = 0.1 / len(found[1:]) ** 0.5  # C-indices of 30 patients
    assert np.mean(found[1:]) == pytest.approx(0.5, abs=3 * standard_error)


def cross_validated_noise(seed: int, *, n: int = 40, k: int = 5) -> pd.DataFrame:
    """Test predictions of the nearest class mean on inputs that have nothing to do with the class."""
    random = np.random.default_rng(seed)
    inputs, is_g4 = random.normal(size=(n, 30)), random.permutation(np.arange(n) % 2 == 1)
    fold = np.empty(n, dtype=int)
    for of_class in (is_g4, ~is_g4):
        fold[random.permutation(np.flatnonzero(of_class))] = np.arange(of_class.sum()) % k
    probability = np.empty(n)
    for index in range(k):
        seen, tested = fold != index, fold == index
        direction = inputs[seen & is_g4].mean(axis=0) - inputs[seen & ~is_g4].mean(axis=0)
        probability[tested] = 1 / (1 + np.exp(-(inputs[tested] - inputs[seen].mean(axis=0)) @ direction))
    names = [f"P{i}" for i in range(n)]
    table = {"patient_id": names, "task": "grade", "model": "theirs", "fold": fold, "repeat": 0, "split": "test"}
    table |= {"label": np.where(is_g4, "G4", "G2"), "p_G2": 1 - probability, "p_G4": probability}
    return pd.DataFrame(table)


@pytest.mark.parametrize("seed", [368, 99])
def test_noise_that_happens_to_lie_far_below_chance_is_no_reversed_prediction(seed):
    audit = audit_predictions(cross_validated_noise(seed), n_bootstrap=5)
    below = audit.tables["label_permutation"].iloc[0]
    assert below["value"] < 0.3
    assert below["p_value"] == 1.0  # below every permutation
    assert audit.of_level("failure") == ()


def test_a_trivial_model_that_tells_nothing_is_no_warning_but_any_other_is():
    levels = {"clinical": "ok", "age and sex": "ok", "subspace": "warning"}
    rows = [predictions(cohort(n=60), model=model, noise=1e6, seed=1) for model in levels]
    (task,) = audited_tasks(pd.concat(rows, ignore_index=True), {"age and sex": ["covariates"]})
    findings, table = permute_labels(task)
    assert (table["p_value"] > 0.05).all()
    assert {finding.model: finding.level for finding in findings} == levels


@pytest.mark.parametrize(("model", "level"), [("theirs", "warning"), ("site", "note")])
def test_an_order_below_every_permutation_is_said_to_be_one(model, level):
    rows = predictions(cohort(n=120), model=model, noise=3.0, seed=1)
    (task,) = audited_tasks(rows.assign(risk=-rows["risk"]))
    (finding,), table = permute_labels(task)
    assert 0.25 < task.values[model] < 0.45
    assert table["p_value"].tolist() == [1.0]
    assert (finding.level, finding.found[:13]) == (level, "below chance:")
    assert finding.remedy.startswith("A higher risk must be worse")


def turned_round(name: str, *, noise: float, seed: int, model: str = "theirs") -> AuditedTask:
    """Predictions with the sign of the risk, or the first and last class, exchanged."""
    rows = predictions(cohort(n=120), task=name, model=model, noise=noise, seed=seed)
    rows = rows.assign(risk=-rows["risk"]).rename(columns={"p_G2": "p_G4", "p_G4": "p_G2"})
    (task,) = audited_tasks(rows, n_bootstrap=200)
    return task


@pytest.mark.parametrize("model", ["theirs", "site"])
@pytest.mark.parametrize(("name", "noise", "metric"), [("survival", 5.0, "C-index"), ("grade", 3.0, "AUC")])
def test_an_interval_below_chance_is_a_reversed_direction_though_some_permutations_are_lower(
    name: str, noise: float, metric: str, model: str
) -> None:
    task = turned_round(name, noise=noise, seed=6, model=model)
    (finding,), table = permute_labels(task)
    assert 0.9 < table["p_value"].item() < 1.0  # not below every permutation
    known = evaluate_predictions(task.rows, n_bootstrap=200).set_index("metric").loc[task.headline]
    assert known["upper"] < 0.5
    interval = f"the 95 % interval of the {metric}, {known['lower']:.3f} to {known['upper']:.3f}"
    assert finding.found.endswith(f"; the direction seems reversed: {interval}, lies below 0.5")
    assert "every one of them higher" not in finding.found
    assert finding.level == ("note" if model == "site" else "warning")
    assert finding.remedy.endswith("Check the sign of the risk, or the order of the classes.")


@pytest.mark.parametrize(("name", "noise", "seed"), [("survival", 5.0, 5), ("grade", 2.5, 2)])
def test_an_interval_that_spans_chance_is_not_said_to_be_reversed(name: str, noise: float, seed: int) -> None:
    task = turned_round(name, noise=noise, seed=seed)
    (finding,), _ = permute_labels(task)
    assert task.values["theirs"] < 0.5
    assert "reversed" not in finding.found + finding.why + finding.remedy
    assert (finding.level, finding.why) == (
        "warning", "The predictions are not shown to be related to the outcome."
    )  # fmt: skip


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


def test_noise_is_not_told_from_permuted_outcomes(patients: pd.DataFrame) -> None:
    generator = np.random.default_rng(1)
    table = run_of(patients, {"snn": 1.0}).assign(risk=lambda rows: generator.normal(size=len(rows)))

    assert len(found(audit_predictions(table, **QUICK), "label permutation", "warning")) == 1
