"""Identifiers: barcodes, plain names, and names that are spelt otherwise."""

import unicodedata
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subfuse.identifiers import (
    LONGEST_NAME,
    composed,
    describe_mismatch,
    difference_of_spelling,
    is_plain_label,
    is_plain_name,
    patient_of_barcode,
    plain_name,
    same_but_for_spelling,
    sample_type_of_barcode,
    site_of_barcode,
    spelling_of_label,
    spelt_otherwise,
    vial_of_barcode,
)


def test_sample_types():
    assert [sample_type_of_barcode(b) for b in ("TCGA-02-0047-11A-01R", "TCGA-02-0047", "x")] == [11, None, None]
    assert patient_of_barcode("TCGA-02-0047X") == "TCGA-02-0047X"


@given(
    st.text(max_size=6)
    | st.sampled_from(["x" * 150, "x" * 151, "µ" * 75, "µ" * 76, "a/b", "..", "=1", "-f", " a", "a "])
)
def test_a_plain_name_is_one_file_below_its_folder_and_starts_no_formula_or_option(name: str):
    expected = (
        0 < len(name.encode(errors="replace")) <= LONGEST_NAME
        and all(c.isprintable() for c in name)
        and not name.startswith((".", "=", "+", "-", "@", " "))
        and not name.endswith(" ")
        and not any(c in name for c in "/\\")
        and name.strip() == name
    )
    assert is_plain_name(name) == expected
    if expected:
        assert PurePosixPath("folder", name).parent == PurePosixPath("folder")
        assert plain_name(name) == name
        assert is_plain_label(name)
    else:
        with pytest.raises(ValueError, match="a name must be printable"):
            plain_name(name)


@given(st.sampled_from("-."), st.sampled_from(["02", "DH", "a6"]), st.sampled_from(["0047", "a7rs"]),
       st.sampled_from(["", "01", "01A", "11B-02R-1850-01", "02Z-00-DX1.4755D138"]))  # fmt: skip
def test_every_barcode_names_patient_site_type_and_vial(mark: str, site: str, number: str, sample: str):
    barcode = mark.join(["TCGA", site, number, *([sample.replace("-", mark)] if sample else [])])
    patient = f"TCGA-{site}-{number}".upper()
    assert patient_of_barcode(barcode) == patient_of_barcode(barcode.lower()) == patient
    assert patient_of_barcode(patient) == patient
    assert site_of_barcode(barcode) == site.upper()
    assert sample_type_of_barcode(barcode) == (int(sample[:2]) if sample else None)
    assert vial_of_barcode(barcode) == (sample[2] if len(sample) > 2 else None)


def test_names_are_the_same_however_accents_are_stored():
    apart = unicodedata.normalize("NFD", "Müller-é")
    assert apart != "Müller-é"
    assert composed(apart) == composed("Müller-é") == patient_of_barcode(apart) == "Müller-é"


def test_spelling_joins_what_differs_in_case_zeros_and_separators_alone():
    same = {"P01", "p1", "P-01", "p_001", "P 1"}
    for name in same:
        assert same_but_for_spelling([name], ["P1"]) == {name: "P1"}
    assert same_but_for_spelling(["P10", "Q1", "P1x"], ["P1"]) == {}
    assert difference_of_spelling("P1", "p1") == "case"
    assert difference_of_spelling("P1", "P01") == "case, zeros or separators"


def test_a_name_of_several_near_ones_is_not_guessed():
    assert "one character" in spelt_otherwise(["PT-O07"], ["PT-007", "PT-119"])["PT-O07"]
    assert spelt_otherwise(["PT-008"], ["PT-007", "PT-009"]) == {}
    assert spelt_otherwise(["PT-007"], ["PT-007", "PT-009"]) == {}  # known as it is


def test_signs_and_points_of_labels_tell_them_apart():
    labels = ["G2", "G3", "IDH-", "IDH+", "1-3", "13", "1.05", "1.5"]
    assert len({spelling_of_label(label) for label in labels}) == len(labels)
    assert len({spelling_of_label(label) for label in ("G2", "g 2", "G-2", "G02", "g_2")}) == 1


def test_a_mismatch_shows_both_sides_and_the_nearest_pair():
    told = describe_mismatch(["P01", "P02"], {"slides": ["p2", "Q9"], "tables": []}, of_ours="patients")
    assert told.startswith("patients: P01, P02; slides: Q9, p2; tables: none; nearest: P02 and p2, which differ only")
    assert "nearest" not in describe_mismatch(["A01"], {"slides": ["B1"]}, of_ours="patients")
