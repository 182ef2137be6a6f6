"""The section `slides` of a draft."""

import h5py
import numpy as np
import pytest
import yaml
from recognised_folders import PATIENTS
from tool_files import write_hdf5
from wsidata_store import write_store

from subfuse.cohort.cohort_file import CohortFile
from subfuse.errors import DataError
from subfuse.preparation.slides.slide_table import read_slides
from subfuse.recognition.kinds import find_tables
from subfuse.recognition.slides import slides_lines
from trident_job import TILING, write_job

NAMES = [f"{patient}-01Z-00-DX1" for patient in PATIENTS[:4]]
COORDS = 512 * np.stack([np.arange(6) % 3, np.arange(6) // 3], axis=1)
FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def drafted(folder):
    text = "\n".join(slides_lines(folder, *find_tables(folder), folder))
    return text, (yaml.safe_load(text) or {}).get("slides")


def read(folder, section):
    content = {"name": "x", "patients": {"table": "p.csv"}, "slides": section}
    return read_slides(CohortFile.model_validate(content, context={"base": folder}).slides, PATIENTS)[0]


def clam(folder, **attributes):
    for name in NAMES:
        path = write_hdf5(folder / "h5_files" / f"{name}.h5", features=FEATURES, coords=COORDS)
        with h5py.File(path, "a") as file:
            file["coords"].attrs.update(attributes)
        (folder / "pt_files").mkdir(exist_ok=True)
    return folder


def test_a_job_of_trident_is_named_wherever_it_lies(tmp_path):
    write_job(tmp_path / "data" / "work" / "job", dict.fromkeys(NAMES, 0.25))
    text, found = drafted(tmp_path / "data")
    assert found == {"features": "work/job"}
    assert "4 slides, TRIDENT, encoder uni_v1" in text
    assert "not read: slide_features_titan; encoder: names which are" in text
    assert "QUESTION" not in text
    assert len(read(tmp_path / "data", found)) == 4
    job = tmp_path / "data" / "work" / "job"
    assert drafted(job)[1] == {"features": "."}
    assert drafted(job / TILING)[1] == {"features": "features_uni_v1"}


def test_two_encoders_are_both_named(tmp_path):
    write_job(tmp_path / "job", dict.fromkeys(NAMES, 0.25), encoders=("uni_v1", "conch_v15"))
    text, found = drafted(tmp_path)
    assert found == {"features": "job", "encoder": "FILL-IN"}
    assert "QUESTION: which one?" in text
    assert "conch_v15, uni_v1" in text
    assert str(tmp_path) not in text
    for encoder in ("uni", "ctranspath"):
        for name in NAMES:
            write_hdf5(tmp_path / "stamp" / "all" / encoder / f"{name}.h5", feats=FEATURES, coords=COORDS)
    text, found = drafted(tmp_path / "stamp")
    assert found == {"features": "FILL-IN"}
    assert "which of all/ctranspath or all/uni?" in text


@pytest.mark.filterwarnings("ignore")  # of zarr, anndata, dask and geopandas
def test_stores_of_two_encoders_ask_which_one(tmp_path):
    for name in NAMES[:2]:
        write_store(tmp_path / f"{name}.zarr", encoders=("resnet50", "uni"))
    text, found = drafted(tmp_path)
    assert found == {"features": ".", "encoder": "FILL-IN"}
    assert f"QUESTION: which one? {NAMES[0]}.zarr: " in text
    assert "resnet50_tiles, uni_tiles" in text
    assert "PROBLEM" not in text


def test_vectors_of_all_slides_in_one_file_are_named_with_their_encoder(tmp_path):
    write_hdf5(
        tmp_path / "stamp" / "titan-slide-1.h5", on_file={"encoder": "titan"}, **dict.fromkeys(NAMES, FEATURES[0])
    )
    text, found = drafted(tmp_path)
    assert found == {"features": "stamp/titan-slide-1.h5"}
    assert "4 slides, STAMP, encoder titan" in text
    assert len(read(tmp_path, found)) == 4
    write_hdf5(
        tmp_path / "stamp" / "prism-slide-2.h5", on_file={"encoder": "prism"}, **dict.fromkeys(NAMES, FEATURES[0])
    )
    text, found = drafted(tmp_path)
    assert found == {"features": "stamp", "encoder": "FILL-IN"}
    assert "QUESTION: which one? vectors of slides by one encoder" in text
    assert len(read(tmp_path, found | {"encoder": "prism"})) == 4
    write_hdf5(tmp_path / "bad" / "v.h5", on_file={"encoder": "titan"}, a=FEATURES)
    assert "PROBLEM: v.h5" in drafted(tmp_path / "bad")[0]


def test_features_in_several_folders_are_both_named(tmp_path):
    clam(tmp_path / "a", level0_mpp=0.25)
    clam(tmp_path / "b", level0_mpp=0.25)
    text, found = drafted(tmp_path)
    assert found == {"features": "FILL-IN"}
    assert "which of a or b?" in text


def test_a_resolution_and_an_encoder_that_no_file_says_are_asked(tmp_path):
    text, found = drafted(clam(tmp_path / "data" / "clam").parent)
    assert found == {"features": "clam", "mpp": "FILL-IN"}
    assert "4 slides, CLAM, encoder unknown" in text
    (tmp_path / "data" / "slides.csv").write_text("slide_id,mpp\n" + "".join(f"{name},0.25\n" for name in NAMES))
    text, found = drafted(tmp_path / "data")
    assert found == {"table": "slides.csv", "features": "clam"}
    assert len(read(tmp_path / "data", found)) == 4
    text, found = drafted(clam(tmp_path / "known", level0_mpp=0.25))
    assert found == {"features": "."}
    assert "which encoder made them" in text


def test_files_that_list_places_alone_are_no_features(tmp_path):
    clam(tmp_path / "FEATURES", level0_mpp=0.25)
    for name in NAMES:
        write_hdf5(tmp_path / "RESULTS" / "patches" / f"{name}.h5", coords=COORDS)
    (tmp_path / "RESULTS" / "process_list_autogen.csv").write_text("slide_id,process,status,seg_level\n")
    text, found = drafted(tmp_path)
    assert found == {"features": "FEATURES"}
    assert "4 slides, CLAM" in text
    assert len(read(tmp_path, {"features": "."})) == 4


@pytest.mark.parametrize("encoders", [("uni_v1",), ("uni_v1", "conch_v15")])
def test_folders_of_two_tilings_are_named_to_choose_from(tmp_path, encoders):
    slides = dict.fromkeys(NAMES, 0.25)
    write_job(write_job(tmp_path / "job", slides, encoders=encoders), slides, encoders=encoders, tiling="10x_256px")
    text, found = drafted(tmp_path)
    assert found == {"features": "FILL-IN"}
    for folder in (f"job/10x_256px/features_{encoders[-1]}", f"job/{TILING}/features_uni_v1"):
        assert folder in text
        assert len(read(tmp_path, {"features": folder})) == 4
    with pytest.raises(DataError, match=r"Name the folder of one encoder and tiling, such as 10x_256px/features_uni"):
        read(tmp_path, {"features": "job", "encoder": "uni_v1"})


def test_a_resolution_that_some_files_lack_is_not_asked_for_all(tmp_path):
    write_job(tmp_path / "job", dict.fromkeys(NAMES, 0.25) | {NAMES[1]: None})
    text, found = drafted(tmp_path)
    assert found == {"features": "job"}
    assert f"QUESTION: {TILING}/features_uni_v1/{NAMES[1]}.h5: the pixel size is required" in text


def test_a_job_of_several_encoders_without_states_asks_for_the_pixel_size_too(tmp_path):
    write_job(tmp_path / "job", dict.fromkeys(NAMES, None), encoders=("uni_v1", "conch_v15"))
    assert drafted(tmp_path)[1] == {"features": "job", "encoder": "FILL-IN", "mpp": "FILL-IN"}


def test_files_that_cannot_be_read_do_not_hide_the_others(tmp_path):
    clam(tmp_path, level0_mpp=0.25)
    for name in ("0", "1", "2", "3"):
        (tmp_path / "h5_files" / f"{name}.h5").write_bytes(b"no HDF5")
    text, _ = drafted(tmp_path)
    assert "8 slides, CLAM, encoder unknown" in text
    assert "PROBLEM: 4 of 7 files looked at cannot be read; the first: h5_files/0.h5: a complete HDF5 file" in text


def test_features_of_several_widths_are_told(tmp_path):
    clam(tmp_path, level0_mpp=0.25)
    write_hdf5(tmp_path / "h5_files" / "0.h5", features=FEATURES[:, :3], coords=COORDS, on_coords={"level0_mpp": 0.25})
    text, _ = drafted(tmp_path)
    assert f"PROBLEM: features of one width are required. Found 3 in 0.h5 and 4 in {NAMES[0]}.h5" in text


def test_a_file_of_features_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "a.h5").write_bytes(b"no HDF5")
    text, found = drafted(tmp_path)
    assert found == {"features": "features"}
    assert "a.h5: a complete HDF5 file is required" in text


def test_slides_and_their_table(tmp_path):
    for name in NAMES:
        (tmp_path / "slides" / name).mkdir(parents=True)
        (tmp_path / "slides" / name / f"{name}.svs").write_bytes(b"")
    (tmp_path / "slides.csv").write_text("slide_id,patient_id\n")
    text, found = drafted(tmp_path)
    assert found == {"table": "slides.csv", "folder": "slides"}
    assert "4 slides" in text
    assert drafted(tmp_path / "slides" / NAMES[0])[1] == {"folder": "."}
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.svs").write_bytes(b"")
    assert "which of more or slides?" in drafted(tmp_path)[0]
    (tmp_path / "slides2.csv").write_text("slide_id,patient_id\n")
    assert "which of slides.csv or slides2.csv?" in drafted(tmp_path)[0]


def test_tiles_need_their_resolution(tmp_path):
    (tmp_path / "tiles" / NAMES[0]).mkdir(parents=True)
    (tmp_path / "tiles" / NAMES[0] / "0.png").write_bytes(b"")
    assert drafted(tmp_path)[1] == {"folder": "tiles", "mpp": "FILL-IN"}
    (tmp_path / "slides.csv").write_text("slide_id,mpp\n")
    assert drafted(tmp_path)[1] == {"table": "slides.csv", "folder": "tiles"}


def test_a_table_of_features_and_slides_that_a_table_places(tmp_path):
    row = ",".join("123456789")
    (tmp_path / "f.csv").write_text("slide_id," + ",".join(f"f{i}" for i in range(9)) + f"\n{NAMES[0]},{row}\n")
    assert drafted(tmp_path)[1] == {"feature_table": "f.csv"}
    assert len(read(tmp_path, drafted(tmp_path)[1])) == 1
    (tmp_path / "g.csv").write_text((tmp_path / "f.csv").read_text())
    text, found = drafted(tmp_path)
    assert found == {"feature_table": "FILL-IN"}
    assert "which of f.csv or g.csv?" in text
    (tmp_path / "placed").mkdir()
    (tmp_path / "placed" / "slides.csv").write_text("slide_id,patient_id,path\ns,P,/x/s.svs\n")
    assert drafted(tmp_path / "placed")[1] == {"table": "slides.csv"}


@pytest.mark.parametrize("content", [[], ["slides.csv"]])
def test_without_slides_there_are_no_lines(tmp_path, content):
    for name in content:
        (tmp_path / name).write_text("slide_id,patient_id\ns,P\n")
    assert drafted(tmp_path) == ("", None)
