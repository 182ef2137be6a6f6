"""Features in a zarr store of wsidata: a table of features whose rows are tiles, with the tiles' outlines.

`lazyslide.tl.feature_aggregation` keeps vectors of the whole slide in such a table, as `uns/agg_ops/<key>/features`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Num

from subfuse.bounded_files import require_plausible_size, require_regular_file
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.features.encoder import is_same_encoder
from subfuse.features.feature_file import FeatureFile, bag_shape, unknown_mpp, without_coordinates
from subfuse.features.hdf5_files import damage_named
from subfuse.slides.tissue import disagreement, require_plausible_mpp

_STORE = (
    "a complete wsidata store: a table of features in `tables`, its tiles in `shapes`, `tile_spec` in the attributes"
)


@dataclass(frozen=True)
class _SlideVector:
    """One vector of a whole slide, beside the features of tiles that it was made of."""

    table: str  # of these features
    place: str  # <table>/<key>
    encoder: str  # of the slide, or <encoder of the tiles>-mean
    values: Any  # the stored array


def read_wsidata(path: Path, mpp: float | None, encoder: str | None) -> FeatureFile:
    """Opens a store; its features are read only when asked for.

    Args:
        path: The store, a folder.
        mpp: µm per level-0 pixel as declared; preferred to what the store records.
        encoder: Chooses among several tables of features, which are named `<encoder>_<tiles>`, and vectors of the whole
            slide: by their encoder, `<encoder of the tiles>-mean`, or `<table>/<key>`.

    Raises:
        DataError: The store is incomplete, has no or several features that could be meant, or its pixel size is
            unknown.
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
        _require_no_pickles(files, path)
        store: Any = zarr.open_group(path, mode="r")
        vectors = list(_slide_vectors(store, path))
        chosen = _chosen(store, vectors, path, encoder)
        table = store["tables"][chosen.table if isinstance(chosen, _SlideVector) else chosen[0]]
        _require_plain_arrays(table, files, path)
        if isinstance(chosen, _SlideVector):
            return _one_vector(chosen, path)
        name, region = chosen
        spec = store.attrs["tile_spec"][region]
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
        warnings=(*disagreement(declared=mpp, recorded=recorded), *_unread(vectors)),
    )


def _slide_vectors(store: Any, path: Path) -> Iterator[_SlideVector]:
    """Yields the vectors of the whole slide; those of its pieces have `keys` and are none."""
    for name, table in store["tables"].groups():
        operations = table["uns/agg_ops"].groups() if "uns/agg_ops" in table else ()
        of_tiles = name.removesuffix(f"_{table.attrs.get('region')}")
        for key, operation in operations:
            if "keys" in operation:
                continue
            if operation["encoder"].shape != ():
                raise DataError(
                    f"{path}: {name}/{key} must name one encoder. Found several. Aggregate the slide again."
                )
            made_by = str(operation["encoder"][()])
            is_reduction = callable(getattr(np, made_by, None))  # as lazyslide tells them from encoders
            values = operation["features"] if "features" in operation else table["varm"][key]
            yield _SlideVector(name, f"{name}/{key}", f"{of_tiles}-{made_by}" if is_reduction else made_by, values)


def _one_vector(vector: _SlideVector, path: Path) -> FeatureFile:
    size = math.prod(vector.values.shape)
    if size not in vector.values.shape or vector.values.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: {vector.place} must be one vector of numbers. Found {vector.values.dtype} "
            f"{vector.values.shape}. Aggregate the slide again."
        )
    bare = without_coordinates("wsidata", bag_shape((size,), path, vector.place), lambda: vector.values[...])
    return replace(bare, encoder=vector.encoder)


def _unread(vectors: Sequence[_SlideVector]) -> tuple[str, ...]:
    if not vectors:
        return ()
    return (f"vectors of the whole slide by {_names(vectors)} are not read; slides.encoder names which are",)


def _names(vectors: Sequence[_SlideVector]) -> str:
    return preview([vector.encoder for vector in vectors], limit=5)


def _side_of_squares(spec: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """Side and distance of the tiles in pixels of the encoder's images."""
    width, height = int(spec["width"]), int(spec.get("height", spec["width"]))
    if width != height or width <= 0:
        raise DataError(f"{path}: square tiles are required. Found tiles of {width} x {height} px. Tile it again.")
    return width, int(spec["stride_width"])


def _require_plain_arrays(table: Any, files: Sequence[Path], path: Path) -> None:
    """Refuses arrays that declare far more than the store holds, or that are not complete."""
    import zarr

    stored = sum(file.stat().st_size for file in files)
    for name, array in table.members(max_depth=None):
        if isinstance(array, zarr.Array):
            chunk = math.prod(array.chunks)
            require_plausible_size(path, f"`{name}`", max(int(array.size), chunk), array.dtype.itemsize or 1, stored)
            if name.split("/")[-1] in ("X", "features") and array.nchunks_initialized < array.nchunks:
                raise DataError(
                    f"{path}: `{name}` must be written completely. Found {array.nchunks_initialized} of "
                    f"{array.nchunks} parts. Extract the slide again."
                )


def _require_no_pickles(files: Sequence[Path], path: Path) -> None:
    """Refuses pickles, which would run as code."""
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


def _chosen(
    store: Any, vectors: Sequence[_SlideVector], path: Path, encoder: str | None
) -> tuple[str, str] | _SlideVector:
    """Returns the name of the feature table and of the tiles that it describes; or the vector of the slide."""
    specified = store.attrs.get("tile_spec", {})
    regions = {name: table.attrs.get("region") for name, table in store["tables"].groups()}
    found = {name: region for name, region in regions.items() if region in specified}
    wanted: list[tuple[str, str] | _SlideVector] = [
        (name, region) for name, region in found.items() if encoder in (None, name, name.removesuffix(f"_{region}"))
    ]
    if not wanted and encoder is not None:
        at_place = [replace(vector, encoder=encoder) for vector in vectors if vector.place == encoder]
        wanted += at_place or [vector for vector in vectors if is_same_encoder(vector.encoder, encoder)]
    if len(wanted) == 1:
        return wanted[0]
    of_slides = ""
    if vectors:
        places = preview([vector.place for vector in vectors], limit=5)
        of_slides = f"; and vectors of the whole slide by {_names(vectors)} ({places})"
    remedy = "Name the encoder as `slides.encoder`" if found or vectors else "Extract features of its tiles"
    raise DataError(
        f"{path}: one table of features of tiles is required{f' for encoder {encoder}' if encoder else ''}. Found "
        f"{preview(sorted(found), limit=10) or 'none'} among {len(regions)} tables{of_slides}. "
        f"{remedy}."
    )
