"""What a model adds to a trivial one, against lifelines and scikit-learn, and where it must be nothing."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import CLASSES, cohort, predictions
from lifelines import CoxPHFitter
from sklearn.linear_model import LogisticRegression

from subfuse.evaluation.benefit.added_value import (
    ADDED_COLUMNS,
    OTHER_FOLDS,
    PENALTY,
    TRAINING,
    VALIDATION,
    WEIGHTLESS,
    added_value,
    combine,
    cox_weights,
    pool_weights,
)
from subfuse.evaluation.comparisons import compare_models
from subfuse.evaluation.predictions import TaskPredictions, read_tasks


def task_of(rows: pd.DataFrame) -> TaskPredictions:
    return next(iter(read_tasks(rows)))


def table_of(patients: pd.DataFrame, noises: dict[str, float], task: str = "survival", seed: int = 1) -> pd.DataFrame:
    """Predictions of models by their noise; one named `noise` sees other patients' severity."""
    others = patients.assign(severity=patients["severity"].to_numpy()[::-1])
    parts = [
        predictions(others if m == "noise" else patients, task=task, model=m, noise=s, seed=seed + i)
        for i, (m, s) in enumerate(noises.items())
    ]
    return pd.concat(parts, ignore_index=True)


def columns_of(task: str) -> list[str]:
    return ["risk"] if task == "survival" else [f"p_{name}" for name in CLASSES]


def added(rows: pd.DataFrame, models: list[str], n_bootstrap: int = 100) -> pd.DataFrame:
    return added_value(task_of(rows), "clinical", models, n_bootstrap=n_bootstrap, seed=0).set_index("model")


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    return cohort(n=180)


def test_weights_of_risks_are_those_of_lifelines() -> None:
    draw = np.random.default_rng(0)
    risk = draw.normal(size=(80, 2))
    risk /= risk.std(axis=0, ddof=1)  # lifelines penalises weights of such
    time_days, event = draw.exponential(np.exp(-risk @ [0.8, 0.5])), draw.random(80) < 0.6
    table = pd.DataFrame({"a": risk[:, 0], "b": risk[:, 1], "time": time_days, "event": event})
    fitted = CoxPHFitter(penalizer=PENALTY * event.sum() / 80).fit(table, "time", "event")

    assert cox_weights(risk, time_days, event) == pytest.approx(fitted.params_.to_numpy(), abs=1e-3)


def test_weights_of_two_classes_are_those_of_logistic_regression_on_both_log_odds() -> None:
    draw = np.random.default_rng(1)
    log_odds = draw.normal(size=(120, 2))
    label = (draw.random(120) < 1 / (1 + np.exp(-log_odds @ [1.0, 0.5] - 0.7))).astype(int)
    logs = np.stack([-log_odds / 2, log_odds / 2], axis=1)  # differ by the log odds
    fitted = LogisticRegression(C=1 / (PENALTY * 120), tol=1e-10).fit(log_odds, label)

    weights, intercepts = pool_weights(logs, label)

    assert weights == pytest.approx(fitted.coef_[0], abs=1e-4)
    assert intercepts == pytest.approx([0, fitted.intercept_[0]], abs=1e-4)


def test_the_difference_is_that_of_the_combined_predictions_with_its_paired_interval(patients: pd.DataFrame) -> None:
    rows = table_of(patients, {"clinical": 2.0, "ours": 2.0})
    combined = combine(task_of(rows), "clinical", "ours").rows.assign(model="both")
    expected = compare_models(pd.concat([rows, combined]), reference="clinical", n_bootstrap=100).set_index("model")

    table = added(rows, ["ours"])

    assert {"model", *table.columns} == {*ADDED_COLUMNS}
    for name in ("difference", "lower", "upper", "p_value"):
        assert table.loc["ours", name] == pytest.approx(expected.loc["both", name])
    assert table.loc["ours", "difference"] > 0.02
    assert table.loc["ours", "fitted_on"] == VALIDATION


@pytest.mark.parametrize("task", ["survival", "grade"])
def test_a_copy_adds_nothing_noise_adds_nothing_and_what_is_new_comes_first(patients: pd.DataFrame, task: str) -> None:
    rows = table_of(patients, {"clinical": 1.5, "noise": 1.0, "new": 1.0}, task)
    rows = pd.concat([rows, rows[rows["model"] == "clinical"].assign(model="copy")], ignore_index=True)

    table = added(rows, ["noise", "copy", "new"])

    assert table.index[0] == "new"
    assert table.loc["new", "lower"] > 0
    assert table.loc["copy", ["difference", "lower", "upper"]].abs().max() < 1e-12
    assert not table.loc["noise", "lower"] > 0  # or none, without weight
    assert abs(table.loc["noise", "difference"]) < 0.03


@pytest.mark.walk
def test_noise_adds_nothing_on_average() -> None:
    differences = []
    for seed in range(8):
        rows = table_of(cohort(seed, n=120), {"clinical": 1.0, "noise": 1.0}, seed=50 + seed)
        differences.append(added(rows, ["noise"], n_bootstrap=1)["difference"].iloc[0])
    assert np.mean(differences) <= 0.002


@pytest.mark.parametrize("change", ["reversed", "constant"])
@pytest.mark.parametrize("task", ["survival", "grade"])
def test_a_reversed_and_a_constant_model_get_no_weight(patients: pd.DataFrame, task: str, change: str) -> None:
    rows = table_of(patients, {"clinical": 1.0, "ours": 1.0}, task)
    ours, predicted = rows["model"] == "ours", columns_of(task)
    if change == "constant":
        rows.loc[ours, predicted] = 1 / len(predicted)
    elif task == "survival":
        rows.loc[ours, "risk"] *= -1
    else:
        inverse = 1 / rows.loc[ours, predicted]
        rows.loc[ours, predicted] = inverse.div(inverse.sum(axis=1), axis=0)
    found = added(rows, ["ours"]).loc["ours"]
    assert found["difference"] == 0
    assert found[["lower", "upper", "p_value"]].isna().all()  # no interval of no width
    assert found["reason"] == WEIGHTLESS


@pytest.mark.parametrize("task", ["survival", "grade"])
def test_on_which_scale_a_model_predicts_changes_nothing(patients: pd.DataFrame, task: str) -> None:
    rows = table_of(patients, {"clinical": 2.0, "ours": 2.0}, task)
    predicted = columns_of(task)
    if task == "grade":  # a logarithm of less than 1e-7 is none
        rows[predicted] = 0.97 * rows[predicted] + 0.01
    other, ours = rows.copy(), rows["model"] == "ours"
    if task == "survival":
        other.loc[ours, "risk"] = 50 * rows["risk"] + 7
    else:
        flatter = rows.loc[ours, predicted] ** 0.5
        other.loc[ours, predicted] = flatter.div(flatter.sum(axis=1), axis=0)
    found, again = (combine(task_of(table), "clinical", "ours").rows[predicted] for table in (rows, other))
    np.testing.assert_allclose(found.astype(float), again.astype(float), atol=1e-5)


def test_a_class_that_both_models_overrate_is_combined_to_its_frequency(patients: pd.DataFrame) -> None:
    rows = table_of(patients, {"clinical": 2.0, "ours": 2.0}, "grade")
    predicted = columns_of("grade")
    rows[predicted] = (0.97 * rows[predicted] + 0.01) * [1.0, 1.0, 6.0]
    rows[predicted] = rows[predicted].div(rows[predicted].sum(axis=1), axis=0)
    frequency = [(patients["label"] == name).mean() for name in CLASSES]
    assert rows[predicted[2]].mean() > frequency[2] + 0.15
    found = combine(task_of(rows), "clinical", "ours").rows
    np.testing.assert_allclose(found[predicted].mean(), frequency, atol=0.05)


def test_repeats_are_combined_each_by_itself(patients: pd.DataFrame) -> None:
    once = table_of(patients, {"clinical": 2.0, "ours": 2.0})
    other = table_of(patients, {"clinical": 3.0, "ours": 1.0}, seed=9).assign(repeat=1)
    for splits in (["train", "validation", "test"], ["test"]):
        alone, beside = (
            combine(task_of(table[table["split"].isin(splits)]), "clinical", "ours").rows
            for table in (once, pd.concat([once, other], ignore_index=True))
        )
        np.testing.assert_allclose(beside.loc[beside["repeat"] == 0, "risk"], alone["risk"])


def test_a_trivial_model_that_is_reversed_keeps_its_order_by_a_small_weight() -> None:
    draw = np.random.default_rng(0)
    risk = draw.normal(size=(80, 1)) * [1.0, 1.0]
    weights = cox_weights(-risk, np.exp(-risk[:, 0]), np.ones(80, dtype=bool))
    assert 0 < weights[0] < 0.01
    assert weights[1] == 0


def test_weights_are_fitted_on_patients_who_are_not_tested_with_them(patients: pd.DataFrame) -> None:
    """Outcomes of a fold's test patients do not change its combination, wherever the weights come from."""
    whole = table_of(patients, {"clinical": 2.0, "ours": 2.0})
    sources = {
        VALIDATION: whole,
        OTHER_FOLDS: whole[whole["split"] != "validation"],
        TRAINING: whole[(whole["split"] != "validation") & (whole["fold"] == 0)],
    }
    for fitted_on, rows in sources.items():
        other = rows.copy()
        changed = (other["fold"] == 0) & (other["split"] == "test")
        other.loc[changed, "event"] = ~other.loc[changed, "event"].astype(bool)
        found, again = (combine(task_of(table), "clinical", "ours") for table in (rows, other))
        assert found.fitted_on == again.fitted_on == fitted_on
        of_fold = [c.rows.loc[c.rows["fold"] == 0, "risk"].to_numpy() for c in (found, again)]
        assert np.array_equal(*of_fold)


def test_who_is_tested_by_several_folds_fits_no_weights_for_them(patients: pd.DataFrame) -> None:
    """Patients of another cohort, whom the models of all folds predict, and who trained with nobody."""
    rows = table_of(patients, {"clinical": 2.0, "ours": 2.0})
    rows = rows[(rows["fold"] == 0) & (rows["split"] == "test")]
    everywhere = pd.concat([rows.assign(fold=fold) for fold in range(3)])
    found = combine(task_of(everywhere), "clinical", "ours")
    assert found.rows.empty
    assert found.reason.startswith("weights need 10 events")


def test_a_model_that_knows_its_training_patients_by_heart_gets_no_weight_by_them(patients: pd.DataFrame) -> None:
    rows = table_of(patients, {"clinical": 0.5, "ours": 0.5})
    rows = rows[rows["split"] != "validation"].reset_index(drop=True)
    ours, draw = rows["model"] == "ours", np.random.default_rng(1)
    noise = pd.Series(draw.normal(size=len(rows)), rows.index)
    by_heart = -np.log(rows["time_days"].astype(float))
    rows["risk"] = rows["risk"].mask(ours, noise.where(rows["split"] == "test", by_heart))
    table = added(rows, ["ours"])
    assert table.loc["ours", "fitted_on"] == OTHER_FOLDS
    assert abs(table.loc["ours", "difference"]) < 0.01
    in_one = combine(task_of(rows[rows["fold"] == 0]), "clinical", "ours")
    assert (in_one.fitted_on, in_one.largest_weight > 1) == (TRAINING, True)


def test_where_no_weights_can_be_fitted_the_reason_says_so(patients: pd.DataFrame) -> None:
    rows = table_of(patients, {"clinical": 1.0, "ours": 1.0, "theirs": 1.0})
    one = rows[(rows["fold"] == 0) & (rows["split"] == "test")].copy()
    one.loc[one["model"] == "theirs", "patient_id"] += "-other"

    table = added(one, ["ours", "theirs"])

    assert all(combine(task_of(one), "clinical", model).rows.empty for model in ("ours", "theirs"))
    assert table["difference"].isna().all()
    assert table.loc["ours", "reason"].startswith("weights need 10 events")
    assert table.loc["theirs", "reason"] == "no patient is predicted by both models in the same fold"
