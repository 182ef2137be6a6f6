"""Layouts of HDF5 files of other tools, written here as those tools write them."""

from pathlib import Path

import numpy as np
import pytest
from tool_files import CORNERS, FEATURES, N_FEATURES, N_PATCHES, read, write_hdf5

from subfuse.errors import DataError
from subfuse.features.feature_file import ONE_VECTOR
from subfuse.features.other_tools import opened_features
from subfuse.features.patch_spacing import NO_PATCH_SIZE
from subfuse.features.store import SlideFeatures, write_features

TRIDENT = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20}
STAMP = {"unit": "um", "tile_size_um": 256.0, "tile_size_px": 224, "extractor": "mahmood-uni", "feat_type": "tile"}


@pytest.mark.parametrize("leading", [(), (1,)])
def test_trident(tmp_path, leading):
    features = FEATURES.reshape(*leading, N_PATCHES, N_FEATURES)
    path = write_hdf5(tmp_path / "features_uni_v1" / "s.h5", features=features, coords=CORNERS, on_coords=TRIDENT)

    slide, layout, warnings = read(path, mpp=0.23)

    assert (layout, warnings) == ("TRIDENT", ())
    np.testing.assert_array_equal(slide.features, FEATURES.astype(np.float16))
    np.testing.assert_array_equal(slide.coords, CORNERS)
    assert (slide.level0_mpp, slide.patch_size_level0, slide.encoder) == (0.23, 512, "uni_v1")
    assert slide.target_mpp == pytest.approx(0.46)
    assert (slide.slide_width_px, slide.slide_height_px) == (3512, 2560)


def test_clam_takes_the_size_of_patches_from_their_spacing_and_says_so(tmp_path):
    path = write_hdf5(tmp_path / "s.h5", features=FEATURES, coords=CORNERS)

    slide, layout, warnings = read(path, mpp=0.25)

    assert layout == "CLAM"
    assert slide.patch_size_level0 == 512
    assert np.isnan(slide.target_mpp)
    assert warnings == (NO_PATCH_SIZE,)


@pytest.mark.parametrize("name", ["feats", "patch_embeddings"])
def test_stamp_in_micrometres(tmp_path, name):
    where = CORNERS * 0.5 + 0.1  # slide of 0.5 µm per pixel
    path = write_hdf5(tmp_path / "s.h5", coords=where, on_file=STAMP, **{name: FEATURES.astype(np.float16)})

    slide, layout, warnings = read(path, mpp=0.5)

    assert (layout, warnings, slide.encoder) == ("STAMP", (), "mahmood-uni")
    np.testing.assert_array_equal(slide.coords, CORNERS)
    assert slide.patch_size_level0 == 512
    assert slide.target_mpp == pytest.approx(256 / 224)
    np.testing.assert_allclose(slide.centres_um, where + 128, atol=0.3)


def test_stamp_without_the_slides_pixel_size_keeps_places_and_says_so(tmp_path):
    path = write_hdf5(tmp_path / "s.h5", feats=FEATURES, coords=CORNERS * 0.5, on_file=STAMP)

    slide, _, warnings = read(path)

    np.testing.assert_allclose(slide.centres_um, CORNERS * 0.5 + 128, atol=0.6)
    assert slide.level0_mpp == pytest.approx(256 / 224)
    assert "own pixel size is not recorded" in warnings[0]


@pytest.mark.parametrize("attributes", [{"unit": "um", "tile_size": 256.0, "extractor": "x"}, {"extractor": "x"}])
def test_older_stamp_layouts(tmp_path, attributes):
    """2.0 called the size in µm `tile_size`; before, coordinates were pixels of 256 µm / 224."""
    in_um = np.array([[0, 0], [256, 0], [512, 0], [0, 256], [256, 256], [1024, 512]], float)
    coords = in_um if "unit" in attributes else in_um * 224 / 256
    path = write_hdf5(tmp_path / "s.h5", feats=FEATURES, coords=coords, on_file=attributes)
    slide = read(path, mpp=0.5)[0]
    np.testing.assert_array_equal(slide.coords, in_um / 0.5)
    assert slide.patch_size_level0 == 512


@pytest.mark.parametrize("shape", [(5,), (1, 5)])
def test_stamp_vector_of_a_slide_is_a_bag_of_one_patch(tmp_path, shape):
    attributes = {"feat_type": "slide", "encoder": "titan"}
    slide, _, warnings = read(write_hdf5(tmp_path / "s.h5", feats=np.ones(shape), on_file=attributes))
    assert (slide.features.shape, slide.has_coordinates, slide.encoder) == ((1, 5), False, "titan")
    assert warnings == (ONE_VECTOR,)


def test_stamp_vector_of_a_patient_says_so(tmp_path):
    attributes = {"feat_type": "patient", "encoder": "titan"}
    assert read(write_hdf5(tmp_path / "p.h5", feats=np.ones(5), on_file=attributes))[1] == "STAMP, of patients"


def test_an_encoder_that_trident_calls_none_is_that_of_the_folder(tmp_path):
    of_coords = TRIDENT | {"encoder": "None"}
    path = write_hdf5(tmp_path / "features_uni_v1" / "s.h5", features=FEATURES, coords=CORNERS, on_coords=of_coords)
    slide, _, warnings = read(path, mpp=0.25)
    assert (slide.encoder, warnings) == ("uni_v1", ())


@pytest.mark.parametrize("leading", [(), (1,)])
def test_released_code_has_no_coordinates(tmp_path, leading):
    path = write_hdf5(tmp_path / "s.h5", Res_feature=FEATURES.reshape(*leading, N_PATCHES, N_FEATURES))
    slide, layout, _ = read(path)
    assert (layout, slide.has_coordinates) == ("released code", False)
    np.testing.assert_array_equal(slide.features, FEATURES.astype(np.float16))


@pytest.mark.parametrize("has_coordinates", [True, False])
def test_own_files_are_read_again(tmp_path, has_coordinates):
    slide = SlideFeatures(
        features=FEATURES,
        coords=CORNERS.astype(np.int32),
        patch_size_level0=512,
        level0_mpp=0.25,
        target_mpp=0.5,
        encoder="uni",
        encoder_sha256="ab",
        slide_width_px=9000,
        slide_height_px=8000,
        has_coordinates=has_coordinates,
    )
    write_features(tmp_path / "s.h5", slide, tile_px=256)
    again = read(tmp_path / "s.h5")[0]
    assert (again.encoder, again.encoder_sha256, again.has_coordinates) == ("uni", "ab", has_coordinates)
    np.testing.assert_array_equal(again.features, FEATURES)
    if has_coordinates:
        assert (again.slide_width_px, again.level0_mpp, again.target_mpp) == (9000, 0.25, 0.5)
        np.testing.assert_array_equal(again.coords, slide.coords)


def test_a_declared_pixel_size_and_encoder_win_over_folder_names(tmp_path):
    path = write_hdf5(
        tmp_path / "features_a" / "s.h5", features=FEATURES, coords=CORNERS, on_coords=TRIDENT | {"level0_mpp": 0.5}
    )
    assert read(path)[0].level0_mpp == 0.5
    slide = read(path, mpp=0.25, encoder="b")[0]
    assert (slide.level0_mpp, slide.encoder) == (0.25, "b")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"level0_mpp": 0.25, "mpp": 0.5}, "0.25 µm per pixel is used, but the file's `mpp` says 0.5"),
        ({"mpp": 0.25, "mpp_y": 0.5}, "0.25 µm per pixel is used, but the file's `mpp_y` says 0.5"),
        ({"mpp": 0.25, "encoder": "uni", "encoder_name": "conch"}, "of encoder uni, as `encoder` says; `encoder_name` "
         "says conch"),
        ({"mpp": 0.25, "slide_width_level0": 5000, "slide_height_level0": 4000, "level0_width": 2000,
          "level0_height": 4000}, "a slide of 5000 x 4000 pixels is used, but the file also says 2000 x 4000"),
        ({"level0_mpp": 0.25, "mpp": 0.2501, "encoder": "uni", "encoder_name": "UNI"}, None),
    ],
)  # fmt: skip
def test_attributes_that_say_the_same_and_differ_are_told(tmp_path, attributes, words):
    path = write_hdf5(
        tmp_path / "s.h5", features=FEATURES, coords=CORNERS, on_coords={"patch_size_level0": 512} | attributes
    )
    with opened_features(path) as file:
        told = file.warnings
    assert told == () if words is None else any(words in note for note in told)


def html_page(path: Path) -> None:
    path.write_text("<html><body>404 Not Found</body></html>")


def zero_bytes(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    write_hdf5(path, features=FEATURES, coords=CORNERS)
    path.write_bytes(path.read_bytes()[:-100])


def unknown_names(path: Path) -> None:
    write_hdf5(path, embeddings=FEATURES, coords=CORNERS, on_file={"model": "uni"})


def two_kinds(path: Path) -> None:
    write_hdf5(path, features=FEATURES, feats=FEATURES, coords=CORNERS)


def text_features(path: Path) -> None:
    write_hdf5(path, features=[[b"a", b"b"]], coords=[[0, 0]])


def no_patches(path: Path) -> None:
    write_hdf5(path, features=np.zeros((0, 4)), coords=np.zeros((0, 2)))


def fewer_coordinates(path: Path) -> None:
    write_hdf5(path, features=FEATURES, coords=CORNERS[:-1])


def no_pixel_size(path: Path) -> None:
    write_hdf5(path, features=FEATURES, coords=CORNERS, on_coords=TRIDENT)


def magnification_as_pixel_size(path: Path) -> None:
    write_hdf5(path, features=FEATURES, coords=CORNERS, on_coords=TRIDENT | {"level0_mpp": 40.0})


def nanometres_of_clam(path: Path) -> None:
    write_hdf5(path, features=FEATURES, coords=CORNERS, on_file={"mpp_x": 252.0, "mpp_y": 252.0})


def infinite_coordinates(path: Path) -> None:
    write_hdf5(path, features=FEATURES, coords=np.full((N_PATCHES, 2), np.nan))


def scattered_patches(path: Path) -> None:
    write_hdf5(path, features=FEATURES[:2], coords=[[0, 0], [700, 900]], on_coords={"level0_mpp": 0.5})


def negative_patch_size(path: Path) -> None:
    attributes = TRIDENT | {"patch_size_level0": -1, "level0_mpp": 0.5}
    write_hdf5(path, features=FEATURES, coords=CORNERS, on_coords=attributes)


def places_alone(path: Path) -> None:
    write_hdf5(path, coords=CORNERS, on_coords=TRIDENT)


def stamp_of_unknown_unit(path: Path) -> None:
    write_hdf5(path, feats=FEATURES, coords=CORNERS, on_file={"unit": "px", "tile_size": 224})


def beyond_float16(path: Path) -> None:
    write_hdf5(path, Res_feature=[[1.0, 1e6]])


DAMAGED = [
    (html_page, r"complete HDF5 file is required. Found 39 bytes"),
    (zero_bytes, r"complete HDF5 file is required. Found 0 bytes"),
    (truncated, r"complete HDF5 file is required"),
    (unknown_names, r"Found: coords \(6, 2\); embeddings \(6, 4\); attributes model"),
    (
        places_alone,
        r"Found: coords .*These are places of patches alone: name the folder of features as slides.features",
    ),
    (two_kinds, r"one dataset of features is required.*feats \(6, 4\); features \(6, 4\)"),
    (text_features, r"features must be numbers"),
    (no_patches, r"at least one patch are required. Found: coords \(0, 2\); features \(0, 4\)"),
    (fewer_coordinates, r"one row for each of the 6 patches. Found: coords \(5, 2\)"),
    (no_pixel_size, r"magnification is nominal \(40x is about 0.25 µm\). Declare `mpp` in the slide table"),
    (magnification_as_pixel_size, r"Found 40. Correct or declare `mpp` for the slide in the slide table"),
    (nanometres_of_clam, r"252 looks like nanometres, that is 0.252 µm"),
    (infinite_coordinates, r"`coords` must be finite"),
    (scattered_patches, r"no two of the 2 patches lie in one row or column"),
    (negative_patch_size, r"`patch_size_level0` must be a positive number. Found .*-1"),
    (stamp_of_unknown_unit, r"coordinates in µm are required.*attributes tile_size, unit"),
    (beyond_float16, r"finite and below 65504. Found 1 of 1 patches"),
]


@pytest.mark.parametrize(("write", "message"), DAMAGED, ids=[case[0].__name__ for case in DAMAGED])
def test_unusable_hdf5_files(tmp_path, write, message):
    path = tmp_path / "ein Schnitt ß.h5"
    write(path)
    declared = 0.5 if write is infinite_coordinates else None
    with pytest.raises(DataError, match=f"ein Schnitt ß.h5.*{message}") as caught:
        read(path, mpp=declared)
    assert "\n" not in str(caught.value)


def test_a_declared_pixel_size_is_bounded_and_corrects_that_of_a_file(tmp_path):
    path = tmp_path / "s.h5"
    magnification_as_pixel_size(path)
    assert read(path, mpp=0.25)[0].level0_mpp == 0.25
    for mpp in (0.0, -1.0, 40.0, np.nan):
        with pytest.raises(DataError, match=r"a pixel size between 0\.05 and 10 µm per pixel"):
            read(path, mpp=mpp)
