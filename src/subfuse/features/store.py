"""Patch features of one slide in one HDF5 file, under TRIDENT's names: what a prepared folder holds.

Files of other tools are read by `subfuse.features.other_tools` and converted to this one.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float16, Float32, Int32

import subfuse
from subfuse.errors import DataError, preview
from subfuse.files import atomic_path

UNKNOWN_ENCODER = "unknown"


@dataclass(frozen=True)
class SlideFeatures:
    """Features and places of the patches of one slide. Level 0 is the slide's finest level."""

    features: Float16[np.ndarray, "patch feature"] | Float32[np.ndarray, "patch feature"]
    coords: Int32[np.ndarray, "patch 2"]  # top-left corners (x, y) in level-0 pixels
    patch_size_level0: int  # side of a patch in level-0 pixels
    level0_mpp: float  # µm per level-0 pixel
    target_mpp: float  # µm per pixel of the images that the encoder saw; NaN where unknown
    encoder: str  # "unknown" where another tool's file does not say
    encoder_sha256: str  # of the encoder's weights; empty where unknown
    slide_width_px: int  # at level 0
    slide_height_px: int
    has_coordinates: bool = True  # False: coords are a square raster in list order, see `raster_corners`

    @property
    def centres_um(self) -> Float32[np.ndarray, "patch 2"]:
        """Patch centres (x, y) in µm from the slide's top-left corner."""
        return ((self.coords + self.patch_size_level0 / 2) * self.level0_mpp).astype(np.float32)


def raster_corners(n_patches: int, patch_size_level0: int) -> Int32[np.ndarray, "patch 2"]:
    """Returns corners for patches whose places are unknown: row by row on the smallest square that holds them.

    These places carry no meaning; they only give models that need positions distinct ones. `SlideFeatures` with such
    corners have `has_coordinates=False`.

    Relative to the paper: its code lays out every slide like this, in list order on 50 x 50 cells, although places are
    known; here it is the last resort.

    Example:
        >>> raster_corners(3, 256).tolist()
        [[0, 0], [256, 0], [0, 256]]
    """
    side = math.isqrt(max(0, n_patches - 1)) + 1
    index = np.arange(n_patches)
    return (np.stack([index % side, index // side], axis=1) * patch_size_level0).astype(np.int32)


def write_features(
    path: Path,
    slide: SlideFeatures,
    *,
    tile_px: int | None,
    overlap_px: int = 0,
    attributes: Mapping[str, str | int | float] | None = None,
) -> None:
    """Writes the features of one slide, complete or not at all.

    Datasets are contiguous: files chunked by rows read 8 to 20 times slower.

    Args:
        path: File to write; replaced when it exists.
        slide: At least one patch, all features finite.
        tile_px: Side of a patch in pixels at `slide.target_mpp`; None where unknown.
        overlap_px: Overlap of neighbouring patches, in the same pixels.
        attributes: Further attributes of `coords`, kept with the file.

    Raises:
        DataError: There is no patch, or a feature is not finite.
        ValueError: Features and coordinates differ in number.
    """
    if len(slide.features) != len(slide.coords):
        raise ValueError(f"features and coords must be as many. Found {len(slide.features)} and {len(slide.coords)}.")
    if len(slide.features) == 0:
        raise DataError(f"{path}: a feature file needs at least one patch. Found none; exclude the slide.")
    require_finite(slide.features, path)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("features", data=slide.features)
        coords = file.create_dataset("coords", data=slide.coords)
        coords.attrs.update(attributes or {})
        coords.attrs.update(_attributes_of(slide, tile_px=tile_px, overlap_px=overlap_px))


def read_features(path: Path) -> SlideFeatures:
    """Reads the features of one slide from a file that `write_features` wrote.

    Raises:
        DataError: The file is missing, damaged or of another layout.
    """
    with opened_hdf5(path) as file:
        _require_layout(file, path)
        features, coords = file["features"][()], file["coords"][()]
        attributes = dict(file["coords"].attrs)
    return SlideFeatures(
        features=features,
        coords=coords,
        patch_size_level0=int(attributes["patch_size_level0"]),
        level0_mpp=float(attributes["level0_mpp"]),
        target_mpp=float(attributes.get("target_mpp", np.nan)),
        encoder=str(attributes["encoder"]),
        encoder_sha256=str(attributes["encoder_sha256"]),
        slide_width_px=int(attributes["slide_width_level0"]),
        slide_height_px=int(attributes["slide_height_level0"]),
        has_coordinates=bool(attributes.get("has_coordinates", True)),
    )


def read_attributes(path: Path) -> tuple[int, dict[str, Any]]:
    """Reads the number of patches and the attributes of `coords`, without the features.

    Raises:
        DataError: The file is missing, damaged or of another layout.
    """
    with opened_hdf5(path) as file:
        _require_layout(file, path)
        return len(file["coords"]), dict(file["coords"].attrs)


@contextmanager
def opened_hdf5(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading. No locks: files appear complete, and read-only network folders cannot lock.

    Raises:
        DataError: The file is missing, empty, truncated or no HDF5 file; also when reading inside the block fails.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: a feature file is required. Found none; run `subfuse prepare` or correct the path.")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{path}: a complete HDF5 file is required. Found {Path(path).stat().st_size} bytes that cannot be read "
            f"({' '.join(str(error).split())}). Delete the file and write it again."
        ) from error


def require_finite(
    features: Float16[np.ndarray, "patch feature"] | Float32[np.ndarray, "patch feature"], path: Path
) -> None:
    """Raises a DataError where a feature is NaN or infinite; values beyond float16 have become infinite before."""
    is_finite = np.isfinite(features).all(axis=1)
    if not is_finite.all():
        raise DataError(
            f"{path}: features must be finite and below 65504. Found {np.count_nonzero(~is_finite)} of "
            f"{len(features)} patches that are not, the first at row {np.argmin(is_finite)}. Extract the slide again."
        )


def hdf5_listing(file: h5py.File) -> str:
    """Returns what a file holds, for messages: names with shapes, then the names of its attributes."""
    shapes = [f"{name} {getattr(file[name], 'shape', 'a group')}" for name in sorted(file)]
    listing = preview(shapes, limit=10) or "an empty file"
    return f"{listing}; attributes {preview(sorted(file.attrs), limit=10)}" if len(file.attrs) else listing


def _attributes_of(slide: SlideFeatures, *, tile_px: int | None, overlap_px: int) -> dict[str, str | int | float]:
    """Attributes of `coords`: TRIDENT's names first, then ours. Magnification is 10 / mpp by convention."""
    known: dict[str, str | int | float] = {
        "patch_size_level0": slide.patch_size_level0,
        "level0_magnification": 10 / slide.level0_mpp,
        "overlap": overlap_px,
        "level0_mpp": slide.level0_mpp,
        "encoder": slide.encoder,
        "encoder_sha256": slide.encoder_sha256,
        "subfuse_version": subfuse.__version__,
        "slide_width_level0": slide.slide_width_px,
        "slide_height_level0": slide.slide_height_px,
        "has_coordinates": slide.has_coordinates,
    }
    if tile_px is not None:
        known["patch_size"] = tile_px
    if not math.isnan(slide.target_mpp):
        known |= {"target_mpp": slide.target_mpp, "target_magnification": 10 / slide.target_mpp}
    return known


def _require_layout(file: h5py.File, path: Path) -> None:
    shapes = {name: file[name].shape for name in sorted(file) if isinstance(file[name], h5py.Dataset)}
    features, coords = shapes.get("features", ()), shapes.get("coords", ())
    is_bag = len(features) == 2 and features[0] > 0 and coords == (features[0], 2)
    if is_bag and "subfuse_version" in file["coords"].attrs:
        return
    raise DataError(
        f"{path}: a feature file that subfuse wrote is required, with `features` (patch, feature) and `coords` "
        f"(patch, 2). Found: {hdf5_listing(file)}. Files of other tools go through `subfuse prepare`, as "
        "`slides.features` of the cohort file."
    )
