import pytest

from clinical_sections import patients_section
from subfuse.cells import TIME_WORDS
from subfuse.clinical.source import EndpointSection
from subfuse.clinical.time_units import is_unit_open, unit_in_name

WRITTEN = ["os_{}", "OS.{}", "Follow-up ({})", "survival [{}]", "{}", "FU{}", "time in {} (2)"]
AS_OTHER_WORDS = ("m", "y", "j", "an")


@pytest.mark.parametrize("unit", TIME_WORDS)
@pytest.mark.parametrize("name", WRITTEN)
def test_every_word_of_a_unit_is_read_in_names_of_any_writing(unit, name):
    for word in (word for word in TIME_WORDS[unit] if word not in AS_OTHER_WORDS):
        assert {unit_in_name(name.format(writing)) for writing in (word, word.upper(), word.title())} == {unit}


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("Überleben (Monate)", "months"), ("suivi_années", "years"), ("Überlebensmonate", "months"),
        ("survivalMonths", "months"), ("fuMo", "months"), ("OS (m)", "months"), ("OS (y)", "years"),
        ("days_to_death_of_month", "days"),
    ],
)  # fmt: skip
def test_accents_and_words_written_together(name, unit):
    assert unit_in_name(name) == unit


@pytest.mark.parametrize(
    "name",
    ["OS.time", "time_y", "time_m", "time_to_an_event", "os2", "survival_time", "overall_survival", "Monitor"],
)
def test_other_names_say_no_unit(name):
    assert unit_in_name(name) is None


def test_a_unit_is_open_where_neither_name_nor_file_says_it():
    def section(time, **declared):
        return patients_section(table="p.csv", columns={"time_days": time, "event": "dead"}, **declared)

    assert is_unit_open(section("os"))
    assert not is_unit_open(section("os", time_unit="days"))
    assert not is_unit_open(section("os_days"))
    assert not is_unit_open(patients_section(table="p.csv"))  # column time_days
    dates = {"time_from": "diagnosed", "time_to": "seen", "event": "dead"}
    assert not is_unit_open(patients_section(table="p.csv", columns=dates))
    assert not is_unit_open(patients_section(table="p.csv", format="gdc"))
    further = {
        "pfs": EndpointSection(time="t", event="p"),
        "dfs": EndpointSection(time="t", event="p", time_unit="days"),
        "efs": EndpointSection(time_from="a", time_to="b", event="p"),
    }
    columns = {"time_days": "os_days", "event": "dead", "t": "pfs"}
    of_endpoints = patients_section(table="p.csv", columns=columns, endpoints=further)
    assert [is_unit_open(of_endpoints, name) for name in (*further, "of another cohort")] == [True, False, False, False]
    columns = {**columns, "t": "pfs_days"}
    assert not is_unit_open(patients_section(table="p.csv", columns=columns, endpoints=further), "pfs")
