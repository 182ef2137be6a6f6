from pathlib import Path

import pandas as pd
import pytest
from slide_folders import touch, write_features, write_slides
from tool_files import write_hdf5

from subfuse.errors import ConfigurationError, DataError
from subfuse.identifiers import NAME_RULE
from subfuse.preparation.slides.feature_survey import survey_features
from subfuse.preparation.slides.slide_search import find_slides
from subfuse.preparation.slides.slide_table import read_slides, require_slides
from subfuse.slides.source import FeatureFiles, FeatureRows, FeatureSource, SlideFolder, SlideList


@pytest.fixture
def folder(tmp_path):
    return write_slides(tmp_path)


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_dicom_files_of_a_subfolder_are_the_levels_of_one_slide(tmp_path):
    folder = tmp_path / "slides"
    touch(*(folder / "case-1_dx" / f"{level}.dcm" for level in "abc"), folder / "case-1_dx" / "case-1_other.svs")
    touch(folder / "case-2.dcm", folder / "case-3.dcm", folder / "uuid" / "case-4.dcm")
    assert find_slides(folder) == {
        "case-1_dx": folder / "case-1_dx" / "a.dcm",
        "case-1_other": folder / "case-1_dx" / "case-1_other.svs",
        "case-2": folder / "case-2.dcm",
        "case-3": folder / "case-3.dcm",
        "case-4": folder / "uuid" / "case-4.dcm",
    }
    table = write(tmp_path / "slides.csv", "slide_id,patient_id,path\ns,case-1,case-1_dx\n")
    (found,), _, _ = read_slides(SlideFolder(table=table, folder=folder), ["case-1"])
    assert (found.slide_id, found.path) == ("s", folder / "case-1_dx" / "a.dcm")


def test_names_in_another_form_of_unicode_are_the_same(tmp_path):
    apart = "Mu\N{COMBINING DIAERESIS}ller"  # as macOS writes file names
    together = "M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller"
    touch(tmp_path / "slides" / f"{apart}00_a.svs", tmp_path / "slides" / f"{together}01.svs")
    folder = SlideFolder(folder=tmp_path / "slides")
    (first, second), left_out, _ = read_slides(folder, [f"{together}00", f"{together}01"])
    assert [(slide.slide_id, slide.patient_id) for slide in (first, second)] == [
        (f"{together}00_a", f"{together}00"), (f"{together}01", f"{together}01")]  # fmt: skip
    assert first.path.exists()
    assert left_out.empty
    table = write(tmp_path / "slides.csv", f"slide_id,patient_id\n{together}00_a,{apart}00\n{apart}01,{together}01\n")
    listed, _, _ = read_slides(folder.model_copy(update={"table": table}), [f"{together}00", f"{together}01"])
    assert [slide.path for slide in listed] == [first.path, second.path]
    touch(tmp_path / "slides" / f"{together}00_a.svs")
    with pytest.raises(DataError, match="identifiers must be unique"):
        find_slides(tmp_path / "slides")


@pytest.mark.parametrize("slide_id", ["HOSPITAL-P000", "hospital_p000_dx1", "P000b"])
def test_a_slide_whose_name_holds_a_patient_is_named_as_the_nearest(tmp_path, slide_id):
    touch(tmp_path / "slides" / f"{slide_id}.svs")
    section = SlideFolder(folder=tmp_path / "slides")
    slides, exclusions, _ = read_slides(section, ["P000", "P001"])
    with pytest.raises(DataError, match=f"nearest: P000 and {slide_id}"):
        require_slides(section, ["P000", "P001"], slides, exclusions)


def test_a_name_that_begins_with_a_patient_in_another_spelling_says_so(tmp_path):
    touch(tmp_path / "slides" / "p_001_a.svs")
    _, exclusions, _ = read_slides(SlideFolder(folder=tmp_path / "slides"), ["P0", "P1"])
    assert exclusions["reason"].tolist() == [
        "its name begins with no patient's identifier, but with another spelling of P1"
    ]


def test_folder_alone(folder):
    slides, left_out, warnings = read_slides(SlideFolder(folder=folder), ["TCGA-02-0047", "case-1", "case.7"])
    assert [(s.slide_id, s.patient_id, s.mpp) for s in slides] == [
        ("TCGA-02-0047-01Z-00-DX1.4755", "TCGA-02-0047", None),
        ("case-1_tiles", "case-1", None),
        ("case.7 slide", "case.7", None),
    ]
    assert left_out.to_numpy().tolist() == [["slide", "case-12", "its name begins with no patient's identifier"]]
    assert warnings == (f"{folder}: 3 of 4 slides matched by name; not matched: case-12 (nearest patient case-1)",)


def test_table_and_folder(folder, tmp_path):
    text = (
        "slide_id,patient_id,mpp\ncase-12.png,case-1,0.25\ncase-1_tiles,stranger,\ngone,case-1,\n"
        "TCGA-02-0047-01Z-00-DX1.4755,TCGA-02-0047-01Z,0.5\n"
    )
    section = SlideFolder(table=write(tmp_path / "slides.csv", text), folder=folder)
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
    slides, left_out, _ = read_slides(SlideList(table=write(tmp_path / "slides.tsv", text)), ["p"])
    assert [slide.path for slide in slides] == [folder / "case-12.png"]
    assert left_out["id"].tolist() == ["s2"]


def test_decimal_commas_of_resolutions_are_read_and_said(folder, tmp_path):
    table = write(tmp_path / "slides.csv", "slide_id;patient_id;mpp\ncase-12.png;case-1;0,25\n")
    slides, _, said = read_slides(SlideFolder(folder=folder, table=table), ["case-1"])
    assert [slide.mpp for slide in slides] == [0.25]
    assert "slides.csv: semicolons separate its columns; commas are read as decimal ones in mpp" in said


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
        read_slides(SlideList(table=write(tmp_path / "slides.csv", text)), ["p"])


def slides_of(tmp_path, text: str, patients=("A-1", "A-2")):
    """The slides of a table in a folder that has those called A-1_x, A-1_y and A-2_x, by patient; and the warnings."""
    for name in ("A-1_x", "A-1_y", "A-2_x", "TCGA-02-0001-01Z-00-DX1"):
        touch(tmp_path / "slides" / f"{name}.svs")
    section = SlideFolder(table=write(tmp_path / "slides.csv", text), folder=tmp_path / "slides")
    slides, exclusions, warnings = read_slides(section, patients)
    return {slide.slide_id: slide.patient_id for slide in slides}, exclusions, warnings


@pytest.mark.parametrize("header", ["Sample Type", "SAMPLE_TYPE", "Tissue.Type", "tissue"])
def test_a_slide_table_says_what_is_no_tumour_under_any_of_its_usual_headers(tmp_path, header):
    text = f"Slide ID,Patient ID,{header}\nA-1_x,A-1,Tumor\nA-1_y,A-1,Normal\nA-2_x,A-2,\n"
    slides, exclusions, warnings = slides_of(tmp_path, text)
    assert slides == {"A-1_x": "A-1", "A-2_x": "A-2"}
    assert exclusions[["id", "reason"]].to_numpy().tolist() == [["A-1_y", "normal tissue"]]
    assert not [text for text in warnings if "no known type" in text]


def test_words_for_a_type_that_are_not_understood_are_named(tmp_path):
    text = "slide_id,patient_id,sample_type\nA-1_x,A-1,Mittelschnitt\nA-2_x,A-2,Metastasis\n"
    _, _, warnings = slides_of(tmp_path, text)
    assert any("Mittelschnitt is no known type of a sample" in text for text in warnings)


@pytest.mark.parametrize("prefix", ["", "scan_", "scan "])
def test_a_slide_whose_barcode_names_another_patient_is_refused(tmp_path, prefix):
    text = f"slide_id,patient_id\nA-1_x,A-1\n{prefix}TCGA-02-0001-01Z-00-DX1,TCGA-02-0002\n"
    with pytest.raises(DataError, match=r"row 3: .* by its barcode of TCGA-02-0001, for TCGA-02-0002"):
        slides_of(tmp_path, text, ("A-1", "TCGA-02-0002"))


def test_slides_of_one_person_are_refused_for_two_patients_whatever_these_are_called(tmp_path):
    text = "slide_id,patient_id\nTCGA-02-0001-01Z-00-DX1,{}\nscan_TCGA-02-0001-01Z-00-DX2,{}\n"
    with pytest.raises(DataError, match=r"DX1 for A-1 and scan_.*DX2 for A-2, by their barcodes of TCGA-02-0001"):
        slides_of(tmp_path, text.format("A-1", "A-2"), ("A-1", "A-2"))
    slides_of(tmp_path, text.format("A-1", "A-1"), ("A-1", "A-2"))
    slides_of(tmp_path, text.format("A-1", "B-9"), ("A-1", "A-2"))  # who is not in the cohort is in no fold


def test_a_slide_that_is_named_for_another_patient_of_the_cohort_is_told(tmp_path):
    _, _, warnings = slides_of(tmp_path, "slide_id,patient_id\nA-1_x,A-1\nA-1_y,A-2\n")
    assert any("A-1_y of A-2: by its name a slide of another patient" in text for text in warnings)
    _, _, warnings = slides_of(tmp_path, "slide_id,patient_id\nA-1_x,A-1\nA-2_x,A-2\n")
    assert not any("by its name" in text for text in warnings)


def test_feature_files_join_the_table(features, tmp_path):
    text = (
        "slide_id,patient_id,mpp,path\ncase-1 a.h5,case-1,0.25,\ncase-12.svs,case-1,,\n"
        "other,case-1,,pt_files/case-12.pt\ngone,case-1,0.5,\n"
    )
    section = FeatureFiles(table=write(tmp_path / "slides.csv", text), features=features, encoder="uni")
    slides, left_out, warnings = read_slides(section, ["case-1"])
    assert [(s.slide_id, s.path.name, s.mpp) for s in slides] == [
        ("case-1 a", "case-1 a.h5", 0.25),
        ("case-12", "case-12.pt", None),
        ("other", "case-12.pt", None),
    ]
    assert all(isinstance(s, FeatureSource) and s.encoder == "uni" and not s.in_table for s in slides)
    assert left_out.to_numpy().tolist() == [["slide", "gone", f"no feature file in {features}"]]
    assert warnings == (
        f"2 slides of {features} are not in slides.csv and are not used (TCGA-02-0047-01Z-00-DX1.4755, case.7)",
    )


def test_a_table_of_stamp_names_features_by_their_path_in_the_folder(tmp_path):
    folder = tmp_path / "features"
    touch(folder / "c1-DX1" / "c1-DX1.h5", folder / "c2-DX1" / "c2-DX1.h5")
    rows = "c1-DX1/c1-DX1.h5,c1\nc2-DX1/c2-DX1.h5,c2\nc9-DX1/c2-DX1.h5,c2\n"
    table = write(tmp_path / "slide.csv", f"FILENAME,PATIENT\n{rows}")
    found, left_out, _ = read_slides(FeatureFiles(table=table, features=folder), ["c1", "c2"])
    assert [(slide.slide_id, slide.patient_id, slide.path.name) for slide in found] == [
        ("c1-DX1", "c1", "c1-DX1.h5"),
        ("c2-DX1", "c2", "c2-DX1.h5"),
    ]
    assert "c9-DX1/c2-DX1" in left_out["id"].iloc[0]  # no file there


def test_vectors_of_patients_need_no_slide_table(tmp_path):
    touch(tmp_path / "features" / "c1.h5", tmp_path / "features" / "c2.h5")
    table = write(tmp_path / "slide.csv", "FILENAME,PATIENT\nc1-DX1.h5,c1\nc2-DX1.h5,c2\n")
    section = FeatureFiles(table=table, features=tmp_path / "features")
    slides, left_out, _ = read_slides(section, ["c1", "c2"])
    with pytest.raises(DataError, match=r"2 files are called as patients: remove `slides\.table`"):
        require_slides(section, ["c1", "c2"], slides, left_out)
    assert len(read_slides(section.model_copy(update={"table": None}), ["c1", "c2"])[0]) == 2


def test_rows_of_a_feature_table_are_slides(tmp_path):
    table = write(tmp_path / "areas.csv", "slide_id,area\ncase-1.svs,1\ncase-2_b,2\nx/y,3\nstranger,4\n")
    slides, left_out, _ = read_slides(FeatureRows(feature_table=table), ["case-1", "case-2", "x"])
    assert [(s.slide_id, s.patient_id, s.path, s.in_table) for s in slides] == [
        ("case-1.svs", "case-1", table, True),
        ("case-2_b", "case-2", table, True),
    ]
    assert left_out.to_numpy().tolist() == [
        ["slide", "stranger", "its name begins with no patient's identifier"],
        ["slide", "x/y", f"its identifier names files: {NAME_RULE}"],
    ]


def test_one_file_of_stamp_has_the_features_of_all_slides(tmp_path):
    folder = tmp_path / "encoded"
    path = write_hdf5(
        folder / "titan-slide-1a2b3c4d.h5", on_file={"encoder": "titan"}, **{"c-1_x": [1.0], "c-2": [2.0]}
    )
    for place in (path, folder):
        slides, left_out, notes = read_slides(FeatureFiles(features=place), ["c-1", "c-2", "c-3"])
        assert [(s.slide_id, s.patient_id, s.path) for s in slides] == [("c-1_x", "c-1", path), ("c-2", "c-2", path)]
        assert survey_features(slides).encoder == "titan"
        assert (len(left_out), notes) == (0, ())
    listed = write(tmp_path / "slides.csv", "FILENAME,PATIENT\nc-1_x.h5,p\nc-9.h5,p\n")
    slides, left_out, _ = read_slides(FeatureFiles(table=listed, features=path), ["p"])
    assert [s.slide_id for s in slides] == ["c-1_x"]
    assert left_out["reason"].tolist() == ["no row in titan-slide-1a2b3c4d.h5"]
    _, _, notes = read_slides(FeatureFiles(features=folder, encoder="prism"), ["c-1", "c-2"])
    assert notes == ("the features are of encoder titan, as titan-slide-1a2b3c4d.h5 says; slides.encoder says prism",)
    with pytest.raises(DataError, match="Leave `concatenate` out"):
        read_slides(FeatureFiles(features=folder, concatenate=(tmp_path,)), ["c-1"])


def test_a_slide_table_assigns_the_rows_of_a_feature_table(tmp_path):
    table = write(tmp_path / "areas.csv", "slide_id,area\na,1\nb,2\n")
    listed = write(tmp_path / "slides.csv", "slide_id,patient_id\na,p\nc,p\n")
    slides, left_out, warnings = read_slides(FeatureRows(table=listed, feature_table=table), ["p"])
    assert [slide.slide_id for slide in slides] == ["a"]
    assert left_out.to_numpy().tolist() == [["slide", "c", "no row in areas.csv"]]
    assert "1 slides" in warnings[0]


@pytest.mark.real_data
def test_real_slide_table_joins_every_patient(real_data, tmp_path):
    table = pd.read_csv(real_data / "tcga_gbmlgg" / "slides.csv")
    touch(*(tmp_path / f"{name}.svs" for name in table["slide_id"][:20]))
    section = SlideFolder(table=real_data / "tcga_gbmlgg" / "slides.csv", folder=tmp_path)
    slides, left_out, _ = read_slides(section, set(table["case_id"]))
    assert (len(slides), len(left_out)) == (20, 991)
    assert {(s.slide_id, s.patient_id) for s in slides} <= set(zip(table["slide_id"], table["case_id"], strict=True))


def test_slides_bear_how_their_tissue_is_found_and_what_cannot_find_it_is_refused_at_once(folder, tmp_path):
    section = SlideFolder(folder=folder, tissue="otsu")
    ids = [name.rpartition("_")[0] or name for name in find_slides(folder)] + list(find_slides(folder))
    assert {slide.tissue for slide in read_slides(section, ids)[0]} == {"otsu"}
    table = write(tmp_path / "t.csv", f"slide_id,patient_id,path\ns,p,{folder}\n")
    assert {slide.tissue for slide in read_slides(SlideList(table=table, tissue="otsu"), ["p"])[0]} == {"otsu"}
    with pytest.raises(ConfigurationError, match="Did you mean pathprofiler"):
        read_slides(SlideFolder(folder=folder, tissue="lazyslide:pathprofile"), ids)
    with pytest.raises(DataError, match="a folder of outlines"):
        read_slides(SlideFolder(folder=folder, tissue=f"geojson:{tmp_path / 'absent'}"), ids)
