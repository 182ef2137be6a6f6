"""`patients` of a cohort file: of one source, with the keys of that source alone."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from clinical_sections import patients_section
from subfuse.clinical.source import CbioportalPatients, GdcPatients, LabelsSection, PatientsSection, PlainPatients

OWN_KEYS = {
    PlainPatients: {"time_unit": "months", "event_values": {"Dead": True}},
    GdcPatients: {"format": "gdc"},
    CbioportalPatients: {"format": "cbioportal"},
}


@pytest.mark.parametrize("kind", OWN_KEYS)
def test_a_source_is_of_its_format_and_read_back_from_what_is_written(kind):
    section = patients_section(table="p.csv", **OWN_KEYS[kind])
    assert type(section) is kind
    again = TypeAdapter(PatientsSection).validate_python(section.model_dump(mode="json", exclude_none=True))
    assert again == section


@pytest.mark.parametrize(("format", "says"), [
    ("gdc", "gdc files say Dead or Alive, in days"), ("cbioportal", "OS_STATUS and OS_MONTHS are defined"),
])  # fmt: skip
@pytest.mark.parametrize("key", ["time_unit", "event_values"])
def test_a_portal_tells_the_outcome_itself_and_takes_no_key_for_it(format, says, key):
    value = {"time_unit": "months", "event_values": {"Dead": True}}[key]
    with pytest.raises(ValidationError, match=rf"{key}[\s\S]*{says}"):
        patients_section(table="p.tsv", format=format, **{key: value})


def test_one_table_or_several_and_never_none():
    assert patients_section(table="a.csv").table == (Path("a.csv"),)
    assert patients_section(table=["a.csv", "b.csv"]).table == (Path("a.csv"), Path("b.csv"))
    for nothing in ({"table": []}, {}, {"table": "a.csv", "include": []}):
        with pytest.raises(ValidationError):
            patients_section(**nothing)


def test_what_yaml_reads_as_another_kind_of_key_is_the_text_that_was_written():
    section = patients_section(table="a.csv", columns={1: "one", "grade": "g"}, event_values={0: False, 1: True})
    assert section.columns == {"1": "one", "grade": "g"}
    assert section.event_values == {"0": False, "1": True}
    assert LabelsSection(table="m.csv", columns={2021: "who"}).columns == {"2021": "who"}


def test_a_derived_diagnosis_has_a_known_rule():
    section = patients_section(table="a.csv", derive={"diagnosis": {"rule": "who2021", "cdkn2a": "any_loss"}})
    assert (section.derive.diagnosis.cdkn2a, section.derive.diagnosis.columns.idh) == ("any_loss", None)
    with pytest.raises(ValidationError, match="who2021"):
        patients_section(table="a.csv", derive={"diagnosis": {"rule": "who2016"}})


def test_events_are_told_apart_by_causes():
    endpoint = {"time": "t", "event": "e", "event_values": {"a": "relapse", "b": "death of any kind", "no": "false"}}
    section = patients_section(
        table="a.csv", event_values={0: False, 1: "tumour", 2: "other"}, endpoints={"x": endpoint}
    )
    assert section.causes == {"event": ("tumour", "other"), "x_event": ("relapse", "death of any kind")}
    assert section.endpoints["x"].event_values == {"a": "relapse", "b": "death of any kind", "no": False}
    assert patients_section(table="a.csv", event_values={0: 0, 1: "yes"}).causes == {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {0: False, 1: True, 2: "other"},
            "either true, or a cause for every event, .* Found true beside other",
        ),
        ({0: "Censored", 1: "tumour"}, "Censored is no cause of an event: write false"),
        ({0: "nein", 1: "tumour"}, "Found nein, tumour, and no false"),
        ({0: "Alive", 1: "tumour"}, "Alive is no cause of an event: write false"),
        ({0: "no event", 1: "tumour"}, "no event is no cause of an event: write false"),
        ({0: False, 1: "unknown"}, "a cause has a name .* that does not mean unknown. Found 'unknown'"),
        ({0: False, 1: "a\nb"}, "a cause has a name"),
        ({0: False, 1: None}, "must be true, false or the name of a cause"),
        ({0: False, 1: ["tumour"]}, "must be true, false or the name of a cause"),
        ({0: False, 1: 2}, "must be true, false or the name of a cause"),
    ],
)
def test_what_is_no_cause_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        patients_section(table="a.csv", event_values=values)
