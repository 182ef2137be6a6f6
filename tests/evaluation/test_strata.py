"""Metrics within strata, and the pairs that make up a C-index."""

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from sklearn.metrics import roc_auc_score

from subfuse.evaluation.metrics import survival_metrics
from subfuse.evaluation.predictions import PATIENT, TaskPredictions, read_tasks
from subfuse.evaluation.strata import heterogeneity_p_value, pair_decomposition, stratified_metrics

N, FOLDS = 90, 3


def table(**columns) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    fixed = {
        "task": "survival", "model": "ours", "repeat": 0, "fold": np.arange(N) % FOLDS, "cohort": "c",
        "patient_id": [f"P{i:02d}" for i in range(N)], "split": "test",
    }  # fmt: skip
    survival = {"time_days": draw.exponential(100, N).round(), "event": draw.random(N) < 0.7}
    return pd.DataFrame({**fixed, **survival, "risk": draw.normal(size=N), **columns})


def task_of(rows: pd.DataFrame) -> TaskPredictions:
    return next(iter(read_tasks(rows)))


def columns_of(rows: pd.DataFrame, **columns) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.MultiIndex.from_frame(rows[PATIENT]))


def three_strata(rows: pd.DataFrame) -> np.ndarray:
    return np.array(["mutant", "wildtype", None], dtype=object)[np.arange(len(rows)) // 2 % 3]


def test_the_c_index_of_a_stratum_is_the_mean_over_folds_of_its_patients_alone():
    rows = table()
    strata = three_strata(rows)
    found = stratified_metrics(task_of(rows), ["ours"], columns_of(rows, idh=strata), n_bootstrap=200, seed=0)
    assert set(found["stratum"]) == {"mutant", "wildtype", "unknown"}
    for _, row in found.iterrows():
        chosen = rows[strata == row["stratum"]] if row["stratum"] != "unknown" else rows[pd.isna(strata)]
        expected = [concordance_index(f["time_days"], -f["risk"], f["event"]) for _, f in chosen.groupby("fold")]
        assert row["value"] == pytest.approx(np.mean(expected))
        assert row["lower"] < row["value"] < row["upper"]
        assert (row["n_patients"], row["n_events"]) == (len(chosen), chosen["event"].sum())


def test_pairs_add_up_to_the_c_index_exactly():
    rows = table()
    columns = columns_of(rows, idh=three_strata(rows), site=[f"S{i % 4}" for i in range(N)])
    found = pair_decomposition(task_of(rows), ["ours"], columns)
    overall = np.mean(
        [
            survival_metrics(f["time_days"].to_numpy(), f["event"].to_numpy(), f["risk"].to_numpy())["c_index"].value
            for _, f in rows.groupby("fold")
        ]
    )
    assert found.groupby("column").size().to_dict() == {"idh": 6, "site": 10}
    for _, of_column in found.groupby("column"):
        assert of_column["share"].sum() == pytest.approx(1, abs=1e-12)
        assert of_column["contribution"].sum() == pytest.approx(overall, abs=1e-12)


def test_pairs_are_counted_and_those_of_a_stratum_are_its_c_index():
    rows = table(fold=0, time_days=np.random.default_rng(3).permutation(N) + 1.0)
    rows.loc[rows.index[60:], ["fold", "event"]] = 1, False  # a fold without a comparable pair
    strata = three_strata(rows)
    columns = columns_of(rows, idh=strata)
    pairs = pair_decomposition(task_of(rows), ["ours"], columns).set_index(["stratum", "other"])
    within = stratified_metrics(task_of(rows), ["ours"], columns, n_bootstrap=5, seed=0).set_index("stratum")
    seen = rows.iloc[:60]
    first = (seen["event"].to_numpy()[:, None]) & (seen["time_days"].to_numpy()[:, None] < seen["time_days"].to_numpy())
    assert pairs["n_pairs"].sum() == first.sum()
    assert pairs["share"].sum() == pytest.approx(1)
    for name in ("mutant", "wildtype"):
        chosen = strata[:60] == name
        own = seen[chosen]
        c_index = concordance_index(own["time_days"], -own["risk"], own["event"])
        assert pairs.loc[(name, name), "c_index"] == pytest.approx(c_index)
        assert pairs.loc[(name, name), "n_pairs"] == within.loc[name, "n_pairs"] == first[chosen][:, chosen].sum()


@pytest.mark.parametrize("is_survival", [True, False])
def test_of_one_replicate_both_ends_of_an_interval_are_that_one(is_survival: bool):
    rows = table(event=np.arange(N) < 14)
    if not is_survival:
        p = 1 / (1 + np.exp(-rows["risk"]))
        rows = rows.assign(label=np.where(rows["event"], "B", "A"), p_A=1 - p, p_B=p)
        rows = rows.drop(columns=["time_days", "event", "risk"])
    found = stratified_metrics(task_of(rows), ["ours"], columns_of(rows, all=["all"] * N), n_bootstrap=1, seed=0)
    assert found["lower"].item() == found["upper"].item() != found["value"].item()


def test_a_risk_that_is_the_stratum_ranks_nobody_within_it():
    rows = table()
    strata = np.where(np.arange(N) % 2 == 0, "mutant", "wildtype")
    rows["risk"] = (strata == "wildtype").astype(float)
    columns = columns_of(rows, idh=strata)
    within = stratified_metrics(task_of(rows), ["ours"], columns, n_bootstrap=50, seed=0)
    assert within["value"].isna().all()
    assert set(within["reason"]) == {"no comparable pair within a fold, or all have the same risk"}
    pairs = pair_decomposition(task_of(rows), ["ours"], columns).set_index(["stratum", "other"])["c_index"]
    assert (pairs["mutant", "mutant"], pairs["wildtype", "wildtype"]) == (0.5, 0.5)
    assert pairs["mutant", "wildtype"] != 0.5


def test_the_auc_of_a_stratum_is_over_the_classes_it_has():
    draw = np.random.default_rng(1)
    label = np.array(["G2", "G3", "G4"])[np.arange(N) % 3]
    wild = (label == "G4") & (np.arange(N) % 2 == 0)
    p = draw.dirichlet([1, 1, 1], N)
    p[1] = 0, 0, 1  # of two classes, none is likelier than the other
    rows = table(label=label, p_G2=p[:, 0], p_G3=p[:, 1], p_G4=p[:, 2]).drop(columns=["time_days", "event", "risk"])
    columns = columns_of(rows, idh=np.where(wild, "wildtype", "mutant"), low=np.where(label == "G4", "no", "yes"))
    found = stratified_metrics(task_of(rows), ["ours"], columns, n_bootstrap=50, seed=0).set_index("stratum")
    low = label != "G4"
    with np.errstate(invalid="ignore"):
        expected = roc_auc_score(label[low] == "G3", np.nan_to_num(p[low, 1] / p[low, :2].sum(axis=1), nan=0.5))
    assert found.loc["yes", "value"] == pytest.approx(expected)
    expected = roc_auc_score(label[~wild], p[~wild], multi_class="ovr", labels=["G2", "G3", "G4"])
    assert found.loc["mutant", "value"] == pytest.approx(expected)
    for empty in ("wildtype", "no"):
        assert np.isnan(found.loc[empty, "value"])
        assert found.loc[empty, "reason"] == "all patients are of one class"


def test_a_stratum_without_an_event_is_empty_and_one_with_few_has_no_interval():
    rows = table()
    strata = np.array(["none", "few", "many"])[np.minimum(np.arange(N) // 12, 2)]
    rows["event"] = np.where(strata == "none", False, np.where(strata == "few", np.arange(N) % 4 == 0, True))
    found = stratified_metrics(task_of(rows), ["ours"], columns_of(rows, group=strata), n_bootstrap=50, seed=0)
    found = found.set_index("stratum")
    assert np.isnan(found.loc["none", "value"])
    assert found.loc["none", "reason"] == "nobody had an event"
    assert np.isfinite(found.loc["few", "value"])
    assert np.isnan(found.loc["few", "lower"])
    assert found.loc["few", "reason"].startswith("no interval: 3 events")
    assert found["p_heterogeneity"].isna().all()  # one stratum alone has an interval


def test_strata_that_differ_are_told_from_strata_that_do_not():
    rows = table(event=True)
    half = np.arange(N) // 3 % 2 == 0
    rows.loc[half, "risk"] = -rows.loc[half, "time_days"]
    columns = columns_of(rows, differs=np.where(half, "a", "b"), alike=[f"s{i // 6 % 2}" for i in range(N)])
    found = stratified_metrics(task_of(rows), ["ours"], columns, n_bootstrap=500, seed=0).groupby("column").first()
    (smaller, larger), adjusted = sorted(found["p_heterogeneity"]), sorted(found["p_adjusted"])
    assert adjusted == pytest.approx([2 * smaller, max(2 * smaller, larger)], abs=0)  # Holm's of two columns
    assert found.loc["differs", "p_adjusted"] < 0.001  # also where one C-index is 1, and no replicate differs
    assert found.loc["alike", "p_adjusted"] > 0.05
    assert found.loc["alike", "p_adjusted"] >= found.loc["alike", "p_heterogeneity"]


def test_strata_of_few_events_are_shown_and_not_tested():
    rows, group = table(event=True), np.where(np.arange(N) < 78, np.resize(["a", "a", "b", "b"], N), "c")
    others = rows.assign(risk=np.where(group == "c", -rows["time_days"], rows["risk"]))
    first, second = (
        stratified_metrics(task_of(each), ["ours"], columns_of(rows, group=group), n_bootstrap=50, seed=0).set_index(
            "stratum"
        )
        for each in (rows, others)
    )
    assert first["n_events"].to_dict() == {"a": 40, "b": 38, "c": 12}
    assert first["lower"].notna().all()
    assert first["p_adjusted"].notna().to_dict() == {"a": True, "b": True, "c": False}
    assert second.loc["c", "value"] != first.loc["c", "value"]
    assert second["p_heterogeneity"].equals(first["p_heterogeneity"])


def test_cochrans_q_by_hand():
    # weights 100 and 25: mean 0.64, Q = 100 * 0.04**2 + 25 * 0.16**2 = 0.8
    assert heterogeneity_p_value([(0.6, 0.01), (0.8, 0.04)]) == pytest.approx(0.3711, abs=1e-4)
    assert np.isnan(heterogeneity_p_value([(0.6, 0.01)]))
    without = heterogeneity_p_value([(0.6, 0.01), (0.8, 0.04), (0.9, 0.0)])  # no variance, no weight
    assert without == heterogeneity_p_value([(0.6, 0.01), (0.8, 0.04)])


def test_the_variance_of_a_stratum_is_that_of_its_replicates():
    rows = table(fold=0, event=True, time_days=np.arange(N) + 1.0)
    columns = columns_of(rows, side=np.where(np.arange(N) % 3 == 0, "a", "b"))
    for seed in range(3):  # of two replicates, the interval leaves out a fortieth of their distance at either end
        found = stratified_metrics(task_of(rows), ["ours"], columns, n_bootstrap=2, seed=seed)
        share = (found["value"] * found["n_patients"] + 1) / (found["n_patients"] + 2)
        apart = (found["upper"] - found["lower"]) / 0.95
        variance = np.maximum(apart**2 / 2, share * (1 - share) / found["n_patients"])
        expected = heterogeneity_p_value(list(zip(found["value"].tolist(), variance.tolist(), strict=True)))
        assert found["p_heterogeneity"].tolist() == pytest.approx([expected, expected])
        if (apart**2 / 2 > 1.1 * variance.min()).any():
            break
    else:
        raise AssertionError("the least variance hides that of the replicates")


def test_where_no_replicate_varies_the_variance_is_that_of_a_share_with_one_right_and_one_wrong_added():
    rows = table(fold=0, event=True, time_days=np.arange(N) + 1.0)
    first = np.arange(N) < 30
    rows["risk"] = np.where(first, -1, 1) * rows["time_days"]  # C-index 1 of 30 patients, and 0 of 60
    found = stratified_metrics(
        task_of(rows), ["ours"], columns_of(rows, side=np.where(first, "a", "b")), n_bootstrap=20, seed=0
    )
    assert found["value"].tolist() == [0, 1]
    spread = [(1.0, 31 / 32 * 1 / 32 / 30), (0.0, 1 / 62 * 61 / 62 / 60)]
    expected = np.log10(heterogeneity_p_value(spread))
    np.testing.assert_allclose(np.log10(found["p_heterogeneity"].to_numpy()), expected)


def test_a_stratum_is_told_by_the_cases_of_the_folds_where_it_can_be():
    rows = table()
    rows["event"] = (rows["fold"] > 0) & (rows.groupby("fold").cumcount() < 4) | (rows["fold"] == 0)
    rows.loc[rows["fold"] == 0, "risk"] = 1.0  # nobody is ranked; of the other folds one is left
    rows.loc[rows["fold"] == 1, "risk"] = 1.0
    (found,) = stratified_metrics(
        task_of(rows), ["ours"], columns_of(rows, idh=["all"] * N), n_bootstrap=20, seed=0
    ).to_dict("records")
    assert np.isfinite(found["value"])
    assert np.isnan(found["lower"])
    assert "4 events among the test patients, 5 are needed" in found["reason"]


@pytest.mark.parametrize(("n_events", "is_compared"), [(14, False), (15, True)])
def test_a_stratum_of_fifteen_events_is_compared_with_the_others(n_events: int, is_compared: bool):
    rows = table(event=True)
    smaller = np.arange(N) % 3 == 0
    rows.loc[smaller, "event"] = np.arange(smaller.sum()) < n_events
    strata = np.where(smaller, "few", np.where(np.arange(N) % 2 == 0, "a", "b"))

    found = stratified_metrics(
        task_of(rows.assign(fold=0)), ["ours"], columns_of(rows, idh=strata), n_bootstrap=50, seed=0
    )

    tested = found.set_index("stratum")["p_heterogeneity"]
    assert tested[["a", "b"]].notna().all()
    assert np.isfinite(tested["few"]) == is_compared
