"""Features in a zarr store of wsidata: a table of features whose rows are tiles, with the tiles' outlines."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from subfuse.bounded_files import require_plausible_size, require_regular_file
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.features.feature_file import FeatureFile, bag_shape, unknown_mpp
from subfuse.features.hdf5_files import damage_named
from subfuse.slides.tissue import disagreement, require_plausible_mpp

_STORE = (
    "a complete wsidata store: a table of features in `tables`, its tiles in `shapes`, `tile_spec` in the attributes"
)


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
    files = [file for file in path.rglob("*") if not file.is_dir()]
    for file in files:
        require_regular_file(file, "part of a store")
    with damage_named(path, _STORE):
        store: Any = zarr.open_group(path, mode="r")
        name, region = _feature_table(store, path, encoder)
        table, spec = store["tables"][name], store.attrs["tile_spec"][region]
        _require_plain_arrays(table, files, path)
        shape = bag_shape(table["X"].shape, path, f"{name} {table['X'].shape}")
        tile_px, stride_px = _side_of_squares(spec, path)
        patch_size_level0 = int(tile_px * spec["base_downsample"])
        properties = store.attrs.get("slide_properties", {})
        recorded = None if properties.get("mpp") is None else float(properties["mpp"])
        height, width = (int(n) for n in properties.get("shape") or (0, 0))
    level0_mpp = recorded if mpp is None else mpp
    if level0_mpp is None:
        raise unknown_mpp(path, "no mpp in slide_properties")
    require_plausible_mpp(level0_mpp, path)
    left, top, *_ = properties.get("bounds") or (0, 0)
    return FeatureFile(
        layout="wsidata",
        shape=shape,
        read=lambda: table["X"][...],
        read_coords=lambda: _tile_corners(path, table, region),
        patch_size_level0=patch_size_level0,
        level0_mpp=level0_mpp,
        tile_px=tile_px,
        encoder=name.removesuffix(f"_{region}"),
        overlap_px=max(0, tile_px - stride_px),
        slide_size_px=(width, height) if width > 0 and height > 0 else None,
        bounds_corner=(int(left), int(top)),
        warnings=disagreement(declared=mpp, recorded=recorded),
    )


def _side_of_squares(spec: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Side and distance of the tiles in pixels of the encoder's images."""
    width, height = int(spec["width"]), int(spec.get("height", spec["width"]))
    if width != height or width <= 0:
        raise DataError(f"{path}: square tiles are required. Found tiles of {width} x {height} px. Tile it again.")
    return width, int(spec["stride_width"])


def _require_plain_arrays(table: Any, files: Sequence[Path], path: Path) -> None:
    """Refuses arrays that declare far more than the store holds, and pickles, which would run as code."""
    import zarr

    stored = sum(file.stat().st_size for file in files)
    for name, array in table.members(max_depth=None):
        if isinstance(array, zarr.Array):
            chunk = math.prod(array.chunks)
            require_plausible_size(path, f"`{name}`", max(int(array.size), chunk), array.dtype.itemsize or 1, stored)
            if name == "X" and array.nchunks_initialized < array.nchunks:
                raise DataError(
                    f"{path}: `X` must be written completely. Found {array.nchunks_initialized} of {array.nchunks} "
                    "parts. Extract the slide again."
                )
    if any(b'"pickle"' in file.read_bytes() for file in files if file.name in ("zarr.json", ".zarray")):
        raise DataError(f"{path}: arrays without pickled objects are required. Found a pickle codec. Write numbers.")


def _tile_corners(path: Path, table: Any, region: str) -> Num[np.ndarray, "patch 2"]:
    """Top-left corners of the tiles in the order of the table's rows."""
    import anndata
    import spatialdata

    with damage_named(path, _STORE):
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
