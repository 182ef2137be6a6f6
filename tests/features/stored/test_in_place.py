import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.features.other_tools import opened_features
from subfuse.features.store import (
    SlideFeatures,
    read_attributes,
    read_features,
    read_matching,
    read_moments,
    read_places,
    read_sample,
    recorded_hash,
    write_features,
)
from subfuse.features.stored.in_place import in_place, where_features_are, why_copied

N_PATCHES, N_FEATURES = 23, 5
VALUES = np.random.default_rng(0).normal(size=(N_PATCHES, N_FEATURES)).astype(np.float32)
COORDS = np.random.default_rng(1).integers(0, 9000, size=(N_PATCHES, 2)).astype(np.int32)


def whole(file: h5py.File) -> None:
    file["features"] = VALUES


def half_precision(file: h5py.File) -> None:
    file["features"] = VALUES.astype(np.float16)


def leading_axis(file: h5py.File) -> None:
    file.create_dataset("features", data=VALUES[None], chunks=(1, 3, N_FEATURES))


def chunks_of_rows(file: h5py.File) -> None:
    file.create_dataset("features", data=VALUES, chunks=(5, N_FEATURES))


def batch_by_batch(file: h5py.File) -> None:
    """As CLAM and TRIDENT write: chunks of one row, appended, with places in between."""
    features = file.create_dataset(
        "features", (0, N_FEATURES), "f4", maxshape=(None, N_FEATURES), chunks=(1, N_FEATURES)
    )
    places = file.create_dataset("coords", (0, 2), "i4", maxshape=(None, 2), chunks=(1, 2))
    for last in (4, 8, 20, N_PATCHES):
        first = len(features)
        for array, values in ((features, VALUES), (places, COORDS)):
            array.resize(last, axis=0)
            array[first:] = values[first:last]
        file.flush()


STAYING = [whole, half_precision, leading_axis, chunks_of_rows, batch_by_batch]


def slide(dtype: type[np.floating] = np.float16) -> SlideFeatures:
    return SlideFeatures(
        features=VALUES.astype(dtype),
        coords=COORDS,
        patch_size_level0=512,
        level0_mpp=0.25,
        target_mpp=0.5,
        encoder="toy",
        encoder_sha256="",
        slide_width_px=9600,
        slide_height_px=9600,
    )


def refer(folder: Path, write=batch_by_batch, dtype=np.float16) -> tuple[Path, Path]:
    """Returns a prepared feature file whose features stay in a file that was written so, and that file."""
    source, path = folder / "tool ß" / "source.h5", folder / "prepared" / "a.h5"
    source.parent.mkdir(parents=True)
    with h5py.File(source, "w") as file:
        write(file)
    with h5py.File(source) as file:
        assert why_copied(file["features"]) == ""
        stay = in_place(file["features"], source, dtype)
    write_features(path, slide(dtype), tile_px=256, in_place=stay)
    return path, source


@pytest.mark.parametrize("write", STAYING, ids=lambda write: write.__name__)
def test_features_in_place_are_read_as_those_of_a_copy(tmp_path, write):
    path, _ = refer(tmp_path, write)
    copy = tmp_path / "copied" / "a.h5"
    write_features(copy, slide(), tile_px=256)

    read, copied = read_features(path), read_features(copy)
    for name, value in vars(copied).items():
        np.testing.assert_array_equal(getattr(read, name), value)
    assert read.features.dtype == copied.features.dtype
    for n_patches in (1, 3, 10, 100):
        few, theirs = read_sample(path, n_patches), read_sample(copy, n_patches)
        np.testing.assert_array_equal(few.features, theirs.features)
        np.testing.assert_array_equal(few.coords, theirs.coords)
    np.testing.assert_array_equal(read_moments(path)[1], read_moments(copy)[1])
    assert recorded_hash(path) == recorded_hash(copy)
    assert read_matching(path, {"encoder": "toy"}) == read_matching(copy, {"encoder": "toy"})


def test_precision_is_kept_where_it_is_asked_for_and_other_programs_follow_the_link(tmp_path):
    path, _ = refer(tmp_path, whole, np.float32)
    np.testing.assert_array_equal(read_features(path).features, VALUES)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["features"][()], VALUES)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"data": VALUES, "compression": "gzip"}, "compressed"),
        ({"data": VALUES, "chunks": (5, N_FEATURES), "shuffle": True}, "compressed"),
        ({"data": VALUES.astype(np.float64)}, "float64 numbers"),
        ({"data": VALUES.astype(">f4")}, ">f4 numbers"),
        ({"data": VALUES, "chunks": (5, 3)}, "in pieces of columns"),
        ({"data": VALUES[:1]}, "one vector"),
        ({"data": VALUES[0]}, "one vector"),
    ],
)
def test_what_cannot_be_read_as_plain_bytes_is_copied(tmp_path, options, reason):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        assert why_copied(file.create_dataset("features", **options)) == reason


def other_value(source: Path) -> None:
    with h5py.File(source, "a") as file:
        file["features"][7, 2] += 1


def other_value_at_the_same_time(source: Path) -> None:
    before = source.stat()
    other_value(source)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_slide(source: Path) -> None:
    with h5py.File(source, "w") as file:
        file["features"] = VALUES[::2]


def gone(source: Path) -> None:
    source.unlink()


def a_folder(source: Path) -> None:
    source.unlink()
    source.mkdir()


CHANGES = [
    (other_value, "Found others, written since. Put the earlier file back, or run `subfuse prepare` again"),
    (other_value_at_the_same_time, "same size and time: bytes changed.*Copy the file again"),
    (another_slide, "Found that it ends before its features do. Put the earlier file back"),
    (gone, "the file in which features stay is required.*No such file.*slides.copy: true"),
    (a_folder, "Found a folder"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_a_source_that_is_not_as_it_was_is_one_line_that_names_it(tmp_path, change, words):
    path, source = refer(tmp_path, whole)
    change(source)
    with pytest.raises(DataError, match=rf"^{source}: .*{words}") as refused:
        read_features(path)
    assert "\n" not in str(refused.value)
    if change is not other_value_at_the_same_time:  # which only reading all of it finds
        with pytest.raises(DataError, match=rf"^{source}: "):
            read_sample(path, 2)
        assert read_matching(path, {}) is None
    assert len(read_places(path).coords) == N_PATCHES  # nothing is lost


def test_a_source_that_was_written_again_with_the_same_features_is_read(tmp_path):
    path, source = refer(tmp_path)
    os.utime(source, ns=(1, 1))
    with open(source, "ab") as file:
        file.write(b"more")
    np.testing.assert_array_equal(read_sample(path, 4).features, VALUES[::5].astype(np.float16))
    assert read_matching(path, {}) is not None


@pytest.mark.parametrize("moved", ["prepared", "both"])
def test_moved_folders_find_each_other(tmp_path, moved):
    path, _ = refer(tmp_path / "old")
    new = tmp_path / "new" / "deeper"
    if moved == "both":
        shutil.copytree(tmp_path / "old", new)
        shutil.rmtree(tmp_path / "old")
    else:
        shutil.move(tmp_path / "old" / "prepared", new / "prepared")
    np.testing.assert_array_equal(read_features(new / "prepared" / path.name).features, VALUES.astype(np.float16))


def other_place(file: h5py.File) -> None:
    file["coords"][0] = 0


def other_pixel_size(file: h5py.File) -> None:
    file["coords"].attrs["level0_mpp"] = 0.5


def other_rows(file: h5py.File) -> None:
    file["rows_in_place"][0, 1] += 4


def other_source(file: h5py.File) -> None:
    rows = file["rows_in_place"]
    rows.attrs["record"] = rows.attrs["record"].replace("source", "other")


@pytest.mark.parametrize("change", [other_place, other_pixel_size, other_rows, other_source])
def test_a_changed_file_of_ours_is_named_and_made_again(tmp_path, change):
    path, _ = refer(tmp_path)
    with h5py.File(path, "a") as file:
        change(file)
    for read in (read_features, read_places, read_attributes):
        with pytest.raises(DataError, match=r"prepared/a\.h5: the content .*Run `subfuse prepare` again"):
            read(path)
    assert read_matching(path, {}) is None


def test_features_of_a_prepared_file_are_asked_for_where_they_are(tmp_path):
    path, source = refer(tmp_path)
    refused = pytest.raises(DataError, match=rf"a\.h5: features must be stored in the file itself.*{source}")
    with refused, opened_features(path):
        pass


def test_the_file_of_another_slide_is_named(tmp_path):
    path, _ = refer(tmp_path)
    path.rename(path.with_name("b.h5"))
    with pytest.raises(DataError, match=r"b\.h5: the content .*of another slide"):
        read_features(path.with_name("b.h5"))


def test_where_features_are_is_said_in_one_line():
    assert where_features_are([]) == ""
    assert where_features_are([(2_500_000, "")]) == "features of 1 slide stay where they are (2.5 MB)"
    copied = [(0, "compressed"), (0, "one vector"), (0, "compressed")]
    assert where_features_are(copied) == "features of 3 slides are copied: compressed (2), one vector (1)"
