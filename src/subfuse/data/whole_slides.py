"""Whole-slide images: pixels at a physical resolution, and where the tissue is."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from subfuse.data.tiling import Patch, Tiling, grid_starts
from subfuse.errors import ConfigurationError, DataError

ACCEPTED = (
    "a tiled pyramidal slide that OpenSlide reads (SVS, tiled TIFF, NDPI, MRXS, SCN, BIF, VMS, CZI, DICOM), "
    "a PNG or JPEG image, or a folder of them"
)

_TISSUE_MPP = 8.0  # resolution of the search for tissue
_MIN_SATURATION = 15  # of 255; empty glass stays below
_MIN_TISSUE_UM2 = 20_000.0  # about one patch at 20x
_MIN_HOLE_UM2 = 5_000.0
_MAX_OVERVIEW_PX = 2**28  # three quarters of a gigabyte as RGB


class WholeSlide:
    """A slide file opened through wsidata."""

    patches_per_part = 1

    def __init__(self, path: Path, *, mpp: float | None, tiling: Tiling) -> None:
        self._path = path
        self._tiling = tiling
        self._wsi = _opened(path)
        self._reader = self._wsi.reader
        properties = self._reader.properties
        self.height_px, self.width_px = (int(n) for n in properties.shape)
        self.format = str(self._reader.raw_properties.get("openslide.vendor", self._reader.name))
        recorded = _recorded_mpp(self._reader)
        self.mpp = mpp if mpp is not None else recorded
        self.warnings = _disagreement(declared=mpp, recorded=recorded)
        self._shapes = [(int(width), int(height)) for height, width in properties.level_shape]
        self._downsamples = [float(n) for n in properties.level_downsample]
        self._bounds = [int(n) for n in properties.bounds]
        self._tissue: Any = None

    def close(self) -> None:
        """Closes the file."""
        self._reader.detach_reader()

    def parts(self) -> Sequence[tuple[int, int]]:
        """Returns the top-left corners (x, y) of the patches with enough tissue, row by row.

        One grid spans the scanned area, so patches of neighbouring pieces of tissue neither overlap nor leave it.
        """
        import shapely

        left, top, width, height = self._bounds
        size, stride = (f(self._known_mpp) for f in (self._tiling.patch_size_level0, self._tiling.stride_level0))
        y, x = np.meshgrid(
            top + grid_starts(height, size, stride), left + grid_starts(width, size, stride), indexing="ij"
        )
        x, y = x.ravel(), y.ravel()
        boxes = shapely.box(x, y, x + size, y + size)
        tissue = self._found_tissue()
        shapely.prepare(tissue)
        fraction = shapely.contains(tissue, boxes).astype(float)
        border = np.flatnonzero((fraction == 0) & shapely.intersects(tissue, boxes))
        fraction[border] = shapely.area(shapely.intersection(boxes[border], tissue)) / size**2
        kept = (fraction > 0) & (fraction >= self._tiling.min_tissue_fraction)
        return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))

    def read(self, part: tuple[int, int]) -> list[Patch]:
        """Returns the patch at a place, from the coarsest level that is fine enough. Threads may call it at once."""
        size = self._tiling.patch_size_level0(self._known_mpp)
        wanted = size / self._tiling.tile_px * 1.02  # a level that misses the resolution by 2 % is not passed over
        level = max((i for i, n in enumerate(self._downsamples) if n <= max(wanted, 1.0)), default=0)
        side = round(size / self._downsamples[level])
        return [Patch(*part, _resized(self._region(*part, side, side, level=level), self._tiling.tile_px))]

    def tissue(self, coords: Int[np.ndarray, "patch 2"]) -> Any:
        """Returns the outline of the tissue in level-0 pixels (a shapely polygon or several)."""
        return self._found_tissue()

    def thumbnail(self, max_px: int) -> Image.Image:
        """Returns the whole slide, at most `max_px` wide and high."""
        width, height = self.width_px, self.height_px
        scale = min(1.0, max_px / max(width, height))
        level = max((i for i, n in enumerate(self._downsamples) if n * scale <= 1.0), default=0)
        image = Image.fromarray(self._whole_level(level))
        return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BOX)

    @property
    def _known_mpp(self) -> float:
        assert self.mpp is not None  # whoever opens a slide checks
        return self.mpp

    def _found_tissue(self) -> Any:
        if self._tissue is None:
            self._tissue = self._find_tissue()
        return self._tissue

    def _find_tissue(self) -> Any:
        """Tissue by colour: saturation above that of empty glass, at a fixed resolution and threshold.

        lazyslide's default filter multiplies two channels in eight bits, where the product wraps round, and Otsu's
        threshold finds tissue on empty glass.
        """
        import shapely
        from lazyslide.pp import find_tissues

        mpp = np.array(self._downsamples) * self._known_mpp
        level = int(np.argmin(np.abs(np.log(mpp / _TISSUE_MPP))))
        self._require_overview(level)
        with _readable(self._path, f"level {level}"):
            find_tissues(
                self._wsi,
                level=level,
                filter_artifacts=False,
                to_hsv=True,
                threshold=_MIN_SATURATION,
                min_tissue_area=max(1.0, _MIN_TISSUE_UM2 / mpp[level] ** 2),
                min_hole_area=max(1.0, _MIN_HOLE_UM2 / mpp[level] ** 2),
                key_added="tissues",
            )
        found = self._wsi.shapes["tissues"].geometry.to_numpy() if "tissues" in self._wsi.shapes else []
        outlines = shapely.simplify(shapely.make_valid(found), self._downsamples[level])
        parts = shapely.get_parts(shapely.union_all(shapely.make_valid(outlines)))
        return shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])

    def _whole_level(self, level: int) -> UInt8[np.ndarray, "height width 3"]:
        self._require_overview(level)
        width, height = self._shapes[level]
        return self._region(0, 0, width, height, level=level)

    def _region(self, x: int, y: int, width: int, height: int, *, level: int) -> UInt8[np.ndarray, "height width 3"]:
        with _readable(self._path, f"x={x}, y={y} (level {level})"):
            return self._reader.get_region(x, y, width, height, level=level)

    def _require_overview(self, level: int) -> None:
        width, height = self._shapes[level]
        if width * height > _MAX_OVERVIEW_PX:
            raise DataError(
                f"{self._path}: a pyramid with a coarse level is required. Found {len(self._shapes)} level(s), of "
                f"which {width} x {height} px would have to be read whole. "
                "Convert it: vips tiffsave slide.tif pyramid.tif --tile --pyramid."
            )


def _opened(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of ome-zarr, when it is imported
            import lazyslide  # noqa: F401
            from openslide import OpenSlide
            from wsidata import open_wsi
    except ImportError as error:
        raise ConfigurationError(
            f"Reading slides needs wsidata and lazyslide ({error}). Run: pip install 'subfuse[wsi]'."
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The image is not pyramidal", UserWarning)  # checked when it matters
            return open_wsi(path, store=None)  # type: ignore[arg-type]  # None is its documented 'no store'
    except (ValueError, OSError) as error:
        vendor = OpenSlide.detect_format(path)
        found = f"a damaged {vendor} file" if vendor else f"a {path.suffix or 'nameless'} file of another kind"
        raise DataError(
            f"{path}: {ACCEPTED} is required. Found {found}. Copy it again, or convert it: "
            "vips tiffsave IN out.tif --tile --pyramid."
        ) from error


@contextmanager
def _readable(path: Path, place: str) -> Iterator[None]:
    """Turns the readers' errors about damaged pixels into one that names the slide."""
    from openslide import OpenSlideError

    try:
        yield
    except (OpenSlideError, OSError) as error:
        raise DataError(
            f"{path}: the pixels at {place} must be readable. Found damage ({error}). "
            "Copy the slide again from its source."
        ) from error


def _recorded_mpp(reader: Any) -> float | None:
    """µm per level-0 pixel from the header; the mean of both axes."""
    axes = [reader.raw_properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    if None in axes:
        return None if reader.properties.mpp is None else float(reader.properties.mpp)
    return sum(float(value) for value in axes) / 2


def _disagreement(*, declared: float | None, recorded: float | None) -> tuple[str, ...]:
    if declared is None or recorded is None or abs(declared / recorded - 1) <= 0.05:
        return ()
    return (f"declared {declared:g} µm per pixel is used, but the file says {recorded:g}",)


def _resized(image: np.ndarray, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Averages areas when shrinking, so nothing aliases; ten times faster than Pillow, and readers share the cores."""
    import cv2

    if image.shape[:2] == (side, side):
        return image
    method = cv2.INTER_AREA if image.shape[0] > side else cv2.INTER_CUBIC
    return cv2.resize(image, (side, side), interpolation=method)
