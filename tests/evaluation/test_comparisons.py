"""Differences between models: pairing, adjustment, and tests against independent ones."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import FOLDS, N, cohort, folds_of, predictions, row_of
from scipy.special import ndtr
from scipy.stats import t as student_t
from scipy.stats import ttest_1samp
from sksurv.metrics import concordance_index_censored

from subfuse.evaluation.comparisons import COMPARISON_COLUMNS, compare_models, holm_adjusted, resampled_t_test
from subfuse.evaluation.intervals import evaluate_predictions


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


def test_whom_one_model_leaves_out_is_compared_in_the_other_pairs() -> None:
    complete = [predictions(cohort(), model=name, seed=seed) for seed, name in enumerate(["a", "subspace", "b", "c"])]
    partial = complete[2][complete[2]["patient_id"] >= "TCGA-012"]
    extra = complete[1][complete[1]["patient_id"] < "TCGA-080"]
    alone = [compare_models(pd.concat([one, extra]), n_bootstrap=20).iloc[0] for one in (complete[0], partial)]

    rows = compare_models(pd.concat([complete[0], extra, partial, complete[3]]), n_bootstrap=20).set_index("model")

    for name, row in zip("ab", alone, strict=True):
        assert rows.loc[name, "difference"] == pytest.approx(row["difference"], abs=1e-12)
        assert rows.loc[name, ["n_patients", "reason"]].tolist() == row[["n_patients", "reason"]].tolist()
    assert rows["n_patients"].tolist() == [80, 68, 80]
    assert rows.loc["a", "reason"] == "patients left out, as only one of the models predicts them: 10"


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


def test_adjusted_p_values_are_at_most_one() -> None:
    assert holm_adjusted(np.array([0.9, 0.6])).tolist() == [1.0, 1.0]


def test_resampled_t_test_by_hand() -> None:
    difference = np.array([0.02, 0.05, 0.01, 0.04])
    statistic = 0.03 / np.sqrt((1 / 4 + 0.25) * np.sum((difference - 0.03) ** 2) / 3)

    assert resampled_t_test(difference, 0.25) == pytest.approx(2 * student_t.sf(statistic, 3))


def test_the_t_test_of_two_folds_is_that_of_scipy_where_training_sets_do_not_overlap() -> None:
    difference = np.array([0.02, 0.05])

    assert resampled_t_test(difference, 0.0) == pytest.approx(ttest_1samp(difference, 0.0).pvalue)
    assert np.isnan(resampled_t_test(difference[:1], 0.0))


def test_few_events_leave_the_difference_without_interval_and_p_value() -> None:
    pair = pd.concat([predictions(cohort()), predictions(cohort(), model="snn", seed=2)])
    dead = pair.loc[pair["event"], "patient_id"].unique()[:4]

    row = compare_models(pair.assign(event=pair["patient_id"].isin(dead)), n_bootstrap=10).iloc[0]

    assert np.isfinite(row["difference"])
    assert row[["lower", "upper", "p_value", "p_value_t", "p_adjusted", "p_adjusted_t"]].isna().all()
    assert "no interval and no p-value: 4 events among the test patients, 5 are needed" in row["reason"]


def test_folds_in_which_one_of_the_models_ranks_nobody_do_not_count_and_their_reason_is_given() -> None:
    patients = cohort()
    first = patients["fold_tested"] == 0
    patients.loc[first, "event"] &= patients.loc[first, "event"].cumsum() <= 4  # too few for an interval
    pair = pd.concat([predictions(patients), predictions(patients, model="snn", seed=2)])
    silent = (pair["model"] == "snn") & (pair["split"] == "test") & (pair["fold"] > 0)

    row = compare_models(pair.assign(risk=pair["risk"].where(~silent, 0.0)), n_bootstrap=10).iloc[0]

    alone = compare_models(pair[pair["fold"] == 0], n_bootstrap=10).iloc[0]
    assert row["difference"] == pytest.approx(alone["difference"])
    assert row[["lower", "upper", "p_value"]].isna().all()
    assert row["reason"].startswith("undefined in 2 of 3 folds: the predicted risk is the same for every patient; ")
    assert row["reason"].endswith("no interval and no p-value: 4 events among the test patients, 5 are needed")


def test_resampled_t_test_without_training_patients_is_undefined() -> None:
    pair = pd.concat([predictions(cohort()), predictions(cohort(), model="snn", seed=2)])

    row = compare_models(pair[pair["split"] == "test"], n_bootstrap=10).iloc[0]

    assert np.isnan(row["p_value_t"])
    assert np.isfinite(row["p_value"])


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
