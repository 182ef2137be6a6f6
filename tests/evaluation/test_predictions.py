"""Tables of predictions: what is read from them, and which are refused."""

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import CLASSES, cohort, predictions, row_of

from subfuse.errors import DataError
from subfuse.evaluation.floors import LEAST
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.evaluation.predictions import (
    ClassOutcome,
    SurvivalOutcome,
    class_name,
    curve_columns,
    read_tasks,
    stacked,
    survival_curves,
)
from subfuse.evaluation.ranked_patients import ranked_patients


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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.drop(columns="fold"), "Missing: fold"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "Found several of patient TCGA"),
        (lambda table: table.assign(risk=table["risk"].where(table.index != table.index[-1])), "risk must be known"),
        (lambda table: table.assign(event="alive"), "event must be known"),
        (lambda table: table.assign(time_days=np.nan), "time_days must be known"),
        (lambda table: table.assign(risk=np.nan), "must fill risk, predicted_value or p_"),
        (lambda table: table.assign(survival_late=0.5), "survival_late"),
        (lambda table: table.assign(split="Test"), "Found Test in task survival"),
    ],
)
def test_damaged_predictions_are_an_error(damage, message: str) -> None:
    table = predictions(cohort())
    table = table[table["split"] == "test"].reset_index(drop=True)

    with pytest.raises(DataError, match=message):
        evaluate_predictions(damage(table), n_bootstrap=2)


def test_of_several_patients_who_stand_twice_the_first_is_named() -> None:
    table = predictions(cohort())

    with pytest.raises(DataError, match=rf"patient {table['patient_id'].iloc[3]} \(task survival.*Remove the repeats"):
        evaluate_predictions(pd.concat([table, table.iloc[3:6]]), n_bootstrap=2)


def test_of_several_patients_without_a_risk_the_first_is_named() -> None:
    table = predictions(cohort()).query("split == 'test'").reset_index(drop=True)
    named = table["patient_id"].iloc[3]

    with pytest.raises(DataError, match=rf"Found nan for 4 rows, the first patient {named} \(task survival"):
        evaluate_predictions(table.assign(risk=table["risk"].where(~table.index.isin(range(3, 7)))), n_bootstrap=2)


def test_unknown_label_is_an_error() -> None:
    table = predictions(cohort(), task="grade").assign(label="G5")

    first = table.query("split == 'test' and fold == 0")["patient_id"].iloc[0]

    with pytest.raises(DataError, match=f"Found G5 for patient {first} "):
        evaluate_predictions(table, n_bootstrap=2)


def test_tasks_come_in_order_of_appearance_and_say_what_they_hold() -> None:
    table = pd.concat(
        [predictions(cohort()), predictions(cohort(), task="grade"), predictions(cohort(), task="grade", model="snn")]
    )
    survival, grade = read_tasks(table)
    assert (grade.name, grade.classes, grade.headline) == ("grade", CLASSES, "auc")
    assert (survival.name, survival.classes, survival.headline) == ("survival", None, "c_index")
    assert grade.outcome.predicted == [f"p_{name}" for name in CLASSES]
    assert survival.outcome.predicted == ["risk"]
    assert grade.models == ("subspace", "snn")
    assert len(grade.tested_by("snn")) == len(cohort())
    assert set(grade.of_model("snn")["split"]) == {"train", "validation", "test"}


def test_a_task_of_one_class_has_no_prediction() -> None:
    table = predictions(cohort(), task="grade").drop(columns=["p_G3", "p_G4"])
    with pytest.raises(
        DataError, match=r"task grade must fill risk, predicted_value or p_<class> of two classes.*Found G2"
    ):
        next(read_tasks(table))


def test_of_pooled_folds_only_days_that_all_have_are_read() -> None:
    table = predictions(cohort())
    tested = table[table["split"] == "test"].assign(survival_50=0.9, survival_9=0.95)
    tested["survival_400"] = np.where(tested["fold"] == 1, 0.5, np.nan)
    pooled, of_fold = survival_curves(tested), survival_curves(tested[tested["fold"] == 1])
    assert pooled is not None
    assert of_fold is not None
    assert pooled.days.tolist() == [9.0, 50.0]
    assert of_fold.days.tolist() == [9.0, 50.0, 400.0]
    assert of_fold.survival[0].tolist() == [0.95, 0.9, 0.5]
    assert survival_curves(table[table["split"] == "test"]) is None


@pytest.mark.parametrize(("label", "name"), [("G2", "G2"), (2.0, "2"), (2, "2"), (2.5, "2.5")])
def test_whole_numbers_are_classes_without_a_point(label: object, name: str) -> None:
    assert class_name(label) == name


def test_comparable_patients_are_those_that_a_metric_counts() -> None:
    for name in ("survival", "grade"):
        rows = predictions(cohort(), task=name)
        (task,) = read_tasks(rows)
        for group in ranked_patients(task.rows, task.outcome):
            tested = task.tested.set_index(["cohort", "patient_id"], drop=False).loc[group.patients]
            scores, comparable = task.outcome.scores(tested), task.outcome.comparable(tested)
            shares = []
            for score, pairs in zip(scores.T, comparable, strict=True):
                first, second = np.nonzero(pairs)
                shares.append(np.mean(np.where(score[first] == score[second], 0.5, score[first] > score[second])))
            assert np.isclose(np.mean(shares), group.metrics[task.headline].value)


def test_log_scores_are_finite_where_a_class_has_no_probability() -> None:
    rows = predictions(cohort(), task="grade")
    rows[["p_G2", "p_G3", "p_G4"]] = [1.0, 0.0, 0.0]
    (task,) = read_tasks(rows)
    log_scores = task.outcome.log_scores(rows)
    assert (log_scores[:, 0] == 0).all()
    assert np.isfinite(log_scores).all()
    assert task.outcome.is_complete(rows)
    assert not task.outcome.is_complete(rows[rows["label"] != "G2"])


@pytest.mark.parametrize("n_events", [0, LEAST - 1, LEAST, LEAST + 1])
def test_events_are_counted_and_patients_without_one_are_not(n_events: int) -> None:
    tested = pd.DataFrame({"time_days": 10.0, "event": [True] * n_events + [False] * (30 - n_events)})
    expected = f"{n_events} events among the test patients, {LEAST} are needed" if n_events < LEAST else None
    assert SurvivalOutcome().too_few(tested) == expected


def test_the_rarest_class_decides_and_a_class_of_nobody_does_not_count() -> None:
    labels = pd.DataFrame({"label": ["G2"] * 9 + ["G3"] * LEAST})
    outcome = ClassOutcome(("G2", "G3", "G4"))
    assert outcome.too_few(labels) is None
    assert outcome.too_few(labels.iloc[1:-1]) == f"{LEAST - 1} test patients of class G3, 5 are needed"
    assert outcome.too_few(labels.iloc[:0]) is None
    assert outcome.too_few(labels.iloc[:2]) == "2 test patients of class G2, 5 are needed"


def test_tables_below_each_other_are_numbered_anew_and_empty_ones_leave_types_alone() -> None:
    counted, nobody = pd.DataFrame({"n": [1, 2]}), pd.DataFrame({"n": []}, dtype=object)

    pd.testing.assert_frame_equal(stacked([nobody, counted, counted]), pd.DataFrame({"n": [1, 2, 1, 2]}))
    pd.testing.assert_frame_equal(stacked([nobody, nobody]), nobody)


def test_as_many_as_required_suffice_for_fitting_something() -> None:
    followed = pd.DataFrame({"time_days": 9.0, "event": [True] * 3 + [False] * 4})
    classed = pd.DataFrame({"label": ["G2", "G2", "G3"], "patient_id": "P", "task": "grade"})
    survival, grade = SurvivalOutcome(), ClassOutcome(("G2", "G3"))

    assert [survival.suffices(followed, least) for least in (2, 3, 4)] == [True, True, False]
    assert [grade.suffices(classed, least) for least in (2, 3, 4)] == [True, True, False]
    assert not grade.suffices(classed.iloc[:2], 2)
    assert survival.suffices(followed.iloc[:1], 1)
    assert not survival.suffices(followed.iloc[:0], 0)


def test_a_fold_of_its_own_must_know_every_value_of_its_curves() -> None:
    tested = predictions(cohort()).query("split == 'test' and fold == 0").assign(survival_365=0.5)
    tested.iloc[0, tested.columns.get_loc("survival_365")] = np.nan

    with pytest.raises(DataError, match="survival_365 must be known"):
        survival_curves(tested)


def test_a_follow_up_that_is_named_like_a_curve_is_refused_with_the_name_it_needs() -> None:
    with pytest.raises(DataError, match=r"Found survival_months\. Rename it; a follow-up in months .* is time_months"):
        curve_columns(pd.DataFrame({"survival_365": [0.5], "survival_months": [11.0]}))
