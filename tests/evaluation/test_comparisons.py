import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr
from scipy.stats import t as student_t
from sklearn.metrics import roc_auc_score
from sksurv.metrics import concordance_index_censored

from subfuse.errors import DataError
from subfuse.evaluation.bootstrap import replicates_of_family
from subfuse.evaluation.calibration import calibration_table
from subfuse.evaluation.censoring import HORIZON_DAYS
from subfuse.evaluation.comparisons import (
    COMPARISON_COLUMNS,
    compare_models,
    holm_adjusted,
    resampled_t_test,
)
from subfuse.evaluation.intervals import METRIC_COLUMNS, evaluate_predictions
from subfuse.evaluation.metrics import classification_metrics, survival_metrics
from subfuse.evaluation.weighted_metrics import horizon_metric

N, FOLDS = 90, 3
CLASSES = ("G2", "G3", "G4")


def cohort(seed: int = 0, *, n: int = N, folds: int = FOLDS) -> pd.DataFrame:
    """Outcomes of patients, with a latent severity that good models see."""
    generator = np.random.default_rng(seed)
    severity = generator.normal(size=n)
    survival_time, last_contact = generator.exponential(1500 * np.exp(-severity)), generator.uniform(0, 5000, n)
    return pd.DataFrame(
        {
            "patient_id": [f"TCGA-{index:03d}" for index in range(n)],
            "cohort": "tcga",
            "time_days": np.ceil(np.minimum(survival_time, last_contact)),
            "event": survival_time <= last_contact,
            "label": np.array(CLASSES)[np.digitize(severity, [-0.5, 0.5])],
            "severity": severity,
            "fold_tested": generator.permutation(n) % folds,
        }
    )


def predictions(
    patients: pd.DataFrame,
    *,
    task: str = "survival",
    model: str = "subspace",
    noise: float = 1.0,
    seed: int = 1,
    repeat: int = 0,
) -> pd.DataFrame:
    """One model's rows for all folds and splits; every fold's model has its own risk scale."""
    generator = np.random.default_rng(seed)
    rows = []
    n_folds = patients["fold_tested"].max() + 1
    for fold in range(n_folds):
        seen = patients["severity"] + noise * generator.normal(size=len(patients))
        distance = (patients["fold_tested"] - fold) % n_folds
        split = np.select([distance == 0, distance == 1], ["test", "validation" if n_folds > 2 else "train"], "train")
        table = patients[["patient_id", "cohort", "time_days", "event", "label"]].assign(
            task=task, model=model, repeat=repeat, fold=fold, split=split
        )
        if task == "survival":
            rows.append(table.assign(label=None, risk=seen * 10.0**fold + 7 * fold))
        else:
            logits = -((seen.to_numpy()[:, None] - np.array([-1.0, 0.0, 1.0])) ** 2)
            odds = np.exp(logits)
            columns = {f"p_{name}": odds[:, c] / odds.sum(axis=1) for c, name in enumerate(CLASSES)}
            rows.append(table.assign(risk=np.nan, **columns))
    return pd.concat(rows, ignore_index=True)


def row_of(table: pd.DataFrame, metric: str) -> pd.Series:
    found = table[table["metric"] == metric]
    assert len(found) == 1
    return found.iloc[0]


def folds_of(table: pd.DataFrame) -> list[pd.DataFrame]:
    return [fold for _, fold in table[table["split"] == "test"].groupby(["repeat", "fold"])]


# --- evaluate_predictions ---


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


def test_table_read_from_csv_gives_the_same(tmp_path) -> None:
    table = pd.concat([predictions(cohort()), predictions(cohort(), task="grade")], ignore_index=True)
    table.to_csv(tmp_path / "predictions.csv", index=False)

    reread = evaluate_predictions(pd.read_csv(tmp_path / "predictions.csv"), n_bootstrap=20)

    pd.testing.assert_frame_equal(reread, evaluate_predictions(table, n_bootstrap=20))


def test_numeric_class_names_survive_csv(tmp_path) -> None:
    numbers = {"G2": "2", "G3": "3", "G4": "4"}
    grade = predictions(cohort(), task="grade").replace({"label": numbers})
    grade = grade.rename(columns={f"p_{name}": f"p_{number}" for name, number in numbers.items()})
    pd.concat([predictions(cohort()), grade]).to_csv(tmp_path / "predictions.csv", index=False)

    metrics = evaluate_predictions(pd.read_csv(tmp_path / "predictions.csv"), n_bootstrap=2)

    assert np.isfinite(row_of(metrics, "auc")["value"])


def test_survival_curves_may_have_other_times_in_each_fold() -> None:
    table = predictions(cohort())
    for fold, days in enumerate([(300, 700, 1200), (310, 720, 1250), (290, 690, 1100)]):
        of_fold = table["fold"] == fold
        risk = (table["risk"] - 7 * fold) / 10.0**fold
        for day in days:
            table.loc[of_fold, f"survival_{day}"] = np.exp(-day * np.exp(risk) / 1500)

    row = row_of(evaluate_predictions(table, n_bootstrap=20), "integrated_brier")

    assert 0 < row["lower"] < row["value"] < row["upper"] < 0.3
    assert row["reason"] is None


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.drop(columns="fold"), "Missing: fold"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "Found several of patient TCGA"),
        (lambda table: table.assign(risk=table["risk"].where(table.index != table.index[-1])), "risk must be known"),
        (lambda table: table.assign(event="alive"), "event must be known"),
        (lambda table: table.assign(time_days=np.nan), "time_days must be known"),
        (lambda table: table.assign(risk=np.nan), "fill the column risk"),
        (lambda table: table.assign(survival_late=0.5), "survival_late"),
        (lambda table: table.assign(split="Test"), "Found Test in task survival"),
    ],
)
def test_damaged_predictions_are_an_error(damage, message: str) -> None:
    table = predictions(cohort())
    table = table[table["split"] == "test"].reset_index(drop=True)

    with pytest.raises(DataError, match=message):
        evaluate_predictions(damage(table), n_bootstrap=2)


def test_no_replicates_is_an_error() -> None:
    with pytest.raises(ValueError, match="n_bootstrap must be one or more"):
        evaluate_predictions(predictions(cohort()), n_bootstrap=0)


def test_unknown_label_is_an_error() -> None:
    table = predictions(cohort(), task="grade").assign(label="G5")

    with pytest.raises(DataError, match="Found G5 for patient TCGA"):
        evaluate_predictions(table, n_bootstrap=2)


# --- compare_models ---


def test_difference_is_model_minus_reference_over_folds() -> None:
    good, poor = predictions(cohort(), noise=0.3), predictions(cohort(), model="snn", noise=3.0, seed=2)
    table = pd.concat([good, poor])

    comparison = compare_models(table, n_bootstrap=300)

    metrics = evaluate_predictions(table, n_bootstrap=2)
    value = metrics[metrics["metric"] == "c_index"].set_index("model")["value"]
    row = comparison.iloc[0]
    assert tuple(comparison.columns) == COMPARISON_COLUMNS
    assert (row["model"], row["reference"], row["metric"], row["n_patients"]) == ("snn", "subspace", "c_index", N)
    assert row["difference"] == pytest.approx(value["snn"] - value["subspace"], abs=1e-12)
    assert row["lower"] < row["difference"] < row["upper"] < 0
    assert row["p_value"] == row["p_adjusted"] == pytest.approx(2 / 301)


def test_swapping_model_and_reference_changes_the_sign() -> None:
    table = pd.concat([predictions(cohort()), predictions(cohort(), model="snn", noise=2.0, seed=2)])

    forward, backward = (compare_models(table, reference=name, n_bootstrap=100).iloc[0] for name in ("subspace", "snn"))

    assert forward["difference"] == pytest.approx(-backward["difference"])
    assert (forward["lower"], forward["p_value"]) == pytest.approx((-backward["upper"], backward["p_value"]))


def test_same_predictions_do_not_differ() -> None:
    table = pd.concat([predictions(cohort()), predictions(cohort(), model="copy")])

    row = compare_models(table, n_bootstrap=50).iloc[0]

    assert (row["difference"], row["lower"], row["upper"], row["p_value"]) == (0.0, 0.0, 0.0, 1.0)
    assert np.isnan(row["p_value_t"])


def test_pairing_is_tighter_than_separate_intervals() -> None:
    patients = cohort()
    table = pd.concat([predictions(patients, noise=1.0), predictions(patients, model="twin", noise=1.0)])
    table["risk"] += (
        np.where(table["model"] == "twin", 0.05 * np.sin(np.arange(len(table))), 0.0) * 10.0 ** table["fold"]
    )

    difference = compare_models(table, n_bootstrap=200).iloc[0]
    single = row_of(evaluate_predictions(table[table["model"] == "twin"], n_bootstrap=200), "c_index")

    assert difference["upper"] - difference["lower"] < 0.5 * (single["upper"] - single["lower"])


def test_only_patients_of_both_models_are_compared() -> None:
    complete, partial = predictions(cohort()), predictions(cohort(), model="slides-only", seed=2)
    absent = {f"TCGA-{index:03d}" for index in range(12)}
    partial = partial[~partial["patient_id"].isin(absent)].sample(frac=1.0, random_state=0)

    row = compare_models(pd.concat([complete, partial]), n_bootstrap=50).iloc[0]

    both = compare_models(pd.concat([complete[~complete["patient_id"].isin(absent)], partial]), n_bootstrap=50).iloc[0]
    assert row["n_patients"] == N - 12
    assert row["reason"] == "patients left out, as only one of the models predicts them: 12"
    assert row["difference"] == pytest.approx(both["difference"], abs=1e-12)


@pytest.mark.walk
def test_null_differences_are_rarely_significant() -> None:
    p_values = []
    for seed in range(25):
        patients = cohort(seed, n=60, folds=2)
        pair = [predictions(patients, model=name, seed=100 * seed + i) for i, name in enumerate(("subspace", "b"))]
        p_values.append(compare_models(pd.concat(pair), n_bootstrap=100).iloc[0][["p_value", "p_value_t"]])

    significant = (pd.DataFrame(p_values) < 0.05).sum()

    assert (significant <= 4).all()  # 1.25 are expected of 25; more than 4 has a probability of 0.7 %


def test_classification_is_compared_by_auc() -> None:
    table = pd.concat(
        [predictions(cohort(), task="grade"), predictions(cohort(), task="grade", model="snn", noise=4.0, seed=3)]
    )

    row = compare_models(table, n_bootstrap=50).iloc[0]

    assert row["metric"] == "auc"
    assert row["difference"] < 0


def test_adjustment_is_within_the_task() -> None:
    survival = [
        predictions(cohort(), model=name, noise=1.0 + i, seed=i) for i, name in enumerate(("subspace", "b", "c"))
    ]
    grade = [predictions(cohort(), task="grade", model=name, seed=i) for i, name in enumerate(("subspace", "b"))]

    comparison = compare_models(pd.concat(survival + grade), n_bootstrap=100).set_index(["task", "model"])

    assert comparison.loc[("grade", "b"), "p_adjusted"] == comparison.loc[("grade", "b"), "p_value"]
    of_survival = comparison.loc["survival"]
    np.testing.assert_allclose(of_survival["p_adjusted"], holm_adjusted(of_survival["p_value"].to_numpy()))


def test_a_clear_difference_is_significant_in_a_family_of_any_size() -> None:
    good = predictions(cohort(n=45), noise=0.01)
    reversed_order = good.assign(risk=-good["risk"])
    one, many = (
        compare_models(pd.concat([good, *[reversed_order.assign(model=f"m{i}") for i in range(n)]])) for n in (1, 8)
    )

    assert one["p_value"].iloc[0] == pytest.approx(2 / 1001)
    assert (many["p_adjusted"] <= 0.01).all()
    assert replicates_of_family(1, 1000) == replicates_of_family(5, 1000) == 1000
    for n_tests in (6, 45, 153):
        assert n_tests * 2 / (replicates_of_family(n_tests, 1000) + 1) <= 0.01


def test_missing_reference_is_undefined_with_its_reason() -> None:
    row = compare_models(predictions(cohort(), model="snn"), n_bootstrap=2).iloc[0]

    assert row[["difference", "lower", "upper", "p_value", "p_adjusted", "p_value_t"]].isna().all()
    assert (row["n_patients"], row["reason"]) == (0, "no patient is predicted by both models in the same fold")


def test_single_model_has_no_comparisons() -> None:
    comparison = compare_models(predictions(cohort()), n_bootstrap=2)

    assert comparison.empty
    assert tuple(comparison.columns) == COMPARISON_COLUMNS


def test_holm_by_hand() -> None:
    adjusted = holm_adjusted(np.array([0.04, np.nan, 0.01, 0.9, 0.02]))

    np.testing.assert_allclose(adjusted, [0.08, np.nan, 0.04, 0.9, 0.06])


def test_resampled_t_test_by_hand() -> None:
    difference = np.array([0.02, 0.05, 0.01, 0.04])
    statistic = 0.03 / np.sqrt((1 / 4 + 0.25) * np.sum((difference - 0.03) ** 2) / 3)

    assert resampled_t_test(difference, 0.25) == pytest.approx(2 * student_t.sf(statistic, 3))


def test_resampled_t_test_without_training_patients_is_undefined() -> None:
    pair = pd.concat([predictions(cohort()), predictions(cohort(), model="snn", seed=2)])

    row = compare_models(pair[pair["split"] == "test"], n_bootstrap=10).iloc[0]

    assert np.isnan(row["p_value_t"])
    assert np.isfinite(row["p_value"])


# --- DeLong, repeats, ordered classes ---


def binary(patients: pd.DataFrame, *, model: str, noise: float, seed: int, repeat: int = 0) -> pd.DataFrame:
    """Rows of a task with the classes G2 and G4 only."""
    rows = predictions(patients, task="grade", model=model, noise=noise, seed=seed, repeat=repeat)
    odds = rows[["p_G2", "p_G4"]].to_numpy() + 1e-3
    shares = odds / odds.sum(axis=1, keepdims=True)
    label = np.where(rows["patient_id"].map(patients.set_index("patient_id")["severity"]) > 0, "G4", "G2")
    return rows.drop(columns="p_G3").assign(p_G2=shares[:, 0], p_G4=shares[:, 1], label=label)


def test_delong_of_two_classes_is_the_sum_of_the_folds_variances() -> None:
    table = pd.concat(
        [binary(cohort(), model="subspace", noise=1.0, seed=1), binary(cohort(), model="snn", noise=2.0, seed=2)]
    )
    per_model = {model: folds_of(rows) for model, rows in table.groupby("model")}
    values, variances = [], []
    for ours, theirs in zip(per_model["snn"], per_model["subspace"], strict=True):
        theirs = theirs.set_index("patient_id").loc[ours["patient_id"]]
        case = (ours["label"] == "G4").to_numpy()
        kernels = []
        for score in (ours["p_G4"].to_numpy(), theirs["p_G4"].to_numpy()):
            difference = score[case, None] - score[~case]
            kernels.append((difference > 0) + 0.5 * (difference == 0))
        gap = kernels[0] - kernels[1]
        values.append(gap.mean())
        variances.append(gap.mean(axis=1).var(ddof=1) / len(gap) + gap.mean(axis=0).var(ddof=1) / gap.shape[1])

    row = compare_models(table, n_bootstrap=50).iloc[0]

    z = np.mean(values) / (np.sqrt(np.sum(variances)) / FOLDS)
    assert row["p_value_delong"] == pytest.approx(2 * ndtr(-abs(z)), rel=1e-9)
    auc = row_of(evaluate_predictions(table[table["model"] == "snn"], n_bootstrap=200), "auc")
    assert auc["lower_delong"] == pytest.approx(auc["lower"], abs=0.04)
    assert auc["upper_delong"] == pytest.approx(auc["upper"], abs=0.04)


def test_three_classes_and_survival_have_no_delong() -> None:
    tables = [predictions(cohort(), task="grade", model=m, seed=s) for s, m in enumerate(("subspace", "snn"))]

    assert compare_models(pd.concat(tables), n_bootstrap=20)["p_value_delong"].isna().tolist() == [True]
    metrics = evaluate_predictions(tables[0], n_bootstrap=20).set_index("metric")
    assert np.isfinite(metrics.loc["auc", "lower"])
    assert metrics["lower_delong"].isna().all()


def test_equal_repeats_change_no_interval_and_no_delong_test() -> None:
    models = [
        binary(cohort(), model="subspace", noise=1.0, seed=1),
        binary(cohort(), model="snn", noise=2.0, seed=2),
        binary(cohort(), model="abmil", noise=3.0, seed=3),
    ]
    once = pd.concat(models, ignore_index=True)
    thrice = pd.concat([once.assign(repeat=r) for r in range(3)], ignore_index=True)

    first, repeated = compare_models(once, n_bootstrap=60), compare_models(thrice, n_bootstrap=60)

    same = [
        "difference",
        "lower",
        "upper",
        "p_value",
        "p_adjusted",
        "p_value_delong",
        "p_adjusted_delong",
        "n_patients",
    ]
    pd.testing.assert_frame_equal(first[same], repeated[same], check_exact=False, rtol=1e-9)


def test_the_t_test_over_repeats_counts_every_fold_and_corrects_for_the_overlap() -> None:
    tables = []
    for repeat in range(4):
        patients = cohort().assign(fold_tested=np.random.default_rng(repeat).permutation(N) % FOLDS)
        for seed, (model, noise) in enumerate((("subspace", 1.0), ("snn", 1.3), ("abmil", 2.0))):
            tables.append(predictions(patients, model=model, noise=noise, seed=10 * repeat + seed, repeat=repeat))
    table = pd.concat(tables, ignore_index=True)
    c_index = {
        model: [concordance_index_censored(f["event"], f["time_days"], f["risk"])[0] for f in folds_of(rows)]
        for model, rows in table.groupby("model")
    }

    found = compare_models(table, n_bootstrap=40).set_index("model")

    n_test, n_train = N / FOLDS, N / FOLDS  # the third is validation
    expected = {}
    for model in ("snn", "abmil"):
        d = np.array(c_index[model]) - np.array(c_index["subspace"])
        t = d.mean() / np.sqrt((1 / len(d) + n_test / n_train) * d.var(ddof=1))
        expected[model] = 2 * student_t.sf(abs(t), len(d) - 1)
        assert found.loc[model, "p_value_t"] == pytest.approx(expected[model], rel=1e-9)
    adjusted = holm_adjusted(np.array([expected["snn"], expected["abmil"]]))
    assert found.loc[["snn", "abmil"], "p_adjusted_t"].tolist() == pytest.approx(adjusted.tolist(), rel=1e-9)


def test_kappa_is_reported_for_ordered_classes_only() -> None:
    table = predictions(cohort(), task="grade")

    assert "quadratic_kappa" not in set(evaluate_predictions(table, n_bootstrap=5)["metric"])
    assert row_of(evaluate_predictions(table, n_bootstrap=5, ordinal=["grade"]), "quadratic_kappa")["value"] > 0


def test_truncation_is_stated_with_the_metrics_that_have_one() -> None:
    metrics = evaluate_predictions(predictions(cohort()), n_bootstrap=5).set_index("metric")

    assert np.isnan(metrics.loc["c_index", "truncation_days"])
    for name in ("uno_c_index", "auc_1095_days", "integrated_brier"):
        assert metrics.loc[name, "truncation_days"] > 0
