import math
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.features import store
from subfuse.features.store import (
    SlideFeatures,
    add_missing_hash,
    raster_corners,
    read_attributes,
    read_features,
    read_moments,
    write_features,
)


@pytest.fixture
def slide() -> SlideFeatures:
    rng = np.random.default_rng(0)
    return SlideFeatures(
        features=rng.normal(size=(7, 5)).astype(np.float16),
        coords=rng.integers(0, 40_000, size=(7, 2)).astype(np.int32),
        patch_size_level0=507,
        level0_mpp=0.2526,
        target_mpp=0.5,
        encoder="resnet50",
        encoder_sha256="ab" * 32,
        slide_width_px=50_001,
        slide_height_px=40_507,
    )


def test_features_survive_the_file(slide: SlideFeatures, tmp_path: Path) -> None:
    write_features(tmp_path / "new folder" / "slide.h5", slide, tile_px=256)

    read = read_features(tmp_path / "new folder" / "slide.h5")

    np.testing.assert_array_equal(read.features, slide.features)
    np.testing.assert_array_equal(read.coords, slide.coords)
    for name in vars(slide).keys() - {"features", "coords"}:
        assert getattr(read, name) == getattr(slide, name), name


def test_file_has_tridents_names_and_contiguous_datasets(slide: SlideFeatures, tmp_path: Path) -> None:
    write_features(tmp_path / "slide.h5", slide, tile_px=256, overlap_px=16, attributes={"tissue_mm2": 1.5})

    with h5py.File(tmp_path / "slide.h5") as file:
        assert file["features"].chunks is None
        assert file["coords"].chunks is None
        assert file["features"].dtype == np.float16
        attributes = dict(file["coords"].attrs)
    assert attributes["patch_size"] == 256
    assert attributes["patch_size_level0"] == 507
    assert attributes["overlap"] == 16
    assert attributes["tissue_mm2"] == 1.5
    assert attributes["target_magnification"] == 20
    assert {"level0_mpp", "target_mpp", "encoder", "encoder_sha256", "subfuse_version"} <= attributes.keys()


def test_attributes_are_read_without_features(slide: SlideFeatures, tmp_path: Path) -> None:
    write_features(tmp_path / "slide.h5", slide, tile_px=256, attributes={"tissue_mm2": 1.5})

    n_patches, attributes = read_attributes(tmp_path / "slide.h5")

    assert (n_patches, attributes["tissue_mm2"]) == (7, 1.5)


def test_centres_are_in_micrometres(slide: SlideFeatures) -> None:
    coords = np.array([[0, 100]], np.int32)
    slide = replace(slide, features=slide.features[:1], coords=coords, patch_size_level0=512, level0_mpp=0.25)

    np.testing.assert_allclose(slide.centres_um, [[64.0, 89.0]])


def test_patches_without_places_stand_on_a_square_in_list_order() -> None:
    assert raster_corners(5, 10).tolist() == [[0, 0], [10, 0], [20, 0], [0, 10], [10, 10]]
    assert raster_corners(1, 256).tolist() == [[0, 0]]
    assert raster_corners(2500, 1).max(axis=0).tolist() == [49, 49]


def test_what_is_unknown_stays_unknown(slide: SlideFeatures, tmp_path: Path) -> None:
    bare = replace(slide, target_mpp=math.nan, has_coordinates=False, features=slide.features.astype(np.float32))

    write_features(tmp_path / "slide.h5", bare, tile_px=None)
    read = read_features(tmp_path / "slide.h5")

    assert not read.has_coordinates
    assert math.isnan(read.target_mpp)
    assert read.features.dtype == np.float32
    assert "patch_size" not in read_attributes(tmp_path / "slide.h5")[1]


def test_files_of_other_tools_are_refused_with_what_they_hold(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "slide.h5", "w") as file:
        file["features"], file["coords"] = np.zeros((3, 4)), np.zeros((3, 2))
        file.create_group("tiles")
        file.attrs["extractor"] = "uni"

    found = r"Found: coords \(3, 2\); features \(3, 4\); tiles a group; attributes extractor.*slides.features"
    with pytest.raises(DataError, match=found):
        read_features(tmp_path / "slide.h5")


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_damaged_file_is_an_error(kept: int, slide: SlideFeatures, tmp_path: Path) -> None:
    path = tmp_path / "slide.h5"
    write_features(path, slide, tile_px=256)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(DataError, match="complete HDF5 file is required"):
        read_features(path)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.h5"):
        read_features(tmp_path / "absent.h5")


def test_empty_bag_is_not_written(slide: SlideFeatures, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one patch"):
        write_features(
            tmp_path / "slide.h5", replace(slide, features=slide.features[:0], coords=slide.coords[:0]), tile_px=8
        )

    assert not list(tmp_path.iterdir())


def test_features_that_are_not_finite_are_not_written(slide: SlideFeatures, tmp_path: Path) -> None:
    features = slide.features.copy()
    features[3, 1] = np.inf

    with pytest.raises(DataError, match="1 of 7 patches that are not, the first at row 3"):
        write_features(tmp_path / "slide.h5", replace(slide, features=features), tile_px=256)


def change_one_byte(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["features"][3, 2] += 1


def zero_the_tail(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["features"][5:] = 0


def not_a_number(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["features"][0, 0] = np.nan


def other_places(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["coords"][0] = 0


def other_pixel_size(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["coords"].attrs["level0_mpp"] = 0.5


def no_hash(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["coords"].attrs["content_sha256"]


CHANGES = [change_one_byte, zero_the_tail, not_a_number, other_places, other_pixel_size, no_hash]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_changed_content_is_named_when_it_is_read(change, slide: SlideFeatures, tmp_path: Path) -> None:
    path = tmp_path / "slide.h5"
    write_features(path, slide, tile_px=256, attributes={"tissue_mm2": math.nan, "source": "ä"})
    read_features(path)
    change(path)

    with pytest.raises(DataError, match=r"slide\.h5: the content .* is required.*Run `subfuse prepare` again"):
        read_features(path)
    with pytest.raises(DataError, match=r"slide\.h5"):
        read_attributes(path, verify=True)


def test_a_file_of_an_earlier_version_gets_its_hash_if_its_values_are_finite(
    slide: SlideFeatures, tmp_path: Path
) -> None:
    path = tmp_path / "slide.h5"
    write_features(path, slide, tile_px=256, attributes={"tissue_mm2": math.nan, "source": "ä"})
    written = read_attributes(path)
    no_hash(path)
    add_missing_hash(path)
    assert str(read_attributes(path, verify=True)) == str(written)
    change_one_byte(path)
    add_missing_hash(path)  # never replaces one
    with pytest.raises(DataError, match="bytes changed"):
        read_features(path)
    no_hash(path)
    not_a_number(path)
    with pytest.raises(DataError, match=r"slide\.h5: features must be finite"):
        add_missing_hash(path)
    assert "content_sha256" not in read_attributes(path)[1]


def test_the_file_of_another_slide_is_named(slide: SlideFeatures, tmp_path: Path) -> None:
    write_features(tmp_path / "a.1.h5", slide, tile_px=256)
    (tmp_path / "a.1.h5").rename(tmp_path / "b.h5")
    with pytest.raises(DataError, match=r"b\.h5: .*Found that of slide a\.1"):
        read_features(tmp_path / "b.h5")


def test_the_area_of_patches_is_that_of_their_union(slide: SlideFeatures) -> None:
    shapely = pytest.importorskip("shapely")
    corners = np.random.default_rng(1).integers(0, 1500, (60, 2)).astype(np.int32)
    spread = replace(
        slide, features=np.zeros((60, 5), np.float16), coords=corners, patch_size_level0=200, level0_mpp=0.5
    )
    union = shapely.union_all(shapely.box(*corners.T, *(corners + 200).T)).area
    assert spread.area_mm2 == pytest.approx(union * 0.25 / 1e6)
    assert math.isnan(replace(spread, has_coordinates=False).area_mm2)


def test_sums_are_stored_and_made_again_where_they_are_not_or_were_changed(
    slide: SlideFeatures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "slide.h5"
    write_features(path, slide, tile_px=256)
    values = slide.features.astype(np.float64)
    expected = np.stack([values.sum(axis=0), (values**2).sum(axis=0)])
    with monkeypatch.context() as patch:
        patch.setattr(store, "read_features", None)  # would be called
        n_patches, moments = read_moments(path)
    assert n_patches == len(values)
    np.testing.assert_array_equal(moments, expected)
    with h5py.File(path, "a") as file:
        file["moments"][0, 0] += 1
    np.testing.assert_array_equal(read_moments(path)[1], expected)
    with h5py.File(path, "a") as file:
        del file["moments"]
    np.testing.assert_array_equal(read_moments(path)[1], expected)
