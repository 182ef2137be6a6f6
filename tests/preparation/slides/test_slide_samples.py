from pathlib import Path

import pytest

from subfuse.errors import DataError
from subfuse.preparation.slides.slide_table import read_slides
from subfuse.slides.source import FeatureFiles, SlideFolder

NAMES = (
    "TCGA-A1-1001-01Z-00-DX1.ABCD",
    "TCGA-A1-1001-02A-01-TS1",
    "TCGA-A1-1001-11A-02-TSB",
    "tcga-a1-1002-11a-02-tsb",
    "tcga-a1-1002-01z-00-dx1",
    "TCGA-A1-1003-06A-01-TS1",
)
PATIENTS = [f"TCGA-A1-100{i}" for i in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / f"{name}.svs").touch()
    return tmp_path


def test_normal_tissue_is_never_used_and_the_primary_tumour_comes_first(folder: Path) -> None:
    slides, exclusions, _ = read_slides(SlideFolder(folder=folder), PATIENTS)

    assert {slide.slide_id: slide.patient_id for slide in slides} == {
        "TCGA-A1-1001-01Z-00-DX1.ABCD": "TCGA-A1-1001",
        "tcga-a1-1002-01z-00-dx1": "TCGA-A1-1002",
        "TCGA-A1-1003-06A-01-TS1": "TCGA-A1-1003",  # there is nothing of the primary tumour
    }
    assert exclusions.set_index("id")["reason"].to_dict() == {
        "TCGA-A1-1001-02A-01-TS1": "not the primary tumour, of which TCGA-A1-1001 has a slide",
        "TCGA-A1-1001-11A-02-TSB": "normal tissue",
        "tcga-a1-1002-11a-02-tsb": "normal tissue",
    }


def test_slides_to_include_are_used_whatever_they_show(folder: Path) -> None:
    slides, exclusions, _ = read_slides(SlideFolder(folder=folder, include=NAMES[1:3]), PATIENTS)
    assert {slide.slide_id for slide in slides} == {*NAMES[:3], *NAMES[4:]}
    assert exclusions["id"].tolist() == [NAMES[3]]
    with pytest.raises(DataError, match=r"slides\.include.*Not found: absent"):
        read_slides(SlideFolder(folder=folder, include=("absent",)), PATIENTS)


def test_the_slide_table_may_say_it_in_words_or_by_the_sample(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.svs").touch()
    rows = [
        "slide_id,patient_id,sample_type",
        "a,TCGA-A1-1001,Primary Tumor",
        "b,TCGA-A1-1001,Solid Tissue Normal",
        "c,TCGA-A1-1002-11A,",
        "d,TCGA-A1-1002-01A,",
    ]
    (tmp_path / "slides.csv").write_text("\n".join(rows))
    slides, exclusions, _ = read_slides(SlideFolder(folder=tmp_path, table=tmp_path / "slides.csv"), PATIENTS)
    assert [slide.slide_id for slide in slides] == ["a", "d"]
    assert exclusions["reason"].tolist() == ["normal tissue", "normal tissue"]


@pytest.mark.real_data
def test_given_slides_of_other_tissue(cases: Path) -> None:
    folder = cases / "normal_tissue_slides" / "features"
    patients = {path.name[:12] for path in folder.iterdir()}
    slides, exclusions, _ = read_slides(FeatureFiles(features=folder, encoder="toy"), patients)
    assert len(slides) == 11
    assert sorted(exclusions["reason"].str[:10]) == ["normal tis"] * 3 + ["not the pr"] * 2


def test_only_slides_of_the_declared_kinds_are_used_before_their_tissue_counts(folder: Path) -> None:
    slides, exclusions, said = read_slides(SlideFolder(folder=folder, kinds=("ts",)), PATIENTS)

    assert [slide.slide_id for slide in slides] == ["TCGA-A1-1001-02A-01-TS1", "TCGA-A1-1003-06A-01-TS1"]
    reasons = exclusions.set_index("id")["reason"].to_dict()
    assert reasons["TCGA-A1-1001-01Z-00-DX1.ABCD"] == "of kind DX, which slides.kinds does not name"
    assert reasons["TCGA-A1-1001-11A-02-TSB"] == "normal tissue"
    assert len(slides) + len(exclusions) == len(NAMES)
    assert said == ()


def test_fixed_and_frozen_slides_together_are_said(folder: Path) -> None:
    *_, said = read_slides(SlideFolder(folder=folder), PATIENTS)
    assert said == ("fixed and frozen slides are used together: DX (2), TS (4). Name those to use as slides.kinds",)


def test_kinds_of_a_table_are_its_own_words(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text(f"slide_id,Kind\n{NAMES[0]},Frozen\n{NAMES[4]},FFPE\n{NAMES[5]},\n")
    slides, _, _ = read_slides(SlideFolder(folder=folder, table=table, kinds=("frozen",)), PATIENTS)
    assert [slide.slide_id for slide in slides] == [NAMES[0]]


def test_kinds_that_nothing_tells_or_no_slide_has_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"slides\.kinds: kinds .* Not found: FFPE\. There are DX, TS"):
        read_slides(SlideFolder(folder=folder, kinds=("DX", "FFPE")), PATIENTS)
    (folder / "case-1_a.svs").touch()
    with pytest.raises(DataError, match=r"slides\.kinds: the kind of every slide .* Found none of case-1_a"):
        read_slides(SlideFolder(folder=folder, kinds=("DX",)), [*PATIENTS, "case-1"])
