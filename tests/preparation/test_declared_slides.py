"""What a cohort file declares of its slides: one tiling, and how tissue is found."""

from pathlib import Path
from typing import Any

import pytest

from subfuse.cohort.cohort_file import CohortFile
from subfuse.errors import ConfigurationError
from subfuse.features.encoder import OFFLINE_ENCODER
from subfuse.preparation.declared_slides import declared_stain, declared_tiling, declared_tissue
from subfuse.slides.tissue import Tiling


def cohort_file(*slides: dict[str, Any] | None, roles: tuple[str, ...] = ("develop", "external")) -> CohortFile:
    members = [
        {"name": f"c{i}", "role": roles[i], "patients": {"table": "p.csv"}, "slides": section}
        for i, section in enumerate(slides)
    ]
    return CohortFile.model_validate({"name": "all", "cohorts": members}, context={"base": Path("/data")})


FOLDER, READY = {"folder": "slides"}, {"features": "features"}


def test_what_is_not_declared_is_as_the_encoder_has_it() -> None:
    assert declared_tiling(cohort_file(FOLDER), OFFLINE_ENCODER) == Tiling()
    assert declared_tiling(cohort_file(READY, None), OFFLINE_ENCODER) == Tiling()
    section = FOLDER | {"tiling": {"mpp": 1.0, "overlap_px": 32}}
    assert declared_tiling(cohort_file(section, READY), OFFLINE_ENCODER) == Tiling(256, 1.0, 32)


def test_cohorts_have_one_tiling_even_if_one_declares_the_default() -> None:
    same = FOLDER | {"tiling": {"tile_px": 256}}
    assert declared_tiling(cohort_file(FOLDER, same), OFFLINE_ENCODER) == Tiling()
    other = FOLDER | {"tiling": {"tile_px": 512}}
    with pytest.raises(
        ConfigurationError, match=r"256 px at 0.5 µm per pixel for c0, 512 px at 0.5 µm per pixel for c1"
    ):
        declared_tiling(cohort_file(FOLDER, other), OFFLINE_ENCODER)


@pytest.mark.parametrize("overlap", [256, 300])
def test_patches_may_not_overlap_entirely(overlap: int) -> None:
    with pytest.raises(ConfigurationError, match=f"c0, slides.tiling: .* which is 256 px. Found overlap_px {overlap}"):
        declared_tiling(cohort_file(FOLDER | {"tiling": {"overlap_px": overlap}}), OFFLINE_ENCODER)


def test_tissue_of_the_cohorts_to_develop_on_is_told() -> None:
    otsu, fixed = FOLDER | {"tissue": "otsu"}, FOLDER
    assert declared_tissue(cohort_file(otsu, fixed)) == ["otsu"]
    assert declared_tissue(cohort_file(otsu, fixed, roles=("develop", "develop"))) == ["fixed", "otsu"]
    assert declared_tissue(cohort_file(otsu, fixed, roles=("external", "external"))) == ["fixed", "otsu"]
    assert declared_tissue(cohort_file(READY, None)) == []


def test_stain_is_normalised_in_one_way_and_by_default_not_at_all() -> None:
    macenko = FOLDER | {"stain": "macenko"}
    assert declared_stain(cohort_file(READY, None)) == declared_stain(cohort_file(FOLDER)) == "none"
    assert declared_stain(cohort_file(macenko, macenko)) == "macenko"
    with pytest.raises(ConfigurationError, match=r"macenko for c0, none for c1\. Declare the same"):
        declared_stain(cohort_file(macenko, FOLDER))
