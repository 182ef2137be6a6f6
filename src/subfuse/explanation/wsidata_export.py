"""Patch scores in a slide's wsidata, where lazyslide plots them."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from subfuse.errors import ConfigurationError, DataError
from subfuse.explanation.tile_gallery import NOT_LOCATED, SlidePlace
from subfuse.features.store import SlideFeatures, read_features
from subfuse.files import read_table
from subfuse.slides.image_folders import is_image_source

_TILES = "subfuse_tiles"


def add_scores(wsi: Any, slide: SlideFeatures, scores: Mapping[str, np.ndarray], *, tile_key: str = _TILES) -> None:
    """Adds patch scores to the tiles of an open slide; `lazyslide.pl.tiles(wsi, tile_key=..., color=...)` shows them.

    Tiles of that name keep what else is known of them; a tile without a score has NaN. Where there are none, the
    patches become the tiles.

    Args:
        wsi: A `wsidata.WSIData`, in memory or backed by a store.
        slide: Features of the same slide: where its patches are.
        scores: One value per patch by name, for example `tumour`; the names of the new columns.
        tile_key: Name of the tiles.

    Raises:
        DataError: The patches have no places, the slide has another size, or none of the tiles of that name is one of
            the patches.
        ConfigurationError: The extra `wsi` is missing.
    """
    if not slide.has_coordinates:
        raise DataError("the places of the patches are required to add their scores to a slide. Found none recorded.")
    height, width = (int(length) for length in wsi.properties.shape)
    if (width, height) != (slide.slide_width_px, slide.slide_height_px):
        raise DataError(
            f"the slide must be the explained one, {slide.slide_width_px} x {slide.slide_height_px} px. "
            f"Found {width} x {height} px. Open that slide."
        )
    for name, values in scores.items():
        if np.shape(values) != (len(slide.coords),):
            raise ValueError(
                f"{name} must have one score for each of {len(slide.coords)} patches. Found {len(values)}."
            )
    if tile_key not in wsi.shapes:
        _add_tiles(wsi, slide, tile_key)
    tiles = wsi.shapes[tile_key]
    corners = np.rint(tiles.bounds[["minx", "miny"]].to_numpy()).astype(int)
    sides = np.rint(tiles.bounds["maxx"].to_numpy() - tiles.bounds["minx"].to_numpy()).astype(int)
    row_of = {(x, y): row for row, (x, y) in enumerate(slide.coords.tolist())}
    rows = [
        row_of.get((x, y), -1) if side == slide.patch_size_level0 else -1
        for (x, y), side in zip(corners.tolist(), sides.tolist(), strict=True)
    ]
    if max(rows) < 0:
        raise DataError(
            f"tiles {tile_key!r} must be the explained patches, {slide.patch_size_level0} px wide. Found none of them "
            "among the tiles. Choose another tile_key."
        )
    for name, values in scores.items():
        tiles[name] = np.append(np.asarray(values, dtype=np.float64), np.nan)[rows]


def write_wsidata(store: Path, path: Path, slide: SlideFeatures, scores: Mapping[str, np.ndarray]) -> None:
    """Adds patch scores to the zarr store of a slide, which is made where there is none.

    Other elements of the store stay as they are. Read it with `wsidata.open_wsi(path, store=store)`.

    Args:
        store: The store, a folder ending in `.zarr`.
        path: The slide.
        slide: Its features.
        scores: One value per patch by name.

    Raises:
        DataError: As for `add_scores`.
        ConfigurationError: The extra `wsi` is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of ome-zarr, when it is imported
            from wsidata import open_wsi
    except ImportError as error:
        raise ConfigurationError(f"Writing to wsidata needs it ({error}). Run: pip install 'subfuse[wsi]'.") from error
    if store.suffix != ".zarr":
        raise ValueError(f"store must end in .zarr. Found {store.name}.")
    exists = store.exists()
    wsi = open_wsi(path, store=str(store))
    try:
        add_scores(wsi, slide, scores)
        if exists:
            wsi.write_element(_TILES, overwrite=True)
            wsi.write_attrs()
        else:
            wsi.write()
    finally:
        wsi.reader.detach_reader()


def write_patch_scores(patches: Path, features: tuple[Path, ...], places: dict[str, SlidePlace], stores: Path) -> None:
    """Adds the patch scores of one task's `patches.csv` to the wsidata stores of its slides, `<slide>.zarr`.

    Raises:
        DataError: A slide's file is not found, or is a folder of images.
    """
    table = read_table(patches)
    for path in features:
        place = places.get(path.stem, NOT_LOCATED)
        if isinstance(place, str):
            raise DataError(f"slide {path.stem}: its file is required to write a wsidata store. Not found: {place}")
        if is_image_source(place.path):
            raise DataError(
                f"slide {path.stem}: a slide file is required to write a wsidata store. Found images. Leave out "
                "--wsidata."
            )
        rows = table[table["slide_id"] == path.stem].drop(columns=["slide_id", "x", "y"])
        scores = {f"{patches.parent.name}_{name}": rows[name].to_numpy(float) for name in rows}
        write_wsidata(stores / f"{path.stem}.zarr", place.path, read_features(path), scores)


def _add_tiles(wsi: Any, slide: SlideFeatures, tile_key: str) -> None:
    from wsidata import TileSpec
    from wsidata.io import add_tiles

    size = slide.patch_size_level0
    spec = TileSpec(size, size, size, size, mpp=slide.level0_mpp)
    add_tiles(wsi, tile_key, slide.coords, spec, np.zeros(len(slide.coords), dtype=int))
