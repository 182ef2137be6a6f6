"""Feature files of a new patient: sets of one slide are joined, and encoded where the run encoded its own."""

from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from subfuse.errors import ConfigurationError, DataError
from subfuse.features.store import read_features
from subfuse.preparation.slides.feature_survey import opened_source
from subfuse.runs.prediction import patient_slides
from subfuse.runs.prediction.patient_slides import read_slides
from subfuse.slides.source import FeatureSource

pytestmark = pytest.mark.walk  # runs and models are stood in for


def write_features(path: Path, *, side: int, seed: int, n_features: int = 4, encoder: str = "uni") -> Path:
    """A square of tissue 3072 px wide, cut into patches of a side; as TRIDENT writes it."""
    n = 3072 // side
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = np.random.default_rng(seed).random((n * n, n_features)).astype(np.float32)
        file["features"].attrs["encoder"] = encoder
        file["coords"] = np.stack(np.meshgrid(range(n), range(n)), axis=-1).reshape(-1, 2) * side
        file["coords"].attrs.update(
            {"patch_size_level0": side, "patch_size": side // 2, "overlap": 0, "level0_magnification": 40,
             "target_magnification": 20, "level0_width": 9000, "level0_height": 9000, "level0_mpp": 0.25}
        )  # fmt: skip
    return path


def read(folder: Path, *paths: Path, encoder: str, patch_um=None, **prepared):
    run = SimpleNamespace(prepared=prepared, device="cpu", folder=folder)
    fitted = SimpleNamespace(encoder=encoder, patch_um=patch_um)
    return read_slides(paths, None, folder, run, fitted)


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, Path]:
    """Two magnifications of two slides."""
    return {
        f"{slide}{side}": write_features(tmp_path / str(side) / f"{slide}.h5", side=side, seed=i * side)
        for i, slide in enumerate("ab", 1)
        for side in (512, 1024)
    }


def test_files_of_one_name_are_joined_as_a_cohort_joins_them(tmp_path, sets) -> None:
    found = read(tmp_path, *sets.values(), encoder="uni+uni", patch_um=(128.0, 128.0))
    assert (found.encoder, found.patch_dim, len(found.features)) == ("uni+uni", 8, 2)
    for slide, path in zip("ab", found.features, strict=True):
        source = FeatureSource(slide, "p", sets[f"{slide}512"], None, further=(sets[f"{slide}1024"],))
        with opened_source(source) as file:
            expected = file.slide_features(source.path)
        np.testing.assert_allclose(read_features(path).features, expected.features, rtol=1e-3)
        assert found.width_um[path] == 128


def test_sets_in_another_order_than_in_training_are_refused(tmp_path, sets) -> None:
    order = [sets[name] for name in ("a1024", "a512")]
    with pytest.raises(DataError, match=r"patches are 128 µm wide comes first, as in training\. Found 256 µm"):
        read(tmp_path, *order, encoder="uni+uni", patch_um=(128.0, 128.0))
    assert read(tmp_path, *order, encoder="uni+uni", patch_um=(256.0, 256.0)).patch_dim == 8


def test_sets_that_a_slide_lacks_and_files_given_twice_are_named(tmp_path, sets) -> None:
    with pytest.raises(ConfigurationError, match=r"as many feature files of every slide .* Found 2 of a, 1 of b"):
        read(tmp_path, *(sets[name] for name in ("a512", "a1024", "b512")), encoder="uni+uni")
    with pytest.raises(ConfigurationError, match=r"different files are required\. Found one twice"):
        read(tmp_path, sets["a512"], sets["a512"], encoder="uni+uni")


def test_features_of_patches_go_through_the_slide_encoder_of_the_run(tmp_path, monkeypatch) -> None:
    pytest.importorskip("lazyslide_models")
    from stand_in_encoders import Colours, Weighted, stand_in

    from subfuse.features.registered import patch_encoders

    stand_in(monkeypatch, ctranspath=Colours, madeleine=Weighted)
    monkeypatch.setattr(patch_encoders, "hub_is_reachable", lambda: True)
    path = write_features(tmp_path / "given" / "s.h5", side=512, seed=1, encoder="ctranspath")
    found = read(tmp_path, path, encoder="madeleine", slide_encoder="madeleine")
    assert (found.encoder, found.patch_dim) == ("madeleine", 4)
    with h5py.File(path) as file:
        weights = 1 + file["coords"][:, :1] / 512
        expected = (file["features"][:].astype(float) * weights).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(read_features(found.features[0]).features, expected[None], rtol=2e-3)
    assert any("encoded by madeleine, as in training" in note for note in found.notes)

    other = write_features(tmp_path / "other" / "s.h5", side=512, seed=1, encoder="uni2")
    with pytest.raises(ConfigurationError, match="madeleine reads features of ctranspath"):
        read(tmp_path / "o", other, encoder="madeleine", slide_encoder="madeleine")


def test_the_encoder_computes_where_the_models_do(tmp_path, monkeypatch):
    places = []

    def refuse(name, *, device):
        places.append((name, device))
        raise ConfigurationError("enough")

    monkeypatch.setattr(patient_slides, "chosen_device", {"cpu": "cuda:1"}.get)
    monkeypatch.setattr(patient_slides, "load_encoder", refuse)
    (tmp_path / "new.svs").touch()
    with pytest.raises(ConfigurationError, match="enough"):
        read(tmp_path, tmp_path / "new.svs", encoder="uni", requested_encoder="uni", tiling={"mpp": 0.5})
    assert places == [("uni", "cuda:1")]


@pytest.mark.parametrize(
    ("rules", "expected", "is_told"),
    [
        (None, "fixed", False),
        (["otsu"], "otsu", False),
        (["geojson:/a"], "fixed", True),
        (["fixed", "otsu"], "fixed", True),
    ],
)
def test_tissue_of_a_new_slide_is_found_as_that_of_the_run_was(rules, expected, is_told):
    rule, notes = patient_slides._tissue_rule(SimpleNamespace(prepared={} if rules is None else {"tissue": rules}))
    assert rule == expected
    assert bool(notes) == is_told
