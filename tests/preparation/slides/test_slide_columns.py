"""Slide tables under the names of other tools."""

import pytest

from subfuse.errors import DataError
from subfuse.preparation.slides.slide_columns import read_slide_table


def read(tmp_path, text):
    (tmp_path / "slides.csv").write_text(text)
    return read_slide_table(tmp_path / "slides.csv")


@pytest.mark.parametrize(
    "header", ["slide_id,patient_id", "Slide ID,case_id", "FILENAME,PATIENT", "slide_id,Case ID", "filename,patient_id"]
)
def test_slides_and_patients_under_the_names_of_tools(tmp_path, header):
    table = read(tmp_path, f"{header},mpp\ns1,p1,0.25\n")
    assert table.to_dict("records") == [{"slide_id": "s1", "patient_id": "p1", "mpp": "0.25"}]


def test_our_names_count_before_those_of_tools(tmp_path):
    table = read(tmp_path, "slide_id,patient_id,case_id,FILENAME\ns1,p1,c1,f1\n")
    assert table.loc[0, ["slide_id", "patient_id"]].tolist() == ["s1", "p1"]


def test_of_two_names_of_tools_one_is_used(tmp_path):
    assert read(tmp_path, "slide_id,patient,case_id\ns1,p1,c1\n").loc[0, "patient_id"] == "c1"


def test_slides_must_be_named(tmp_path):
    with pytest.raises(DataError, match=r"a column `slide_id` \(the slide\) is required\. Found case, x"):
        read(tmp_path, "case,x\np,1\n")
    with pytest.raises(DataError, match=r"Found slide, patient\. Rename"):  # as the file calls them
        read(tmp_path, "slide,patient\ns,p\n")
