import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from clinical_sections import patients_section
from subfuse.clinical.plausibility import outcome_warnings, trend_statistic
from subfuse.clinical.reading import read_clinical


def warned(patients: pd.DataFrame) -> str:
    return " ".join(outcome_warnings(patients))


def simulated(n: int, *, seed: int, effect: float = 0.05) -> pd.DataFrame:
    """Deaths hasten with age, losses to follow-up do not."""
    random = np.random.default_rng(seed)
    age = random.uniform(25, 75, n)
    death, loss = random.exponential(900 * np.exp(-effect * (age - 50))), random.exponential(1000, n)
    return pd.DataFrame(
        {
            "time_days": np.minimum(death, loss),
            "event": pd.array(death <= loss, dtype="boolean"),
            "age": [f"{years:.1f}" for years in age],
        }
    )


def flipped(patients: pd.DataFrame) -> pd.DataFrame:
    return patients.assign(event=~patients["event"])


@pytest.mark.parametrize("seed", range(5))
def test_flipped_events_are_seen_in_what_age_foretells(seed):
    patients = simulated(300, seed=seed)
    assert warned(patients) == ""
    assert "event may be flipped: age foretells" in warned(flipped(patients))


def test_without_a_risk_factor_nothing_is_claimed():
    patients = simulated(300, seed=0, effect=0.0)
    assert warned(patients) == warned(flipped(patients)) == ""
    few = simulated(300, seed=1).assign(event=pd.array([True] * 5 + [False] * 295, dtype="boolean"))
    assert "flipped" not in warned(few)


def test_a_clear_risk_factor_outweighs_longer_times_of_events():
    patients = simulated(300, seed=2)
    early = patients["event"] | (np.arange(300) % 2 == 0)  # leaving early, whatever the age
    patients["time_days"] = patients["time_days"].where(patients["event"], 1 + np.arange(300) % 30).where(early, 2)
    assert "flipped" not in warned(patients)
    assert "flipped: median time" in warned(patients.drop(columns="age"))


def test_trend_statistic_is_the_score_test_of_cox_regression():
    patients = simulated(80, seed=3)
    time = np.ceil(patients["time_days"].to_numpy(dtype=float) / 200)  # many ties
    event, age = patients["event"].to_numpy(dtype=bool), patients["age"].astype(float).to_numpy()
    score = information = 0.0
    for i in np.flatnonzero(event):
        risk_set = age[time >= time[i]]
        score, information = score + age[i] - risk_set.mean(), information + risk_set.var()
    statistic = trend_statistic(age, time, event)
    assert statistic == pytest.approx(score / np.sqrt(information))
    table = pd.DataFrame({"age": age, "time": patients["time_days"], "event": event})
    wald = CoxPHFitter().fit(table, "time", "event").summary.loc["age", "z"]
    assert trend_statistic(age, table["time"].to_numpy(), event) == pytest.approx(wald, rel=0.2)
    with_unknown = trend_statistic(np.append(age, np.nan), np.append(time, 3.0), np.append(event, True))
    assert with_unknown == pytest.approx(statistic)
    assert trend_statistic(np.ones(5), np.arange(5.0), np.ones(5, dtype=bool)) == 0


@pytest.mark.parametrize(
    ("scale", "message"),
    [(1.0, ""), (1 / 30.4375, "looks like months"), (1 / 365.25, "looks like years"), (30.4375, "reaches .* years")],
)
def test_units_of_time(scale, message):
    patients = simulated(200, seed=4).drop(columns="age")
    patients["time_days"] = patients["time_days"].clip(upper=6000) * scale
    patients.loc[0, "time_days"] = 6000 * scale
    text = warned(patients)
    assert (text == "") if not message else pd.Series([text]).str.contains(message).all()


@pytest.mark.parametrize(
    ("ages", "message"),
    [
        (["44", "90", None], ""),
        (["16071", "90", None], "age exceeds 120 for 1 patient(s), up to 16071: it looks like days"),
        (
            ["1040.4", "710", "90"],
            "age exceeds 120 for 2 patient(s), up to 1040.4: it looks like months. It must be in y",
        ),
        (["160", "71", "90"], "age exceeds 120 for 1 patient(s), up to 160. It must be in years: correct the cells"),
        (["-4", "90", "x"], "age is negative for 1 patient(s)"),
    ],
)
def test_ages(ages, message):
    patients = pd.DataFrame({"time_days": [500, 900, 800], "event": pd.array([True, False, True], dtype="boolean")})
    assert message in warned(patients.assign(age=ages))
    assert bool(warned(patients.assign(age=ages))) == bool(message)
    assert message in warned(patients.assign(age=ages, time_days=np.nan))


MONTHS_OF_A_LONG_STUDY = np.random.default_rng(0).weibull(1.3, 200).clip(0.02, 2.6) * 115  # as METABRIC: up to 300


def in_open_unit(time: np.ndarray) -> str:
    event = pd.array(np.arange(len(time)) % 2 == 0, dtype="boolean")
    return " ".join(outcome_warnings(pd.DataFrame({"time_days": time, "event": event}), is_unit_open=True))


@pytest.mark.parametrize(
    "of_months",
    [MONTHS_OF_A_LONG_STUDY, MONTHS_OF_A_LONG_STUDY.round(), np.r_[9:120:2, [120] * 40]],  # last: up to 10 years
)
def test_months_of_a_long_follow_up_are_noticed_where_nothing_says_the_unit(of_months):
    assert "looks like months" in in_open_unit(of_months)
    assert "looks like months" in in_open_unit(of_months[-12:])
    as_days = pd.DataFrame({"time_days": of_months, "event": pd.array(of_months > 50, dtype="boolean")})
    assert "months" not in warned(as_days)  # the name of the column, or the cohort file, says days


@pytest.mark.parametrize("limit", [30, 90, 365])
@pytest.mark.parametrize("mortality", [0.1, 0.7])
def test_days_of_a_limited_follow_up_are_no_months(limit, mortality):
    random = np.random.default_rng(limit)
    time = np.where(random.random(200) < mortality, random.integers(1, limit, 200), limit).astype(float)
    assert "looks like" not in in_open_unit(time)
    assert "looks like" in in_open_unit(time[time < limit])


def test_times_of_zero():
    patients = pd.DataFrame({"time_days": [0, 900, 0.0], "event": pd.array([True, False, False], dtype="boolean")})
    assert "time_days is 0 for 2 patient(s)" in warned(patients)


@pytest.mark.real_data
def test_the_real_table_is_plausible_and_its_mutilations_are_not(real_data):
    columns = {"patient_id": "case_id", "time_days": "os_days", "event": "os_event", "grade": "grade", "age": "age"}
    path = real_data / "tcga_gbmlgg" / "labels.csv"
    patients = read_clinical(patients_section(table=path, columns=columns)).patients
    assert outcome_warnings(patients) == ()
    assert "event may be flipped: grade foretells" in warned(flipped(patients))
    assert "event may be flipped: age foretells" in warned(flipped(patients).drop(columns="grade"))
    assert "looks like months" in warned(patients.assign(time_days=patients["time_days"] / 30.4375))
    assert "age exceeds 120" in warned(patients.assign(age=[str(float(age) * 365.25) for age in patients["age"]]))
    for n in (12, 60, 120, 240):  # smaller cohorts raise no false alarm
        samples = [patients.sample(n, random_state=seed) for seed in range(10)]
        assert all(outcome_warnings(sample, is_unit_open=True) == () for sample in samples)
    in_months = patients.assign(time_days=patients["time_days"] / 30.4375 * 2)  # of a disease that is survived longer
    assert "looks like months" in " ".join(outcome_warnings(in_months, is_unit_open=True))


@pytest.mark.real_data
def test_days_of_the_stomach_are_taken_for_days_and_months_for_months(real_data):
    table = pd.read_csv(real_data / "tcga_stad" / "patients.csv")
    event, days = pd.array(table["os_event"] == 1, dtype="boolean"), (table["os_months"] * 30.4375).round()
    assert "looks like months" in in_open_unit(table["os_months"].to_numpy())
    patients = pd.DataFrame({"time_days": days, "event": event})
    for n in (12, 60, len(patients)):
        samples = [patients.sample(n, random_state=seed) for seed in range(10)]
        assert not any("looks like" in " ".join(outcome_warnings(sample, is_unit_open=True)) for sample in samples)


def outcomes(time: list[float], event: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"time_days": time, "event": pd.array(event, dtype="boolean")})


def test_warnings_about_months_censoring_and_flipped_events():
    months = outwarn(outcomes([5, 50, 120] * 10, [True, False, False] * 10))
    assert "months" in months
    assert "100%" in outwarn(outcomes([500, 900], [True, True]))
    assert "can be neither learned nor evaluated" in outwarn(outcomes([500, 900], [False, False]))
    assert "flipped" in outwarn(outcomes([2500] * 10 + [900] * 12, [True] * 10 + [False] * 12))
    assert outwarn(outcomes([900] * 10 + [2500] * 12, [True] * 10 + [False] * 12)) == ""
    assert outwarn(outcomes([], [])) == ""


def outwarn(patients: pd.DataFrame) -> str:
    return " ".join(outcome_warnings(patients))
