"""A feature file of any tool, opened: where the patches are and how to fetch their features."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Int32, Num

from subfuse.errors import DataError
from subfuse.features.hdf5_files import damage_named
from subfuse.features.patch_spacing import spacing
from subfuse.features.store import UNKNOWN_ENCODER, SlideFeatures, raster_corners
from subfuse.features.stored.content import require_finite
from subfuse.features.stored.in_place import why_copied
from subfuse.slides.tissue import MPP_PLACE, Tiling

_LARGEST_PX = 1 << 24  # no slide is wider, in level-0 pixels
ONE_VECTOR = "one vector for the whole slide: no heat maps are drawn"
NO_COORDINATES = "no coordinates: the patches are laid out row by row on a square, and no heat maps are drawn"


@dataclass(frozen=True)
class FeatureFile:
    """An opened feature file: what it says about itself, and how to fetch features and places while it is open."""

    layout: str  # the tool that wrote it
    shape: tuple[int, int]  # patches, features
    read: Callable[[], np.ndarray]  # the stored array; any leading axes have length 1
    read_coords: Callable[[], np.ndarray] | None  # (patch, 2) top-left corners in level-0 pixels; None: there are none
    patch_size_level0: int | None  # None: the spacing of the patches
    level0_mpp: float  # µm per level-0 pixel; nominal without coordinates
    tile_px: int | None  # side of the images that the encoder saw; None where unknown
    encoder: str = UNKNOWN_ENCODER
    encoder_sha256: str = ""
    overlap_px: int = 0
    slide_size_px: tuple[int, int] | None = None  # width, height; None: ends with the last patch
    bounds_corner: tuple[int, int] = (0, 0)  # of the scanned area in level-0 pixels
    warnings: tuple[str, ...] = ()
    dtype: type[np.floating] = np.float16  # of what `slide_features` returns
    array: h5py.Dataset | None = (
        None  # whose values `read` returns as they are; None: they are put together or converted
    )

    @property
    def why_copied(self) -> str:
        """Returns why features are copied from this file, empty if they can stay in it; see `stored.in_place`."""
        return "joined, or not in HDF5" if self.array is None else why_copied(self.array)

    @property
    def patch_um(self) -> float:
        """Side of a patch in µm; NaN without coordinates, or where only the spacing of the patches tells it."""
        if self.read_coords is None or self.patch_size_level0 is None:
            return math.nan
        return self.patch_size_level0 * self.level0_mpp

    def slide_features(self, path: Path) -> SlideFeatures:
        """Reads the features and puts them together with their places.

        Raises:
            DataError: The file is damaged, or its last patches, or all, are zero; a feature is not finite, or beyond
                float16; a patch does not lie on the slide, or all lie in one place; or the size of the patches cannot
                be told.
        """
        with np.errstate(over="ignore"), damage_named(path, "a complete file"):  # beyond float16: reported below
            features = np.ascontiguousarray(np.asarray(self.read()).reshape(self.shape), self.dtype)
        require_finite(features, path)
        require_whole(features, path)
        known = self.read_coords is not None
        coords, size = self.places(path)
        width, height = self.slide_size_px or (coords.max(axis=0) + size).tolist()
        return SlideFeatures(
            features=features,
            coords=coords,
            patch_size_level0=size,
            level0_mpp=self.level0_mpp,
            target_mpp=size * self.level0_mpp / self.tile_px if known and self.tile_px else math.nan,
            encoder=self.encoder,
            encoder_sha256=self.encoder_sha256,
            slide_width_px=width,
            slide_height_px=height,
            has_coordinates=known,
            bounds_corner=self.bounds_corner,
        )

    def places(self, path: Path) -> tuple[Int32[np.ndarray, "patch 2"], int]:
        """Reads the corners and the side of the patches, in level-0 pixels.

        Raises:
            DataError: As for `slide_features`, as far as it is of places.
        """
        if self.read_coords is None:
            assert self.patch_size_level0 is not None  # see `without_coordinates`
            return raster_corners(self.shape[0], self.patch_size_level0), self.patch_size_level0
        with damage_named(path, "a complete file"):
            corners = np.asarray(self.read_coords(), np.float64).round()
        self._require_on_slide(corners, path)
        size = self.patch_size_level0 or max(1, round(spacing(corners, path, self.level0_mpp)))
        return corners.astype(np.int32), size

    def _require_on_slide(self, corners: Num[np.ndarray, "patch 2"], path: Path) -> None:
        """Refuses places that lie left of or above the slide, beyond its recorded size, or beyond that of any slide."""
        if corners.shape != (self.shape[0], 2):
            raise DataError(
                f"{path}: one place (x, y) of each of the {self.shape[0]} patches is required. Found an array "
                f"{corners.shape}. Extract the slide again."
            )
        if len(corners) > 1 and (corners == corners[0]).all():
            raise DataError(
                f"{path}: the places of its {len(corners)} patches are required. Found all of them at "
                f"({corners[0, 0]:.0f}, {corners[0, 1]:.0f}). Copy the file again, or extract the slide again."
            )
        at_corner = np.flatnonzero(corners.any(axis=1))[-1] + 1 if corners.any() else 0
        if len(corners) - at_corner > 1:
            raise DataError(
                f"{path}: the places of its {len(corners)} patches are required. Found the last "
                f"{len(corners) - at_corner} of them at (0, 0). Copy the file again, or extract the slide again."
            )
        outside = ~((corners >= 0) & (corners < (self.slide_size_px or (_LARGEST_PX, _LARGEST_PX))))  # NaN too
        if outside.any():
            first = np.flatnonzero(outside.any(axis=1))[0]
            area = " x ".join(f"{n:,}" for n in self.slide_size_px or ())
            raise DataError(
                f"{path}: patches must lie on the slide{f' of {area} px' if area else ''}, their corners in level-0 "
                f"pixels from its top left. Found ({corners[first, 0]:.0f}, {corners[first, 1]:.0f}) in row {first}, "
                f"and {np.count_nonzero(outside.any(axis=1))} such patches. Extract the slide again."
            )


def require_whole(features: np.ndarray, path: Path) -> None:
    """Raises a DataError where the last patches, or all, are zero, as no encoder makes them: cut, or padded."""
    n_patches, filled = len(features), np.flatnonzero(features.any(axis=1))
    n_empty = n_patches - 1 - filled[-1] if len(filled) else n_patches
    if n_empty:
        found = f"the last {n_empty} of {n_patches}" if len(filled) else f"those of all {n_patches}"
        raise DataError(
            f"{path}: the features of every patch are required. Found {found} all zero. Copy the file again; or, if "
            "bags were padded, save them as they were before."
        )


def without_coordinates(
    layout: str, shape: tuple[int, int], read: Callable[[], np.ndarray], array: h5py.Dataset | None = None
) -> FeatureFile:
    """Returns a file whose patches have no places; their size is nominal, that of `subfuse prepare`'s own."""
    nominal, note = Tiling(), ONE_VECTOR if shape[0] == 1 else NO_COORDINATES
    return FeatureFile(
        layout, shape, read, None, nominal.tile_px, nominal.mpp, tile_px=None, warnings=(note,), array=array
    )


def bag_shape(shape: tuple[int, ...], path: Path, found: str) -> tuple[int, int]:
    """Returns patches and features of an array (patch, feature), (1, patch, feature) or (feature,).

    Raises:
        DataError: Another shape, or an empty one; the message says what was `found`.
    """
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2 or 0 in shape:
        raise DataError(
            f"{path}: features (patch, feature) with at least one patch are required. Found: {found}. "
            "Extract the slide again, or leave it out."
        )
    return shape[0], shape[1]


def unknown_mpp(path: Path, found: str) -> DataError:
    """Returns the error of a file that does not record its pixel size."""
    return DataError(
        f"{path}: the pixel size is required (µm per level-0 pixel). Found {found}. Declare `mpp` in {MPP_PLACE}."
    )
