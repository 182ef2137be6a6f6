"""A declared modality whose values tell no patient from another: an error; where that is so for a part, a warning."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from subfuse.cli import main
from subfuse.errors import DataError
from subfuse.expression.table import ExpressionTable
from subfuse.features.contrast import contrast_of
from subfuse.preparation.contrast import require_varying_expression, require_varying_features
from subfuse.slides.source import FeatureSource

IDS = [f"P{i:02d}" for i in range(12)]
GENES = ["EGFR", "CD44", "GFAP", "CD3D", "CD163", "VWF"]
SETS = {"tumour": ["EGFR", "CD44", "GFAP"], "immune": ["CD3D", "CD163"]}
PATIENTS = pd.DataFrame({"patient_id": IDS, "cohort": "clinic", "has_expression": True})


def warnings_of(constant: list[str], patients: pd.DataFrame = PATIENTS, sets: dict = SETS) -> tuple[str, ...]:
    values = pd.DataFrame(np.random.default_rng(0).normal(5, 2, (12, 6)), index=IDS, columns=GENES, dtype=np.float32)
    values[constant] = np.float32(5.1)
    return require_varying_expression(ExpressionTable(values, "log2_tpm", "", {}), patients, sets)


def test_genes_with_one_value_in_all_patients_are_counted():
    assert warnings_of(["EGFR", "CD3D"]) == ()  # half of a subspace
    (whole,) = warnings_of(["EGFR", "VWF", "CD3D", "GFAP"])[:1]
    assert whole.startswith("clinic: 4 of 6 genes have one value in all 12 patients")
    (subspace,) = warnings_of(["CD3D", "CD163"])
    assert "2 of 2 genes of gene_sets.immune have one value in all 12 patients" in subspace
    with pytest.raises(DataError, match=r"clinic: .* all 6 genes have one value in all 12 patients \(EGFR"):
        warnings_of(GENES)
    with pytest.raises(DataError, match=r"all 5 genes of the gene sets have one value in all 12 patients"):
        warnings_of(GENES[:5])


def test_each_cohort_is_judged_by_its_own_patients_and_none_by_a_single_one():
    two = PATIENTS.assign(cohort=["a"] * 11 + ["b"])
    assert warnings_of([], two) == ()
    with pytest.raises(DataError, match=r"^a: .* in all 11 patients"):
        warnings_of(GENES, two)
    assert require_varying_expression(None, PATIENTS, SETS) == ()


def judged(*bags: np.ndarray | None) -> tuple[str, ...]:
    slides = [FeatureSource(f"s{i}", patient, Path()) for i, patient in zip(range(len(bags)), IDS, strict=False)]
    contrasts = {f"s{i}": contrast_of(bag) for i, bag in enumerate(bags) if bag is not None}
    return require_varying_features(slides, PATIENTS, contrasts)


def test_slides_whose_patches_are_all_the_same_are_named_together():
    rich, flat = np.arange(6.0).reshape(3, 2), np.zeros((3, 2))
    assert judged(rich, rich + 1, np.ones((1, 2))) == ()
    (warning,) = judged(rich, flat, flat + 1)
    assert warning.startswith("slides s1, s2: all patches have the same features")
    assert len(judged(flat, None)) == 1  # the other was not looked into
    assert len(judged(flat)) == 1  # nothing to compare it with


@pytest.mark.parametrize("bags", [[np.zeros((3, 2))] * 2, [np.zeros((3, 2)), np.ones((4, 2))], [np.ones((1, 2))] * 2])
def test_slides_that_are_all_the_same_are_an_error(bags):
    with pytest.raises(DataError, match=r"clinic: .* Found 2 slides \(s0, s1\), and features that are the same in all"):
        judged(*bags)


def test_slide_vectors_may_be_one_a_slide_as_long_as_they_differ():
    assert judged(np.ones((1, 2)), np.zeros((1, 2))) == ()


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    for number, patient in enumerate(IDS):
        (tmp_path / "uni").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "uni" / f"{patient}.h5", "w") as file:
            file["features"] = np.full((4, 3), 1 + 1e-9 * number)  # all 1 in the precision that models read
            file["coords"] = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * 512
    table = pd.DataFrame({"patient_id": IDS, "grade": ["G2", "G3"] * 6, "time_days": range(100, 112), "event": 1})
    table.to_csv(tmp_path / "patients.csv", index=False)
    pd.DataFrame(5.0, index=IDS, columns=GENES).to_csv(tmp_path / "rna.csv", index_label="patient_id")
    content = {"name": "clinic", "patients": {"table": "patients.csv"}, "tasks": {"grade": {"column": "grade"}},
               "splits": {"folds": 2}}  # fmt: skip
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "cohort.yaml"


SLIDES = {"features": "uni", "mpp": 0.5, "encoder": "uni"}


@pytest.mark.parametrize("command", ["check", "prepare"])
@pytest.mark.parametrize("sections", [{"slides": SLIDES}, {"expression": {"table": "rna.csv", "unit": "log2_tpm"}}])
def test_commands_refuse_what_tells_nothing(cohort, capsys, command, sections):
    cohort.write_text(yaml.safe_dump(yaml.safe_load(cohort.read_text()) | sections))
    options = ["--out", str(cohort.parent / "prepared"), "--workers", "1"] if command == "prepare" else []
    assert main([command, str(cohort), *options]) == 3
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "clinic: " in text]
    assert "the same in all patches" in line or "all 6 genes have one value in all 12 patients" in line


@pytest.mark.parametrize("command", ["check", "prepare"])
def test_commands_name_the_slides_that_tell_nothing(cohort, capsys, command):
    with h5py.File(cohort.parent / "uni" / "P00.h5", "r+") as file:
        file["features"][-1] = 2
    cohort.write_text(yaml.safe_dump(yaml.safe_load(cohort.read_text()) | {"slides": SLIDES}))
    options = ["--out", str(cohort.parent / "prepared"), "--workers", "1"] if command == "prepare" else []
    for _ in range(1 + (command == "prepare")):  # also where they are complete
        assert main([command, str(cohort), *options]) == 0
        assert "slides P01, P02, P03 and 8 more: all patches have the same features" in capsys.readouterr().err
