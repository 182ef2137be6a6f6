"""The cumulative incidence of an event beside others, against other implementations and by hand."""

import numpy as np
import pytest
from lifelines import AalenJohansenFitter
from sksurv.nonparametric import cumulative_incidence_competing_risks

from subfuse.evaluation.survival.competing_events import cumulative_incidence
from subfuse.evaluation.survival.risk_groups import kaplan_meier


def drawn(n: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Days without ties; a third each has the event, another one, or none."""
    random = np.random.default_rng(3)
    code = random.integers(0, 3, n)
    return random.permutation(np.arange(1.0, n + 1)) * 10, code == 1, code == 2


def test_worked_by_hand() -> None:
    days = np.array([1.0, 2.0, 3.0, 4.0])
    event, competing = np.array([True, False, True, False]), np.array([False, True, False, False])
    found = cumulative_incidence(days, event, competing, np.array([0.0, 1.0, 2.5, 3.0, 4.0, 5.0]))
    np.testing.assert_allclose(found["incidence"], [0, 0.25, 0.25, 0.25 + 0.5 * 0.5, 0.5, np.nan])
    assert found["time_days"].tolist() == [0, 1, 2.5, 3, 4, 5]
    assert found.loc[5, ["lower", "upper"]].isna().all()


def test_agrees_with_lifelines() -> None:
    days, event, competing = drawn()
    expected = AalenJohansenFitter(calculate_variance=False).fit(days, event + 2 * competing, event_of_interest=1)
    expected = expected.cumulative_density_.iloc[1:, 0]
    found = cumulative_incidence(days, event, competing, expected.index.to_numpy(float))
    np.testing.assert_allclose(found["incidence"], expected, atol=1e-9)
    known = found["incidence"] > 0
    assert (found["lower"][known] < found["incidence"][known]).all()
    assert (found["incidence"][known] < found["upper"][known]).all()


@pytest.mark.parametrize("ties", [False, True])
def test_estimate_and_interval_agree_with_scikit_survival(ties: bool) -> None:
    days, event, competing = drawn()
    days = np.ceil(days / 70) * 70 if ties else days
    code = np.where(event, 1, np.where(competing, 2, 0))
    with np.errstate(all="ignore"):
        known, estimate, interval = cumulative_incidence_competing_risks(code, days, conf_type="log-log")
    found = cumulative_incidence(days, event, competing, known)
    np.testing.assert_allclose(found["incidence"], estimate[1], atol=1e-12)
    has_interval = np.isfinite(interval[1]).all(axis=0)
    assert has_interval.sum() > 5
    bounds = found.loc[has_interval, ["lower", "upper"]].to_numpy().T
    np.testing.assert_allclose(bounds, interval[1][:, has_interval], atol=1e-9)


def test_is_one_minus_kaplan_meier_without_others_and_lower_with_them() -> None:
    days, event, competing = drawn()
    times = np.unique(days)
    survival = kaplan_meier(days, event, times)["survival"]
    alone = cumulative_incidence(days, event, np.zeros_like(event), times)["incidence"]
    np.testing.assert_allclose(alone, 1 - survival, atol=1e-9)
    beside = cumulative_incidence(days, event, competing, times)["incidence"]
    assert (beside <= 1 - survival + 1e-12).all()
    assert beside.iloc[-1] < 0.9 * (1 - survival.iloc[-1])


@pytest.mark.parametrize("of_others", [True, False])
def test_without_the_event_it_is_zero(of_others: bool) -> None:
    days, event, competing = drawn()
    found = cumulative_incidence(days, np.zeros_like(event), competing & of_others, np.array([0.0, 300.0]))
    assert (found[["incidence", "lower", "upper"]] == 0).all(axis=None)


def test_what_cannot_be_estimated_is_refused() -> None:
    days, event, competing = drawn()
    with pytest.raises(ValueError, match=f"Found 60 patients, {event.sum()} of them with both events"):
        cumulative_incidence(days, event, event, days)
    with pytest.raises(ValueError, match="times from zero on"):
        cumulative_incidence(days, event, competing, np.array([-1.0]))
    with pytest.raises(ValueError, match="Found 0 patients"):
        cumulative_incidence(days[:0], event[:0], competing[:0], days)
