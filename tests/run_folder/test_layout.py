import json
from pathlib import Path

import pandas as pd
import pytest

from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.errors import ConfigurationError
from subfuse.run_folder.cohort_copy import changed_since
from subfuse.run_folder.explanations import explanation_name, explanations_of
from subfuse.run_folder.job import Job
from subfuse.run_folder.layout import claim_folder
from subfuse.run_folder.names import COHORT, EXPLANATIONS, HELD_OUT_SITES

PATIENTS = pd.DataFrame(
    {
        "patient_id": ["P1", "P2", "P3"],
        "cohort": "a",
        "site": "x",
        "time_days": [10.0, 20.0, 30.0],
        "event": [True, False, True],
        "grade": ["G2", "G3", "G4"],
        "n_slides": 1,
        "has_expression": True,
    }
)


@pytest.mark.parametrize(
    ("now", "told"),
    [
        pytest.param(
            PATIENTS.replace({"grade": {"G3": "G4"}}).replace({"patient_id": {"P3": "P4"}}),
            "patients have changed (new: P4; gone: P3; other grade: P2)",
            id="patients and an outcome",
        ),
        pytest.param(
            PATIENTS,
            "the same patients are divided by other rules (`splits` of the cohort file, --folds or --seed)",
            id="rules",
        ),
    ],
)
def test_other_folds_are_explained_by_what_has_changed(tmp_path: Path, now: pd.DataFrame, told: str) -> None:
    for folder, table in (("run/cohort", PATIENTS), ("prepared", now)):
        (tmp_path / folder).mkdir(parents=True)
        table.to_csv(tmp_path / folder / "patients.csv", index=False)
    description = {"prepared": str(tmp_path / "prepared"), "seed": 0}
    (tmp_path / "run" / "config.yaml").write_text("prepared: ../prepared\nseed: 0\nfolds: [b]\n")

    with pytest.raises(ConfigurationError) as error:
        claim_folder(tmp_path / "run", description | {"folds": ["a"]})

    assert f"(differs in: folds): {told}. Choose another --out" in str(error.value)


@pytest.mark.parametrize(
    ("now", "files", "told"),
    [
        (PATIENTS, {"patients.csv": "1", "expression.h5ad": "2"}, ""),
        (PATIENTS.replace({"grade": {"G3": "G4"}}), {"patients.csv": "9", "expression.h5ad": "2"}, "other grade: P2"),
        (PATIENTS, {"patients.csv": "1", "expression.h5ad": "9"}, "other expression.h5ad"),
        (PATIENTS, {"patients.csv": "1", "splits/default/fold_0.json": "9"}, "other expression.h5ad, folds"),
        (PATIENTS, None, ""),  # prepared by a version that recorded nothing
    ],
)
def test_a_cohort_that_was_prepared_again_is_told_from_that_of_the_run(tmp_path, now, files, told):
    before = {"patients.csv": "1", "expression.h5ad": "2"}
    for folder, table, known in (("run/cohort", PATIENTS, before), ("prepared", now, files)):
        (tmp_path / folder).mkdir(parents=True)
        table.to_csv(tmp_path / folder / "patients.csv", index=False)
        (tmp_path / folder / "provenance.json").write_text(json.dumps({} if known is None else {"files": known}))
    assert changed_since(tmp_path / "run", tmp_path / "prepared") == told


@pytest.mark.parametrize("name", [COHORT, EXPLANATIONS, HELD_OUT_SITES, explanations_of(Path(), "snn").name])
def test_no_task_is_named_as_a_folder_that_a_run_has_beside_those_of_its_tasks(tmp_path, name):
    path = tmp_path / "cohort.yaml"
    path.write_text(f"name: a\npatients: {{table: p.csv}}\ntasks: {{{name}: {{column: grade}}}}\n")
    with pytest.raises(ConfigurationError, match="belongs to a file or folder"):
        read_cohort_file(path)


def test_what_a_patient_is_called_leads_to_no_other_folder(tmp_path):
    hostile = ["..", "../x", "a/b", ".hidden", COHORT, "a b", "C:x"]
    names = [explanation_name(name) for name in [*hostile, "TCGA-02-0047", "007"]]
    assert len({*names, COHORT}) == len(names) + 1
    assert all((tmp_path / name).resolve().parent == tmp_path.resolve() for name in names)
    assert names[-2:] == ["TCGA-02-0047", "007"]


def test_jobs_have_a_folder_each_apart_from_those_of_explanations(tmp_path):
    jobs = [Job("grade", model, fold, repeat) for model in ("snn", "mcat") for fold in (0, 1) for repeat in (0, 1, 2)]
    folders = {job.folder(tmp_path) for job in jobs}
    assert len(folders) == len(jobs)
    assert not any(explanations_of(tmp_path) in folder.parents for folder in folders)
