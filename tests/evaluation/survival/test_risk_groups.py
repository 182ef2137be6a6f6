import numpy as np
import pandas as pd
import pytest
from sksurv.compare import compare_survival
from sksurv.nonparametric import kaplan_meier_estimator
from sksurv.util import Surv

from subfuse.errors import DataError
from subfuse.evaluation.survival.risk_groups import kaplan_meier, log_rank, risk_groups


def fold_rows(fold: int, *, train: list[float], test: dict[str, float], repeat: int = 0) -> pd.DataFrame:
    """Rows of one fold with given risks; each patient's follow-up depends on the identifier only."""
    identifiers = [f"train-{fold}-{index}" for index in range(len(train))] + list(test)
    return pd.DataFrame(
        {
            "patient_id": identifiers,
            "cohort": "tcga",
            "task": "survival",
            "model": "subspace",
            "repeat": repeat,
            "fold": fold,
            "split": ["train"] * len(train) + ["test"] * len(test),
            "time_days": [100.0 + sum(map(ord, name)) for name in identifiers],
            "event": [sum(map(ord, name)) % 2 == 0 for name in identifiers],
            "risk": [*train, *test.values()],
        }
    )


def test_threshold_is_the_training_median_of_each_fold() -> None:
    predictions = pd.concat(
        [
            fold_rows(0, train=[1, 2, 3], test={"a": 2.5, "b": 2.0, "c": 1.0}),
            fold_rows(1, train=[100, 200, 300], test={"d": 250.0, "e": 150.0}),
        ]
    )

    groups = risk_groups(predictions).set_index("patient_id")["group"]

    assert groups.to_dict() == {"a": "high", "b": "low", "c": "low", "d": "high", "e": "low"}


def test_other_test_patients_do_not_change_a_group() -> None:
    alone = risk_groups(fold_rows(0, train=[1, 2, 3], test={"a": 2.5}))
    among = risk_groups(fold_rows(0, train=[1, 2, 3], test={"a": 2.5, "b": 50.0, "c": 60.0}))

    pd.testing.assert_frame_equal(alone, among[among["patient_id"] == "a"].reset_index(drop=True))


def test_patient_of_several_models_has_one_row_by_majority() -> None:
    predictions = pd.concat(
        [
            fold_rows(0, train=[1, 2, 3], test={"a": 5.0, "b": 5.0}),
            fold_rows(1, train=[1, 2, 3], test={"a": 5.0, "b": 0.0}),
            fold_rows(2, train=[1, 2, 3], test={"a": 0.0, "b": 0.0}),
        ]
    )

    groups = risk_groups(predictions).set_index("patient_id")

    assert groups["group"].to_dict() == {"a": "high", "b": "low"}
    assert groups["n_models"].tolist() == [3, 3]
    assert groups["share_high"].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_a_patient_whom_half_of_the_models_call_high_is_in_the_high_group() -> None:
    predictions = pd.concat(
        [
            fold_rows(0, train=[1, 2, 3], test={"a": 5.0, "b": 0.0}),
            fold_rows(1, train=[1, 2, 3], test={"a": 0.0, "b": 0.0}),
        ]
    )

    groups = risk_groups(predictions).set_index("patient_id")

    assert groups["share_high"].to_dict() == {"a": 0.5, "b": 0.0}
    assert groups["group"].to_dict() == {"a": "high", "b": "low"}


def test_fold_without_training_patients_is_an_error() -> None:
    folds = [
        fold_rows(fold, train=train, test={f"test-{fold}": 1.0}) for fold, train in enumerate([[1.0, 2.0], [], []])
    ]
    predictions = pd.concat(folds, ignore_index=True)

    with pytest.raises(DataError, match="Fold 1 has no rows of split train"):
        risk_groups(predictions)


def test_training_and_test_patients_are_both_required() -> None:
    with pytest.raises(DataError, match=r"need rows of split test\. Found none"):
        risk_groups(fold_rows(0, train=[1, 2], test={}))
    with pytest.raises(DataError, match="Fold 0 has no rows of split train"):
        risk_groups(fold_rows(0, train=[], test={"a": 1.0}))


def test_several_models_are_an_error() -> None:
    rows = fold_rows(0, train=[1, 2], test={"a": 1.0})

    with pytest.raises(DataError, match="one model"):
        risk_groups(pd.concat([rows, rows.assign(model="snn")]))


def test_log_rank_agrees_with_scikit_survival() -> None:
    generator = np.random.default_rng(0)
    names = [f"patient-{index}" for index in range(80)]
    risk = generator.normal(size=80)
    rows = fold_rows(0, train=[-0.5, 0.0, 0.5], test=dict(zip(names, risk, strict=True)))
    tested = rows["split"] == "test"
    rows.loc[tested, "time_days"] = np.ceil(generator.exponential(300 * np.exp(-risk)) / 20) * 20  # with ties

    groups = risk_groups(rows)
    p_value = log_rank(groups)

    expected = compare_survival(Surv.from_arrays(groups["event"], groups["time_days"]), groups["group"])[1]
    assert p_value.value == pytest.approx(expected, rel=1e-9)
    assert p_value.reason is None


def test_log_rank_with_an_empty_group_is_undefined() -> None:
    groups = risk_groups(fold_rows(0, train=[1, 1, 1], test={"a": 1.0, "b": 1.0}))

    metric = log_rank(groups)

    assert np.isnan(metric.value)
    assert metric.reason == "no patient in the high risk group"


def test_log_rank_of_fewer_than_five_events_is_undefined() -> None:
    tested = {f"patient-{index}": index % 5 + 1.0 for index in range(20)}
    groups = risk_groups(fold_rows(0, train=[1, 3, 5], test=tested))
    groups["event"] = np.arange(20) < 5
    assert log_rank(groups).is_defined

    few = log_rank(groups.assign(event=np.arange(20) < 4))
    assert np.isnan(few.value)
    assert few.reason == "4 events among the test patients, 5 are needed"


def test_kaplan_meier_by_hand() -> None:
    time_days, event = np.array([10.0, 20.0, 20.0, 30.0]), np.array([True, True, False, True])

    table = kaplan_meier(time_days, event, np.array([0.0, 5.0, 10.0, 20.0, 25.0, 30.0, 31.0]))

    np.testing.assert_allclose(table["survival"], [1, 1, 3 / 4, 1 / 2, 1 / 2, 0, np.nan])
    assert table["n_at_risk"].tolist() == [4, 4, 4, 3, 1, 1, 0]
    assert table["lower"].isna().tolist() == [False] * 6 + [True]


def test_kaplan_meier_agrees_with_scikit_survival() -> None:
    generator = np.random.default_rng(1)
    time_days, event = np.ceil(generator.exponential(20, 90)), generator.uniform(size=90) < 0.6
    times, survival, interval = kaplan_meier_estimator(event, time_days, conf_type="log-log")

    table = kaplan_meier(time_days, event, times)

    np.testing.assert_allclose(table["survival"], survival, atol=1e-12)
    assert (table["lower"] <= table["survival"] + 1e-12).all()
    assert (table["survival"] <= table["upper"] + 1e-12).all()
    inside = (survival > 0) & (survival < 1)
    np.testing.assert_allclose(table["lower"][inside], interval[0][inside], atol=1e-9)
    np.testing.assert_allclose(table["upper"][inside], interval[1][inside], atol=1e-9)


@pytest.mark.parametrize(("time_days", "times"), [(np.zeros(0), np.zeros(1)), (np.ones(1), -np.ones(1))])
def test_kaplan_meier_without_patients_or_before_zero_is_an_error(time_days: np.ndarray, times: np.ndarray) -> None:
    with pytest.raises(ValueError, match="needs one or more patients"):
        kaplan_meier(time_days, np.ones(len(time_days), dtype=bool), times)
