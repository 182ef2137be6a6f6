"""Features in a zarr store of wsidata: a table of features whose rows are tiles, with the tiles' outlines."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.features.feature_file import FeatureFile, bag_shape, unknown_mpp


def read_wsidata(path: Path, mpp: float | None, encoder: str | None) -> FeatureFile:
    """Opens a store; its features are read only when asked for.

    Args:
        path: The store, a folder.
        mpp: µm per level-0 pixel as declared; preferred to what the store records.
        encoder: Chooses among several tables of features, which are named `<encoder>_<tiles>`.

    Raises:
        DataError: The store is incomplete, has no or several tables of features, or its pixel size is unknown.
        ConfigurationError: The extra `wsi` is missing.
    """
    try:
        import zarr
    except ImportError:
        raise ConfigurationError(
            f"{path}: zarr stores need wsidata. Install it with: pip install 'subfuse[wsi]'."
        ) from None
    with _incomplete_store_named(path):
        store: Any = zarr.open_group(path, mode="r")
        name, region = _feature_table(store, path, encoder)
        table, spec = store["tables"][name], store.attrs["tile_spec"][region]
        shape = bag_shape(table["X"].shape, path, f"{name} {table['X'].shape}")
        patch_size_level0 = int(spec["width"] * spec["base_downsample"])
        properties = store.attrs.get("slide_properties", {})
    level0_mpp = mpp or properties.get("mpp")
    if level0_mpp is None:
        raise unknown_mpp(path, "no mpp in slide_properties")
    height, width = properties.get("shape") or (0, 0)
    return FeatureFile(
        layout="wsidata",
        shape=shape,
        read=lambda: table["X"][...],
        read_coords=lambda: _tile_corners(path, table, region),
        patch_size_level0=patch_size_level0,
        level0_mpp=float(level0_mpp),
        tile_px=int(spec["width"]),
        encoder=name.removesuffix(f"_{region}"),
        overlap_px=int(spec["width"] - spec["stride_width"]),
        slide_size_px=(int(width), int(height)) if width else None,
    )


@contextmanager
def _incomplete_store_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: a complete wsidata store is required: a table of features in `tables`, its tiles in `shapes`, "
            f"`tile_spec` in the attributes. Found: {type(error).__name__}: {' '.join(str(error).split())[:160]}."
        ) from error


def _tile_corners(path: Path, table: Any, region: str) -> Num[np.ndarray, "patch 2"]:
    """Top-left corners of the tiles in the order of the table's rows."""
    import anndata
    import spatialdata

    with _incomplete_store_named(path):
        tile_id = np.asarray(anndata.io.read_elem(table["obs"])[table.attrs["instance_key"]])
        tiles = spatialdata.read_zarr(path, selection=("shapes",)).shapes[region]
        tiles = tiles.set_index("tile_id") if "tile_id" in tiles else tiles
        return tiles.loc[tile_id].geometry.bounds[["minx", "miny"]].to_numpy()


def _feature_table(store: Any, path: Path, encoder: str | None) -> tuple[str, str]:
    """Returns the name of the feature table and of the tiles that it describes."""
    specified = store.attrs.get("tile_spec", {})
    regions = {name: table.attrs.get("region") for name, table in store["tables"].groups()}
    found = {name: region for name, region in regions.items() if region in specified}
    wanted = {
        name: region for name, region in found.items() if encoder in (None, name, name.removesuffix(f"_{region}"))
    }
    if len(wanted) == 1:
        return next(iter(wanted.items()))
    raise DataError(
        f"{path}: one table of features of tiles is required{f' for encoder {encoder}' if encoder else ''}. Found "
        f"{preview(sorted(found), limit=10) or 'none'} among {len(regions)} tables. "
        "Name the encoder as `slides.encoder`."
    )
