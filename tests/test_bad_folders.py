"""Folders of tools and workbooks that cannot be used as they are: one line, or slides left out with their reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import tool_folders
from subfuse.cli import main
from trident_job import TILING, write_job, write_state
from workbook_files import Formula, write_xlsx

pytestmark = pytest.mark.walk

SLIDES = tool_folders.SLIDES
COLUMNS = {"patient_id": "patient_id", "time_days": "os_days", "event": "event"}


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    return tool_folders.trident(tmp_path_factory.mktemp("given") / "trident")


@pytest.fixture
def folder(given, tmp_path) -> Path:
    """A job of TRIDENT with tables; without expression, so that slides are needed."""
    folder = shutil.copytree(given, tmp_path / "trident")
    (folder / "expression.csv").unlink()
    return folder


def check(folder: Path, capsys, **sections) -> tuple[int, str, str]:
    content = {
        "name": "job",
        "patients": {"table": "clinical.csv", "columns": COLUMNS},
        "slides": {"features": "job"},
    }
    (folder / "cohort.yaml").write_text(yaml.safe_dump(content | sections))
    code = main(["check", str(folder / "cohort.yaml")])
    shown = capsys.readouterr()
    return code, " ".join(shown.out.split()), shown.err


def test_the_folder_as_it_is_can_be_used(folder, capsys):
    code, shown, _ = check(folder, capsys)
    assert code == 0
    assert "slides: 20, of 20 patients" in shown


def test_of_two_encoders_one_is_to_be_named(folder, capsys):
    write_job(folder / "job", dict.fromkeys(SLIDES, 0.25), encoders=("uni_v1", "conch_v15"))
    code, _, error = check(folder, capsys)
    assert (code, error.count("\n")) == (3, 1)
    assert "features of one encoder are required. Found those of conch_v15, uni_v1, titan. Name one" in error
    assert check(folder, capsys, slides={"features": "job", "encoder": "conch_v15"})[0] == 0


def test_states_of_another_slide_leave_theirs_out(folder, capsys):
    write_state(folder / "job", SLIDES[0], 0.25, of="someone else")
    code, shown, _ = check(folder, capsys)
    assert code == 0
    assert "19 of 20 patients (1 excluded)" in shown
    assert "someone else" in shown
    for slide in SLIDES:
        write_state(folder / "job", slide, 0.25, of="someone else")
    code, _, error = check(folder, capsys)
    assert (code, error.count("\n")) == (3, 1)
    assert "what TRIDENT records of slide" in error


def test_outlines_that_cross_themselves_or_are_empty_leave_their_slides_out(folder, capsys):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("lazyslide")
    square = [[[0, 0], [500, 0], [500, 500], [0, 500], [0, 0]]]
    outlines = dict.fromkeys(SLIDES[:8], square)
    outlines |= {SLIDES[1]: [[[0, 0], [500, 500], [500, 0], [0, 500], [0, 0]]], SLIDES[2]: []}
    for name in ("slides", "outlines"):
        (folder / name).mkdir()
    for slide, coordinates in outlines.items():
        tifffile.imwrite(folder / "slides" / f"{slide}.tiff", np.full((512, 512, 3), 200, np.uint8), tile=(256, 256),
                         photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER")  # fmt: skip
        polygon = {"geometry": {"type": "Polygon", "coordinates": coordinates}}
        (folder / "outlines" / f"{slide}.geojson").write_text(json.dumps(polygon))
    code, shown, error = check(
        folder, capsys, splits={"folds": 2}, slides={"folder": "slides", "tissue": "geojson:outlines"}
    )
    assert code == 0, shown + error
    assert "slides: 6, of 6 patients" in shown
    for slide, found in ((SLIDES[1], "Self-intersection"), (SLIDES[2], "empty")):  # words of a table, which wraps
        assert f"outlines/{slide}.geojson," in shown
        assert found in shown


@pytest.mark.parametrize("n_absent", [10, 12])
def test_features_of_half_of_the_slides_or_fewer_are_told(folder, capsys, n_absent):
    table = {"slide_id": SLIDES, "patient_id": tool_folders.PATIENTS}
    pd.DataFrame(table).to_csv(folder / "slides.csv", index=False)
    for slide in SLIDES[:n_absent]:
        (folder / "job" / TILING / "features_uni_v1" / f"{slide}.h5").unlink()
    code, shown, error = check(folder, capsys, slides={"table": "slides.csv", "features": "job"})
    assert code == 0
    assert f"only {20 - n_absent} of 20 slides of the cohort's patients are found" in shown + " ".join(error.split())
    assert "no feature file in" in shown


@pytest.mark.parametrize(
    ("cell", "merged", "named"),
    [
        (Formula("A1+1"), [], "cell B3: a value is required. Found a formula"),
        (400, ["A2:A3"], "Found the merged cells A2:A3"),
    ],
)
def test_workbooks_with_formulas_without_values_or_merged_cells_are_refused(folder, capsys, cell, merged, named):
    rows = [["patient_id", "os_days", "event"], ["P01", 300, 1], ["P02", cell, 0], ["P03", 20, 1]]
    write_xlsx(folder / "clinical.xlsx", {"Patients": rows}, merged=merged)
    code, _, error = check(folder, capsys, patients={"table": "clinical.xlsx", "columns": COLUMNS})
    assert (code, error.count("\n")) == (3, 1)
    assert named in error
