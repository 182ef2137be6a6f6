"""What a slide is called by its file."""

import pytest

from subfuse.slides.file_names import SLIDE_SUFFIXES, slide_id_of
from subfuse.slides.image_folders import IMAGE_SUFFIXES


@pytest.mark.parametrize("suffix", [*SLIDE_SUFFIXES, *IMAGE_SUFFIXES])
def test_just_one_suffix_of_a_slide_is_no_part_of_its_name(suffix):
    for name in ("case.7", "case.svs", "TCGA-02-0047-01Z-00-DX1.4755D138"):
        assert slide_id_of(name + suffix) == slide_id_of((name + suffix).removesuffix(suffix) + suffix.upper()) == name


def test_names_are_composed_so_that_each_has_one_spelling():
    assert slide_id_of("a\u0308.svs") == "\u00e4"
