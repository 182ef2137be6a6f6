import pytest

from subfuse.clinical.event_names import contradiction, is_ambiguous_event, is_opposite_of_event, likely_events
from subfuse.clinical.plain import read_plain
from subfuse.errors import ConfigurationError

LIVING = ["is_alive", "survived", "survivor", "vivant", "Vivante", "en_vie", "En vie", "überlebt", "ueberlebt", "lebt"]
LIVING += ["am_Leben", "disease_free", "RelapseFree", "event_free"]
OF_EVENTS = ["event", "dead", "OS", "décès", "verstorben", "relapse", "PFS", "progression", "revived", "environment"]


@pytest.mark.parametrize("column", LIVING)
def test_a_column_of_the_living_is_no_event_until_its_values_are_declared(column, tmp_path):
    (tmp_path / "p.csv").write_text(f"id,days,{column}\nA,9,0\nB,8,1\n", encoding="utf-8")
    columns = {"patient_id": "id", "time_days": "days", "event": column}
    with pytest.raises(ConfigurationError, match=r"event_values: \{0: true, 1: false\}"):
        read_plain([tmp_path / "p.csv"], columns)
    table, _ = read_plain([tmp_path / "p.csv"], columns, event_values={"0": True, "1": False})
    assert table["event"].tolist() == [True, False]
    with pytest.raises(ConfigurationError, match=r"patients\.event_values: .* by its name the opposite"):
        read_plain([tmp_path / "p.csv"], columns, event_values={"0": False, "1": True})


@pytest.mark.parametrize("column", OF_EVENTS)
def test_names_of_events_are_clear(column):
    assert not is_opposite_of_event(column)
    assert not is_ambiguous_event(column)
    assert contradiction(column, {"1": True, "0": False}) == ""


@pytest.mark.parametrize(
    "column", ["censored", "dead_or_alive", "not_alive", "vital_status", "lost", "event_free_survival"]
)
def test_names_that_decide_nothing_may_be_declared_either_way(column):
    assert is_ambiguous_event(column)
    assert contradiction(column, {"yes": True, "no": False}) == contradiction(column, {"yes": False, "no": True}) == ""


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("alive", {"yes": True, "no": False}),
        ("vivant", {"oui": True, "non": False}),
        ("lebt", {"Ja": "tumour", "nein": False}),
        ("vital_status", {"Alive": True, "Dead": False}),
        ("etat", {"En vie": True, "Décédé": False}),
    ],
)
def test_the_living_are_not_declared_as_events(column, values):
    assert contradiction(column, values)
    assert contradiction(column, {value: not meant for value, meant in values.items()}) == ""


def test_words_of_the_living_and_of_the_dead_mean_what_they_say():
    assert likely_events("etat", ["Décédé", "Vivant"]) == {"Décédé": True, "Vivant": False}
