"""Zarr stores as wsidata writes them, with features of tiles."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from subfuse.errors import DataError
from subfuse.features.other_tools import files_behind, opened_features

spatialdata = pytest.importorskip("spatialdata")
pytestmark = pytest.mark.filterwarnings("ignore")  # of zarr, anndata, dask and geopandas

CORNERS = np.array([[0, 0], [512, 0], [0, 1024]])
FEATURES = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
SPEC = {"height": 256, "width": 256, "stride_height": 192, "stride_width": 192, "mpp": 0.5, "base_downsample": 2.0}


def write_store(path: Path, *, mpp: float | None = 0.25, encoders: tuple[str, ...] = ("resnet50",), order=(2, 0, 1)):
    """A slide of 3 tiles; the table's rows stand in another order than the tiles."""
    import geopandas
    from anndata import AnnData
    from shapely import box
    from spatialdata.models import ShapesModel, TableModel

    boxes = [box(x, y, x + 512, y + 512) for x, y in CORNERS]
    tiles = geopandas.GeoDataFrame({"tile_id": [0, 1, 2], "geometry": boxes})
    obs = pd.DataFrame({"tile_id": list(order), "library_id": pd.Categorical(["tiles"] * 3)}, index=["a", "b", "c"])
    tables = {
        f"{name}_tiles": TableModel.parse(
            AnnData(FEATURES[list(order)], obs=obs), region="tiles", region_key="library_id", instance_key="tile_id"
        )
        for name in encoders
    }
    attrs = {"tile_spec": {"tiles": SPEC}, "slide_properties": {"shape": [1600, 1100], "mpp": mpp}}
    spatialdata.SpatialData(shapes={"tiles": ShapesModel.parse(tiles)}, tables=tables, attrs=attrs).write(path)
    return path


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
