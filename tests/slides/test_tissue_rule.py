"""How tissue is found, as the cohort file declares it."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from subfuse.errors import ConfigurationError, DataError
from subfuse.slides.tissue_rule import (
    TISSUE_MODELS,
    DeclaredTissue,
    folder_of_outlines,
    model_of,
    recorded_rule,
    require_rule,
)

DECLARED = TypeAdapter(DeclaredTissue)


def test_rules_are_taken_as_they_are_and_folders_relative_to_the_cohort_file(tmp_path: Path) -> None:
    for rule in ("fixed", "otsu", "lazyslide:hest"):
        assert DECLARED.validate_python(rule, context={"base": tmp_path}) == rule
    assert DECLARED.validate_python("geojson:a/b", context={"base": tmp_path}) == f"geojson:{tmp_path / 'a' / 'b'}"
    assert DECLARED.validate_python(f"geojson:{tmp_path}") == f"geojson:{tmp_path}"


@pytest.mark.parametrize("rule", ["", "Otsu", "geojson", "geojson:", "lazyslide:", "fixed:3", "hest"])
def test_other_rules_are_refused(rule: str) -> None:
    with pytest.raises(ValidationError, match="must be `fixed`, `otsu`, `lazyslide:MODEL` or `geojson:FOLDER`"):
        DECLARED.validate_python(rule)


def test_models_are_those_that_find_tissue_by_key_or_short_name() -> None:
    assert model_of("lazyslide:hest") == model_of("lazyslide:hest-tissue-segmentation") == "hest-tissue-segmentation"
    assert model_of("lazyslide:grandqc") == "grandqc-tissue"
    assert model_of("otsu") is None
    assert model_of("geojson:lazyslide:hest") is None
    with pytest.raises(ConfigurationError, match=r"Found 'grandcq'\. Did you mean grandqc\?"):
        require_rule("lazyslide:grandcq")


def test_models_of_tissue_are_registered() -> None:
    registry = pytest.importorskip("lazyslide_models").MODEL_REGISTRY
    assert all(registry[name].task.value == "segmentation" for name in TISSUE_MODELS)


def test_a_folder_of_outlines_must_be_there(tmp_path: Path) -> None:
    require_rule(f"geojson:{tmp_path}")
    assert folder_of_outlines(f"geojson:{tmp_path}") == tmp_path
    with pytest.raises(DataError, match=r"none: a folder of outlines.*Found nothing"):
        require_rule(f"geojson:{tmp_path / 'none'}")


def test_another_rule_is_recorded_otherwise_but_not_a_short_name() -> None:
    rules = ["fixed", "otsu", "lazyslide:hest", "lazyslide:grandqc", "geojson:a"]
    assert len({recorded_rule(rule) for rule in rules}) == len(rules)
    assert recorded_rule("lazyslide:hest") == recorded_rule("lazyslide:hest-tissue-segmentation")
    assert recorded_rule("geojson:a") == recorded_rule("geojson:b")
    assert recorded_rule("fixed") == "saturation 15, pen by absorbance 2"  # of every prepared folder so far
