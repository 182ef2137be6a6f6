"""Promises hold as often as promised, whatever the model, and equal split conformal prediction done by hand."""

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from scipy.stats import betabinom, binomtest

from promised_coverage import DAYS, draw_classes, draw_survival
from subfuse.audit.audited_task import AuditedTask, audited_tasks
from subfuse.audit.calibration import promise_findings
from subfuse.evaluation.benefit.conformal import conformal_sets, conformal_table, survival_bounds
from subfuse.evaluation.censoring import SurvivalCurves

pytestmark = pytest.mark.walk  # many draws


@pytest.mark.parametrize("n_known", [20, 60])
def test_sets_hold_the_class_as_often_as_promised(n_known: int) -> None:
    draw, held = np.random.default_rng(0), []
    for _ in range(300):
        known, label = draw_classes(draw, n_known)
        new, true = draw_classes(draw, 50)
        held.append(conformal_sets(known, label, new)[np.arange(50), true].mean())
    assert 0.88 < np.mean(held) < 0.92


def test_a_class_as_probable_as_the_limit_is_in_the_set() -> None:
    known, label = np.tile([0.7, 0.3], (9, 1)), np.zeros(9, dtype=int)
    assert conformal_sets(known, label, np.array([[0.7, 0.3], [0.6, 0.4]])).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("follow_up", [700.0, 3000.0])
def test_patients_live_to_their_bounds_as_often_as_promised_though_many_are_censored(follow_up: float) -> None:
    draw, held = np.random.default_rng(0), []
    for _ in range(300):
        _, time_days, event, curves = draw_survival(draw, 60, follow_up)
        death, _, _, new = draw_survival(draw, 50, follow_up)
        held.append((death >= survival_bounds(time_days, event, curves, new)).mean())
    assert 0.88 < np.mean(held) < 0.92


def test_without_censoring_a_bound_is_that_of_split_conformal_prediction() -> None:
    draw = np.random.default_rng(1)
    death, _, _, curves = draw_survival(draw, 29, 1.0)
    _, _, _, new = draw_survival(draw, 7, 1.0)
    death = np.minimum(death, DAYS[-1])
    scores = np.sort(-curves.at(death))  # high survival at death: too hopeful

    bound = survival_bounds(death, np.ones(29, dtype=bool), curves, new)

    np.testing.assert_allclose(new.at(bound), np.minimum(1, -scores[2]))  # the third of 30 times one tenth


@pytest.mark.parametrize("seed", range(20))
def test_bounds_on_one_curve_are_a_quantile_of_the_kaplan_meier_estimate_with_one_more_death_at_the_start(
    seed: int,
) -> None:
    draw = np.random.default_rng(seed)
    time_days, event = draw.choice(np.arange(7.0, 281.0, 7.0), 30), draw.random(30) < 0.6  # ties
    days, curve = np.array([60.0, 120.0, 180.0, 300.0]), [0.9, 0.6, 0.3, 0.05]
    known, new = (SurvivalCurves(days, np.tile(curve, (n, 1))) for n in (30, 1))
    estimate = KaplanMeierFitter().fit([0, *time_days], [1, *event])
    early = [day for day in np.unique(time_days) if 1 - estimate.predict(day - 1) <= 0.1 + 1e-9]
    assert survival_bounds(time_days, event, known, new) == pytest.approx(early[-1:])


def test_a_bound_never_lies_beyond_what_was_predicted_and_is_zero_where_anybody_might_have_died() -> None:
    flat = SurvivalCurves(DAYS, np.ones((1, 30)))
    steep = SurvivalCurves(DAYS, np.tile(np.linspace(0.9, 0.1, 30), (12, 1)))
    late, early = np.full(12, 2900.0), np.full(12, 1e-9)
    assert survival_bounds(late, np.ones(12, dtype=bool), steep, flat).tolist() == [DAYS[-1]]
    np.testing.assert_allclose(survival_bounds(early, np.ones(12, dtype=bool), steep, steep), 0, atol=1e-6)


def test_too_few_known_patients_promise_nothing() -> None:
    known, label = draw_classes(np.random.default_rng(0), 8)
    with pytest.raises(ValueError, match=r"a promise of 90% needs 9 known patients\. Found 8"):
        conformal_sets(known, label, known)


def rows_of(
    n_folds: int, n_validation: int, *, shift: float = 0.0, survival: bool = False, seed: int = 3
) -> pd.DataFrame:
    """Returns predictions of folds with 40 test patients each; shifted ones have other outcomes than validation's."""
    draw, tables = np.random.default_rng(seed), []
    for fold in range(n_folds):
        n = n_validation + 40
        split = ["validation"] * n_validation + ["test"] * 40
        table = pd.DataFrame({"patient_id": [f"F{fold}P{i:03d}" for i in range(n)], "split": split, "fold": fold})
        if survival:
            _, time_days, event, curves = draw_survival(draw, n, 1500.0)
            table = table.assign(
                time_days=time_days * np.where(table["split"] == "test", np.exp(-shift), 1), event=event
            )
            table = table.assign(risk=-curves.survival[:, 3])
            table[[f"survival_{day:g}" for day in DAYS]] = curves.survival
        else:
            probabilities, label = draw_classes(draw, n)
            wrong = (draw.random(n) < shift) & (table["split"] == "test")
            table = table.assign(label=np.where(wrong, probabilities.argmin(axis=1), label).astype(str))
            table[["p_0", "p_1", "p_2"]] = probabilities
        tables.append(table.assign(cohort="c", task="t", model="subspace", repeat=0))
    return pd.concat(tables, ignore_index=True)


def task_of(rows: pd.DataFrame) -> AuditedTask:
    (task,) = audited_tasks(rows)
    return task


def overall(rows: pd.DataFrame) -> pd.Series:
    return conformal_table(task_of(rows), "subspace", strata(rows)).iloc[0]


@pytest.mark.parametrize(("n_validation", "rank"), [(10, 1), (25, 2)])
def test_interval_and_p_value_are_wilsons_and_that_of_the_beta_binomial(n_validation: int, rank: int) -> None:
    rows = rows_of(1, n_validation, seed=11)
    probability, label = rows[["p_0", "p_1", "p_2"]].to_numpy(), rows["label"].astype(int).to_numpy()
    known, tested = slice(None, n_validation), slice(n_validation, None)
    sets = conformal_sets(probability[known], label[known], probability[tested])
    n_held = int(sets[np.arange(40), label[tested]].sum())

    for table in (rows, pd.concat([rows, rows_of(1, n_validation, seed=9).assign(repeat=1)])):  # the first counts
        found = overall(table)
        assert found["coverage"] == pytest.approx(n_held / 40)
        assert found["size"] == pytest.approx(sets.sum() / 40)
        wilson = binomtest(n_held, 40).proportion_ci(method="wilson")
        assert found[["lower", "upper"]].tolist() == pytest.approx([wilson.low, wilson.high], abs=1e-4)
        assert found["p_value"] == pytest.approx(betabinom.cdf(n_held, 40, n_validation + 1 - rank, rank), abs=0.02)


def test_without_censoring_coverage_is_the_share_who_lived_to_their_bound() -> None:
    rows = rows_of(1, 25, survival=True).assign(event=True)
    curves = SurvivalCurves(DAYS, rows[[f"survival_{day:g}" for day in DAYS]].to_numpy())
    time_days = rows["time_days"].to_numpy()
    of_known, of_tested = (SurvivalCurves(DAYS, part) for part in np.split(curves.survival, [25]))
    bound = survival_bounds(time_days[:25], np.ones(25, dtype=bool), of_known, of_tested)

    found = overall(rows)

    share = (time_days[25:] >= bound).mean()
    assert found["coverage"] == pytest.approx(share)
    assert found["size"] == pytest.approx(np.median(bound))
    wilson = binomtest(round(40 * share), 40).proportion_ci(method="wilson")
    assert found[["lower", "upper"]].tolist() == pytest.approx([wilson.low, wilson.high], abs=1e-4)
    without = overall(rows.drop(columns=[f"survival_{day:g}" for day in DAYS]))
    assert (without["reason"], without["n_patients"]) == ("its predictions hold no survival curve", 0)


def rows_with_deaths_at(day: float) -> pd.DataFrame:
    """Returns rows on one curve: everybody of validation dies on day 100, everybody else on the given one."""
    rows = rows_of(1, 25, survival=True).assign(event=True)
    rows["time_days"] = np.where(rows["split"] == "test", day, 100.0)
    rows[[f"survival_{name:g}" for name in DAYS]] = np.linspace(0.95, 0.05, len(DAYS))
    return rows


@pytest.mark.parametrize(("day", "coverage"), [(100.0, 1.0), (99.0, 0.0)])
def test_who_dies_on_the_day_of_the_bound_has_lived_to_it_and_who_dies_before_has_not(
    day: float, coverage: float
) -> None:
    found = overall(rows_with_deaths_at(day))
    assert (found["coverage"], found["size"]) == (coverage, pytest.approx(100.0))
    wilson = binomtest(round(40 * coverage), 40).proportion_ci(method="wilson")
    assert found[["lower", "upper"]].tolist() == pytest.approx([wilson.low, wilson.high], abs=1e-4)
    assert found["p_value"] == pytest.approx(coverage, abs=0.001)
    assert found["p_value"] <= 1.0


def test_nothing_is_known_of_bounds_to_which_nobody_was_followed() -> None:
    rows = rows_with_deaths_at(99.0)
    rows.loc[rows.index[-1], ["event", "time_days"]] = [False, 99.5]  # the last of all
    found = overall(rows)
    assert np.isnan(found["coverage"])
    assert found["reason"] == "nobody was followed to the bound"


def strata(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns one column, of patients by whether their number is even."""
    index = pd.MultiIndex.from_frame(rows[["cohort", "patient_id"]].drop_duplicates())
    return pd.DataFrame({"half": ["even" if int(name[-1]) % 2 == 0 else "odd" for _, name in index]}, index=index)


@pytest.mark.parametrize("survival", [False, True])
def test_folds_are_pooled_and_strata_are_told_apart(survival: bool) -> None:
    rows = rows_of(5, 25, survival=survival)
    table = conformal_table(task_of(rows), "subspace", strata(rows))
    assert table["stratum"].tolist() == ["", "even", "odd"]
    assert table["n_patients"].tolist() == [200, 100, 100]
    overall = table.iloc[0]
    assert overall["p_value"] > 0.025
    if not survival:
        assert overall["coverage"] == pytest.approx(table["coverage"].iloc[1:].mean())
    (finding,), _ = promise_findings(task_of(rows), strata(rows))
    assert finding.level == "ok"


@pytest.mark.parametrize("survival", [False, True])
def test_patients_unlike_those_of_validation_are_a_warning(survival: bool) -> None:
    rows = rows_of(5, 25, shift=1.5 if survival else 0.3, survival=survival)
    (finding,), table = promise_findings(task_of(rows), strata(rows))
    assert finding.level == "warning"
    assert table["p_value"].iloc[0] < 0.025
    assert "that promise 90% hold for" in finding.found


def test_few_validation_patients_in_a_fold_promise_nothing_and_say_so() -> None:
    rows = rows_of(2, 9)
    (finding,), table = promise_findings(task_of(rows), strata(rows))
    assert finding.level == "note"
    assert "a fold has 9 validation patients with outcome and prediction, 10 are needed" in finding.found
    assert np.isnan(table["coverage"].iloc[0])


@pytest.mark.parametrize("survival", [False, True])
def test_too_few_test_patients_or_events_tell_nothing(survival: bool) -> None:
    rows = rows_of(1, 25, survival=survival)
    is_tested = rows["split"] == "test"
    few = rows.drop(index=rows.index[is_tested][19:])
    (finding,), table = promise_findings(task_of(few), strata(few))
    assert (finding.level, "19 test patients, 20 are needed" in finding.found) == ("note", True)
    assert table[["coverage", "lower", "upper", "p_value"]].isna().all(axis=None)
    if survival:
        rows.loc[is_tested, "event"] = np.arange(is_tested.sum()) < 4
        (finding,), _ = promise_findings(task_of(rows), strata(rows))
        assert (finding.level, "4 events among the test patients, 5 are needed" in finding.found) == ("note", True)


def test_validation_rows_without_a_prediction_promise_nothing() -> None:
    rows = rows_of(2, 20, survival=True)
    rows.loc[rows["split"] == "validation", [f"survival_{day:g}" for day in DAYS]] = np.nan
    (finding,), _ = promise_findings(task_of(rows), strata(rows))
    assert finding.level == "note"
    assert "a fold has 0 validation patients with outcome and prediction" in finding.found


@pytest.mark.parametrize("survival", [False, True])
def test_kept_promises_are_rarely_a_warning_although_few_patients_validate(survival: bool) -> None:
    levels = []
    for seed in range(40):
        rows = rows_of(3, 10, survival=survival, seed=seed)
        (finding,), _ = promise_findings(task_of(rows), strata(rows))
        levels.append(finding.level)
    assert levels.count("warning") <= 4  # 2.5 % are expected; more have a chance of 1 in 250
