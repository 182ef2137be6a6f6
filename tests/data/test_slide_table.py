from pathlib import Path

import pandas as pd
import pytest

from subfuse.data.cohort_file import SlidesSection
from subfuse.data.slide_table import find_slides, patient_of_slide, read_slides
from subfuse.errors import DataError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def folder(tmp_path):
    """One slide as GDC lays it out, one of an identifier with dots, a folder of tiles, a single image."""
    folder = tmp_path / "slides"
    touch(
        folder / "0a1b" / "TCGA-02-0047-01Z-00-DX1.4755.svs",
        folder / "0a1b" / "logs" / "x.parcel",
        folder / "case.7 slide.OME.TIFF",
        folder / "case-1_tiles" / "0_0.png",
        folder / "case-1_tiles" / "0_1.jpg",
        folder / "case-12.png",
        folder / ".hidden.svs",
    )
    return folder


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_find_slides(folder):
    assert {name: path.name for name, path in find_slides(folder).items()} == {
        "TCGA-02-0047-01Z-00-DX1.4755": "TCGA-02-0047-01Z-00-DX1.4755.svs",
        "case.7 slide": "case.7 slide.OME.TIFF",
        "case-1_tiles": "case-1_tiles",
        "case-12": "case-12.png",
    }


def test_two_files_of_one_identifier(folder):
    touch(folder / "case-12.svs")
    with pytest.raises(DataError, match=r"identifiers must be unique. Found 'case-12'"):
        find_slides(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match=r"Check slides\.folder"):
        find_slides(tmp_path / "none")


@pytest.mark.parametrize(
    ("slide", "patient"),
    [("case-1_tiles", "case-1"), ("case-12", "case-12"), ("case-123", None), ("case.7 slide", "case.7"), ("x", None)],
)
def test_patient_is_the_longest_prefix_that_ends_a_word(slide, patient):
    assert patient_of_slide(slide, {"case-1", "case-12", "case", "case.7"} - {"case"}) == patient


def test_folder_alone(folder):
    slides, left_out, warnings = read_slides(SlidesSection(folder=folder), ["TCGA-02-0047", "case-1", "case.7"])
    assert [(s.slide_id, s.patient_id, s.mpp) for s in slides] == [
        ("TCGA-02-0047-01Z-00-DX1.4755", "TCGA-02-0047", None),
        ("case-1_tiles", "case-1", None),
        ("case.7 slide", "case.7", None),
    ]
    assert left_out.to_numpy().tolist() == [["slide", "case-12", "its name begins with no patient's identifier"]]
    assert warnings == ()


def test_table_and_folder(folder, tmp_path):
    text = (
        "slide_id,patient_id,mpp\ncase-12.png,case-1,0.25\ncase-1_tiles,stranger,\ngone,case-1,\n"
        "TCGA-02-0047-01Z-00-DX1.4755,TCGA-02-0047-01Z,0.5\n"
    )
    section = SlidesSection(table=write(tmp_path / "slides.csv", text), folder=folder)
    slides, left_out, warnings = read_slides(section, ["TCGA-02-0047", "case-1"])
    assert [(s.slide_id, s.patient_id, s.mpp) for s in slides] == [
        ("TCGA-02-0047-01Z-00-DX1.4755", "TCGA-02-0047", 0.5),
        ("case-12", "case-1", 0.25),
    ]
    assert left_out.to_numpy().tolist() == [
        ["slide", "case-1_tiles", "stranger is not in the cohort"],
        ["slide", "gone", "no such file: gone"],
    ]
    assert "1 slides" in warnings[0]
    assert "case.7 slide" in warnings[0]


def test_table_with_paths_relative_to_the_table(folder, tmp_path):
    text = "slide_id\tpatient_id\tpath\ns1\tp\tslides/case-12.png\ns2\tp\tslides/none.svs\n"
    slides, left_out, _ = read_slides(SlidesSection(table=write(tmp_path / "slides.tsv", text)), ["p"])
    assert [slide.path for slide in slides] == [folder / "case-12.png"]
    assert left_out["id"].tolist() == ["s2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "slide_id,patient_id,path\na,p,x\na,p,y\n",
            r"row 3: slide_id must be given once. Found a again \(first: row 2\)",
        ),
        ("slide_id,patient_id,path\n,p,x\n", "row 2: slide_id must be given once. Found an empty cell"),
        ("slide_id,path,mpp\na,x,-1\n", "row 2: mpp must be a positive number .*Found '-1'"),
        ("slide_id,path,mpp\na,x,fine\n", "row 2: mpp must be"),
        ("patient_id,path\np,x\n", "a column `slide_id`"),
        ("slide_id,patient_id\na,p\n", "a column `path`"),
    ],
)
def test_bad_slide_tables(tmp_path, text, message):
    with pytest.raises(DataError, match=f"slides.csv.*{message}"):
        read_slides(SlidesSection(table=write(tmp_path / "slides.csv", text)), ["p"])


@pytest.mark.real_data
def test_real_slide_table_joins_every_patient(real_data, tmp_path):
    table = pd.read_csv(real_data / "tcga_gbmlgg" / "slides.csv")
    touch(*(tmp_path / f"{name}.svs" for name in table["slide_id"][:20]))
    section = SlidesSection(table=real_data / "tcga_gbmlgg" / "slides.csv", folder=tmp_path)
    slides, left_out, _ = read_slides(section, set(table["case_id"]))
    assert (len(slides), len(left_out)) == (20, 991)
    assert {(s.slide_id, s.patient_id) for s in slides} <= set(zip(table["slide_id"], table["case_id"], strict=True))
