"""Which slides and feature files a folder holds, and what each is called."""

import pytest
from slide_folders import touch, write_features, write_slides
from tool_files import write_hdf5

from subfuse.errors import DataError
from subfuse.preparation.slides.feature_sets import find_feature_sets
from subfuse.preparation.slides.slide_search import (
    FEATURE_SUFFIXES,
    feature_id_of,
    files_in_words,
    find_features,
    find_slides,
    vectors_of_slides,
    without_features,
)
from subfuse.slides.file_names import slide_id_of
from trident_job import TILING, write_job


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
    found = {name: path.relative_to(features).as_posix() for name, path in find_features(features)[0].items()}
    assert found == {
        "case-1 a": "h5_files/case-1 a.h5",
        "case-12": "pt_files/case-12.pt",
        "TCGA-02-0047-01Z-00-DX1.4755": "TCGA-02-0047-01Z-00-DX1.4755.svs.h5",
        "case.7": "case.7.zarr",
    }


def test_features_of_two_encoders_in_one_folder(features):
    touch(features / "features_uni" / "case-12.h5")
    remedy = r"Name the folder of one encoder and tiling, such as features_uni, as slides\.features"
    with pytest.raises(DataError, match=rf"Found 'case-12' as .*{remedy}"):
        find_features(features)
    with pytest.raises(DataError, match=r"Found none\. Check slides\.features"):
        find_features(features / "none")
    with pytest.raises(DataError, match=r"Found another file\. Check slides\.features"):
        find_features(features / "features_uni" / "case-12.h5")


@pytest.mark.parametrize(
    ("encoders", "declared", "read"),
    [
        (("uni_v1",), None, "features_uni_v1"),
        (("uni_v1",), "titan", "slide_features_titan"),
        (("uni_v1",), "another", "features_uni_v1"),  # the files say whose they are
        (("uni_v1", "conch_v15"), "conch1_5", "features_conch_v15"),
        ((), None, "slide_features_titan"),
    ],
)
def test_of_a_job_of_trident_the_features_of_one_encoder_are_read(tmp_path, encoders, declared, read):
    job = write_job(tmp_path / "job", {"A": 0.25, "B": 0.25}, encoders=encoders)
    found, unread = find_features(job, declared)
    assert found == {name: job / TILING / read / f"{name}.h5" for name in "AB"}
    assert set(unread) == {*(f"features_{name}" for name in encoders), "slide_features_titan"} - {read}


@pytest.mark.parametrize(
    ("declared", "words"),
    [(None, "Found those of conch_v15, uni_v1, titan"), ("virchow", "slides.encoder is virchow. Found")],
)
def test_of_several_encoders_one_is_to_be_named(tmp_path, declared, words):
    job = write_job(tmp_path / "job", {"A": 0.25}, encoders=("uni_v1", "conch_v15"))
    with pytest.raises(DataError, match=f"job: features of one encoder are required. {words}"):
        find_features(job, declared)


def test_what_lies_in_a_store_is_no_folder_of_features(tmp_path):
    touch(*(tmp_path / "A.zarr" / "tables" / f"features_{name}" / "X.h5" for name in ("uni", "conch")))
    assert find_features(tmp_path) == ({"A": tmp_path / "A.zarr"}, ())


def test_coordinates_beside_features_of_clam_are_no_features(tmp_path):
    touch(*(tmp_path / folder / "A.h5" for folder in ("patches", "h5_files")), tmp_path / "pt_files" / "A.pt")
    assert find_features(tmp_path)[0] == {"A": tmp_path / "h5_files" / "A.h5"}
    touch(tmp_path / "alone" / "patches" / "B.h5")
    assert find_features(tmp_path / "alone")[0] == {"B": tmp_path / "alone" / "patches" / "B.h5"}


def test_files_are_told_by_kind_the_commonest_first(tmp_path):
    assert files_in_words(tmp_path) == "no file"
    touch(*(tmp_path / f"{n}" / f"{n}.{suffix}" for suffix, count in (("csv", 3), ("TXT", 2)) for n in range(count)))
    touch(tmp_path / "LIESMICH", tmp_path / ".hidden.csv")
    assert files_in_words(tmp_path) == "3 .csv, 2 .txt, 1 without suffix"


def test_slides_of_a_job_that_have_only_places_are_told(tmp_path):
    job = write_job(tmp_path / "job", {"a.1": 0.25, "b": 0.25, "c": 0.25})
    assert without_features(job, find_features(job)[0]) == []
    for name in ("a.1", "c"):
        (job / TILING / "features_uni_v1" / f"{name}.h5").unlink()
    assert without_features(job, find_features(job)[0]) == ["a.1", "c"]
    assert find_feature_sets(job, (), None).notes[-1] == (
        f"{job}: of 2 slides only places of patches are there (a.1, c)"
    )


def test_vectors_of_all_slides_are_found_where_there_is_nothing_else(tmp_path):
    first = write_hdf5(tmp_path / "v" / "titan-slide-1.h5", on_file={"encoder": "titan"}, a=[1.0])
    assert vectors_of_slides(first, None) == vectors_of_slides(tmp_path / "v", "uni") == first
    second = write_hdf5(tmp_path / "v" / "prism-slide-2.h5", on_file={"encoder": "prism"}, a=[1.0])
    assert vectors_of_slides(tmp_path / "v", "prism") == second
    with pytest.raises(DataError, match=r"Found prism-slide-2\.h5 of prism, titan-slide-1\.h5 of titan\. Name"):
        vectors_of_slides(tmp_path / "v", None)
    write_hdf5(tmp_path / "v" / "uni" / "a.h5", feats=[[1.0]])
    assert vectors_of_slides(tmp_path / "v", "titan") is None
    assert vectors_of_slides(tmp_path / "absent", None) is None
    (tmp_path / "empty").mkdir()
    assert vectors_of_slides(tmp_path / "empty", None) is None


@pytest.mark.parametrize("suffix", FEATURE_SUFFIXES)
def test_a_slide_and_its_features_have_one_identifier_in_every_form_of_unicode(suffix):
    apart = "Mu\N{COMBINING DIAERESIS}ller.7"
    names = {
        slide_id_of(f"{apart}.svs"),
        feature_id_of(f"{apart}{suffix}"),
        feature_id_of(f"{apart}.svs{suffix.upper()}"),
    }
    assert names == {"M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller.7"}
