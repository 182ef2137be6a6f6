"""A zarr store as wsidata writes it."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

CORNERS = np.array([[0, 0], [512, 0], [0, 1024]])
FEATURES = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
SPEC = {"height": 256, "width": 256, "stride_height": 192, "stride_width": 192, "mpp": 0.5, "base_downsample": 2.0}


def write_store(
    path: Path,
    *,
    mpp: float | None = 0.25,
    encoders: tuple[str, ...] = ("resnet50",),
    order: tuple[int, ...] = (2, 0, 1),
    aggregated: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """A slide of 3 tiles; the table's rows stand in another order than the tiles.

    Aggregated: what `lazyslide.tl.feature_aggregation` leaves in every table, by key.
    """
    import geopandas
    from anndata import AnnData
    from shapely import box
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel

    boxes = [box(x, y, x + 512, y + 512) for x, y in CORNERS]
    tiles = geopandas.GeoDataFrame({"tile_id": [0, 1, 2], "geometry": boxes})
    obs = pd.DataFrame({"tile_id": list(order), "library_id": pd.Categorical(["tiles"] * 3)}, index=["a", "b", "c"])
    tables = {
        f"{name}_tiles": TableModel.parse(
            AnnData(FEATURES[list(order)], obs=obs, uns={"agg_ops": deepcopy(dict(aggregated))} if aggregated else {}),
            region="tiles",
            region_key="library_id",
            instance_key="tile_id",
        )
        for name in encoders
    }
    attrs = {"tile_spec": {"tiles": SPEC}, "slide_properties": {"shape": [1600, 1100], "mpp": mpp}}
    SpatialData(shapes={"tiles": ShapesModel.parse(tiles)}, tables=tables, attrs=attrs).write(path)
    return path
