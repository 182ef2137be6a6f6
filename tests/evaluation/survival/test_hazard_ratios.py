import lifelines
import numpy as np
import pandas as pd
import pytest
from drawn_predictions import cohort, predictions
from lifelines import CoxPHFitter
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from subfuse.evaluation.survival.hazard_ratios import (
    HAZARD_RATIO_COLUMNS,
    hazard_ratio_of,
    hazard_ratios,
    standardised_risk,
)
from subfuse.evaluation.survival.risk_groups import risk_groups


def covariates(patients: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    age = (50 + 10 * patients["severity"] + 8 * generator.normal(size=len(patients))).round()
    return pd.DataFrame({"patient_id": patients["patient_id"], "age": age.astype(str), "grade": patients["label"]})


def ratio(table: pd.DataFrame, comparison: str, adjusted_for: str) -> pd.Series:
    found = table[(table["comparison"] == comparison) & (table["adjusted_for"] == adjusted_for)]
    assert len(found) == 1
    return found.iloc[0]


def by_scikit_survival(design: pd.DataFrame, outcome: pd.DataFrame) -> float:
    model = CoxPHSurvivalAnalysis(ties="efron")
    model.fit(design.astype(float), Surv.from_arrays(outcome["event"], outcome["time_days"]))
    return float(np.exp(model.coef_[0]))


def test_ratios_agree_with_scikit_survival() -> None:
    patients = cohort(n=150)
    table, known = predictions(patients), covariates(patients)

    found = hazard_ratios(table, patients=known)

    risk = standardised_risk(table).merge(known, on="patient_id")
    adjusted = risk[["risk"]].assign(age=risk["age"].astype(float) / 10)
    adjusted = adjusted.join(pd.get_dummies(risk["grade"], drop_first=True))
    assert tuple(found.columns) == HAZARD_RATIO_COLUMNS
    assert ratio(found, "per_sd", "nothing")["hazard_ratio"] == pytest.approx(
        by_scikit_survival(risk[["risk"]], risk), rel=1e-4
    )
    row = ratio(found, "per_sd", "age, grade")
    assert row["hazard_ratio"] == pytest.approx(by_scikit_survival(adjusted, risk), rel=1e-4)
    assert row["lower"] < row["hazard_ratio"] < row["upper"]
    groups = risk_groups(table)
    high = (groups["group"] == "high").to_frame("high")
    assert ratio(found, "high_vs_low", "nothing")["hazard_ratio"] == pytest.approx(
        by_scikit_survival(high, groups), rel=1e-4
    )


def test_scale_of_a_fold_does_not_matter_and_training_patients_set_it() -> None:
    table = predictions(cohort())
    rescaled = table.assign(risk=np.where(table["fold"] == 2, 55 * table["risk"] - 8, 0.01 * table["risk"]))
    one = table[table["fold"] == 1]
    train = one.loc[one["split"] == "train", "risk"]

    pd.testing.assert_frame_equal(hazard_ratios(table), hazard_ratios(rescaled), rtol=1e-6)
    tested = one[one["split"] == "test"].set_index("patient_id")["risk"]
    ours = standardised_risk(table).set_index("patient_id")["risk"].loc[tested.index]
    np.testing.assert_allclose(ours, (tested - train.mean()) / train.std(ddof=1))


def test_a_covariate_with_one_value_is_left_out_and_nobody_is_given_twice_where_all_are_known() -> None:
    patients = cohort()
    known = covariates(patients).assign(age="60")

    found = hazard_ratios(predictions(patients), patients=known)

    assert set(found["adjusted_for"]) == {"nothing", "grade"}
    assert found["hazard_ratio"].notna().all()


def test_a_covariate_of_two_values_counts_and_grades_of_fewer_than_five_patients_are_one_of_their_own() -> None:
    patients = cohort(n=120)
    table, sizes = predictions(patients), {"G1": 5, "G4": 4, "G5": 3, "G2": 48, "G3": 60}
    known = pd.DataFrame({"patient_id": patients["patient_id"], "grade": np.repeat(list(sizes), list(sizes.values()))})

    found = ratio(hazard_ratios(table, patients=known), "per_sd", "grade")
    of_two = hazard_ratios(table, patients=known.replace({"grade": {"G1": "G2", "G4": "G2", "G5": "G2"}}))

    risk = standardised_risk(table).merge(known, on="patient_id")
    grades = pd.get_dummies(risk["grade"].replace({"G4": "other", "G5": "other"}), dtype=float)[["G1", "G3", "other"]]
    assert found["hazard_ratio"] == pytest.approx(by_scikit_survival(risk[["risk"]].join(grades), risk), rel=1e-4)
    assert ratio(of_two, "per_sd", "grade")["n_patients"] == 120


def test_fewer_than_ten_events_for_each_variable_are_noted() -> None:
    draw, index = np.random.default_rng(3), np.arange(60)
    table = pd.DataFrame({"time_days": index + 1.0, "risk": draw.normal(size=60), "age": draw.normal(60, 9, 60)})

    notes = {n: hazard_ratio_of(table.assign(event=index < n), ["age"])["reason"] for n in (19, 20)}

    assert notes == {19: "19 events for 2 variables: fewer than 10 each", 20: None}


def test_risks_that_do_not_differ_have_no_ratio() -> None:
    table = predictions(cohort())
    among_trained = hazard_ratios(table.assign(risk=table["risk"].where(table["split"] == "test", 3.0)))
    draw = pd.DataFrame({"time_days": np.arange(30.0) + 1, "event": True, "risk": 2.0})

    assert hazard_ratio_of(draw, [])["reason"] == "the risk is the same for every patient"
    assert among_trained["hazard_ratio"].isna().all()
    assert among_trained["reason"].str.contains("equal risks").all()


def test_repeats_do_not_add_patients() -> None:
    patients = cohort()
    once = predictions(patients)
    twice = pd.concat([once, once.assign(repeat=1)])

    pd.testing.assert_frame_equal(hazard_ratios(once), hazard_ratios(twice))


def test_unknown_covariates_leave_patients_out_and_the_same_patients_are_given_unadjusted() -> None:
    patients = cohort()
    known = covariates(patients)
    known.loc[:19, "age"] = None

    found = hazard_ratios(predictions(patients), patients=known)

    assert ratio(found, "per_sd", "age, grade")["n_patients"] == len(patients) - 20
    assert ratio(found, "per_sd", "nothing (same patients)")["n_patients"] == len(patients) - 20
    assert ratio(found, "per_sd", "nothing")["n_patients"] == len(patients)


def test_what_cannot_be_fitted_has_a_reason() -> None:
    table = predictions(cohort())
    without = hazard_ratios(table[table["split"] == "test"])
    uneventful = hazard_ratios(table.assign(event=False))

    assert len(without) == len(uneventful) > 0
    assert without["hazard_ratio"].isna().all()
    assert without["reason"].str.contains("rows of split train").all()
    assert uneventful["reason"].str.contains("0 events among the test patients").all()
    assert hazard_ratios(predictions(cohort(), task="grade")).empty


@pytest.mark.parametrize("seed", [34, 39])
def test_a_patient_far_from_all_others_makes_no_library_speak(seed: int) -> None:
    draw = np.random.default_rng(seed)
    outcome = {"time_days": draw.exponential(1000, 27).round() + 1, "event": draw.random(27) < 0.55}
    risk = draw.normal(size=27)
    risk[0] *= 10.0 ** (seed % 6)
    row = hazard_ratio_of(pd.DataFrame({**outcome, "risk": risk}), [])
    assert np.isfinite(row["hazard_ratio"]) == np.isfinite([row["lower"], row["upper"]]).all()
    assert np.isfinite(row["hazard_ratio"]) or row["reason"].startswith("the Cox model does not converge")


def test_a_ratio_beyond_all_numbers_is_undefined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library stops at the first; where it does not, its numbers are looked at."""

    class Boundless(CoxPHFitter):
        summary = pd.DataFrame({"coef": 800.0, "coef lower 95%": 1.0, "coef upper 95%": 900.0, "p": 0.5}, ["risk"])

    draw = np.random.default_rng(0)
    risk = draw.normal(size=60)
    table = pd.DataFrame({"time_days": draw.exponential(1000 * np.exp(-risk)) + 1, "event": True, "risk": risk * 1e-6})

    rows = [hazard_ratio_of(table, [])]
    monkeypatch.setattr(lifelines, "CoxPHFitter", Boundless)
    rows.append(hazard_ratio_of(table.assign(risk=risk), []))

    for row in rows:
        assert np.isnan([row["hazard_ratio"], row["lower"], row["upper"], row["p_value"]]).all()
        assert (row["n_patients"], row["n_events"]) == (60, 60)
        assert row["reason"].startswith("the Cox model does not converge")
