"""Metrics of a table of predictions, with intervals: means over folds, coverage, and what has none."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import CLASSES, FOLDS, N, cohort, folds_of, predictions, row_of
from scipy.special import ndtr
from sklearn.metrics import roc_auc_score
from sksurv.metrics import concordance_index_censored

from subfuse.evaluation.bootstrap import BootstrapWeights
from subfuse.evaluation.calibration.measures import calibration_table
from subfuse.evaluation.censoring import HORIZON_DAYS
from subfuse.evaluation.intervals import METRIC_COLUMNS, evaluate_predictions, headline_interval
from subfuse.evaluation.metrics import classification_metrics, survival_metrics
from subfuse.evaluation.predictions import read_tasks
from subfuse.evaluation.ranked_patients import ranked_patients
from subfuse.evaluation.weighted_metrics import horizon_metric


def test_survival_value_is_the_mean_over_folds() -> None:
    table = predictions(cohort())

    metrics = evaluate_predictions(table, n_bootstrap=50)

    per_fold = [concordance_index_censored(f["event"], f["time_days"], f["risk"])[0] for f in folds_of(table)]
    row = row_of(metrics, "c_index")
    assert tuple(metrics.columns) == METRIC_COLUMNS
    assert row["value"] == pytest.approx(np.mean(per_fold), abs=1e-12)
    assert row["sd"] == pytest.approx(np.std(per_fold, ddof=1), abs=1e-12)
    assert row["lower"] < row["value"] < row["upper"]
    assert (row["n_patients"], row["n_events"], row["reason"]) == (N, cohort()["event"].sum(), None)


@pytest.mark.parametrize(("name", "metric"), [("survival", "c_index"), ("grade", "auc")])
def test_the_interval_of_a_headline_alone_is_that_of_all_metrics(name: str, metric: str) -> None:
    table = pd.concat([predictions(cohort(), task=name, model=m, seed=s) for s, m in enumerate(("one", "other"))])
    metrics = evaluate_predictions(table, n_bootstrap=50, seed=3)
    (task,) = read_tasks(table)
    row = metrics[(metrics["model"] == "other") & (metrics["metric"] == metric)].iloc[0]
    assert headline_interval(task, "other", n_bootstrap=50, seed=3) == pytest.approx((row["lower"], row["upper"]))
    few = read_tasks(table[table["fold"] == 0].groupby(["model", "split"]).head(4))
    assert all(np.isnan(headline_interval(task, "other", n_bootstrap=50, seed=3)).all() for task in few)


def test_classification_value_is_the_mean_over_folds() -> None:
    table = predictions(cohort(), task="grade")

    metrics = evaluate_predictions(table, n_bootstrap=50)

    per_fold = [roc_auc_score(f["label"], f[[f"p_{c}" for c in CLASSES]], multi_class="ovr") for f in folds_of(table)]
    row = row_of(metrics, "auc")
    assert row["value"] == pytest.approx(np.mean(per_fold), abs=1e-12)
    assert row["lower"] < row["value"] < row["upper"]
    assert pd.isna(row["n_events"])


def test_risk_scales_of_other_folds_do_not_matter() -> None:
    table = predictions(cohort())
    rescaled = table.assign(risk=np.where(table["fold"] == 1, np.exp(table["risk"] / 100) - 500, table["risk"]))

    pd.testing.assert_frame_equal(
        evaluate_predictions(table, n_bootstrap=20), evaluate_predictions(rescaled, n_bootstrap=20)
    )


def test_training_rows_serve_only_as_censoring_distribution() -> None:
    table = predictions(cohort())
    without = table[table["split"] == "test"]

    metrics, metrics_without = (evaluate_predictions(rows, n_bootstrap=20) for rows in (table, without))

    pd.testing.assert_series_equal(row_of(metrics, "c_index"), row_of(metrics_without, "c_index"))
    assert np.isfinite(row_of(metrics, "uno_c_index")["value"])
    uno = row_of(metrics_without, "uno_c_index")
    assert np.isnan(uno["value"])
    assert (
        uno["reason"] == "undefined in 3 of 3 folds: no training patients to estimate the censoring distribution from"
    )


def test_uno_uses_the_training_patients_of_the_same_fold() -> None:
    table = predictions(cohort())
    expected = []
    for fold in range(FOLDS):
        train, test = (table[(table["fold"] == fold) & (table["split"] == split)] for split in ("train", "test"))
        columns = [rows[c].to_numpy() for rows, c in ((test, "time_days"), (test, "event"), (test, "risk"))]
        training = {"train_time_days": train["time_days"].to_numpy(), "train_event": train["event"].to_numpy()}
        expected.append(survival_metrics(*columns, **training)["uno_c_index"].value)

    value = row_of(evaluate_predictions(table, n_bootstrap=5), "uno_c_index")["value"]

    assert value == pytest.approx(np.mean(expected))


def test_undefined_fold_is_left_out_and_counted() -> None:
    patients = cohort()
    patients.loc[patients["fold_tested"] == 2, "event"] = False
    table = predictions(patients)

    row = row_of(evaluate_predictions(table, n_bootstrap=20), "c_index")

    defined = [concordance_index_censored(f["event"], f["time_days"], f["risk"])[0] for f in folds_of(table)[:2]]
    assert row["value"] == pytest.approx(np.mean(defined))
    assert row["reason"] == "undefined in 1 of 3 folds: no event was observed"


def test_metric_undefined_in_every_fold_is_nan() -> None:
    table = predictions(cohort().assign(event=False))

    row = row_of(evaluate_predictions(table, n_bootstrap=20), "c_index")

    assert row[["value", "sd", "lower", "upper"]].isna().all()
    assert row["reason"] == (
        "undefined in 3 of 3 folds: no event was observed; no interval: 0 events among the test patients, 5 are needed"
    )


def test_a_metric_with_few_cases_of_its_own_has_no_interval() -> None:
    patients = cohort()
    late = patients["time_days"] > HORIZON_DAYS
    kept = patients[~late | (late.cumsum() <= 4) & late]  # four are followed beyond the horizon
    rows = evaluate_predictions(predictions(kept), n_bootstrap=20).set_index("metric")
    at_horizon = rows.loc[horizon_metric(HORIZON_DAYS)]
    assert np.isfinite(at_horizon["value"])
    assert np.isnan(at_horizon["lower"])
    assert "no interval: " in at_horizon["reason"]
    assert "test patients followed beyond day 1095, 5 are needed" in at_horizon["reason"]
    assert np.isfinite(rows.loc["c_index", "lower"])

    censored = patients["fold_tested"] > 0
    patients.loc[censored, "event"] = False  # the C-index is that of one fold, which has few events
    patients.loc[~censored, "event"] &= patients.loc[~censored, "event"].cumsum() <= 4
    few = row_of(evaluate_predictions(predictions(patients), n_bootstrap=20), "c_index")
    assert np.isfinite(few["value"])
    assert np.isnan(few["lower"])


def test_folds_that_lack_classes_are_pooled() -> None:
    patients = cohort(n=30)
    patients["label"] = np.where(patients["fold_tested"] == 0, "G2", np.where(patients["severity"] > 0, "G4", "G3"))
    table = predictions(patients, task="grade")

    row = row_of(evaluate_predictions(table, n_bootstrap=20), "auc")

    tested = table[table["split"] == "test"]
    label = tested["label"].map({name: index for index, name in enumerate(CLASSES)}).to_numpy()
    pooled = classification_metrics(label, tested[[f"p_{c}" for c in CLASSES]].to_numpy())
    assert row["value"] == pytest.approx(pooled["auc"].value)
    assert row["reason"].startswith("folds pooled: 3 of 3 lack patients of a class")
    assert np.isnan(row["sd"])

    one = row_of(evaluate_predictions(table[table["fold"] == 1], n_bootstrap=20), "auc")  # as another cohort is
    assert "no patient of class G2" in one["reason"]
    assert "folds" not in one["reason"]


def test_folds_are_pooled_only_where_more_than_half_of_them_lack_a_class() -> None:
    patients = cohort(n=60, folds=4)
    patients["label"] = np.where(patients["fold_tested"] < 2, "G2", patients["label"])

    row = row_of(evaluate_predictions(predictions(patients, task="grade"), n_bootstrap=5), "auc")

    assert row["reason"].startswith("undefined in 2 of 4 folds")


def test_delongs_interval_is_that_of_the_mean_over_folds_and_of_the_auc_alone() -> None:
    table = predictions(cohort(), task="grade").drop(columns="p_G3")
    table = table[table["label"] != "G3"].assign(p_G2=lambda t: t["p_G2"] / (t["p_G2"] + t["p_G4"]))
    table = table.assign(p_G4=1 - table["p_G2"])
    values, variances = [], []
    for fold in folds_of(table):
        score, is_case = fold["p_G4"].to_numpy(), (fold["label"] == "G4").to_numpy()
        above = (score[is_case][:, None] > score[~is_case]).astype(float)
        values.append(above.mean())
        variances.append(
            above.mean(axis=1).var(ddof=1) / is_case.sum() + above.mean(axis=0).var(ddof=1) / (~is_case).sum()
        )
    half = 1.959964 * np.sqrt(np.sum(variances)) / len(values)

    metrics = evaluate_predictions(table, n_bootstrap=20).set_index("metric")

    found = metrics.loc["auc", ["lower_delong", "upper_delong"]].astype(float)
    assert found.to_numpy() == pytest.approx([np.mean(values) - half, min(np.mean(values) + half, 1.0)], abs=1e-6)
    assert metrics.drop(index="auc")[["lower_delong", "upper_delong"]].isna().all(axis=None)
    few = evaluate_predictions(table[table["patient_id"] < "TCGA-006"], n_bootstrap=20).set_index("metric")
    assert few.loc["auc", ["lower", "lower_delong", "upper_delong"]].isna().all()


def test_delongs_interval_ends_at_one_and_at_zero() -> None:
    table = predictions(cohort(), task="grade", noise=0.1).drop(columns="p_G3")
    label = np.where(table["patient_id"].map(cohort().set_index("patient_id")["severity"]) > 0, "G4", "G2")
    table = table.assign(label=label, p_G2=table["p_G2"] / (table["p_G2"] + table["p_G4"]))

    row = row_of(evaluate_predictions(table.assign(p_G4=1 - table["p_G2"]), n_bootstrap=5), "auc")

    assert 0.98 < row["value"] < 1
    assert row["lower_delong"] < row["value"]
    assert row["upper_delong"] == 1
    reversed_ = table.assign(p_G4=table["p_G2"], p_G2=1 - table["p_G2"])
    assert row_of(evaluate_predictions(reversed_, n_bootstrap=5), "auc")["lower_delong"] == 0


def test_only_the_interval_of_the_calibration_error_is_moved() -> None:
    table = predictions(cohort(), task="grade")
    (task,) = read_tasks(table)
    drawn = BootstrapWeights.draw(task.tested, 200, np.random.default_rng(3))
    groups = ranked_patients(table, task.outcome)
    pooled = ranked_patients(table, task.outcome, by=["repeat"])[0]
    errors = pooled.weighted_errors(drawn.of(pooled))["expected_calibration_error"]
    accuracies = np.mean([group.weighted(drawn.of(group))["accuracy"] for group in groups], axis=0)

    metrics = evaluate_predictions(table, n_bootstrap=200, seed=3).set_index("metric")

    error = metrics.loc["expected_calibration_error"]
    moved = np.quantile(errors, [0.025, 0.975]) + error["value"] - errors.mean()
    assert error[["lower", "upper"]].tolist() == pytest.approx(np.maximum(moved, 0).tolist())
    assert metrics.loc["accuracy", ["lower", "upper"]].tolist() == pytest.approx(
        np.quantile(accuracies, [0.025, 0.975]).tolist()
    )


def test_few_cases_where_the_metric_is_defined_leave_it_without_an_interval() -> None:
    patients = cohort()
    first = patients["fold_tested"] == 0
    patients.loc[first, "event"] &= patients.loc[first, "event"].cumsum() <= 4
    table = predictions(patients)
    unranked = (table["split"] == "test") & (table["fold"] > 0)

    row = row_of(evaluate_predictions(table.assign(risk=table["risk"].where(~unranked, 0.0)), n_bootstrap=5), "c_index")

    assert np.isfinite(row["value"])
    assert np.isnan(row["lower"])
    assert row["reason"].endswith("no interval: 4 events among the test patients, 5 are needed")


def test_a_perfect_order_has_no_interval_without_width() -> None:
    table = predictions(cohort(), task="grade")
    certain = {f"p_{name}": (table["label"] == name).astype(float) for name in CLASSES}

    metrics = evaluate_predictions(table.assign(**certain), n_bootstrap=20).set_index("metric")

    assert metrics.loc["auc", "value"] == 1
    assert metrics[["lower", "upper"]].isna().all(axis=None)
    assert metrics.loc["auc", "reason"] == "no interval: every resample has the same value"


def test_few_cases_of_the_task_leave_the_metrics_of_its_folds_without_an_interval() -> None:
    patients = cohort()
    patients["event"] &= patients["event"].cumsum() <= 4

    metrics = evaluate_predictions(predictions(patients), n_bootstrap=20)

    assert metrics[["lower", "upper"]].isna().all(axis=None)
    assert np.isfinite(row_of(metrics, "c_index")["value"])


def test_errors_of_probabilities_pool_the_folds_and_are_those_of_the_calibration_table() -> None:
    again = cohort().assign(fold_tested=np.random.default_rng(9).permutation(cohort()["fold_tested"]))
    table = pd.concat([predictions(cohort(), task="grade"), predictions(again, task="grade", repeat=1)])

    metrics = evaluate_predictions(table, n_bootstrap=20).set_index("metric")
    told = calibration_table(table).set_index("measure")["before"]

    tested = table[table["split"] == "test"]
    squares = np.square(tested[[f"p_{c}" for c in CLASSES]] - np.eye(3)[tested["label"].map(CLASSES.index)]).sum(axis=1)
    assert metrics.loc["brier", "value"] == pytest.approx(squares.mean())
    for measure in ("brier", "expected_calibration_error"):
        assert metrics.loc[measure, "value"] == pytest.approx(told[measure], abs=1e-12)
        assert metrics.loc[measure, "sd"] > 0  # over two repeats
        assert metrics.loc[measure, "reason"] is None


def test_classes_that_other_folds_never_predict_are_counted_one_by_one() -> None:
    table = predictions(cohort(), task="grade", noise=0.1)
    for fold, lost in enumerate(["G2", "G4", "G4"]):
        table.loc[table["fold"] == fold, f"p_{lost}"] = 0.0
    columns = [f"p_{c}" for c in CLASSES]
    table[columns] = (table[columns] + 1e-9).div((table[columns] + 1e-9).sum(axis=1), axis=0)

    reason = row_of(evaluate_predictions(table, n_bootstrap=5), "precision")["reason"]

    assert reason.startswith(
        "undefined in 3 of 3 folds: class G2 never predicted (in 1), class G4 never predicted (in 2)"
    )


def test_repeats_do_not_narrow_the_interval_like_more_patients() -> None:
    patients = cohort()
    again = patients.assign(fold_tested=np.random.default_rng(9).permutation(patients["fold_tested"]))
    once = predictions(patients, noise=0.3)
    twice = pd.concat([once, predictions(again, noise=0.3, repeat=1)])

    single, repeated = (row_of(evaluate_predictions(table), "c_index") for table in (once, twice))

    assert repeated["n_patients"] == N
    assert repeated["upper"] - repeated["lower"] > 0.85 * (single["upper"] - single["lower"])


def test_calibration_error_lies_in_its_interval() -> None:
    row = row_of(evaluate_predictions(predictions(cohort(), task="grade")), "expected_calibration_error")

    assert 0 <= row["lower"] < row["value"] < row["upper"]


def test_seed_decides_and_other_tasks_do_not() -> None:
    grade, survival = predictions(cohort(), task="grade"), predictions(cohort())

    alone = evaluate_predictions(grade, n_bootstrap=20)
    beside = evaluate_predictions(pd.concat([survival, grade]), n_bootstrap=20)
    other_seed = evaluate_predictions(grade, n_bootstrap=20, seed=1)

    pd.testing.assert_frame_equal(alone, beside[beside["task"] == "grade"].reset_index(drop=True))
    assert row_of(alone, "auc")["lower"] != row_of(other_seed, "auc")["lower"]


@pytest.mark.walk
def test_intervals_cover_at_the_nominal_rate() -> None:
    truth, n, rounds = ndtr(1 / np.sqrt(2)), 100, 120  # AUC of two unit normals whose means differ by one
    label, generator = np.arange(n) % 2, np.random.default_rng(0)
    patients = pd.DataFrame({"patient_id": np.arange(n).astype(str), "label": np.where(label == 1, "yes", "no")})
    patients = patients.assign(cohort="a", task="t", repeat=0, fold=0, split="test")
    shares = [ndtr(generator.normal(size=n) + label) for _ in range(rounds)]
    cohorts = [patients.assign(model=str(i), p_no=1 - share, p_yes=share) for i, share in enumerate(shares)]

    metrics = evaluate_predictions(pd.concat(cohorts, ignore_index=True), n_bootstrap=200)

    auc = metrics[metrics["metric"] == "auc"]
    covered = ((auc["lower"] <= truth) & (truth <= auc["upper"])).mean()
    assert 0.90 <= covered <= 0.98  # nominal 0.95, standard error 0.02


def test_kappa_is_reported_for_ordered_classes_only() -> None:
    table = predictions(cohort(), task="grade")

    assert "quadratic_kappa" not in set(evaluate_predictions(table, n_bootstrap=5)["metric"])
    assert row_of(evaluate_predictions(table, n_bootstrap=5, ordinal=["grade"]), "quadratic_kappa")["value"] > 0


def test_truncation_is_stated_with_the_metrics_that_have_one() -> None:
    metrics = evaluate_predictions(predictions(cohort()), n_bootstrap=5).set_index("metric")

    assert np.isnan(metrics.loc["c_index", "truncation_days"])
    for name in ("uno_c_index", "auc_1095_days", "integrated_brier"):
        assert metrics.loc[name, "truncation_days"] > 0
