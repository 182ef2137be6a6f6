"""Sections of YAML files: no key is passed over, no value changes, and paths are relative to their file."""

from pathlib import Path
from typing import Literal

import pytest
import yaml
from pydantic import ValidationError, model_validator

from subfuse.settings import FilePath, ProblemAt, Section, of_one_format, yaml_text


class Files(Section):
    table: FilePath
    limit: int = 3


class Plain(Section):
    format: Literal["plain"] = "plain"
    table: str = ""
    unit: str | None = None


class Folder(Section):
    format: Literal["folder"] = "folder"
    folder: str = ""
    suffix: str | None = None


def test_unknown_keys_are_errors_and_values_stay():
    section = Files(table=Path("a.csv"))
    with pytest.raises(ValidationError, match="tabel"):
        Files.model_validate({"table": "a.csv", "tabel": "b.csv"})
    with pytest.raises(ValidationError, match="frozen"):
        section.limit = 4
    assert section.limit == 3


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("a.csv", "base/a.csv"),
        ("../a b.csv", "a b.csv"),
        ("x/../y/./a.csv", "base/y/a.csv"),
        ("/data/a.csv", "/data/a.csv"),
        ("${FOLDER}/a.csv", "/home/me/data/a.csv"),
        ("$FOLDER/a.csv", "/home/me/data/a.csv"),
        ("~/a.csv", "/home/me/a.csv"),
    ],
)
def test_paths_are_relative_to_their_file_and_may_name_variables(monkeypatch, written, found):
    monkeypatch.setenv("FOLDER", "~/data")
    monkeypatch.setenv("HOME", "/home/me")
    section = Files.model_validate({"table": written}, context={"base": Path("base")})
    assert section.table == Path(found)


def test_what_is_above_a_link_is_where_the_system_says(tmp_path):
    (tmp_path / "far" / "in").mkdir(parents=True)
    (tmp_path / "far" / "a.csv").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "far" / "in")
    section = Files.model_validate({"table": "link/../a.csv"}, context={"base": tmp_path})
    assert section.table.read_text() == "x"
    section = Files.model_validate({"table": "far/../link/a.csv"}, context={"base": tmp_path})
    assert section.table == tmp_path / "link" / "a.csv"


def test_without_a_file_paths_are_as_given():
    assert Files.model_validate({"table": "a.csv"}).table == Path("a.csv")


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    with pytest.raises(ValidationError, match=r"the environment variable in \$\{NOWHERE\}/a\.csv is not set"):
        Files.model_validate({"table": "${NOWHERE}/a.csv"})


def test_a_validator_can_name_a_place_below_its_section():
    class Whole(Section):
        files: dict[str, str]

        @model_validator(mode="after")
        def _check(self) -> "Whole":
            raise ProblemAt(("files", "b"), "b must be elsewhere")

    with pytest.raises(ValidationError, match="b must be elsewhere") as caught:
        Whole(files={"a": "1", "b": "2"})
    (problem,) = caught.value.errors()
    assert problem["ctx"]["error"].place == ("files", "b")


def test_keys_of_other_formats_are_refused_where_they_say_something():
    formats = (Plain, Folder)
    given = {"format": "plain", "table": "a.csv", "suffix": None, "unheard": 1}
    kept = of_one_format(given, Plain, formats)
    assert kept == {"format": "plain", "table": "a.csv", "unheard": 1}  # which Section refuses by its name
    assert given["suffix"] is None
    assert of_one_format(given | {"suffix": "csv"}, Plain, formats) == kept  # the unknown key may be the format
    with pytest.raises(ValueError, match=r"^`suffix` belongs to format folder$"):
        of_one_format({"table": "a.csv", "suffix": "csv"}, Plain, formats)
    with pytest.raises(ValueError, match=r"^`unit` belongs to format plain; folders say it themselves$"):
        of_one_format({"unit": "tpm"}, Folder, formats, because="folders say it themselves")
    assert of_one_format("a.csv", Plain, formats) == "a.csv"


@pytest.mark.parametrize("text", ["yes", "no", "true", "1", "G2", "0x1F"])
def test_a_key_is_text_and_truth_that_yaml_makes_of_words_is_told_by_its_name(text):
    (key,) = yaml.safe_load(f"{text}: value")
    expected = {"yes": "true", "no": "false", "0x1F": "31"}.get(text, text)
    assert yaml_text(key) == expected
