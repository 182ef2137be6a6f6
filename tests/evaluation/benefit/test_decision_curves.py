"""Net benefit against its definition, lifelines and worked numbers."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import cohort, predictions
from lifelines import KaplanMeierFitter

from subfuse.evaluation.benefit.decision_curves import (
    DECISION_COLUMNS,
    THRESHOLDS,
    decision_curves,
    net_benefit,
    simultaneous_band,
    survival_net_benefit,
)
from subfuse.evaluation.predictions import TaskPredictions, read_tasks

N = 120


@pytest.fixture(scope="module")
def people() -> pd.DataFrame:
    return cohort(n=N)


def task_of(*tables: pd.DataFrame) -> TaskPredictions:
    return next(iter(read_tasks(pd.concat(tables, ignore_index=True))))


def curve(task: TaskPredictions, models: list[str], **options) -> pd.DataFrame:
    return decision_curves(task, models, n_bootstrap=50, seed=0, **options)


def test_a_worked_example() -> None:
    """At 0.5 two of four are treated and one has it: 1/4 - 1/4. At 0.2, two of three: 2/4 - 1/4 / 4."""
    probability, has_it = np.array([0.9, 0.6, 0.3, 0.1]), np.array([True, False, True, False])
    found = net_benefit(probability, has_it, np.array([0.5, 0.2]), np.ones((1, 4)))
    assert found.tolist() == [[0.0, 0.5 - 0.25 * 0.25]]


def test_classes_are_the_definition_patient_by_patient(people: pd.DataFrame) -> None:
    rows = predictions(people, task="grade")
    tested = rows[rows["split"] == "test"]
    table = curve(task_of(rows), ["subspace"])

    assert list(table) == list(DECISION_COLUMNS)
    assert len(table) == 3 * 19  # every twentieth between nobody and everybody
    assert (table["threshold"].min(), table["threshold"].max()) == (0.05, 0.95)
    for row in table.itertuples():
        treated, has_it = tested[f"p_{row.outcome}"] >= row.threshold, tested["label"] == row.outcome
        odds = row.threshold / (1 - row.threshold)
        assert row.net_benefit == pytest.approx(((treated & has_it).sum() - odds * (treated & ~has_it).sum()) / N)
        assert row.treat_all == pytest.approx((has_it.sum() - odds * (~has_it).sum()) / N)
        assert row.against_default == pytest.approx(row.net_benefit - max(row.treat_all, 0))
        assert row.lower_default <= row.against_default + 1e-9


def test_survival_is_that_of_kaplan_meier_among_the_treated() -> None:
    draw = np.random.default_rng(0)
    time_days, event = draw.integers(1, 40, N).astype(float), draw.random(N) < 0.6
    probability, limits = draw.random(N).round(2), np.array([0.2, 0.5, 0.8])
    weights = np.vstack([np.ones(N), draw.integers(0, 3, N)]).astype(float)

    found = survival_net_benefit(probability, time_days, event, limits, weights, horizon_days=20.0)

    for weight, benefits in zip(weights, found, strict=True):
        for limit, benefit in zip(limits, benefits, strict=True):
            treated = (probability >= limit) & (weight > 0)
            fitted = KaplanMeierFitter().fit(time_days[treated], event[treated], weights=weight[treated])
            survival, share = fitted.predict(20.0), weight[treated].sum() / weight.sum()
            assert benefit == pytest.approx(share * (1 - survival - survival * limit / (1 - limit)))


def test_without_censoring_survival_is_classification() -> None:
    draw = np.random.default_rng(1)
    time_days, probability = draw.permutation(N) + 1.0, draw.random(N)
    limits, weights = np.array(THRESHOLDS), np.ones((1, N))
    by_time = survival_net_benefit(probability, time_days, np.ones(N, bool), limits, weights, horizon_days=50.0)
    assert by_time == pytest.approx(net_benefit(probability, time_days <= 50, limits, weights))


def test_where_nobody_treated_is_followed_it_is_unknown_and_nobody_treated_is_zero() -> None:
    time_days, event = np.array([5.0, 8.0, 90.0]), np.array([True, False, False])
    probability, limits = np.array([0.9, 0.8, 0.1]), np.array([0.05, 0.5, 0.95])
    found = survival_net_benefit(probability, time_days, event, limits, np.ones((1, 3)), horizon_days=50.0)[0]
    assert np.isnan(found).tolist() == [False, True, False]
    assert found[2] == 0
    undrawn = np.array([[0.0, 0.0, 1.0]])  # a replicate without the patients who are treated
    found = survival_net_benefit(probability, time_days, event, limits, undrawn, horizon_days=50.0)[0]
    assert found[1] == 0


def test_values_of_repeats_are_means_and_those_of_two_models_are_subtracted(people: pd.DataFrame) -> None:
    repeats = [predictions(people, task="grade", seed=seed).assign(repeat=seed) for seed in range(2)]
    other = predictions(people, task="grade", model="clinical", noise=4.0, seed=2)
    both = task_of(*repeats, other, other.assign(repeat=1))

    found = curve(both, ["subspace", "clinical"], reference="clinical").set_index(["model", "outcome", "threshold"])

    apart = [curve(task_of(repeat.assign(repeat=0)), ["subspace"])["net_benefit"] for repeat in repeats]
    ours, theirs = found.loc["subspace"], found.loc["clinical"]
    np.testing.assert_allclose(ours["net_benefit"], np.mean(apart, axis=0), atol=1e-12)
    np.testing.assert_allclose(ours["against_reference"], ours["net_benefit"] - theirs["net_benefit"], atol=1e-12)
    assert (ours["lower"] <= ours["upper"]).all()
    assert (ours["n_patients"] == N).all()


def test_of_two_classes_the_second_is_the_outcome_and_of_few_patients_there_is_no_band(people: pd.DataFrame) -> None:
    rows = predictions(people, task="grade")
    p = rows["p_G4"]
    rows = rows.drop(columns=["p_G2", "p_G3", "p_G4"]).assign(p_no=1 - p, p_yes=p)
    rows = rows.assign(label=np.where(rows["label"] == "G4", "yes", "no"))
    found = curve(task_of(rows), ["subspace"])
    assert set(found["outcome"]) == {"yes"}
    assert found["lower_default"].notna().all()
    few = curve(task_of(rows[rows["patient_id"].isin(sorted(people["patient_id"])[:12])]), ["subspace"])
    assert few["net_benefit"].notna().all()
    assert few[["lower_default", "upper_default"]].isna().all(axis=None)
    assert few["reason"].notna().all()


def test_a_better_model_is_worth_more_than_the_reference_and_defaults(people: pd.DataFrame) -> None:
    good, poor = predictions(people, noise=0.3), predictions(people, model="clinical", noise=4.0, seed=2)
    for table in (good, poor):
        table["risk"] = (table["risk"] - 7 * table["fold"]) / 10.0 ** table["fold"]
    found = curve(task_of(good, poor), ["subspace", "clinical"], reference="clinical")

    of_model = found[found["model"] == "subspace"].set_index("threshold")
    assert set(found["outcome"]) == {"event by day 1095"}
    assert of_model.loc[0.5, "lower"] > 0
    assert of_model.loc[0.5, "lower_default"] > 0
    assert found.loc[found["model"] == "clinical", "against_reference"].isna().all()


def test_without_training_patients_the_reason_says_so(people: pd.DataFrame) -> None:
    rows = predictions(people)
    table = curve(task_of(rows[rows["split"] == "test"]), ["subspace"])
    assert table["net_benefit"].isna().all()
    assert table["reason"].str.startswith("no probability of an event by day 1095").all()


def test_probabilities_at_the_horizon_need_no_training_patients(people: pd.DataFrame) -> None:
    """As others give them, of test patients alone."""
    rows = predictions(people)
    given = rows.assign(survival_1095=1 / (1 + np.exp(rows["risk"])))
    alone = curve(task_of(given[given["split"] == "test"]), ["subspace"])
    assert alone["reason"].isna().all()
    assert np.isfinite(alone["net_benefit"]).all()
    pd.testing.assert_frame_equal(alone, curve(task_of(given), ["subspace"]))


def test_the_band_holds_whole_curves_of_the_share_that_it_says() -> None:
    draw = np.random.default_rng(0)
    curves = draw.normal(size=(4000, 1)) * 0.5 + draw.normal(size=(4000, 12)) * np.arange(1, 13)
    lower, upper = simultaneous_band(curves[:2000])
    inside = ((curves[2000:] >= lower) & (curves[2000:] <= upper)).all(axis=1)
    assert inside.mean() == pytest.approx(0.95, abs=0.02)
    holes = curves.copy()
    holes[:3000, 4] = np.nan
    assert np.isnan(simultaneous_band(holes)[0]).tolist() == [place == 4 for place in range(12)]
