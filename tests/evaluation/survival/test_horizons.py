import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from subfuse.evaluation.survival.horizons import HORIZON_COLUMNS, with_horizons


def follow_up(n: int = 200, longest: float = 3000.0) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    risk = draw.normal(size=n)
    time = np.minimum(draw.exponential(1500 * np.exp(-risk)), longest).round() + 1
    return pd.DataFrame({"risk": risk, "time_days": time, "event": time < longest})


def test_log_hazards_are_read_with_breslows_baseline():
    trained = follow_up()
    fitted = CoxPHFitter(baseline_estimation_method="breslow").fit(trained, "time_days", "event")
    trained["risk"] *= fitted.params_["risk"]  # a model whose risk is the log hazard
    again = CoxPHFitter(baseline_estimation_method="breslow").fit(trained, "time_days", "event")
    new = pd.DataFrame({"risk": [-1.0, 0.0, 2.0]})
    baseline = again.baseline_cumulative_hazard_["baseline cumulative hazard"]
    steps = np.array([baseline[baseline.index <= days].iloc[-1] for days in (365, 1095, 1825)])
    expected = np.exp(-np.outer(again.predict_partial_hazard(new), steps))
    found = with_horizons(new, trained)
    assert found["reason"].isna().all()
    np.testing.assert_allclose(found[list(HORIZON_COLUMNS)], expected, rtol=1e-4)
    shifted = with_horizons(new + 50, trained.assign(risk=trained["risk"] + 50))
    np.testing.assert_allclose(shifted[list(HORIZON_COLUMNS)], found[list(HORIZON_COLUMNS)])


def test_a_curve_is_read_with_a_constant_hazard_between_its_days():
    curve = {"survival_365": [0.8], "survival_730": [0.4], "survival_1460": [0.2]}
    predicted = pd.DataFrame({"risk": [-(0.8 + 0.4 + 0.2 + 0.1)], **curve, "survival_extra": 1.0}).drop(
        columns="survival_extra"
    )
    trained = pd.DataFrame({"risk": 0.0, "time_days": [100.0, 2190.0, 2500.0], "event": [True, True, False]})
    found = with_horizons(predicted, trained).iloc[0]
    assert found["survival_365"] == pytest.approx(0.8)
    assert found["survival_1095"] == pytest.approx(np.sqrt(0.4 * 0.2))
    assert found["survival_1825"] == pytest.approx(np.sqrt(0.2 * 0.1))  # half way to the last event, at 0.1
    assert [name for name in found.index if name.startswith("survival_")] == list(HORIZON_COLUMNS)


@pytest.mark.parametrize("with_curve", [True, False])
def test_survival_is_unknown_beyond_the_follow_up_of_training(with_curve):
    trained = pd.DataFrame({"risk": [0.1, 0.2, 0.3], "time_days": [300.0, 800.0, 1200.0], "event": [True, True, False]})
    predicted = pd.DataFrame({"risk": [-1.2]} | ({"survival_500": [0.7]} if with_curve else {}))
    found = with_horizons(predicted, trained).iloc[0]
    assert 0 < found["survival_1095"] <= found["survival_365"] < 1
    assert np.isnan(found["survival_1825"])
    assert found["reason"] == "no survival at 1825 days: follow-up of the training patients ends before"


def test_a_patient_without_a_prediction_and_a_classification_have_no_survival():
    trained = pd.DataFrame({"risk": [0.1], "time_days": [2000.0], "event": [True]})
    found = with_horizons(pd.DataFrame({"risk": [0.0, np.nan]}), trained)
    assert found[list(HORIZON_COLUMNS)].notna().all(axis=1).tolist() == [True, False]
    assert "survival_365" not in with_horizons(pd.DataFrame({"p_G2": [0.3], "risk": [np.nan]}), trained)


def test_an_event_and_an_end_of_follow_up_on_the_day_of_a_horizon_count_for_it():
    trained = pd.DataFrame({"risk": 0.0, "time_days": [365.0, 1095.0], "event": [True, False]})

    found = with_horizons(pd.DataFrame({"risk": [0.0]}), trained).iloc[0]

    assert found["survival_365"] == pytest.approx(np.exp(-1 / 2))  # one of two at risk
    assert found["survival_1095"] == found["survival_365"]
    assert np.isnan(found["survival_1825"])


def test_between_the_start_and_the_first_day_of_a_curve_the_hazard_is_constant():
    trained = pd.DataFrame({"risk": 0.0, "time_days": [100.0, 2000.0], "event": [True, False]})
    predicted = pd.DataFrame({"risk": [-0.4], "survival_730": [0.4]})

    found = with_horizons(predicted, trained).iloc[0]

    assert found["survival_365"] == pytest.approx(0.4**0.5)


def test_a_risk_that_no_curve_sums_to_ends_at_none_and_at_once_where_the_last_event_is_early():
    trained = pd.DataFrame({"risk": 0.0, "time_days": [100.0, 2000.0], "event": [True, False]})
    predicted = pd.DataFrame(
        {"risk": [-0.5, -0.2, -0.6], "survival_1094": [0.4, 0.4, 0.4]}
    )  # 0.1, below 0, at most 0.2

    found = with_horizons(predicted, trained)

    assert found["survival_1095"].to_numpy() == pytest.approx([0.1, 0.0, 0.2], abs=1e-12)
    assert found["survival_1825"].to_numpy() == pytest.approx([0.1, 0.0, 0.2], abs=1e-12)


def test_survival_at_the_end_is_at_most_that_of_the_last_day_and_on_that_day_it_is_the_curve():
    trained = pd.DataFrame({"risk": 0.0, "time_days": [100.0, 2000.0], "event": [True, False]})
    predicted = pd.DataFrame({"risk": [-1.8], "survival_365": [0.8], "survival_1095": [0.4]})  # 0.6 would be left

    found = with_horizons(predicted, trained).iloc[0]

    assert found["survival_1095"] == pytest.approx(0.4)
    assert found["survival_1825"] == pytest.approx(0.4)
    lower = with_horizons(predicted.assign(risk=-1.3), trained).iloc[0]
    assert (lower["survival_1095"], lower["survival_1825"]) == pytest.approx((0.4, 0.1))


def test_where_nobody_was_trained_on_nothing_is_known():
    trained = pd.DataFrame({"risk": [], "time_days": [], "event": []}, dtype=float)

    found = with_horizons(pd.DataFrame({"risk": [-0.5], "survival_730": [0.4]}), trained).iloc[0]

    assert found[list(HORIZON_COLUMNS)].isna().all()
    assert found["reason"].endswith("follow-up of the training patients ends before")
