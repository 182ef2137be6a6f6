"""Zarr stores as wsidata writes them, with features of tiles."""

import json

import numpy as np
import pytest
from wsidata_store import CORNERS, FEATURES, write_store

from subfuse.errors import DataError
from subfuse.features.other_tools import files_behind, opened_features

spatialdata = pytest.importorskip("spatialdata")
pytestmark = pytest.mark.filterwarnings("ignore")  # of zarr, anndata, dask and geopandas


def test_features_of_tiles_in_the_order_of_the_table(tmp_path):
    path = write_store(tmp_path / "s.zarr")

    with opened_features(path) as file:
        assert (file.layout, file.shape, file.overlap_px) == ("wsidata", (3, 5), 64)
        slide = file.slide_features(path)

    np.testing.assert_array_equal(slide.features, FEATURES[[2, 0, 1]].astype(np.float16))
    np.testing.assert_array_equal(slide.coords, CORNERS[[2, 0, 1]])
    assert (slide.patch_size_level0, slide.level0_mpp, slide.target_mpp, slide.encoder) == (512, 0.25, 0.5, "resnet50")
    assert (slide.slide_width_px, slide.slide_height_px) == (1100, 1600)
    assert len(files_behind(path)) > 5


def test_a_store_without_mpp_needs_it_declared(tmp_path):
    path = write_store(tmp_path / "s.zarr", mpp=None)
    with pytest.raises(DataError, match=r"s\.zarr.*Declare `mpp` in the slide table"), opened_features(path):
        pass
    with opened_features(path, mpp=0.3) as file:
        assert file.level0_mpp == 0.3
    path = write_store(tmp_path / "magnified.zarr", mpp=40.0)
    with pytest.raises(DataError, match="40 looks like a magnification"), opened_features(path):
        pass


def test_one_of_several_encoders_is_chosen_by_name(tmp_path):
    path = write_store(tmp_path / "s.zarr", encoders=("resnet50", "uni"))
    with pytest.raises(DataError, match=r"Found resnet50_tiles, uni_tiles.*slides\.encoder"), opened_features(path):
        pass
    with opened_features(path, encoder="uni") as file:
        assert file.encoder == "uni"


def test_an_incomplete_store_is_named(tmp_path):
    (tmp_path / "empty.zarr").mkdir()
    with (
        pytest.raises(DataError, match=r"empty\.zarr: a complete wsidata store"),
        opened_features(tmp_path / "empty.zarr"),
    ):
        pass
    path = write_store(tmp_path / "s.zarr")
    metadata = json.loads((path / "zarr.json").read_text())
    del metadata["attributes"]["tile_spec"]
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(DataError, match="Found none among 1 tables"), opened_features(path):
        pass
