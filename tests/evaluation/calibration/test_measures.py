"""Calibration before and after recalibration by validation patients."""

import numpy as np
import pandas as pd
import pytest
from drawn_probabilities import DAYS, NO_SLOPES, classified, measure, survived
from scipy.stats import binom
from sksurv.metrics import integrated_brier_score
from sksurv.util import Surv

from subfuse.audit.calibration import calibration_findings
from subfuse.evaluation.calibration.measures import CALIBRATION_COLUMNS, calibration_table, reliability_table
from subfuse.evaluation.censoring import SurvivalCurves
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.evaluation.metrics import classification_metrics


@pytest.mark.parametrize("classes", [("A", "B"), ("A", "B", "C")])
def test_recalibration_mends_probabilities_that_are_too_certain(classes: tuple[str, ...]) -> None:
    table = calibration_table(classified(900, classes, sharpened=3.0))

    error, brier = measure(table, "expected_calibration_error"), measure(table, "brier")
    assert tuple(table.columns) == CALIBRATION_COLUMNS
    assert error["before"] > 0.1 > 2 * error["after"]
    assert brier["after"] < brier["before"]
    assert error["after_isotonic"] < 0.5 * error["before"]
    assert brier["after_isotonic"] < brier["before"]
    assert error["p_before"] < 0.01
    finding = calibration_findings(table, NO_SLOPES)[0]
    assert "Recalibrate on validation patients" in finding.remedy
    assert f"by isotonic regression {error['after_isotonic']:.3f} and {brier['after_isotonic']:.3f}" in finding.found


def test_true_probabilities_pass_and_stay() -> None:
    table = calibration_table(classified(900, ("A", "B", "C"), sharpened=1.0))

    error = measure(table, "expected_calibration_error")
    assert error["p_before"] > 0.05
    assert error["after"] == pytest.approx(error["before"], abs=0.02)
    assert calibration_findings(table, NO_SLOPES)[0].level == "ok"


def test_certain_and_right_probabilities_are_beyond_doubt() -> None:
    rows = classified(90, ("A", "B"), sharpened=1.0)
    rows = rows.assign(p_A=(rows["label"] == "A").astype(float), p_B=(rows["label"] == "B").astype(float))

    error = measure(calibration_table(rows), "expected_calibration_error")

    assert (error["before"], error["p_before"]) == (0.0, 1.0)  # every draw is as far off, by nothing


def test_certain_and_wrong_probabilities_have_the_least_p_value_that_a_thousand_draws_can_give() -> None:
    rows = classified(90, ("A", "B"), sharpened=1.0)
    rows = rows.assign(p_A=(rows["label"] == "B").astype(float), p_B=(rows["label"] == "A").astype(float))

    assert measure(calibration_table(rows), "expected_calibration_error")["p_before"] == pytest.approx(1 / 1001)


def test_the_p_value_of_one_bin_is_that_of_the_binomial_distribution() -> None:
    rows = pd.DataFrame({"patient_id": np.arange(60).astype(str), "label": np.repeat(["A", "B", "C"], [9, 9, 42])})
    rows = rows.assign(cohort="c", task="t", model="m", repeat=0, fold=0, split="test", p_A=0.1, p_B=0.1, p_C=0.8)

    found = measure(calibration_table(rows), "expected_calibration_error")

    n_right = np.arange(61)
    expected = binom.pmf(n_right, 60, 0.8)[abs(n_right - 48) >= 6].sum()
    assert found["before"] == pytest.approx(0.1)
    assert found["p_before"] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("sizes", "few"),
    [
        ((7, 6, 6), "19 test patients, 20 are needed"),
        ((50, 6, 4), "4 test patients of class C, 5 are needed"),
        ((15, 15, 5), None),
    ],
)
def test_too_few_patients_have_no_p_value(sizes: tuple[int, ...], few: str | None) -> None:
    label = np.repeat(["A", "B", "C"], sizes)
    rows = pd.DataFrame({"patient_id": np.arange(len(label)).astype(str), "label": label})
    rows = rows.assign(cohort="c", task="t", model="m", repeat=0, fold=0, split="test", p_A=0.1, p_B=0.1, p_C=0.8)

    found = measure(calibration_table(rows), "expected_calibration_error")

    assert found["reason_p"] == few
    assert np.isnan(found["p_before"]) == (few is not None)


def test_curves_of_too_few_patients_are_not_tested() -> None:
    rows = survived(900, factor=1.0)
    tested = rows.index[rows["split"] == "test"]
    few = rows.drop(index=tested[19:])
    tests = calibration_table(few).set_index("measure").loc[["one_calibration_p", "d_calibration_p"]]
    assert tests[["before", "after"]].isna().all(axis=None)
    assert set(tests["reason_p"]) == {"19 test patients, 20 are needed"}
    assert np.isfinite(measure(calibration_table(few), "integrated_brier")["before"])


def test_test_patients_are_pooled_and_repeats_averaged() -> None:
    rows = classified(300, ("A", "B", "C"), sharpened=2.0, repeats=2)
    tested = rows[(rows["split"] == "test") & (rows["repeat"] == 0)]
    label = np.array(["ABC".index(name) for name in tested["label"]])
    expected = classification_metrics(label, tested[["p_A", "p_B", "p_C"]].to_numpy())

    found = calibration_table(rows)

    for name in ("expected_calibration_error", "brier"):
        assert measure(found, name)["before"] == pytest.approx(expected[name].value)
        assert measure(found, name)["n_patients"] == 300


def test_level_of_hazards_is_mended() -> None:
    table = calibration_table(survived(900, factor=2.5))

    one = measure(table, "one_calibration_p")
    brier = measure(table, "integrated_brier")
    assert one["horizon_days"] == 1095
    assert one["before"] < 1e-6 < one["after"]
    assert measure(table, "d_calibration_p")["before"] < 1e-6
    assert brier["after"] < brier["before"]
    assert calibration_findings(table, NO_SLOPES)[0].level == "warning"


def test_p_values_of_repeats_are_combined_as_twice_their_median() -> None:
    rows, curves = survived(300, factor=1.0), [f"survival_{day:g}" for day in DAYS]
    repeats = [
        rows.assign(repeat=index, **(rows[curves] ** power).to_dict("series"))
        for index, power in enumerate((0.5, 0.6, 0.7))
    ]

    found = calibration_table(pd.concat(repeats)).set_index("measure")["before"]

    alone = pd.DataFrame([calibration_table(repeat).set_index("measure")["before"] for repeat in repeats])
    for name in ("one_calibration_p", "d_calibration_p"):
        assert alone[name].nunique() == 3
        assert found[name] == pytest.approx(min(1.0, 2 * alone[name].median()))


def test_twice_a_median_above_one_half_is_one() -> None:
    rows = survived(900, factor=1.0)

    table = calibration_table(pd.concat([rows.assign(repeat=index) for index in range(2)])).set_index("measure")

    alone = calibration_table(rows).set_index("measure")["before"]
    for name in ("one_calibration_p", "d_calibration_p"):
        assert table.loc[name, "before"] == min(1.0, 2 * alone[name])
    assert alone[["one_calibration_p", "d_calibration_p"]].max() > 0.5


def test_models_beside_one_that_predicts_no_test_patient_are_measured() -> None:
    rows = classified(90, ("A", "B"), sharpened=1.0)
    trained_only = rows[rows["split"] != "test"].assign(model="a")

    assert set(calibration_table(pd.concat([trained_only, rows]))["model"]) == {"snn"}


def test_what_is_undefined_without_recalibration_says_why_and_not_that_it_is_not_recalibrated() -> None:
    rows = survived(30, factor=1.0)

    found = calibration_table(rows[rows["split"] != "validation"]).set_index("measure")

    assert np.isnan(found.loc["d_calibration_p", "before"])
    assert found.loc["d_calibration_p", "reason"] == "fewer than 50 patients"
    assert found.loc["integrated_brier", "reason"].startswith("not recalibrated")


def test_integrated_brier_is_that_of_the_metrics_and_of_scikit_survival() -> None:
    rows = survived(300, factor=1.0)

    found = measure(calibration_table(rows), "integrated_brier")["before"]

    metrics = evaluate_predictions(rows, n_bootstrap=5).set_index("metric")
    assert found == pytest.approx(metrics.loc["integrated_brier", "value"], abs=1e-12)
    limit = metrics.loc["integrated_brier", "truncation_days"]
    scores = []
    for _, fold in rows.groupby("fold"):
        train, test = (fold[fold["split"] == split] for split in ("train", "test"))
        event = (test["event"] & (test["time_days"] <= limit)).to_numpy()
        scores.append(
            integrated_brier_score(
                Surv.from_arrays(train["event"], train["time_days"]),
                Surv.from_arrays(event, np.minimum(test["time_days"], limit)),
                test[[f"survival_{day:g}" for day in DAYS]].to_numpy(),
                DAYS,
            )
        )
    assert found == pytest.approx(np.mean(scores), abs=1e-9)


def test_reliability_of_survival_is_that_by_three_years() -> None:
    rows = survived(300, factor=1.0)
    tested = rows[rows["split"] == "test"]
    curves = SurvivalCurves(DAYS, tested[[f"survival_{day:g}" for day in DAYS]].to_numpy())

    table = reliability_table(rows)

    mean = np.average(table["predicted"], weights=table["n_patients"])
    assert mean == pytest.approx(1 - curves.at_horizon(1095.0).mean())


def test_reliability_adds_up() -> None:
    classes = reliability_table(classified(300, ("A", "B", "C"), sharpened=2.0))
    survival = reliability_table(survived(300, factor=1.0))

    assert classes["n_patients"].sum() == survival["n_patients"].sum() == 300
    assert (np.diff(classes["predicted"]) > 0).all()
    assert len(classes) == 7  # tenths from that of 0.3 to 0.4 on
    rows = classified(300, ("A", "B", "C"), sharpened=2.0)
    tested = rows[rows["split"] == "test"]
    right = tested[["p_A", "p_B", "p_C"]].idxmax(axis=1) == "p_" + tested["label"]
    assert np.average(classes["observed"], weights=classes["n_patients"]) == pytest.approx(right.mean())
    assert (np.diff(survival["predicted"]) > 0).all()
