"""Which slides and feature files a folder holds, and what each is called."""

import pytest
from slide_folders import touch, write_features, write_slides

from subfuse.errors import DataError
from subfuse.preparation.slides.slide_search import (
    FEATURE_SUFFIXES,
    feature_id_of,
    files_in_words,
    find_features,
    find_slides,
    slide_id_of,
)


@pytest.fixture
def folder(tmp_path):
    return write_slides(tmp_path)


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path)


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


def test_find_features(features):
    found = {name: path.relative_to(features).as_posix() for name, path in find_features(features).items()}
    assert found == {
        "case-1 a": "h5_files/case-1 a.h5",
        "case-12": "pt_files/case-12.pt",
        "TCGA-02-0047-01Z-00-DX1.4755": "TCGA-02-0047-01Z-00-DX1.4755.svs.h5",
        "case.7": "case.7.zarr",
    }


def test_features_of_two_encoders_in_one_folder(features):
    touch(features / "features_uni" / "case-12.h5")
    with pytest.raises(DataError, match=r"Found 'case-12' as .*Name the folder of one encoder as slides\.features"):
        find_features(features)
    with pytest.raises(DataError, match=r"Found none\. Check slides\.features"):
        find_features(features / "none")
    with pytest.raises(DataError, match=r"Found a file\. Check slides\.features"):
        find_features(features / "features_uni" / "case-12.h5")


def test_files_are_told_by_kind_the_commonest_first(tmp_path):
    assert files_in_words(tmp_path) == "no file"
    touch(*(tmp_path / f"{n}" / f"{n}.{suffix}" for suffix, count in (("csv", 3), ("TXT", 2)) for n in range(count)))
    touch(tmp_path / "LIESMICH", tmp_path / ".hidden.csv")
    assert files_in_words(tmp_path) == "3 .csv, 2 .txt, 1 without suffix"


@pytest.mark.parametrize("suffix", FEATURE_SUFFIXES)
def test_a_slide_and_its_features_have_one_identifier_in_every_form_of_unicode(suffix):
    apart = "Mu\N{COMBINING DIAERESIS}ller.7"
    names = {
        slide_id_of(f"{apart}.svs"),
        feature_id_of(f"{apart}{suffix}"),
        feature_id_of(f"{apart}.svs{suffix.upper()}"),
    }
    assert names == {"M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.7"}
