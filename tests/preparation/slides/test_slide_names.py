"""Slides find their patient by name, and those that do not are told with the nearest one."""

from pathlib import Path

import pytest

from subfuse.preparation.slides.slide_names import note_of_unmatched, patient_of_slide, spelt_as


@pytest.mark.parametrize(
    ("slide", "patient"),
    [("case-1_tiles", "case-1"), ("case-12", "case-12"), ("case-123", None), ("case.7 slide", "case.7"), ("x", None)],
)
def test_patient_is_the_longest_prefix_that_ends_a_word(slide, patient):
    assert patient_of_slide(slide, {"case-1", "case-12", "case", "case.7"} - {"case"}) == patient


@pytest.mark.parametrize(
    ("slide", "nearest"),
    [
        ("HOSPITAL-P0007", "P0007"),  # holds it
        ("p_0007_a", "P0007"),  # spelt otherwise
        ("P007x_a", "P0007"),
        ("Q0007_a", "P0007"),  # one character
        ("biopsy", None),
        ("TCGA-02-0001-01Z-00-DX1", None),  # says itself whose it is
    ],
)
def test_the_nearest_patient_is_told(slide, nearest):
    (said,) = note_of_unmatched(Path("wsi"), 2, [slide], ["P0007", "Patient-22", "TCGA-02-0002"])
    told = "" if nearest is None else f" (nearest patient {nearest})"
    assert said == f"wsi: 2 of 3 slides matched by name; not matched: {slide}{told}"


def test_three_are_shown_and_all_are_counted():
    (said,) = note_of_unmatched(Path("wsi"), 0, ["a", "b", "c", "d", "e"], [])
    assert said == "wsi: 0 of 5 slides matched by name; not matched: a, b, c and 2 more"
    assert note_of_unmatched(Path("wsi"), 5, [], ["P1"]) == ()


def test_another_spelling_is_known_from_the_beginning_of_a_name():
    assert spelt_as("case 1 slide", ["CASE-01"]) == "CASE-01"
    assert spelt_as("slide of case 1", ["CASE-01"]) is None
