"""Feature files of other tools, written here as those tools write them."""

import h5py
import numpy as np
import pytest
import torch
from tool_files import CORNERS, FEATURES, N_FEATURES, N_PATCHES, read, write_hdf5

from subfuse.errors import DataError
from subfuse.features.feature_file import NO_COORDINATES
from subfuse.features.other_tools import files_behind, opened_features


def test_clam_tensor_has_coordinates_only_beside_its_hdf5_file(tmp_path):
    path = tmp_path / "pt_files" / "s.pt"
    path.parent.mkdir()
    torch.save(torch.from_numpy(FEATURES), path)

    slide, layout, warnings = read(path)
    assert (layout, warnings[0], slide.has_coordinates) == ("tensor", NO_COORDINATES, False)
    assert "into `h5_files` beside `pt_files`" in warnings[1]
    assert slide.coords.tolist() == [[0, 0], [256, 0], [512, 0], [0, 256], [256, 256], [512, 256]]
    assert files_behind(path) == [path]

    sibling = write_hdf5(tmp_path / "h5_files" / "s.h5", features=np.zeros_like(FEATURES), coords=CORNERS)
    slide, layout, _ = read(path, mpp=0.25)
    assert (layout, slide.has_coordinates, slide.coords.tolist()) == ("CLAM", True, CORNERS.tolist())
    np.testing.assert_array_equal(slide.features, FEATURES.astype(np.float16))
    assert files_behind(path) == [path, sibling]


def test_tensor_of_another_length_than_its_hdf5_file(tmp_path):
    write_hdf5(tmp_path / "h5_files" / "s.h5", features=FEATURES, coords=CORNERS)
    (tmp_path / "pt_files").mkdir()
    torch.save(torch.zeros(5, N_FEATURES), tmp_path / "pt_files" / "s.pt")
    with pytest.raises(DataError, match=r"s\.pt: its 5 patches x 4 features must be those of .*s\.h5. Found 6 x 4"):
        read(tmp_path / "pt_files" / "s.pt", mpp=0.25)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_precision(tmp_path, dtype):
    torch.save(torch.full((1, 3, 2), 0.5, dtype=dtype), tmp_path / "s.pt")
    assert (read(tmp_path / "s.pt")[0].features == 0.5).all()


def test_opening_a_file_reads_no_features(tmp_path, monkeypatch):
    path = write_hdf5(tmp_path / "s.h5", features=FEATURES, coords=CORNERS)
    monkeypatch.setattr(h5py.Dataset, "__getitem__", None)
    with opened_features(path, mpp=0.5) as opened:
        assert opened.shape == (N_PATCHES, N_FEATURES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"features": torch.zeros(3, 2)}, "one tensor .* is required. Found a dict with features"),
        (torch.zeros(2, 3, 4), r"a tensor \(2, 3, 4\)"),
        (print, "nothing else is unpickled. Found print. Save"),
        (np.zeros((3, 2)), r"Found numpy\S+. Save `torch.from_numpy\(features\)` where it is an array"),
        (b"", "Found 0 bytes that cannot be read"),
        (b"<html>not found</html>", "Found 22 bytes that cannot be read"),
    ],
)
def test_unusable_tensors(tmp_path, content, message):
    if isinstance(content, bytes):
        (tmp_path / "s.pt").write_bytes(content)
    else:
        torch.save(content, tmp_path / "s.pt")
    with pytest.raises(DataError, match=rf"s\.pt: .*{message}"):
        read(tmp_path / "s.pt")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"absent\.h5: a feature file is required"):
        read(tmp_path / "absent.h5")
