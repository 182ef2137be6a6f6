"""Patch features of one slide in one HDF5 file, under TRIDENT's names: files of both tools are read alike."""

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

    features: Float16[np.ndarray, "patch feature"]
    coords: Int32[np.ndarray, "patch 2"]  # top-left corners (x, y) in level-0 pixels
    patch_size_level0: int  # side of a patch in level-0 pixels
    level0_mpp: float  # µm per level-0 pixel
    target_mpp: float  # µm per pixel of the images that the encoder saw
    encoder: str  # "unknown" where another tool's file does not say
    encoder_sha256: str  # of the encoder's weights; empty where unknown
    slide_width_px: int  # at level 0
    slide_height_px: int

    @property
    def centres_um(self) -> Float32[np.ndarray, "patch 2"]:
        """Patch centres (x, y) in µm from the slide's top-left corner."""
        return ((self.coords + self.patch_size_level0 / 2) * self.level0_mpp).astype(np.float32)


def write_features(
    path: Path,
    slide: SlideFeatures,
    *,
    tile_px: int,
    overlap_px: int = 0,
    attributes: Mapping[str, str | int | float] | None = None,
) -> None:
    """Writes the features of one slide, complete or not at all.

    Datasets are contiguous: files chunked by rows read 8 to 20 times slower.

    Args:
        path: File to write; replaced when it exists.
        slide: At least one patch, all features finite.
        tile_px: Side of a patch in pixels at `slide.target_mpp`.
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
    _require_finite(slide.features, path)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("features", data=slide.features)
        coords = file.create_dataset("coords", data=slide.coords)
        coords.attrs.update(attributes or {})
        coords.attrs.update(_attributes_of(slide, tile_px=tile_px, overlap_px=overlap_px))


def read_features(path: Path, *, mpp: float | None = None) -> SlideFeatures:
    """Reads the features of one slide: our own files and TRIDENT's.

    TRIDENT's files record a nominal magnification, which leaves the pixel size open by a fifth and more, so they need
    `mpp`. Where the slide's size is not recorded it is taken to end with the last patch.

    Args:
        path: An HDF5 file with datasets `features` (patch, feature) or (1, patch, feature), and `coords` (patch, 2).
        mpp: µm per level-0 pixel, for files that do not record it; a recorded value is preferred.

    Raises:
        DataError: The file is missing, damaged, of another layout, without patches, or its pixel size is unknown.
    """
    with _opened(path) as file:
        features, coords = _datasets(file, path)
        attributes = dict(file["coords"].attrs)
    patch_size_level0 = _positive(attributes, "patch_size_level0", path)
    level0_mpp = _level0_mpp(attributes, mpp, path)
    patch_size = _positive(attributes, "patch_size", path)
    width, height = (coords.max(axis=0) + round(patch_size_level0)).tolist()
    return SlideFeatures(
        features=features,
        coords=coords,
        patch_size_level0=round(patch_size_level0),
        level0_mpp=level0_mpp,
        target_mpp=float(attributes.get("target_mpp", level0_mpp * patch_size_level0 / patch_size)),
        encoder=str(attributes.get("encoder", UNKNOWN_ENCODER)),
        encoder_sha256=str(attributes.get("encoder_sha256", "")),
        slide_width_px=int(attributes.get("slide_width_level0", attributes.get("level0_width", width))),
        slide_height_px=int(attributes.get("slide_height_level0", attributes.get("level0_height", height))),
    )


def read_attributes(path: Path) -> tuple[int, dict[str, Any]]:
    """Reads the number of patches and the attributes of `coords`, without the features.

    Raises:
        DataError: The file is missing, damaged or of another layout.
    """
    with _opened(path) as file:
        _require_layout(file, path)
        return len(file["coords"]), dict(file["coords"].attrs)


def _attributes_of(slide: SlideFeatures, *, tile_px: int, overlap_px: int) -> dict[str, str | int | float]:
    """Attributes of `coords`: TRIDENT's names first, then ours. Magnification is 10 / mpp by convention."""
    return {
        "patch_size": tile_px,
        "patch_size_level0": slide.patch_size_level0,
        "level0_magnification": 10 / slide.level0_mpp,
        "target_magnification": 10 / slide.target_mpp,
        "overlap": overlap_px,
        "level0_mpp": slide.level0_mpp,
        "target_mpp": slide.target_mpp,
        "encoder": slide.encoder,
        "encoder_sha256": slide.encoder_sha256,
        "subfuse_version": subfuse.__version__,
        "slide_width_level0": slide.slide_width_px,
        "slide_height_level0": slide.slide_height_px,
    }


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    """Opens a file for reading. No locks: files appear complete, and read-only network folders cannot lock."""
    if not Path(path).is_file():
        raise DataError(f"{path}: a feature file is required. Found none; run `subfuse prepare` or correct the path.")
    try:
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except OSError as error:
        raise DataError(
            f"{path}: a complete HDF5 file is required. Found {Path(path).stat().st_size} bytes that cannot be read "
            f"({error}). Delete the file and write it again."
        ) from error


def _require_layout(file: h5py.File, path: Path) -> None:
    shapes = {name: file[name].shape for name in sorted(file) if isinstance(file[name], h5py.Dataset)}
    features, coords = shapes.get("features", ()), shapes.get("coords", ())
    is_bag = len(features) == 2 or (len(features) == 3 and features[0] == 1)
    if is_bag and coords == (features[-2], 2) and features[-2] > 0:
        return
    listing = preview([f"{name} {shapes.get(name, 'a group')}" for name in sorted(file)], limit=10) or "an empty file"
    raise DataError(
        f"{path}: datasets `features` (patch, feature) and `coords` (patch, 2) with at least one patch are required. "
        f"Found: {listing}. Write the file with `subfuse prepare` or TRIDENT."
    )


def _datasets(file: h5py.File, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features as float16 (patch, feature) and coordinates as int32 (patch, 2)."""
    _require_layout(file, path)
    stored = file["features"][()]
    features = stored.reshape(stored.shape[-2:])
    if features.dtype != np.float16:
        with np.errstate(over="ignore"):  # values beyond float16 are reported below
            features = features.astype(np.float16)
    if "subfuse_version" not in file["coords"].attrs:
        _require_finite(features, path)  # ours were checked when written
    return features, file["coords"][()].astype(np.int32)


def _require_finite(features: np.ndarray, path: Path) -> None:
    is_finite = np.isfinite(features).all(axis=1)
    if not is_finite.all():
        raise DataError(
            f"{path}: features must be finite and below 65504. Found {np.count_nonzero(~is_finite)} of "
            f"{len(features)} patches that are not, the first at row {np.argmin(is_finite)}. Extract the slide again."
        )


def _positive(attributes: Mapping[str, Any], name: str, path: Path) -> float:
    if name not in attributes or not float(attributes[name]) > 0:
        raise DataError(
            f"{path}: `coords` must have a positive attribute `{name}`. Found attributes: "
            f"{preview([f'{k}={v}' for k, v in attributes.items()], limit=12) or 'none'}. "
            "Copy it from the tool's patch file or run `subfuse prepare`."
        )
    return float(attributes[name])


def _level0_mpp(attributes: Mapping[str, Any], mpp: float | None, path: Path) -> float:
    if "level0_mpp" in attributes:
        return _positive(attributes, "level0_mpp", path)
    if mpp is None:
        raise DataError(
            f"{path}: the pixel size is required (µm per level-0 pixel). Found only "
            f"{preview(sorted(attributes), limit=12) or 'no attribute'}, and magnification is nominal. "
            "Declare `mpp` in the slide table."
        )
    return float(mpp)
