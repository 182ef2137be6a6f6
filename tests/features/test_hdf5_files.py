"""HDF5 files that are damaged, or made to mislead: each is one error of ours that names the file."""

import random
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from subfuse.errors import DataError, SubfuseError
from subfuse.features.hdf5_files import damage_named
from subfuse.features.other_tools import opened_features
from subfuse.features.store import SlideFeatures
from subfuse.preparation.slides.feature_import import import_slides
from subfuse.preparation.slides.feature_survey import survey_features
from subfuse.slides.source import FeatureSource

CORNERS = np.array([[x, y] for y in (0, 512) for x in (0, 512, 1024)])
FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
TRIDENT = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20}


def write(path: Path, features=FEATURES, coords=CORNERS, **attributes) -> Path:
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = features, coords
        file["coords"].attrs.update(TRIDENT | attributes)
    return path


def read(path: Path, mpp: float | None = 0.25) -> SlideFeatures:
    with opened_features(path, mpp=mpp) as file:
        return file.slide_features(path)


def odd(**attributes):
    return lambda path: write(path, **attributes)


def soft_link_to_nothing(path: Path) -> None:
    with h5py.File(write(path), "a") as file:
        del file["coords"]
        file["coords"] = h5py.SoftLink("/nowhere")


def link_in_a_circle(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["features"], file["coords"] = h5py.SoftLink("/features"), CORNERS


def link_to_another_file(path: Path) -> None:
    write(path.with_name("other.h5"))
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink("other.h5", "/features")
        file["coords"] = CORNERS


def link_through_another_file(path: Path) -> None:
    link_to_another_file(path)
    with h5py.File(path, "a") as file:
        file.move("features", "more")
        file["features"] = h5py.SoftLink("/more")


def values_in_another_file(path: Path) -> None:
    path.with_name("raw").write_bytes(FEATURES.tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("features", FEATURES.shape, np.float32, external=[("raw", 0, FEATURES.nbytes)])
        file["coords"] = CORNERS


def virtual_values(path: Path) -> None:
    layout = h5py.VirtualLayout(FEATURES.shape, np.float32)
    layout[:] = h5py.VirtualSource(write(path.with_name("other.h5")), "features", FEATURES.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("features", layout)
        file["coords"] = CORNERS


def a_billion_rows(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (10**9, 1024), np.float16, chunks=(1000, 1024))
        file.create_dataset("coords", (10**9, 2), np.int32, chunks=(1000, 2))


def one_chunk_of_gigabytes(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (6, 4), np.float32, chunks=(10**8, 4), maxshape=(None, 4))
        file["coords"] = CORNERS


def half_of_the_parts(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (6, 4), np.float32, chunks=(3, 4))[:3] = FEATURES[:3]
        file["coords"] = CORNERS


def nothing_written(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (6, 4), np.float32)
        file["coords"] = CORNERS


def names_that_are_no_text(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file[b"\xff\xfe\x1b[1m"] = FEATURES


def features_are_a_group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("features")


def encoders_differ_within(path: Path) -> None:
    with h5py.File(write(path, encoder="uni"), "a") as file:
        file["features"].attrs["encoder"] = "conch"


HOSTILE = [
    (odd(overlap=[0, 1, 2]), "`overlap` must be one value. Found 0, 1, 2"),
    (odd(overlap=-4), "`overlap` must be 0 or more. Found -4"),
    (odd(patch_size="big"), "`patch_size` must be a positive number. Found 'big'"),
    (odd(patch_size=255.5), "`patch_size` must be a whole number"),
    (odd(patch_size_level0=[512, 256]), "`patch_size_level0` must be one value. Found 512, 256"),
    (odd(level0_width=np.nan, level0_height=9), "`level0_width` must be a positive number. Found nan"),
    (odd(encoder=b"\xff\xfe"), r"`encoder` must be a short text in UTF-8. Found .*udcff"),
    (odd(encoder="e" * 5000), "`encoder` must be a short text"),
    (odd(encoder=["uni", "conch"]), "`encoder` must be one value. Found 'uni', 'conch'"),
    (odd(encoder=h5py.Empty("f4")), "`encoder` must be a short text"),
    (odd(level0_magnification="40x"), "`level0_magnification` must be a positive number"),
    (odd(coords=CORNERS + 2**40), r"must lie on the slide.*Found \(1099511627776, 1099511627776\) in row 0, and 6"),
    (odd(coords=CORNERS - 100), r"must lie on the slide.*Found \(-100, -100\) in row 0"),
    (odd(level0_width=900, level0_height=900), r"on the slide of 900 x 900 px.*Found \(1024, 0\) in row 2, and 2"),
    (odd(coords=np.zeros(6, [("x", "i4"), ("y", "i4")])), r"`coords` \(patch, 2\) is required"),
    (soft_link_to_nothing, "`coords` must be stored in the file itself. Found a link"),
    (link_in_a_circle, "`features` must be stored in the file itself. Found a link"),
    (link_to_another_file, "links are not followed"),
    (link_through_another_file, "links are not followed"),
    (values_in_another_file, "Found its values declared in other files"),
    (virtual_values, "Found its values declared in other files"),
    (a_billion_rows, "Found .* bytes that declare 2,048,000,000,000 of them"),
    (one_chunk_of_gigabytes, "Found .* bytes that declare 1,600,000,000 of them"),
    (half_of_the_parts, "must be written completely. Found 1 of 2 parts"),
    (nothing_written, "must be written completely. Found 0 of 1 parts"),
    (names_that_are_no_text, "bytes that cannot be read"),
    (features_are_a_group, "`features` must be an array. Found a group"),
    (encoders_differ_within, "`encoder` must be one value. Found 'uni', 'conch'"),
]


@pytest.mark.parametrize(("make", "message"), HOSTILE, ids=[message[:40] for _, message in HOSTILE])
def test_a_hostile_file_is_one_line_that_names_it(tmp_path, make, message):
    make(tmp_path / "s.h5")
    with pytest.raises(DataError, match=rf"s\.h5: .*{message}") as caught:
        read(tmp_path / "s.h5")
    assert str(caught.value).isprintable()
    str(caught.value).encode()


SYSTEM = [
    PermissionError(13, "Permission denied"),
    OSError(24, "Too many open files"),
    OSError(5, "I/O"),
    MemoryError(),
]


@pytest.mark.parametrize("error", SYSTEM, ids=str)
def test_nobody_is_told_to_delete_a_file_that_may_be_whole(tmp_path, error):
    write(tmp_path / "s.h5")
    with pytest.raises(DataError, match=r"s\.h5: .* The file may be whole") as caught:  # noqa: SIM117
        with damage_named(tmp_path / "s.h5", "a complete HDF5 file"):
            raise error
    assert "Delete" not in str(caught.value)
    (tmp_path / "s.h5").write_bytes((tmp_path / "s.h5").read_bytes()[:900])
    with pytest.raises(DataError, match="Delete it and write it again"):
        read(tmp_path / "s.h5")


def test_one_bad_file_among_good_ones_is_one_excluded_slide(tmp_path):
    for name in "abd":
        write(tmp_path / f"{name}.h5")
    link_in_a_circle(tmp_path / "c.h5")
    (tmp_path / "e.h5").write_bytes(write(tmp_path / "whole").read_bytes()[:900])
    sources = [FeatureSource(name, "p", tmp_path / f"{name}.h5", 0.25, encoder="uni") for name in "abcde"]

    survey = survey_features(sources)
    records, failures = import_slides(sources, survey, tmp_path / "wsi")

    assert [record.slide_id for record in records] == ["a", "b", "d"]
    assert failures["id"].tolist() == ["c", "e"]


def changed(content: bytes, rng: random.Random) -> bytes:
    """A file after some bytes were exchanged, cut off, or repeated."""
    kind = rng.randrange(4)
    if kind == 0:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 2, 8, 64])):
        damaged[rng.randrange(len(damaged))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    if kind == 1:
        at = rng.randrange(len(damaged))
        damaged[at : at + 8] = rng.choice([b"\xff" * 8, bytes(8), (2**40).to_bytes(8, "little")])
    return bytes(damaged)


def trident(path: Path) -> None:
    write(path, encoder=np.bytes_(b"uni"), level0_width=5000, level0_height=4000)


def compressed(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=FEATURES, chunks=(2, 4), compression="gzip")
        file["coords"] = CORNERS


def stamp(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["feats"], file["coords"] = FEATURES, CORNERS * 0.5
        file.attrs.update({"unit": "um", "tile_size_um": 256.0, "tile_size_px": 224, "extractor": "uni"})


def tensor(path: Path) -> None:
    torch.save(torch.from_numpy(FEATURES), path)


@pytest.mark.parametrize("make", [trident, compressed, stamp, tensor], ids=lambda make: make.__name__)
def test_only_our_errors_come_out_of_damaged_bytes(tmp_path, make):
    rng = random.Random(make.__name__)
    path = tmp_path / ("s.pt" if make is tensor else "s.h5")
    make(path)
    content, refused = path.read_bytes(), 0
    for _ in range(60):
        path.write_bytes(changed(content, rng))
        try:
            slide = read(path)
        except SubfuseError as error:
            refused += "s." in str(error)
        else:
            assert np.isfinite(slide.features).all()
            assert len(slide.features) == len(slide.coords)
            assert slide.coords.min() >= 0
    assert refused > 10


@pytest.mark.real_data
def test_given_hostile_files(cases):
    found = {path.name: path for path in (cases / "hostile_features").glob("*.h5")}
    good = found.pop("PT-000_s1.h5")
    assert read(good, None).features.shape == (20, 64)
    assert len(found) >= 9
    for path in found.values():
        with pytest.raises(DataError, match=path.name):
            read(path)


@pytest.mark.parametrize("name", ["x" * 151, "uni\x1b[2J", "é" * 76])
def test_a_name_of_an_encoder_that_is_none_is_refused(tmp_path, name):
    refusal = (
        r"s\.h5: (the encoder's name must be printable, at most 150 bytes|attribute `encoder` must be a short text)"
    )
    with pytest.raises(DataError, match=refusal) as caught:
        read(write(tmp_path / "s.h5", encoder=name))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_texts_in_the_middle_of_a_large_file_are_looked_through_and_arrays_are_not(tmp_path: Path):
    """As where a file was opened again for an attribute, and more features were added then."""
    path, random = tmp_path / "large.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        features = file.create_dataset("features", (3000, 1024), "f4", maxshape=(None, 1024), chunks=(500, 1024))
        features[:] = random.normal(size=(3000, 1024))
        features[5, :2] = np.frombuffer(b"GCOL\x01\0\0\0", "<f4")  # values that look like the beginning of texts
        file["coords"] = 512 * np.stack([np.arange(6000) % 80, np.arange(6000) // 80], axis=1)
        file["coords"].attrs.update(TRIDENT)
    with h5py.File(path, "a") as file:
        file["coords"].attrs["encoder"] = "uni_v1"
        file["features"].resize((6000, 1024))
        file["features"][3000:] = random.normal(size=(3000, 1024))
    content = bytearray(path.read_bytes())
    place = next(p for p in (content.rfind(b"GCOL"), content.find(b"GCOL")) if 8_000_000 < p < len(content) - 8_000_000)
    with opened_features(path, mpp=0.25) as file:
        assert (file.encoder, file.shape) == ("uni_v1", (6000, 1024))
    first = place + 16
    second = first + 16 + -(-int.from_bytes(content[first + 8 : first + 16], "little") // 8) * 8
    content[second : second + 16] = bytes(16)
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"large\.h5: .*damage in its texts, at byte {second}"), opened_features(path):
        pass
