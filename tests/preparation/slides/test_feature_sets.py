"""Features of several magnifications or encoders, joined place by place, against a join by brute force."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from subfuse.cli import main
from subfuse.cohort.cohort import read_cohort
from subfuse.errors import DataError
from subfuse.features.store import read_features
from subfuse.preparation.slides.feature_sets import find_feature_sets
from subfuse.preparation.slides.feature_survey import opened_source
from subfuse.slides.source import FeatureSource

PATIENTS = [f"P{i}" for i in range(6)]


def write_features(path: Path, corners, *, side: int, n_features: int, seed: int = 0, mpp=0.25, encoder="uni") -> None:
    """As TRIDENT writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(seed).normal(size=(len(corners), n_features)).astype(np.float32)
        file["features"].attrs["encoder"] = encoder
        file["coords"] = np.asarray(corners)
        file["coords"].attrs.update({"patch_size_level0": side, "level0_width": 9000, "level0_height": 9000})
        if mpp is not None:
            file["coords"].attrs["level0_magnification"] = round(10 / mpp)
            file["coords"].attrs["level0_mpp"] = mpp


def grid(n: int, side: int) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2) * side


def read(*paths: Path):
    with opened_source(FeatureSource("S", "P", paths[0], 0.25, further=paths[1:])) as file:
        return file, file.slide_features(paths[0])


def test_each_patch_gets_the_features_of_the_patches_around_it(tmp_path):
    fine, coarse, other = (tmp_path / f"{name}.h5" for name in ("fine", "coarse", "other"))
    random = np.random.default_rng(1)
    write_features(fine, random.permutation(grid(8, 512)), side=512, n_features=3)
    write_features(coarse, random.permutation(grid(2, 2048))[:3], side=2048, n_features=4, seed=1)
    write_features(other, grid(8, 512)[::-1], side=512, n_features=2, seed=2, encoder="conch")
    file, joined = read(fine, coarse, other)
    parts = [read(path)[1] for path in (fine, coarse, other)]
    expected = []
    for corner, row in zip(parts[0].coords, parts[0].features, strict=True):
        middle = corner + 256
        around = [
            part.features[np.flatnonzero(((part.coords <= middle) & (middle < part.coords + size)).all(axis=1))]
            for part, size in zip(parts[1:], (2048, 512), strict=True)
        ]
        if all(map(len, around)):
            expected.append((*corner, *row, *around[0][0], *around[1][0]))
    assert len(expected) == 48
    np.testing.assert_array_equal(np.hstack([joined.coords, joined.features]), np.array(expected, np.float32))
    assert (file.encoder, file.shape, joined.patch_size_level0) == ("uni+uni+conch", (48, 9), 512)
    assert "16 of 64 patches are left out" in " ".join(file.warnings)


def test_of_overlapping_patches_the_one_with_the_widest_margin_counts(tmp_path):
    write_features(tmp_path / "fine.h5", [[0, 256], [512, 256]], side=512, n_features=1)
    write_features(tmp_path / "coarse.h5", [[0, 0], [500, 0]], side=1024, n_features=1, seed=1)
    coarse = read(tmp_path / "coarse.h5")[1].features[:, 0]
    joined = read(tmp_path / "fine.h5", tmp_path / "coarse.h5")[1]
    np.testing.assert_array_equal(joined.features[:, 1], [coarse[0], coarse[1]])


def test_vectors_of_slides_are_joined_as_they_are(tmp_path):
    for name, n in (("a", 3), ("b", 2)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["features"] = np.full(n, float(n), np.float32)
    assert read(tmp_path / "a.h5", tmp_path / "b.h5")[1].features.tolist() == [[3, 3, 3, 2, 2]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mpp": 0.5}, r"b.h5: the pixel size of .*a.h5 is required, 0.25 µm at level 0. Found 0.5"),
        ({"corners": grid(2, 512) + 5000}, r"a.h5: patches where .*b.h5 has some too are required. Found none of 16"),
        ({"corners": None}, r"b.h5: features are joined by the places .* Found 4 patches without places"),
    ],
)
def test_files_that_cannot_be_of_one_slide_are_refused(tmp_path, change, message):
    write_features(tmp_path / "a.h5", grid(4, 512), side=512, n_features=3)
    if change.get("corners", "") is None:
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["Res_feature"] = np.ones((1, 4, 2), np.float32)
    else:
        write_features(tmp_path / "b.h5", **{"corners": grid(2, 1024), "side": 1024, "n_features": 2} | change)
    source = FeatureSource("S", "P", tmp_path / "a.h5", None, further=(tmp_path / "b.h5",))
    with pytest.raises(DataError, match=message), opened_source(source) as file:
        file.slide_features(source.path)


def test_a_set_that_was_cut_is_named_by_its_file(tmp_path):
    write_features(tmp_path / "a.h5", grid(4, 512), side=512, n_features=3)
    write_features(tmp_path / "b.h5", grid(2, 1024), side=1024, n_features=2)
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["features"][-1] = 0
    with pytest.raises(DataError, match=r"b.h5: the features of every patch are required. Found the last 1 of 4"):
        read(tmp_path / "a.h5", tmp_path / "b.h5")


def test_a_folder_cannot_be_joined_to_itself(tmp_path):
    write_features(tmp_path / "a.h5", grid(4, 512), side=512, n_features=3)
    with pytest.raises(DataError, match=r"other folders are required as slides\.concatenate\. Found one twice"):
        find_feature_sets(tmp_path, [tmp_path / "." / ""], None)


def test_two_magnifications_through_check_and_prepare(tmp_path, capsys):
    for i, patient in enumerate(PATIENTS):
        write_features(tmp_path / "20x" / f"{patient}.h5", grid(4, 512), side=512, n_features=3, seed=i)
    for i, patient in enumerate([*PATIENTS[1:], "P9"]):
        write_features(tmp_path / "5x" / f"{patient}.h5", grid(2, 1024), side=1024, n_features=2, seed=i)
    grades = pd.DataFrame({"patient_id": PATIENTS, "grade": ["G2", "G4"] * 3})
    grades.to_csv(tmp_path / "patients.csv", index=False)
    content = {
        "name": "two",
        "patients": {"table": "patients.csv"},
        "slides": {"features": "20x", "concatenate": ["5x"], "mpp": 0.25},
        "tasks": {"grade": {"column": "grade"}},
        "splits": {"folds": 2, "validation": 0.3, "stratify": ["grade"]},
    }
    path = tmp_path / "cohort.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["check", str(path)]) == 0
    checked = capsys.readouterr()
    assert "5 numbers a patch, of encoder uni+uni" in checked.out
    assert f"{tmp_path / '5x'}: 1 slides are not in {tmp_path / '20x'} and are not used (P9)" in checked.err
    out = tmp_path / "prepared"
    assert main(["prepare", str(path), "--out", str(out)]) == 0
    excluded = pd.read_csv(out / "exclusions.csv").set_index("level")
    assert excluded.loc["slide"].tolist() == ["P0", f"no feature file in {tmp_path / '5x'}"]
    cohort = read_cohort(out)
    assert (cohort.encoder, cohort.patch_dim, len(cohort)) == ("uni+uni", 5, 5)
    slide = read_features(cohort.patients[0].slides[0])
    assert slide.features.shape == (16, 5)
    assert len(np.unique(slide.features[:, 3:], axis=0)) == 4
    made = out / "wsi" / "imported" / "features_uni+uni" / "P1.h5"
    before = made.stat().st_mtime_ns
    write_features(tmp_path / "5x" / "P1.h5", grid(2, 1024), side=1024, n_features=2, seed=77)
    assert main(["prepare", str(path), "--out", str(out)]) == 0
    assert made.stat().st_mtime_ns > before  # the further set changed
    assert json.loads((out / "provenance.json").read_text())["patch_dim"] == 5


def test_further_features_are_of_the_encoder_that_their_folder_names(tmp_path):
    first, second = (tmp_path / f"features_{name}" / "S.h5" for name in ("uni_v1", "conch_v15"))
    for path in (first, second):
        write_features(path, grid(4, 512), side=512, n_features=3)
        with h5py.File(path, "a") as file:
            del file["features"].attrs["encoder"]
    with opened_source(FeatureSource("S", "P", first, encoder="uni_v1", further=(second,))) as file:
        assert file.encoder == "uni_v1+conch_v15"
        assert file.warnings == ()
