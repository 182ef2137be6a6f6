"""Patches of another width on the tissue are another input, whatever the encoder."""

import pytest

from subfuse.slides.patch_width import beyond_training, mixed_widths


@pytest.mark.parametrize("width", [119.0, 128.0, 131.0])
def test_pixel_sizes_of_scanners_at_one_magnification_are_one_scale(width):
    assert not mixed_widths({"a": 119.0, "b": 128.0, "c": width})
    assert not beyond_training(width, (128.0, 128.0))


@pytest.mark.parametrize("width", [64.0, 256.0, 512.0])
def test_another_magnification_is_another_scale_and_names_the_fewer_slides(width):
    (warning,) = mixed_widths({"a": 128.0, "b": width, "c": 128.5})
    assert f"about 128 µm in 2 slides, {width:.0f} µm in 1 (b)" in warning
    assert beyond_training(width, (127.0, 129.0))
    assert not beyond_training(width, (min(width, 128.0), max(width, 128.0)))


def test_a_width_by_spacing_alone_has_the_remedy_of_the_file_first():
    widths = {"a": 128.0, "b": 256.0, "c": 128.5}
    (warning,) = mixed_widths(widths, by_spacing=["b", "z"])
    assert "In 1 (b) it is only how far patches lie apart: where it is wrong, write" in warning
    assert warning.index("`patch_size_level0` of `coords`") < warning.index("Else correct mpp")
    (recorded,) = mixed_widths(widths)
    assert "patch_size_level0" not in recorded
    assert mixed_widths(widths, by_spacing=["a"]) == (recorded,)  # as wide as others, whose width is recorded
    assert "In 2 (a, c)" in mixed_widths(widths, by_spacing=["a", "c"])[0]


def test_a_cohort_without_places_has_no_widths_to_compare():
    assert mixed_widths({}) == ()
