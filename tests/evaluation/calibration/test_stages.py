"""Test patients are recalibrated by the validation patients of their own fold, or not at all."""

import numpy as np
import pandas as pd
import pytest
from drawn_probabilities import DAYS, NO_SLOPES, classified, measure, survived

from subfuse.audit.calibration import calibration_findings
from subfuse.evaluation.calibration.measures import calibration_table
from subfuse.evaluation.censoring import SurvivalCurves
from subfuse.evaluation.metrics import classification_metrics, survival_metrics
from subfuse.evaluation.recalibration import HazardRecalibration, IsotonicScaling, PlattScaling, TemperatureScaling


def test_isotonic_regression_needs_hundreds_of_validation_patients_of_every_class() -> None:
    few = measure(calibration_table(classified(597, ("A", "B"), sharpened=3.0)), "brier")  # 199 in a fold
    assert np.isnan(few["after_isotonic"])
    assert few["reason_isotonic"] == "not recalibrated: a fold has fewer than 200 validation patients"
    assert few["after"] < few["before"]

    rows = classified(1500, ("A", "B", "C"), sharpened=3.0)
    rare = rows[(rows["label"] != "C") | (rows["split"] != "validation")]
    missing = measure(calibration_table(rare), "brier")
    assert np.isnan(missing["after_isotonic"])
    assert missing["reason_isotonic"] == "not recalibrated: a fold has no validation patients of a class"


def test_without_validation_patients_nothing_is_recalibrated() -> None:
    rows = classified(300, ("A", "B"), sharpened=2.0)
    without = rows[rows["split"] != "validation"]

    found = calibration_table(without)

    assert found["measure"].tolist() == ["expected_calibration_error", "brier"]
    assert found["after"].isna().all()
    assert found["reason"].str.contains("fewer than 10 validation patients").all()
    pd.testing.assert_series_equal(found["before"], calibration_table(rows)["before"])


@pytest.mark.parametrize(("n", "is_enough"), [(27, False), (30, True)])
def test_ten_validation_patients_of_a_fold_are_enough(n: int, is_enough: bool) -> None:
    after = measure(calibration_table(classified(n, ("A", "B"), sharpened=2.0)), "brier")["after"]

    assert np.isfinite(after) == is_enough


@pytest.mark.parametrize(
    ("classes", "scaling"), [(("A", "B"), PlattScaling), (("A", "B", "C"), TemperatureScaling)], ids=["two", "three"]
)
def test_classes_are_recalibrated_by_the_validation_patients_of_their_own_fold(classes, scaling) -> None:
    rows = classified(690, classes, sharpened=3.0)
    columns = [f"p_{name}" for name in classes]

    def expected(scaling: type, fitted_on: str) -> pd.Series:
        labels, told = [], []
        for _, fold in rows.groupby("fold"):
            known, tested = fold[fold["split"] == fitted_on], fold[fold["split"] == "test"]
            fitted = scaling.fit(known[columns].to_numpy(), known["label"].map(classes.index).to_numpy())
            labels.append(tested["label"].map(classes.index).to_numpy())
            told.append(fitted.apply(tested[columns].to_numpy()))
        metrics = classification_metrics(np.concatenate(labels), np.concatenate(told))
        return pd.Series({name: metrics[name].value for name in ("expected_calibration_error", "brier")})

    found = calibration_table(rows).set_index("measure")

    for column, fitted in (("after", scaling), ("after_isotonic", IsotonicScaling)):
        pd.testing.assert_series_equal(found[column], expected(fitted, "validation"), check_names=False)
        for other in ("test", "train"):
            assert (found[column] - expected(fitted, other)).abs().max() > 1e-5


def test_hazards_are_recalibrated_by_the_validation_patients_of_their_own_fold() -> None:
    rows = survived(240, factor=2.5)

    def outcome(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        return part["time_days"].to_numpy(), part["event"].to_numpy()

    def curves(part: pd.DataFrame) -> SurvivalCurves:
        return SurvivalCurves(DAYS, part[[f"survival_{day:g}" for day in DAYS]].to_numpy())

    def expected(fitted_on: str) -> float:
        values = []
        for _, fold in rows.groupby("fold"):
            known, tested, train = (fold[fold["split"] == split] for split in (fitted_on, "test", "train"))
            fitted = HazardRecalibration.fit(curves(known), *outcome(known))
            metrics = survival_metrics(
                *outcome(tested),
                tested["risk"].to_numpy(),
                train_time_days=outcome(train)[0],
                train_event=outcome(train)[1],
                survival=fitted.apply(curves(tested)).survival,
                survival_days=DAYS,
            )
            values.append(metrics["integrated_brier"].value)
        return float(np.mean(values))

    found = measure(calibration_table(rows), "integrated_brier")["after"]

    assert found == pytest.approx(expected("validation"), abs=1e-12)
    for other in ("test", "train"):
        assert abs(found - expected(other)) > 1e-6


@pytest.mark.parametrize(("n_events", "is_enough"), [(10, True), (9, False)])
def test_ten_events_among_the_validation_patients_of_every_fold_are_enough(n_events: int, is_enough: bool) -> None:
    rows = survived(150, factor=1.0)
    validating = rows["split"] == "validation"
    rows.loc[validating, "event"] = rows[validating].groupby("fold").cumcount() < n_events
    found = calibration_table(rows)
    assert found["after"].notna().all() == is_enough
    assert is_enough or (found["reason"] == "not recalibrated: a fold has fewer than 10 validation events").all()


@pytest.mark.parametrize("task", ["classes", "survival"])
def test_a_fold_that_tests_nobody_changes_nothing(task: str) -> None:
    rows = classified(150, ("A", "B"), sharpened=2.0) if task == "classes" else survived(150, factor=1.0)
    untested = rows[rows["split"] == "validation"].drop_duplicates("patient_id").assign(fold=-1)
    pd.testing.assert_frame_equal(calibration_table(pd.concat([untested, rows])), calibration_table(rows))


def test_recalibrated_predictions_that_are_given_come_first() -> None:
    rows = classified(150, ("A", "B"), sharpened=2.0)
    given = rows.assign(recalibrated_p_A=rows["p_A"] ** 2, recalibrated_p_B=1 - rows["p_A"] ** 2)
    told = rows.assign(p_A=given["recalibrated_p_A"], p_B=given["recalibrated_p_B"])
    found, expected = calibration_table(given).set_index("measure"), calibration_table(told).set_index("measure")
    np.testing.assert_allclose(found["after"], expected["before"])
    rows = survived(150, factor=1.0)
    curves = {name: rows[name] ** 2 for name in rows if name.startswith("survival_")}
    given = rows.assign(**{f"recalibrated_{name}": values for name, values in curves.items()})
    found, expected = (calibration_table(table).set_index("measure") for table in (given, rows.assign(**curves)))
    np.testing.assert_allclose(found["after"], expected["before"])


def test_a_model_without_curves_says_so() -> None:
    rows = survived(150, factor=1.0)
    found = calibration_table(rows.drop(columns=[name for name in rows if name.startswith("survival_")]))

    assert found["measure"].tolist() == ["integrated_brier", "one_calibration_p", "d_calibration_p"]
    assert found["before"].isna().all()
    assert (found["reason"] == "its predictions hold no survival curve").all()
    assert calibration_findings(found, NO_SLOPES)[0].level == "note"


def test_curves_of_test_patients_alone_are_measured_and_not_recalibrated() -> None:
    rows = survived(150, factor=1.0)
    curves = [name for name in rows if name.startswith("survival_")]
    tested_alone = rows.assign(**{name: rows[name].where(rows["split"] == "test") for name in curves})

    found, complete = calibration_table(tested_alone), calibration_table(rows)

    pd.testing.assert_series_equal(found["before"], complete["before"])
    assert complete["after"].notna().all()
    assert found["after"].isna().all()
    assert (found["reason"] == "not recalibrated: validation patients of a fold have no survival curve").all()
