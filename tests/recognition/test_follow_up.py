"""The follow-up of a table, by names and values."""

import pandas as pd
import pytest
import yaml

from subfuse.recognition.follow_up import follow_up_lines, is_event, is_time, may_be_outcome

DAYS, EVENT = ["30", "410", "77", "2000"], ["1", "0", "1", "1"]


def found(**columns):
    """The section of a table with these columns, its comments, and the columns of the follow-up."""
    table = pd.DataFrame(columns, dtype=str)
    lines, chosen = follow_up_lines(table, list(table))
    text = "\n".join(lines)
    return yaml.safe_load(text) or {}, text, chosen


def test_columns_are_known_by_their_names():
    times = (
        "time_days",
        "OS_MONTHS",
        "os.time",
        "Overall Survival (Months)",
        "follow-up days",
        "survival_years",
        "os_weeks",
        "time",
    )
    events = ("OS", "event", "Vital Status", "OS_STATUS", "died", "censored", "censorship", "Overall Survival Status")
    assert [name for name in (*times, *events, "age", "time_from", "days_to_birth") if is_time(name)] == list(times)
    assert [name for name in (*times, *events, "age") if is_event(name)] == list(events)
    assert not any(may_be_outcome(name) for name in ("age", "grade", "EGFR", "patient_id"))


@pytest.mark.parametrize("values", [("1", "0"), ("1.0", "0.0")])
def test_censorship_is_the_opposite_of_an_event_and_said(values):
    section, text, chosen = found(survival_months=DAYS, censorship=[values[0], values[1], values[1], values[1]])
    assert section["event_values"] == {values[0]: False, values[1]: True}
    assert section["time_unit"] == "months"
    assert chosen == {"time_days": "survival_months", "event": "censorship"}
    assert "1 in censorship is censored" in text
    assert "observed in 3 of 4 rows" in text


def test_words_for_a_survival_do_not_hide_the_numbers():
    section, _, chosen = found(survival=["long", "short", "long", "long"], survival_days=DAYS, death=EVENT)
    assert chosen == {"time_days": "survival_days", "event": "death"}
    assert section["time_unit"] == "days"


def test_weeks_are_a_unit():
    section, _, chosen = found(os_weeks=DAYS, event=EVENT)
    assert (section["time_unit"], chosen["time_days"]) == ("weeks", "os_weeks")


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"days_to_death": DAYS, "days_to_last_followup": DAYS, "vital_status": ["Dead"] * 4}, 3),
        ({"delta_time": DAYS, "alive": EVENT}, 2),
        ({"time": DAYS, "relapse": EVENT}, 2),
        ({"Überlebenszeit (Monate)": DAYS, "verstorben": EVENT}, 2),
        ({"diagnosed": ["2019-05-31"] * 4, "last_contact": ["2020-01-01"] * 4, "event": EVENT}, 3),
    ],
)
def test_a_question_names_every_candidate(columns, named):
    _, text, chosen = found(**columns, age=["60"] * 4)
    assert not chosen
    (question,) = (line for line in text.splitlines() if "QUESTION" in line)
    assert [name for name in columns if name in question] == list(columns)
    assert len(columns) == named
    assert "age" not in question.partition("Candidates")[2]
    assert ("{time_from: diagnosed, time_to: last_contact}" in text) == ("diagnosed" in columns)
    assert ("days_to_death of the dead" in text) == ("days_to_death" in columns)


def test_none_is_said_where_no_column_reminds_of_a_follow_up():
    assert "Candidates: none" in found(age=["60"], grade=["G2"])[1]
