"""Patch features as other tools write them, one reader per layout; the content decides which layout a file has.

| layout | recognised by |
|---|---|
| subfuse, TRIDENT, CLAM | HDF5 with `features` and `coords` (level-0 pixels) |
| STAMP | HDF5 with `feats` or `patch_embeddings`, `coords` in µm |
| released code | HDF5 with `Res_feature`: no coordinates |
| CLAM tensor | `.pt` with one tensor; coordinates from `h5_files/<slide>.h5` beside its folder |
| wsidata | zarr store with a table of features of tiles |
"""

import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Num

from subfuse.errors import DataError, preview
from subfuse.features.feature_file import FeatureFile, bag_shape, spacing, unknown_mpp, without_coordinates
from subfuse.features.store import UNKNOWN_ENCODER, hdf5_listing, opened_hdf5
from subfuse.features.wsidata import read_wsidata
from subfuse.slides.tissue import MPP_PLACE

NO_PATCH_SIZE = "the size of the patches is not recorded: taken from their spacing, as without overlap"
_STAMP_V1_PX, _STAMP_V1_UM = 224, 256.0  # STAMP before 2.0: coordinates in pixels of 256 µm / 224


@contextmanager
def opened_features(path: Path, *, mpp: float | None = None, encoder: str | None = None) -> Iterator[FeatureFile]:
    """Opens a feature file of any known layout; features are read only when asked for.

    Args:
        path: An HDF5 file, a `.pt` file or a zarr store.
        mpp: µm per level-0 pixel as declared; preferred to what the file records.
        encoder: Name of the encoder as declared: used where the file does not say, and to choose among several
            feature tables of a wsidata store.

    Raises:
        DataError: The file is missing, damaged, of an unknown layout, without patches, or its pixel size is unknown.
        ConfigurationError: The extra `wsi` is missing, for a zarr store.
    """
    path = Path(path)
    if path.is_dir():
        yield _named(read_wsidata(path, mpp, encoder), path, encoder)
    elif zipfile.is_zipfile(path) or path.suffix.lower() == ".pt":
        with _opened_tensor(path, mpp) as file:
            yield _named(file, path, encoder)
    else:
        with opened_hdf5(path) as hdf5:
            yield _named(_read_hdf5(hdf5, path, mpp), path, encoder)


def files_behind(path: Path) -> list[Path]:
    """Returns every file that `opened_features` may read for this one: what to watch for changes."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path, *(file for file in [_coordinates_of_tensor(path)] if path.suffix.lower() == ".pt" and file.exists())]


def _named(file: FeatureFile, path: Path, declared: str | None) -> FeatureFile:
    """Fills in the encoder: the file's own word, else the declared, else the folder `features_<encoder>` (TRIDENT)."""
    if file.encoder != UNKNOWN_ENCODER:
        return file
    folder = path.parent.name.removeprefix("features_")
    return replace(file, encoder=declared or (folder if folder != path.parent.name else UNKNOWN_ENCODER))


def _read_hdf5(file: h5py.File, path: Path, mpp: float | None) -> FeatureFile:
    found = [name for name in _HDF5_LAYOUTS if isinstance(file.get(name), h5py.Dataset)]
    if len(found) != 1:
        raise DataError(
            f"{path}: one dataset of features is required, named {', '.join(_HDF5_LAYOUTS)}. "
            f"Found: {hdf5_listing(file)}. See the layouts that `slides.features` reads in the documentation."
        )
    return _HDF5_LAYOUTS[found[0]](file, file[found[0]], path, mpp)


def _read_trident_or_clam(file: h5py.File, features: h5py.Dataset, path: Path, mpp: float | None) -> FeatureFile:
    """Coordinates in level-0 pixels. TRIDENT records the patch size, CLAM leaves it to the spacing of the patches."""
    shape = _hdf5_shape(features, path, file)
    attributes = dict(file["coords"].attrs) if "coords" in file else {}
    encoder = str(attributes.get("encoder", UNKNOWN_ENCODER))
    encoder_sha256 = str(attributes.get("encoder_sha256", ""))
    dtype = features.dtype.type if "subfuse_version" in attributes else np.float16  # ours keep their precision
    if "coords" not in file or features.ndim == 1 or not attributes.get("has_coordinates", True):
        bare = without_coordinates("HDF5", shape, lambda: features[()])
        return replace(bare, encoder=encoder, encoder_sha256=encoder_sha256, dtype=dtype)
    _require_coords(file, shape, path)
    level0_mpp = mpp or _recorded(attributes, "level0_mpp", path)
    if level0_mpp is None:
        raise unknown_mpp(
            path, f"attributes {preview(sorted(attributes), limit=12) or 'none'}; magnification is nominal"
        )
    size = _recorded(attributes, "patch_size_level0", path)
    return FeatureFile(
        layout="subfuse" if "subfuse_version" in attributes else "CLAM" if size is None else "TRIDENT",
        shape=shape,
        read=lambda: features[()],
        read_coords=lambda: _corners(file, path),
        patch_size_level0=None if size is None else round(size),
        level0_mpp=level0_mpp,
        tile_px=int(attributes["patch_size"]) if size and "patch_size" in attributes else None,
        encoder=encoder,
        encoder_sha256=encoder_sha256,
        overlap_px=int(attributes.get("overlap", 0)),
        slide_size_px=_slide_size(attributes),
        warnings=(NO_PATCH_SIZE,) if size is None else (),
        dtype=dtype,
    )


def _read_stamp(file: h5py.File, features: h5py.Dataset, path: Path, mpp: float | None) -> FeatureFile:
    """Coordinates in µm since STAMP 2.0. One vector per slide or patient has none."""
    shape, attributes = _hdf5_shape(features, path, file), dict(file.attrs)
    encoder = str(attributes.get("extractor", attributes.get("encoder", UNKNOWN_ENCODER)))
    if "coords" not in file:
        return replace(without_coordinates("STAMP", shape, lambda: features[()]), encoder=encoder)
    _require_coords(file, shape, path)
    tile_um, tile_px, unit_um = _stamp_tile(file, path), _recorded(attributes, "tile_size_px", path), 1.0
    if tile_um is None:  # the layout before 2.0
        tile_um, tile_px, unit_um = _STAMP_V1_UM, _STAMP_V1_PX, _STAMP_V1_UM / _STAMP_V1_PX
    level0_mpp = mpp or (tile_um / tile_px if tile_px else None)
    if level0_mpp is None:
        raise unknown_mpp(path, f"attributes {preview(sorted(attributes), limit=12)}")
    note = (
        "the slide's own pixel size is not recorded: positions are kept in pixels of the encoder's images "
        f"({level0_mpp:.4g} µm). Declare `mpp` in {MPP_PLACE} for outlines in level-0 pixels"
    )
    return FeatureFile(
        layout="STAMP",
        shape=shape,
        read=lambda: features[()],
        read_coords=lambda: _corners(file, path) * (unit_um / level0_mpp),
        patch_size_level0=max(1, round(tile_um / level0_mpp)),
        level0_mpp=level0_mpp,
        tile_px=None if tile_px is None else int(tile_px),
        encoder=encoder,
        warnings=() if mpp else (note,),
    )


def _stamp_tile(file: h5py.File, path: Path) -> float | None:
    """Side of a tile in µm; None: the file has the layout of STAMP before 2.0, which recorded no unit."""
    attributes = dict(file.attrs)
    if "tile_size_um" in attributes:
        return _recorded(attributes, "tile_size_um", path)
    size = _recorded(attributes, "tile_size", path)
    if size is not None and attributes.get("unit") == "um":
        return size
    if "unit" not in attributes and round(size or spacing(_corners(file, path), path)) == _STAMP_V1_PX:
        return None
    raise DataError(
        f"{path}: coordinates in µm are required, with `tile_size_um`, or `tile_size` and `unit` um, as STAMP writes. "
        f"Found: {hdf5_listing(file)}. Extract the slide again with a current STAMP."
    )


def _read_released(file: h5py.File, features: h5py.Dataset, path: Path, mpp: float | None) -> FeatureFile:
    """Features in list order. Nothing is known of their places."""
    return without_coordinates("released code", _hdf5_shape(features, path, file), lambda: features[()])


_HDF5_LAYOUTS: Mapping[str, Callable[[h5py.File, h5py.Dataset, Path, float | None], FeatureFile]] = {
    "features": _read_trident_or_clam,
    "feats": _read_stamp,
    "patch_embeddings": _read_stamp,
    "Res_feature": _read_released,
}


@contextmanager
def _opened_tensor(path: Path, mpp: float | None) -> Iterator[FeatureFile]:
    """One tensor as CLAM saves it; its coordinates are in the HDF5 file of the same name."""
    tensor = _loaded_tensor(path)
    shape = bag_shape(tuple(tensor.shape), path, f"a tensor {tuple(tensor.shape)}")
    sibling = _coordinates_of_tensor(path)
    if not sibling.exists():
        yield without_coordinates("tensor", shape, lambda: tensor.float().numpy())
        return
    with opened_hdf5(sibling) as file:
        found = _read_hdf5(file, sibling, mpp)
        if found.shape != shape:
            raise DataError(
                f"{path}: its {shape[0]} patches x {shape[1]} features must be those of {sibling}. "
                f"Found {found.shape[0]} x {found.shape[1]} there. Extract the slide again."
            )
        yield replace(found, read=lambda: tensor.float().numpy())


def _coordinates_of_tensor(path: Path) -> Path:
    return path.parent.parent / "h5_files" / f"{path.stem}.h5"


def _loaded_tensor(path: Path) -> Any:
    """Loads without unpickling code; a file in the usual zip format is mapped, not read."""
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        size = f"{path.stat().st_size} bytes" if path.exists() else "none"
        raise DataError(
            f"{path}: a complete file with one tensor is required, and nothing but tensors is unpickled. "
            f"Found {size} that cannot be loaded ({first[:120]}). Extract the slide again, or use the HDF5 file."
        ) from error
    if not isinstance(loaded, torch.Tensor):
        keys = f" with {preview(loaded, limit=10)}" if isinstance(loaded, dict) else ""
        raise DataError(
            f"{path}: one tensor (patch, feature) is required. Found a {type(loaded).__name__}{keys}. "
            "Save the features alone, or use the HDF5 file."
        )
    return loaded


def _hdf5_shape(features: h5py.Dataset, path: Path, file: h5py.File) -> tuple[int, int]:
    if features.dtype.kind not in "fiu":
        raise DataError(f"{path}: features must be numbers. Found {features.dtype} in {features.name}.")
    return bag_shape(features.shape, path, hdf5_listing(file))


def _require_coords(file: h5py.File, shape: tuple[int, int], path: Path) -> None:
    stored, n_patches = file["coords"], shape[0]
    if getattr(stored, "shape", None) in ((n_patches, 2), (1, n_patches, 2)) and stored.dtype.kind in "fiu":
        return
    raise DataError(
        f"{path}: `coords` (patch, 2) is required with one row for each of the {n_patches} patches. "
        f"Found: {hdf5_listing(file)}. Extract the slide again."
    )


def _corners(file: h5py.File, path: Path) -> Num[np.ndarray, "patch 2"]:
    coords = file["coords"][()].reshape(-1, 2)
    if not np.isfinite(coords).all():
        raise DataError(f"{path}: `coords` must be finite. Found NaN or infinity. Extract the slide again.")
    return coords


def _recorded(attributes: Mapping[str, Any], name: str, path: Path) -> float | None:
    if name not in attributes:
        return None
    value = np.asarray(attributes[name])
    if value.size != 1 or value.dtype.kind not in "fiu" or not (np.isfinite(value) and value > 0).all():
        raise DataError(f"{path}: attribute `{name}` must be a positive number. Found {attributes[name]!r}.")
    return float(value.item())


def _slide_size(attributes: Mapping[str, Any]) -> tuple[int, int] | None:
    for width, height in (("slide_width_level0", "slide_height_level0"), ("level0_width", "level0_height")):
        if width in attributes and height in attributes:
            return int(attributes[width]), int(attributes[height])
    return None
