"""What is not used and why: nothing is lost, and reasons of one kind are counted together."""

import pandas as pd
import pytest

from subfuse.errors import DataError
from subfuse.exclusions import (
    NothingLeft,
    commonest_reasons,
    example_of,
    exclusion_table,
    group_reasons,
    join_exclusions,
)

ROWS = [
    ("slide", "s1", "slides/s1.svs: no tissue found"),
    ("gene", "1-Mar", "a date."),
    ("slide", "s12", "slides/s12.svs: no tissue found"),
    ("slide", "s3", "unreadable"),
    ("expression", "s3", "unreadable"),
]


def test_tables_are_joined_in_order_and_numbered_anew():
    tables = [exclusion_table(ROWS[:2]), exclusion_table(), exclusion_table(ROWS[2:]).assign(further=1)]
    joined = join_exclusions(tables)
    pd.testing.assert_frame_equal(joined, exclusion_table(ROWS))
    assert join_exclusions([]).columns.tolist() == ["level", "id", "reason"]


def test_reasons_that_differ_in_identifiers_and_paths_alone_are_one_kind_of_a_level():
    grouped = group_reasons(exclusion_table(ROWS))
    assert grouped["n"].tolist() == [2, 1, 1, 1]  # unreadable slides and expression are two kinds
    assert grouped["ids"].tolist() == [["s1", "s12"], ["1-Mar"], ["s3"], ["s3"]]
    assert grouped["reason"][0] == "slides/s1.svs: no tissue found"  # of the first
    assert sorted(name for names in grouped["ids"] for name in names) == sorted(name for _, name, _ in ROWS)


def test_other_words_are_another_kind():
    rows = [("slide", "a", "a: no tissue"), ("slide", "b", "b: no focus"), ("slide", "c", "c: no tissue")]
    assert group_reasons(exclusion_table(rows))["n"].tolist() == [2, 1]


def test_a_message_names_the_commonest_reason_first_without_its_full_stop():
    table = exclusion_table([("gene", "g", "a date."), *ROWS[:1], *ROWS[2:3]])
    assert example_of(table) == "Commonest reason: slides/s1.svs: no tissue found (2, for example s1)."
    assert commonest_reasons(table) == "slides/s1.svs: no tissue found (2), a date (1)"
    assert commonest_reasons(table, 1) == "slides/s1.svs: no tissue found (2) and 1 more"


def test_without_exclusions_the_message_says_so():
    assert example_of(exclusion_table()) == "The others are in no table or folder."
    assert commonest_reasons(exclusion_table()) == "none is listed"
    assert group_reasons(exclusion_table()).empty


def test_where_nothing_is_left_the_error_carries_what_was_excluded():
    with pytest.raises(DataError, match="a slide is required") as caught:
        raise NothingLeft("a slide is required", exclusion_table(ROWS))
    assert len(caught.value.exclusions) == len(ROWS)
