"""`slides` of a cohort file: of one source, with the keys of that source alone."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from subfuse.slides.source import (
    FeatureFiles,
    FeatureRows,
    FeatureSource,
    SlideFolder,
    SlideList,
    SlideSource,
    SlidesSection,
)

SECTION = TypeAdapter(SlidesSection)
KEYS = {
    SlideFolder: {"folder": "slides", "table": "slides.csv", "mpp": 0.25},
    SlideList: {"table": "slides.csv"},
    FeatureFiles: {"features": "uni", "encoder": "MahmoodLab/uni", "copy": True},
    FeatureRows: {"feature_table": "vectors.csv", "include": ["a"]},
}


@pytest.mark.parametrize("kind", KEYS)
def test_the_key_tells_the_kind_and_empty_keys_of_others_declare_nothing(kind):
    empty = dict.fromkeys(("folder", "features", "feature_table", "encoder"))
    section = SECTION.validate_python(empty | KEYS[kind])
    assert type(section) is kind
    assert SECTION.validate_python(section.model_dump(mode="json", by_alias=True, exclude_none=True)) == section
    assert SECTION.validate_python(section) == section


@pytest.mark.parametrize(
    "tiling", [{"mpp": 20.0}, {"mpp": 0}, {"tile_px": 8}, {"tile_px": 90000}, {"overlap_px": -1}, {"px": 3}, 256]
)
def test_a_tiling_that_no_encoder_sees_is_refused(tiling):
    with pytest.raises(ValidationError, match="tiling"):
        SECTION.validate_python({"folder": "a", "tiling": tiling})


def test_slides_lie_in_one_place():
    with pytest.raises(ValidationError, match="give one of `folder`, `features` and `feature_table`, not folder"):
        SECTION.validate_python({"folder": "a", "features": "b"})


@pytest.mark.parametrize("kind", [SlideFolder, SlideList, FeatureRows])
def test_only_files_of_features_name_their_encoder(kind):
    with pytest.raises(ValidationError, match=r"pass --encoder to `subfuse prepare`"):
        SECTION.validate_python(KEYS[kind] | {"encoder": "uni"})


@pytest.mark.parametrize("kind", [FeatureFiles, FeatureRows])
def test_only_slides_that_are_cut_into_patches_have_their_tissue_found(kind):
    assert SECTION.validate_python(KEYS[SlideFolder] | {"tissue": "otsu"}).tissue == "otsu"
    with pytest.raises(ValidationError, match="`tissue` says how slides are cut into patches"):
        SECTION.validate_python(KEYS[kind] | {"tissue": "fixed"})


@pytest.mark.parametrize("encoder", ["", "..", "a\\b"])
def test_an_encoder_names_a_folder(encoder):
    with pytest.raises(ValidationError, match="encoder"):
        SECTION.validate_python({"features": "f", "encoder": encoder})


@pytest.mark.parametrize("mpp", [0, -0.5, 40000.0])
def test_an_implausible_pixel_size_is_refused(mpp):
    with pytest.raises(ValidationError, match="mpp"):
        SECTION.validate_python({"folder": "a", "mpp": mpp})


@pytest.mark.parametrize("overlap", [32, 33])
def test_patches_that_would_not_advance_are_refused(overlap):
    SECTION.validate_python({"folder": "a", "tiling": {"tile_px": 32, "overlap_px": 31}})
    SECTION.validate_python({"folder": "a", "tiling": {"overlap_px": overlap}})  # the encoder has the side
    with pytest.raises(ValidationError, match=f"overlap_px below tile_px, 32, is required, not {overlap}"):
        SECTION.validate_python({"folder": "a", "tiling": {"tile_px": 32, "overlap_px": overlap}})


def test_nothing_at_all_says_what_there_could_be_and_a_mistyped_key_is_named_first():
    with pytest.raises(ValidationError, match="give a `folder` of slides, a `table` with a `path` column, or both"):
        SECTION.validate_python({})
    with pytest.raises(ValidationError) as error:
        SECTION.validate_python({"foldr": "a"})
    assert "foldr" in str(error.value)
    assert "give a `folder`" not in str(error.value)


def test_a_slide_that_comes_as_features_is_a_slide():
    features = FeatureSource("a", "P1", Path("a.h5"))
    assert isinstance(features, SlideSource)
    assert (features.mpp, features.encoder, features.in_table) == (None, None, False)
