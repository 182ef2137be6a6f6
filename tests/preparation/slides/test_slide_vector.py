"""Slides become one vector each, by a slide encoder on the patches of its patch encoder."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("tifffile")
pytest.importorskip("lazyslide_models")
from stand_in_encoders import Colours, Weighted, stand_in

from subfuse.cohort.cohort import read_cohort
from subfuse.errors import ConfigurationError, DataError
from subfuse.features.registered import patch_encoders as registered
from subfuse.features.registered.slide_encoders import load_encoder
from subfuse.features.store import read_attributes, read_features
from subfuse.preparation import prepare as preparation
from subfuse.preparation.prepare import prepare
from subfuse.preparation.slides.slide import completed_record, prepare_slide
from subfuse.preparation.slides.slide_vector import write_vector
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import Tiling

TILING = Tiling(tile_px=128, overlap_px=32)


@pytest.fixture(autouse=True)
def small_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, ctranspath=Colours, madeleine=Weighted)
    monkeypatch.setattr(registered, "hub_is_reachable", lambda: True)
    preparation._encoder.cache_clear()


def write_slide(path: Path, seed: int) -> SlideSource:
    import tifffile

    random = np.random.default_rng(seed)
    image = np.full((640, 900, 3), 244, np.uint8)
    image[60:580, 100:800] = random.normal((190 + seed, 120, 170), 12, (520, 700, 3)).clip(0, 255).astype(np.uint8)
    tifffile.imwrite(path, image, tile=(256, 256), photometric="rgb", resolution=(40000, 40000),
                     resolutionunit="CENTIMETER")  # fmt: skip
    return SlideSource(path.stem, path.stem, path)


def test_the_vector_is_that_of_the_patches_and_both_are_kept(tmp_path: Path) -> None:
    source, out = write_slide(tmp_path / "s.tiff", 0), tmp_path / "wsi"
    encoder = load_encoder("madeleine")

    record = prepare_slide(source, encoder, TILING, out)

    patches = prepare_slide(source, encoder.patches, TILING, out)
    of_patches, of_slide = read_features(tmp_path / patches.features), read_features(tmp_path / record.features)
    weights = 1 + of_patches.coords[:, :1] / 192  # (128 - 32) px at 0.5 µm, of a slide of 0.25 µm
    expected = (of_patches.features.astype(float) * weights).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(of_slide.features, expected[None], rtol=1e-5)
    assert (record.n_patches, of_slide.has_coordinates, of_slide.encoder) == (1, False, "madeleine")
    assert np.isnan(record.patch_um)
    assert patches.n_patches > 4
    same = (
        "slide_id",
        "patient_id",
        "mpp",
        "width_px",
        "height_px",
        "tissue_mm2",
        "sharpness",
        "warnings",
        "pen_share",
    )
    assert {name: getattr(record, name) for name in same} == {name: getattr(patches, name) for name in same}
    attributes = read_attributes(tmp_path / record.features)[1]
    assert (attributes["patch_encoder"], attributes["n_patches"]) == ("ctranspath", patches.n_patches)
    assert completed_record(source, "madeleine", TILING, out, encoder_sha256=encoder.sha256).n_patches == 1
    assert completed_record(source, "madeleine", Tiling(), out) is None


def test_vectors_are_made_of_no_other_patches(tmp_path: Path) -> None:
    source, encoder = write_slide(tmp_path / "s.tiff", 0), load_encoder("madeleine")
    record = prepare_slide(source, encoder.patches, TILING, tmp_path / "wsi")
    encoder.patches.name = "uni2"
    with pytest.raises(DataError, match=r"madeleine reads patches of uni2\. Found those of ctranspath"):
        write_vector(tmp_path / record.features, tmp_path / "v.h5", encoder)
    assert not (tmp_path / "v.h5").exists()


def test_a_cohort_is_prepared_with_a_slide_encoder_on_patches_as_it_was_trained_on(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    ids = [f"P{i}" for i in range(6)]
    for i, name in enumerate(ids):
        write_slide(tmp_path / "slides" / f"{name}.tiff", 5 * i)
    pd.DataFrame({"patient_id": ids, "grade": ["G2", "G4"] * 3}).to_csv(tmp_path / "p.csv", index=False)
    content = {
        "name": "small", "patients": {"table": "p.csv"}, "slides": {"folder": "slides", "tiling": {"mpp": 0.5}},
        "tasks": {"grade": {"column": "grade"}}, "splits": {"folds": 2, "validation": 0.34},
    }  # fmt: skip
    (tmp_path / "cohort.yaml").write_text(yaml.safe_dump(content))

    done = prepare(tmp_path / "cohort.yaml", tmp_path / "prepared", encoder="madeleine")

    cohort = read_cohort(tmp_path / "prepared")
    assert (cohort.encoder, cohort.patch_dim, cohort.patch_um) == ("madeleine", 4, {})
    assert cohort.tiling == {"tile_px": 256, "mpp": 0.5, "overlap_px": 0, "min_tissue_fraction": 0.25}
    assert done.slides["n_patches"].tolist() == [1] * 6
    assert all(len(read_features(path).features) == 1 for patient in cohort for path in patient.slides)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("prepared/wsi/*/features_*/*.h5")}
    assert len(before) == 12
    prepare(tmp_path / "cohort.yaml", tmp_path / "prepared", encoder="madeleine")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def cohort_of_features(folder: Path, *, encoder: str = "ctranspath") -> Path:
    """Six patients with a feature file each, as TRIDENT writes them: patches of 256 px that share 64, at 0.5 µm."""
    ids = [f"P{i}" for i in range(6)]
    (folder / "features").mkdir()
    for i, name in enumerate(ids):
        with h5py.File(folder / "features" / f"{name}.h5", "w") as file:
            file["features"] = np.random.default_rng(i).random((9, 4)).astype(np.float32)
            file["features"].attrs["encoder"] = encoder
            file["coords"] = np.stack(np.meshgrid(range(3), range(3)), axis=-1).reshape(-1, 2) * 384
            file["coords"].attrs.update({
                "patch_size_level0": 512, "patch_size": 256, "overlap": 64, "level0_magnification": 40,
                "target_magnification": 20, "level0_width": 2000, "level0_height": 2000,
            })  # fmt: skip
    pd.DataFrame({"patient_id": ids, "grade": ["G2", "G4"] * 3}).to_csv(folder / "p.csv", index=False)
    content = {
        "name": "small", "patients": {"table": "p.csv"}, "slides": {"features": "features", "mpp": 0.25},
        "tasks": {"grade": {"column": "grade"}}, "splits": {"folds": 2, "validation": 0.34},
    }  # fmt: skip
    (folder / "cohort.yaml").write_text(yaml.safe_dump(content))
    return folder / "cohort.yaml"


def test_features_of_other_tools_become_vectors(tmp_path: Path) -> None:
    path, out = cohort_of_features(tmp_path), tmp_path / "prepared"
    done = prepare(path, out, encoder="madeleine")
    cohort = read_cohort(out)
    assert (cohort.encoder, cohort.patch_dim, done.slides["n_patches"].tolist()) == ("madeleine", 4, [1] * 6)
    assert not any("encodes nothing" in warning for warning in done.warnings)
    patches = read_features(out / "wsi" / "imported" / "features_ctranspath" / "P3.h5")
    weights = 1 + patches.coords[:, :1] / 384  # (256 - 64) px at 0.5 µm, of a slide of 0.25 µm
    expected = (patches.features.astype(float) * weights).sum(axis=0) / weights.sum()
    made = out / "wsi" / "imported" / "features_madeleine" / "P3.h5"
    np.testing.assert_allclose(read_features(made).features, expected[None], rtol=1e-3)
    before = {name: name.stat().st_mtime_ns for name in out.glob("wsi/*/features_*/*.h5")}
    with h5py.File(tmp_path / "features" / "P3.h5", "r+") as file:
        file["features"][0] = 2
    prepare(path, out, encoder="madeleine")
    changed = {name.parent.name for name, time in before.items() if name.stat().st_mtime_ns != time}
    assert changed == {"features_ctranspath", "features_madeleine"}
    assert sum(name.stat().st_mtime_ns != time for name, time in before.items()) == 2


@pytest.mark.parametrize(
    ("encoder", "found"), [("uni2", "features of uni2. Extract"), ("unknown", "that is not recorded. Name it")]
)
def test_features_of_another_encoder_do_not_become_vectors(tmp_path: Path, encoder: str, found: str) -> None:
    path = cohort_of_features(tmp_path, encoder=encoder)
    with pytest.raises(ConfigurationError, match="--encoder madeleine reads features of ctranspath") as refused:
        prepare(path, tmp_path / "prepared", encoder="madeleine")
    assert found in str(refused.value)
    assert not (tmp_path / "prepared").exists()


def test_features_of_another_width_are_refused_before_any_is_imported(tmp_path: Path) -> None:
    path = cohort_of_features(tmp_path)
    for name in (tmp_path / "features").glob("*.h5"):
        with h5py.File(name, "r+") as file:
            kept, attributes = file["features"][:, :3], dict(file["features"].attrs)
            del file["features"]
            file["features"] = kept
            file["features"].attrs.update(attributes)
    with pytest.raises(ConfigurationError, match=r"madeleine reads 4 features .*Found 3 features"):
        prepare(path, tmp_path / "prepared", encoder="madeleine")
    assert not (tmp_path / "prepared").exists()


def test_a_vector_that_is_not_finite_is_the_encoders_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder("madeleine")
    monkeypatch.setattr(type(encoder), "encode", lambda *_, **__: np.full(3, np.nan, np.float32))
    with pytest.raises(DataError, match=r"encoder madeleine: a finite vector .* use another with --encoder"):
        prepare_slide(write_slide(tmp_path / "s.tiff", 0), encoder, TILING, tmp_path / "wsi")
    assert not list(tmp_path.glob("features_madeleine/*"))
