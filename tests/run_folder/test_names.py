"""What files of a run are called is no name of anything else in it."""

from pathlib import Path

import pytest

from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.errors import ConfigurationError
from subfuse.run_folder import names
from subfuse.run_folder.explanations import explanations_of
from subfuse.run_folder.names import COHORT, EXPLANATIONS, HELD_OUT_SITES


@pytest.mark.parametrize("name", [COHORT, EXPLANATIONS, HELD_OUT_SITES, explanations_of(Path(), "snn").name])
def test_no_task_is_named_as_a_folder_that_a_run_has_beside_those_of_its_tasks(tmp_path, name):
    path = tmp_path / "cohort.yaml"
    path.write_text(f"name: a\npatients: {{table: p.csv}}\ntasks: {{{name}: {{column: grade}}}}\n")
    with pytest.raises(ConfigurationError, match="belongs to a file or folder"):
        read_cohort_file(path)


def test_every_file_of_one_folder_has_a_name_of_its_own_that_leads_nowhere_else():
    spelt = {key: value for key, value in vars(names).items() if key.isupper() and isinstance(value, str)}
    assert all(Path(value).name == value for value in spelt.values())
    assert len({*names.RESULTS, names.CONFIG, names.COHORT, names.EXPLANATIONS}) == len(names.RESULTS) + 3
    assert len(set(names.MODEL_TABLES.values())) == len(names.MODEL_TABLES)
    of_a_job = [names.INPUTS, names.MODEL, names.WEIGHTS, names.LOG, names.SEARCH, names.CHECKPOINT, names.PREDICTIONS]
    assert len({*of_a_job, names.PROVENANCE}) == len(of_a_job) + 1


def test_pictures_of_several_slides_and_subspaces_have_names_of_their_own():
    filled = [
        template.format(slide_id=slide, subspace=subspace)
        for template in (names.ANNOTATIONS, names.HEAT_MAP, names.SAMPLING_MAP, names.GALLERY)
        for slide in ("a", "b")
        for subspace in ("tumour", "total")
    ]
    assert len(set(filled)) == 2 + 4 + 2 + 2
    assert not any("{" in name for name in filled)
