"""Messages: one line whatever is in names, lists that can be told apart, commands that can be pasted."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subfuse.errors import (
    ConfigurationError,
    DataError,
    SubfuseError,
    and_more,
    command_line,
    counted,
    listed,
    meant,
    preview,
    printable,
)


@given(st.text(st.characters(codec=None)))
def test_whatever_a_name_holds_a_message_can_be_shown(text: str):
    shown = printable(text)
    assert all(c.isprintable() or c == "\xa0" for c in shown)
    shown.encode()
    assert printable(shown) == shown


def test_letters_of_any_language_stay_in_one_line():
    assert printable("Müller 李\xa0µm\n½") == "Müller 李\xa0µm\\n½"
    assert str(DataError("P1\x1b[31m\udcff")) == r"P1\x1b[31m\udcff"


def test_every_error_has_its_exit_code():
    assert [kind.exit_code for kind in (SubfuseError, ConfigurationError, DataError)] == [1, 2, 3]


def test_names_with_commas_are_told_apart():
    assert listed(["A", "B"]) == "A, B"
    for name in ("Astrocytoma, IDH-mutant", "lung and brain"):
        assert listed([name, "B"]).split("; ") == [name, "B"]


@given(st.lists(st.sampled_from("abc"), max_size=9), st.integers(1, 6))
def test_a_preview_shows_the_first_and_counts_the_rest(names: list[str], limit: int):
    shown, _, more = preview(names, limit).partition(" and ")
    assert ([] if not shown else shown.split(", ")) == names[:limit]
    assert (more == f"{len(names) - limit} more") if len(names) > limit else not more


def test_only_a_near_name_is_offered():
    assert meant("crosval", ["train", "crossval", "evaluate"]) == " Did you mean crossval?"
    assert meant("anything", ["train", "crossval"]) == meant("train", []) == ""


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1)))
def test_a_command_comes_out_of_the_shell_as_it_was(parts: list[str]):
    assert shlex.split(command_line(*parts)) == ["subfuse", *parts]


@pytest.mark.parametrize(("count", "words"), [(0, "0 slides"), (1, "1 slide"), (2, "2 slides")])
def test_one_is_singular(count: int, words: str):
    assert counted(count, "slide") == words
    assert and_more(count, "slide") == (f", and {words.replace(' ', ' more ')}" if count else "")
