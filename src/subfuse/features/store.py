"""Patch features of one slide in one HDF5 file, under TRIDENT's names: what a prepared folder holds.

Files of other tools are read by `subfuse.features.other_tools` and converted to this one; where their features stay in
place, the file holds all but these, see `subfuse.features.stored.in_place`.
"""

import hashlib
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float16, Float32, Float64, Int32

import subfuse
from subfuse.errors import DataError
from subfuse.features.hdf5_files import hdf5_listing, opened_hdf5, stored_array
from subfuse.features.stored.content import CONTENT_HASH, content_sha256, require_content, require_finite
from subfuse.features.stored.in_place import ROWS, FeaturesInPlace, read_in_place, write_in_place
from subfuse.files import atomic_path
from subfuse.slides.tissue import covered_px2

UNKNOWN_ENCODER = "unknown"
_MOMENTS, _MOMENTS_HASH = "moments", "moments_sha256"  # sum and sum of squares of every feature, as float64


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
    bounds_corner: tuple[int, int] = (
        0,
        0,
    )  # top left (x, y) of the scanned area in level-0 pixels, to which QuPath crops

    @property
    def centres_um(self) -> Float32[np.ndarray, "patch 2"]:
        """Patch centres (x, y) in µm from the slide's top-left corner."""
        return ((self.coords + self.patch_size_level0 / 2) * self.level0_mpp).astype(np.float32)

    @property
    def patch_um(self) -> float:
        """Side of a patch in µm; NaN where places are unknown."""
        return self.patch_size_level0 * self.level0_mpp if self.has_coordinates else math.nan

    @property
    def area_mm2(self) -> float:
        """Area that the patches cover together, where they overlap counted once; NaN where places are unknown."""
        if not self.has_coordinates:
            return math.nan
        return covered_px2(self.coords, self.patch_size_level0) * self.level0_mpp**2 / 1e6


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
    in_place: FeaturesInPlace | None = None,
) -> None:
    """Writes the features of one slide, complete or not at all, with a hash of its content.

    Datasets are contiguous: files chunked by rows read 8 to 20 times slower.

    Args:
        path: File to write, named by the slide; replaced when it exists.
        slide: At least one patch, all features finite.
        tile_px: Side of a patch in pixels at `slide.target_mpp`; None where unknown.
        overlap_px: Overlap of neighbouring patches, in the same pixels.
        attributes: Further attributes of `coords`, kept with the file.
        in_place: Where the features lie that the file shall only point to; None: it holds them.

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
        if in_place is None:
            file.create_dataset("features", data=slide.features)
        coords = file.create_dataset("coords", data=slide.coords)
        coords.attrs.update(attributes or {})
        coords.attrs.update(_attributes_of(slide, tile_px=tile_px, overlap_px=overlap_px))
        moments = _moments(slide.features)
        file.create_dataset(_MOMENTS, data=moments)
        coords.attrs[_MOMENTS_HASH] = hashlib.sha256(moments.data).hexdigest()
        coords.attrs["slide_id"] = path.stem
        coords.attrs[CONTENT_HASH] = content_sha256(slide.features, slide.coords, dict(coords.attrs))
        if in_place is not None:
            write_in_place(in_place, file, path)


def read_features(path: Path, *, verify: bool = True) -> SlideFeatures:
    """Reads the features of one slide from a file that `write_features` wrote.

    Args:
        path: The file.
        verify: Whether the content must agree with its hash; a file that was verified before need not be again.

    Raises:
        DataError: The file, or that in which its features stay, is missing, damaged, of another layout or slide, or
            changed since it was written.
    """
    path = Path(path)
    with opened_hdf5(path) as file:
        stored, coords, attributes = _content(file, path)
        return _slide_features(_values(stored, coords, attributes, path, verify=verify), coords, attributes)


def read_places(path: Path) -> SlideFeatures:
    """Reads where the patches of one slide are, with features of no columns.

    Raises:
        DataError: The file is missing, damaged or of another layout.
    """
    with opened_hdf5(path) as file:
        _, coords, attributes = _content(file, path)
        return _slide_features(np.empty((len(coords), 0), np.float16), coords, attributes)


def read_moments(path: Path) -> tuple[int, Float64[np.ndarray, "moment feature"]]:
    """Returns the number of patches of one slide, and sum and sum of squares of every feature over them.

    They are stored with the features, which are read only where they are not: in files of earlier versions.

    Raises:
        DataError: As for `read_features`, where the features are read.
    """
    with opened_hdf5(path) as file:
        _, coords, attributes = _content(file, path)
        if _MOMENTS in file:
            moments = stored_array(file, _MOMENTS, path)[()]
            if hashlib.sha256(moments.data).hexdigest() == attributes.get(_MOMENTS_HASH):
                return len(coords), moments
    features = read_features(path).features
    return len(features), _moments(features)


def read_sample(path: Path, n_patches: int) -> SlideFeatures:
    """Reads about so many patches of one slide, evenly spaced in the file's order.

    The content is not verified, unless the features stay in a file that was written since they were imported.

    Raises:
        DataError: The file is missing, damaged or of another layout; verified, as for `read_features`.
    """
    with opened_hdf5(path) as file:
        stored, coords, attributes = _content(file, path)
        step = max(1, len(coords) // n_patches)
        features = _values(stored, coords, attributes, path, verify=False, step=step)
        return _slide_features(features, coords[::step], attributes)


def read_attributes(path: Path, *, verify: bool = False) -> tuple[int, dict[str, Any]]:
    """Reads the number of patches and the attributes of `coords`.

    Args:
        path: The file.
        verify: Whether all of the file is read to compare its content with its hash; features that stay in another
            one are read only if that was written since.

    Raises:
        DataError: The file is missing, damaged or of another layout; verified, as for `read_features`.
    """
    path = Path(path)
    with opened_hdf5(path) as file:
        stored, coords, attributes = _content(file, path)
        if verify and not (isinstance(stored, FeaturesInPlace) and stored.is_same):
            _values(stored, coords, attributes, path, verify=True)
        return len(coords), attributes


def features_in_place(path: Path) -> FeaturesInPlace | None:
    """Returns where the features of a file are that it does not hold itself; None: it holds them.

    Raises:
        DataError: The file is missing, damaged or of another layout.
    """
    with opened_hdf5(path) as file:
        stored, *_ = _content(file, path)
        return None if isinstance(stored, h5py.Dataset) else stored


def add_missing_hash(path: Path) -> None:
    """Adds the hash of its content to a file of an earlier version, which had none; others stay as they are.

    Raises:
        DataError: The file is missing, damaged, of another layout or slide, or a feature is not finite.
    """
    path = Path(path)
    with opened_hdf5(path) as file:
        _, coords, attributes = _content(file, path)
        if CONTENT_HASH in attributes:
            return
        features = file["features"][()]
        require_finite(features, path)
        attributes["slide_id"] = attributes.get("slide_id", path.stem)
        attributes[CONTENT_HASH] = content_sha256(features, coords, attributes)
        require_content(features, coords, attributes, path)
    with atomic_path(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            file["coords"].attrs.update({name: attributes[name] for name in ("slide_id", CONTENT_HASH)})


def read_matching(path: Path, expected: Mapping[str, str | int | float | None]) -> tuple[int, dict[str, Any]] | None:
    """Returns `read_attributes` of a whole file that was made from what is expected; None: it is to be made.

    Args:
        path: The file; absent, damaged or changed, it is to be made again.
        expected: Attributes that must be the same; None: that must be absent.
    """
    if not path.exists():
        return None
    try:
        add_missing_hash(path)
        n_patches, found = read_attributes(path, verify=True)
    except DataError:
        return None
    return (n_patches, found) if all(found.get(name) == value for name, value in expected.items()) else None


def recorded_hash(path: Path) -> str:
    """Returns the hash of its content that a feature file was written with; empty where it has none.

    Raises:
        DataError: As for `read_attributes`.
    """
    return str(read_attributes(path)[1].get(CONTENT_HASH, ""))


def patch_um(attributes: Mapping[str, Any]) -> float:
    """Returns the side of a patch in µm, from the attributes of a feature file; NaN where places are unknown."""
    known = bool(attributes.get("has_coordinates", True))
    return float(attributes["patch_size_level0"]) * float(attributes["level0_mpp"]) if known else math.nan


def _moments(features: np.ndarray) -> Float64[np.ndarray, "moment feature"]:
    values = features.astype(np.float64)
    return np.stack([values.sum(axis=0), np.square(values).sum(axis=0)])


def _slide_features(features: np.ndarray, coords: np.ndarray, attributes: Mapping[str, Any]) -> SlideFeatures:
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
        bounds_corner=(int(attributes.get("bounds_x_level0", 0)), int(attributes.get("bounds_y_level0", 0))),
    )


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
        "bounds_x_level0": slide.bounds_corner[0],
        "bounds_y_level0": slide.bounds_corner[1],
    }
    if tile_px is not None:
        known["patch_size"] = tile_px
    if not math.isnan(slide.target_mpp):
        known |= {"target_mpp": slide.target_mpp, "target_magnification": 10 / slide.target_mpp}
    return known


def _content(
    file: h5py.File, path: Path
) -> tuple[h5py.Dataset | FeaturesInPlace, Int32[np.ndarray, "patch 2"], dict[str, Any]]:
    """Returns what an open file holds: its features, or where they are; the places; the attributes of these."""
    if set(file) >= {"features", "coords"}:
        coords = stored_array(file, "coords", path)
        if "subfuse_version" in coords.attrs:
            places, attributes = coords[()], dict(coords.attrs)
            if ROWS in file:
                stored = read_in_place(file, path, places, attributes)
            else:
                stored = stored_array(file, "features", path)
            if len(stored.shape) == 2 and stored.shape[0] > 0 and places.shape == (stored.shape[0], 2):
                return stored, places, attributes
    raise DataError(
        f"{path}: a feature file that subfuse wrote is required, with `features` (patch, feature) and `coords` "
        f"(patch, 2). Found: {hdf5_listing(file)}. Files of other tools go through `subfuse prepare`, as "
        "`slides.features` of the cohort file."
    )


def _values(
    stored: h5py.Dataset | FeaturesInPlace,
    coords: np.ndarray,
    attributes: Mapping[str, Any],
    path: Path,
    *,
    verify: bool,
    step: int = 1,
) -> np.ndarray:
    """Reads the features of every so many patches: all of them, to verify them, where the file may be another one."""
    if isinstance(stored, h5py.Dataset):
        read, changed = (lambda step: stored[::step]), None
    else:
        read, changed, verify = stored.read, stored.changed, not stored.is_same or verify
    if not verify:
        return read(step)
    values = read(1)
    require_content(values, coords, attributes, path, changed=changed)
    return values[::step]
