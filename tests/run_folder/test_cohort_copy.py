"""The copy of the cohort in a run, and what of the cohort has changed since."""

import json
from dataclasses import replace

import pytest
from three_patients import PATIENTS

from subfuse.run_folder.cohort_copy import (
    changed_since,
    contact_sheets,
    copy_cohort,
    read_run_cohort,
    read_run_patients,
)


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


def test_the_copy_is_that_of_the_prepared_cohort_and_what_it_has_no_more_goes(make_cohort, tmp_path):
    prepared, run = tmp_path / "prepared", tmp_path / "run"
    sheets = prepared / "wsi" / "20x" / "contact_sheets"
    sheets.mkdir(parents=True)
    for name in "abcdefgh":
        (sheets / f"{name}.jpg").write_bytes(name.encode())
    PATIENTS.to_csv(prepared / "patients.csv", index=False)
    (prepared / "exclusions.csv").write_text("level,id,reason\npatient,007,no label\n")
    (prepared / "provenance.json").write_text("{}")
    cohort = replace(make_cohort(4), root=prepared)

    copy_cohort(cohort, run)

    assert [path.name for path in contact_sheets(run)] == [f"{name}.jpg" for name in "abcdef"]
    tables = read_run_cohort(run)
    assert tables["patients"]["patient_id"].tolist() == ["P1", "P2", "P3"]
    assert tables["exclusions"]["id"].tolist() == ["007"]
    assert tables["slides"].empty
    assert read_run_patients(run)["grade"].tolist() == ["G2", "G3", "G4"]

    (prepared / "exclusions.csv").unlink()
    (sheets / "b.jpg").unlink()
    (sheets / "c.jpg").write_bytes(b"another")
    copy_cohort(cohort, run)
    assert [path.name for path in contact_sheets(run)] == ["a.jpg", *(f"{name}.jpg" for name in "cdefg")]
    assert contact_sheets(run)[1].read_bytes() == b"another"
    assert read_run_cohort(run)["exclusions"].empty


def test_a_cohort_in_memory_leaves_nothing_to_read(make_cohort, tmp_path):
    copy_cohort(make_cohort(4), tmp_path)
    assert not list(tmp_path.glob("cohort/*"))
    assert read_run_patients(tmp_path) is None
    assert all(table.empty for table in read_run_cohort(tmp_path).values())
