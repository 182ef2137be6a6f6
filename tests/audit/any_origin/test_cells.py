import pandas as pd
import pytest

from subfuse.audit.any_origin.cells import class_of, class_text, read_censored, read_numbers, read_splits
from subfuse.errors import DataError


@pytest.mark.parametrize(("words", "event"), [(("censored", "uncensored"), [False, True]), ((1, 0), [False, True])])
def test_censoring_is_the_opposite_of_an_event(words, event):
    assert read_censored(pd.DataFrame({"patient_id": ["A", "B"], "censored": words})).tolist() == [not e for e in event]


@pytest.mark.parametrize("words", [("Dead", "Alive"), ("1:DECEASED", "0:LIVING")])
def test_words_of_what_happened_do_not_say_who_was_censored(words):
    with pytest.raises(DataError, match=f"column censored: true or false .*{words[0]}.* name the column event"):
        read_censored(pd.DataFrame({"patient_id": ["A", "B"], "censored": words}))


def test_splits_are_known_by_their_usual_words():
    words = pd.Series(["Train", "training", "val", "valid", "new", " TEST "])
    assert read_splits(words).tolist() == ["train", "train", "validation", "validation", "test", "test"]


def test_numbers_carry_the_unit_of_their_column_alone():
    table = pd.DataFrame({"patient_id": ["A"], "time_days": ["90 days"], "p_x": ["75 %"], "risk": ["3 days"]})
    assert [read_numbers(table, name, "").item() for name in ("time_days", "p_x")] == [90, 75]
    with pytest.raises(
        DataError, match=r"column risk: a number is required .* Found '3 days' for patient A\. Convert it"
    ):
        read_numbers(table, "risk", "Convert it")


def test_classes_are_meant_by_numbers_of_any_writing_and_others_stay_as_they_are():
    assert [class_text(cell) for cell in (2.0, "2", "2.50", None)] == ["2", "2", "2.50", None]
    assert [class_of(label, ["1.0", "0.0"]) for label in ("1", "unknown", "3", None)] == ["1.0", None, "3", None]
