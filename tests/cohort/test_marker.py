import json

import pytest

from subfuse.cohort.cohort import roles_of
from subfuse.cohort.marker import mark_complete, mark_incomplete, read_mark
from subfuse.errors import ConfigurationError, DataError

TABLES = {
    "cohort.yaml": "name: a",
    "patients.csv": "patient_id\n1\n",
    "slides.csv": "slide_id\n",
    "splits/default/fold_0.json": "{}",
    "splits/default/repeat_1/fold_0.json": "{}",
}


@pytest.fixture
def prepared(tmp_path):
    for name, text in TABLES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "started.json").write_text("{}")
    mark_complete(tmp_path, {"encoder": "e"})
    return tmp_path


def test_a_complete_folder_tells_where_it_comes_from(prepared):
    found = read_mark(prepared)
    assert found["encoder"] == "e"
    assert set(found["files"]) == set(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_was_changed_or_lost_is_named_with_the_remedy(name, prepared):
    (prepared / name).write_text(TABLES[name] + " ")
    with pytest.raises(DataError, match=rf"{name}: the file .* Found another one.*subfuse prepare"):
        read_mark(prepared)
    (prepared / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: the file .* Found nothing"):
        read_mark(prepared)


@pytest.mark.parametrize("name", ["expression.h5ad", "gene_sets.gmt", "splits/default/fold_1.json"])
def test_a_table_of_another_preparation_is_not_taken(name, prepared):
    (prepared / name).write_text("")
    with pytest.raises(DataError, match=rf"{name}: no file .* one of another time"):
        read_mark(prepared)


@pytest.mark.parametrize("mark", ["", "[]", "{}", '{"files": null}'])
def test_a_folder_without_its_mark_is_not_complete(mark, prepared):
    (prepared / "provenance.json").write_text(mark)
    with pytest.raises(DataError, match="completely prepared folder"):
        read_mark(prepared)
    mark_incomplete(prepared)
    with pytest.raises(DataError, match="completely prepared folder"):
        read_mark(prepared)


def test_what_was_never_prepared_is_wrong_usage_with_the_command_to_do_it(tmp_path):
    raw, run = tmp_path / "raw", tmp_path / "run"
    for path in (raw / "cohort.yaml", run / "config.yaml"):
        path.parent.mkdir()
        path.write_text("name: a")
    for given, command in (
        (raw, f"subfuse prepare {raw / 'cohort.yaml'} --out prepared`, and give prepared"),
        (raw / "cohort.yaml", f"subfuse prepare {raw / 'cohort.yaml'} --out prepared`, and give prepared"),
        (run, "subfuse prepare COHORT.yaml --out prepared`"),
        (tmp_path / "nowhere", f"subfuse prepare COHORT.yaml --out {tmp_path / 'nowhere'}`"),
    ):
        for read in (read_mark, roles_of):
            with pytest.raises(ConfigurationError, match="a prepared folder is required") as caught:
                read(given)
            assert command in str(caught.value)


def test_what_is_not_read_may_change(prepared):
    (prepared / "exclusions.csv").write_text("level,id,reason\n")
    assert json.loads((prepared / "provenance.json").read_text()) == read_mark(prepared)
