"""Lines of a draft are YAML, whatever is in them."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from subfuse.errors import ConfigurationError
from subfuse.recognition.yaml_lines import asked, line, mapping, names_of, relative, remark, scalar

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(TEXTS, TEXTS, TEXTS)
def test_any_names_are_read_back(key, value, comment):
    assert yaml.safe_load(line(key, value, comment, indent=0)) == {key: value}
    assert yaml.safe_load(asked(key, comment, indent=0)) == {key: "FILL-IN"}
    assert yaml.safe_load(f"{remark(comment)}\n{scalar([key, value])}") == [key, value]
    assert yaml.safe_load("\n".join(["a: 1", *mapping("b", {key: value}, indent=0)])) == {"a": 1, "b": {key: value}}


def test_numbers_and_words_of_yaml_stay_text():
    for text in ("0012", "1", "yes", "null", "1e3", "2019-05-31", "a: b", "#x", "- x"):
        assert yaml.safe_load(line("k", text)) == {"k": text}


def test_paths_are_those_from_the_cohort_file(tmp_path):
    assert relative(tmp_path / "data" / "p.csv", tmp_path / "out") == "../data/p.csv"
    assert relative(Path(tmp_path), tmp_path) == "."
    assert names_of([tmp_path / "a", tmp_path / "b"], tmp_path) == "a or b"
    (tmp_path / "data").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    assert relative(tmp_path / "linked" / "p.csv", tmp_path) == "linked/p.csv"
    assert relative(tmp_path / "p.csv", tmp_path / "linked") == "../p.csv"  # a cohort file is read where it really is
    with pytest.raises(ConfigurationError, match=r"\$x\.csv: a path without \$"):
        relative(tmp_path / "$x.csv", tmp_path)
