"""Job folders of TRIDENT: pixel sizes from its records of slides, encoders from its folders."""

import h5py
import pytest
from tool_files import read

from subfuse.errors import DataError
from subfuse.features.other_tools import files_behind, opened_features
from subfuse.features.trident_job import recorded_mpp
from trident_job import PATCH_DIM, SLIDE_DIM, TILING, write_job, write_state


@pytest.fixture
def job(tmp_path):
    return write_job(tmp_path / "job", {"A.1": 0.2525, "B": None})


def patches(job, name):
    return job / TILING / "features_uni_v1" / f"{name}.h5"


def test_the_pixel_size_is_that_of_the_slide_with_just_this_name(job):
    write_state(job, "A", 0.5)
    slide, layout, warnings = read(patches(job, "A.1"))
    assert (slide.level0_mpp, slide.encoder, layout, warnings) == (0.2525, "uni_v1", "TRIDENT", ())
    assert slide.features.shape[1] == PATCH_DIM
    assert (slide.slide_width_px, slide.slide_height_px) == (9000, 7000)


def test_a_declared_pixel_size_counts_and_another_one_of_the_job_is_told(job):
    slide, _, warnings = read(patches(job, "A.1"), mpp=0.5)
    assert slide.level0_mpp == 0.5
    assert any("0.2525" in warning for warning in warnings)


def test_without_a_record_the_pixel_size_is_asked_for(job):
    with pytest.raises(DataError, match=r"B\.h5: the pixel size is required"):
        read(patches(job, "B"))
    assert read(patches(job, "B"), mpp=0.25)[0].level0_mpp == 0.25


def test_a_slide_of_which_the_job_has_no_record_is_told_with_the_nearest(job):
    next((job / "wsi_states").glob("A.1__*.json")).rename(job / "wsi_states" / "OTHER-A.1__00.json")
    with pytest.raises(DataError, match=r"wsi_states has no record of slide A\.1 \(nearest: OTHER-A\.1\)\. Declare"):
        read(patches(job, "A.1"))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (
            lambda job: write_state(job, "A.1", 0.5, number=1),
            r"A\.1\.h5: one pixel size is required.*0\.2525 in ",
        ),
        (
            lambda job: write_state(job, "A.1", 0.5, of="C"),
            r"A\.1__0+\.json: .*slide A\.1 is required\. Found slide C",
        ),
        (lambda job: write_state(job, "A.1", -1.0), r"meta\.mpp must be a positive number\. Found -1"),
        (lambda job: write_state(job, "A.1", 1.0).write_text("[1"), r"A\.1__0+\.json"),
        (lambda job: write_state(job, "A.1", 1.0).write_text("[]"), "Found no slide"),
    ],
)
def test_records_that_cannot_be_used_are_named_and_need_not_be_where_the_size_is_declared(job, damage, named):
    damage(job)
    with pytest.raises(DataError, match=named):
        read(patches(job, "A.1"))
    assert read(patches(job, "A.1"), mpp=0.25)[0].level0_mpp == 0.25


def test_slides_of_one_name_and_one_pixel_size_agree(job):
    write_state(job, "A.1", 0.2525, number=1)
    assert recorded_mpp(patches(job, "A.1")) == 0.2525
    assert len(files_behind(patches(job, "A.1"))) == 3  # changes of the records are noticed


def test_features_of_slides_are_one_vector_of_the_encoder_that_names_their_folder(job):
    slide, _, _ = read(job / TILING / "slide_features_titan" / "A.1.h5")
    assert slide.features.shape == (1, SLIDE_DIM)
    assert (slide.encoder, slide.has_coordinates) == ("titan", False)


def test_features_that_are_called_as_the_file_of_their_slide_are_those_of_its_record(job):
    patches(job, "A.1").rename(patches(job, "A.1.svs"))
    slide, _, warnings = read(patches(job, "A.1.svs"))
    assert (slide.level0_mpp, warnings) == (0.2525, ())
    patches(job, "A.1.svs").rename(patches(job, "A.1.2"))  # another slide
    with pytest.raises(DataError, match=r"A\.1\.2\.h5: the pixel size is required"):
        read(patches(job, "A.1.2"))


def test_a_folder_that_is_no_job_has_no_records(tmp_path, job):
    (job / "wsi_states").rename(tmp_path / "states")
    assert recorded_mpp(patches(job, "A.1")) is None


def test_a_file_that_says_that_it_is_of_another_slide_is_told(job):
    patches(job, "A.1").rename(patches(job, "C"))
    _, _, warnings = read(patches(job, "C"), mpp=0.25)
    assert "the file is called C, but says that its slide is A.1" in warnings


@pytest.mark.parametrize(
    ("declared", "is_told"), [("resnet50", True), ("UNI-v1", False), ("uni_v1", False), (None, False)]
)
def test_a_declared_encoder_counts_where_the_file_names_none_and_the_folder_is_told(job, declared, is_told):
    path = patches(job, "A.1")
    with h5py.File(path, "a") as file:
        del file["features"].attrs["encoder"]
    with opened_features(path, encoder=declared) as file:
        assert file.encoder == (declared or "uni_v1")
        assert any("their folder is features_uni_v1" in warning for warning in file.warnings) == is_told
