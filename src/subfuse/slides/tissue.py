"""Where the tissue is on an overview of a slide: neither empty glass nor pen marks."""

import math
import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from subfuse.errors import ConfigurationError, DataError

THUMBNAIL_PX = 1024  # longer side of the pictures of a slide
MPP_PLACE = "the slide table or for all as slides.mpp"  # where `mpp` is declared
_PLAUSIBLE_MPP = (0.05, 10.0)  # µm per level-0 pixel


def doubt_of_mpp(mpp: float) -> str | None:
    """Returns what is wrong with a pixel size, and what it may be instead; None for a plausible one.

    Example:
        >>> doubt_of_mpp(0.25) is None, doubt_of_mpp(40.0)
        (True, 'between 0.05 and 10 µm per pixel (40 looks like a magnification, and 40x is about 0.25 µm)')
        >>> doubt_of_mpp(252.0)
        'between 0.05 and 10 µm per pixel (252 looks like nanometres, that is 0.252 µm)'
    """
    low, high = _PLAUSIBLE_MPP
    if low <= mpp <= high and mpp != high:
        return None
    wanted = f"between {low:g} and {high:g} µm per pixel"
    if mpp in (10, 20, 40, 60, 80, 100):
        return f"{wanted} ({mpp:g} looks like a magnification, and {mpp:g}x is about {10 / mpp:g} µm)"
    if high < mpp <= 1000 * high:
        return f"{wanted} ({mpp:g} looks like nanometres, that is {mpp / 1000:g} µm)"
    return wanted


def require_plausible_mpp(mpp: float, path: object, slide: str = "the slide") -> float:
    """Returns the pixel size of a file (µm per level-0 pixel).

    Raises:
        DataError: No slide has such pixels, see `doubt_of_mpp`.
    """
    doubt = doubt_of_mpp(mpp)
    if doubt is not None:
        raise DataError(
            f"{path}: a pixel size {doubt} is required. Found {mpp:g}. Correct or declare `mpp` for {slide} in "
            f"{MPP_PLACE}."
        )
    return mpp


class Patch(NamedTuple):
    """One patch and its place."""

    x: int  # left edge in level-0 pixels
    y: int  # top edge in level-0 pixels
    image: UInt8[np.ndarray, "tile tile 3"]  # RGB at the tiling's resolution


@dataclass(frozen=True)
class Tiling:
    """Square patches at a physical resolution."""

    tile_px: int = 256  # side of a patch in pixels at `mpp`
    mpp: float = 0.5  # µm per pixel of the images that the encoder sees
    overlap_px: int = 0  # of neighbouring patches, in the same pixels
    min_tissue_fraction: float = 0.25  # patches with less tissue are left out

    def __post_init__(self) -> None:
        if not (0 <= self.overlap_px < self.tile_px and self.mpp > 0 and 0 <= self.min_tissue_fraction <= 1):
            raise ValueError(
                f"Tiling needs 0 <= overlap_px < tile_px, mpp > 0, min_tissue_fraction in 0..1. Got {self!r}."
            )

    @property
    def folder_name(self) -> str:
        """Name of the folder of everything made with this tiling, as TRIDENT names it.

        Example:
            >>> Tiling().folder_name
            '20x_256px_0px_overlap'
        """
        return f"{10 / self.mpp:g}x_{self.tile_px}px_{self.overlap_px}px_overlap"

    def __str__(self) -> str:
        """Returns what it is in words.

        Example:
            >>> str(Tiling()), str(Tiling(512, 0.25, 64))
            ('256 px at 0.5 µm per pixel', '512 px at 0.25 µm per pixel, 64 px of them shared')
        """
        shared = f", {self.overlap_px} px of them shared" if self.overlap_px else ""
        return f"{self.tile_px} px at {self.mpp:g} µm per pixel{shared}"

    def patch_size_level0(self, mpp: float) -> int:
        """Returns the side of a patch in whole pixels of a slide with `mpp` µm per level-0 pixel."""
        return max(1, round(self.tile_px * self.mpp / mpp))

    def stride_level0(self, mpp: float) -> int:
        """Returns the distance of neighbouring patches in whole level-0 pixels."""
        return max(1, round((self.tile_px - self.overlap_px) * self.mpp / mpp))


def covered_px2(corners: Int[np.ndarray, "patch 2"], size: int) -> int:
    """Returns the area that equal squares cover together, in square pixels; where they overlap it counts once.

    Example:
        >>> covered_px2(np.array([[0, 0], [5, 0], [0, 0]]), 10)
        150
    """
    x, y = corners[np.argsort(corners[:, 0], kind="stable")].astype(np.int64).T
    edges = np.unique(np.concatenate([x, x + size]))
    area = 0
    for left, right in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        starts = np.sort(y[np.searchsorted(x, left - size, "right") : np.searchsorted(x, left, "right")])
        if len(starts):
            area += (right - left) * (int(np.minimum(np.diff(starts), size).sum()) + size)
    return area


def disagreement(*, declared: float | None, recorded: float | None) -> tuple[str, ...]:
    """Returns a warning where a declared pixel size (µm) is not that of the file."""
    if declared is None or recorded is None or abs(declared / recorded - 1) <= 0.05:
        return ()
    return (f"declared {declared:g} µm per pixel is used, but the file says {recorded:g}",)


def square_pixel(x: float, y: float, place: object) -> float:
    """Returns the side of pixels of `x` by `y` µm: patches of them are square on the glass.

    Raises:
        DataError: The sides differ by more than 5 %.
    """
    if abs(x / y - 1) > 0.05:
        raise DataError(
            f"{place}: square pixels are required. Found {x:g} x {y:g} µm. Resample the slide, or, where its header is "
            f"wrong, declare `mpp` in {MPP_PLACE}."
        )
    return (x + y) / 2


def grid_starts(length: int, size: int, stride: int) -> Int[np.ndarray, " start"]:
    """Returns where patches begin on one axis; only patches that fit.

    Example:
        >>> grid_starts(10, 4, 3).tolist(), grid_starts(3, 4, 3).tolist()
        ([0, 3, 6], [])
    """
    return np.arange(0, length - size + 1, stride)


TISSUE_MPP = 8.0  # µm per pixel at which tissue is searched
MAX_PEN_SHARE = 0.1  # of a patch; one with more is left out

_MIN_SATURATION = 15  # of 255; empty glass stays below
_MIN_CONTRAST = 8  # of 255, between tissue and glass: Otsu's threshold would split even glass of one colour
_UNSCANNED = 8  # of 255; pixels that are not brighter in any channel were not scanned
MIN_TISSUE_UM2 = 20_000.0  # about one patch at 20x
_MIN_PEN_UM2 = 10_000.0  # smaller marks are dark nuclei or pigment
MIN_HOLE_UM2 = 5_000.0
_MEDIAN_PX = 3  # side of the filter against noise
_CLOSING_PX = 7  # gaps up to 50 µm are tissue
_PEN_MARGIN_PX = 2  # ink fades at its edge


@dataclass(frozen=True)
class Tissue:
    """Outlines in pixels of the overview (shapely geometries)."""

    outline: Any  # tissue without pen marks
    pen: Any  # pen marks, on tissue or on glass
    pen_share: float  # share of the stained and marked area that is pen; 0 where nothing is found
    notes: tuple[str, ...] = ()  # what of a person's outlines is not used


def find_tissue(
    overview: UInt8[np.ndarray, "height width 3"],
    *,
    mpp: float,
    by_otsu: bool = False,
) -> Tissue:
    """Finds tissue by colour: more saturated than empty glass and not ink.

    Args:
        overview: The slide in RGB.
        mpp: µm per pixel of the overview, about `TISSUE_MPP`.
        by_otsu: Whether the threshold is Otsu's, each slide's own (1979); else it is fixed, the same every time.
    """
    stained, pen = stained_and_pen(overview, mpp=mpp, by_otsu=by_otsu)
    n_found = np.count_nonzero(stained)
    return Tissue(
        outline=_outline(stained & ~pen, mpp=mpp, least_um2=MIN_TISSUE_UM2),
        pen=_outline(pen, mpp=mpp, least_um2=_MIN_PEN_UM2),
        pen_share=np.count_nonzero(pen) / n_found if n_found else 0.0,
    )


def stained_and_pen(
    overview: UInt8[np.ndarray, "height width 3"], *, mpp: float, by_otsu: bool = False
) -> tuple[Bool[np.ndarray, "height width"], Bool[np.ndarray, "height width"]]:
    """Returns where anything is on the glass, and where that is a pen mark.

    Args:
        overview: The slide, or an image cut out of it, in RGB.
        mpp: µm per pixel of the overview, about `TISSUE_MPP`.
        by_otsu: Whether the threshold of stain is Otsu's instead of the fixed one.
    """
    import cv2

    smooth = cv2.medianBlur(overview, _MEDIAN_PX)
    pen = _without_specks(_pen(smooth), least_px=_MIN_PEN_UM2 / mpp**2)
    pen = cv2.dilate(pen.astype(np.uint8), np.ones((2 * _PEN_MARGIN_PX + 1,) * 2, np.uint8)).astype(bool)
    saturation = cv2.cvtColor(smooth, cv2.COLOR_RGB2HSV)[:, :, 1]
    least = _otsu(saturation[~pen & (smooth.max(axis=2) > _UNSCANNED)]) if by_otsu else _MIN_SATURATION
    found = ((saturation > least) | pen).astype(np.uint8)
    kernel = np.ones((_CLOSING_PX, _CLOSING_PX), np.uint8)
    return cv2.morphologyEx(found, cv2.MORPH_CLOSE, kernel).astype(bool), pen


def _otsu(saturation: UInt8[np.ndarray, " pixel"]) -> float:
    """Otsu's threshold; infinite where the two kinds of pixels that it tells apart are nearly one."""
    import cv2

    if len(saturation) == 0:
        return math.inf
    least, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    is_stained = saturation > least
    if is_stained.all() or not is_stained.any():
        return math.inf
    contrast = saturation[is_stained].mean() - saturation[~is_stained].mean()
    return float(least) if contrast >= _MIN_CONTRAST else math.inf


def _pen(overview: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
    """True where blue, green or black ink is.

    Haematoxylin and eosin absorb green light most and blue least (stain vectors of Ruifrok and Johnston 2001), in any
    mixture and at any strength. Blue and green ink absorb red most, black ink absorbs all alike. Red ink absorbs as
    eosin and blood do and is not told apart. Pure black is unscanned area, not ink.
    """
    red, green, blue = np.moveaxis(_absorbance(overview), -1, 0)
    most, least = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    is_cool = (red > 0.25) & (red > 1.25 * green)
    is_dark_blue = ((red > 1.4) & (red > 0.97 * green)) | ((red > 2.0) & (red > 0.92 * green))
    is_black = (most > 1.2) & (least > 0.7 * most)
    is_scanned = overview.max(axis=2) > _UNSCANNED
    return (is_cool | is_dark_blue | is_black) & is_scanned


def _absorbance(image: UInt8[np.ndarray, "height width 3"]) -> Float32[np.ndarray, "height width 3"]:
    """Natural logarithm of white over the pixel's value."""
    table = -np.log((np.arange(256, dtype=np.float32) + 1) / 256)
    return table[image]


def _without_specks(mask: Bool[np.ndarray, "height width"], *, least_px: float) -> Bool[np.ndarray, "height width"]:
    """Leaves out connected pieces below a size, after stray pixels are cut off and gaps closed."""
    import cv2

    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    closed = cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((_CLOSING_PX, _CLOSING_PX), np.uint8))
    _, piece, statistics, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    is_large = statistics[:, cv2.CC_STAT_AREA] >= least_px
    is_large[0] = False  # the background
    return is_large[piece]


def _binary_mask() -> Any:
    """Lazyslide's class of masks; it loads torch, which opening a slide does not need."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of ome-zarr, when it is imported
            from lazyslide.cv.mask import BinaryMask
    except ImportError as error:
        raise ConfigurationError(
            f"Finding tissue needs lazyslide ({error}). Run: pip install 'subfuse[wsi]'."
        ) from error
    return BinaryMask


def _outline(mask: Bool[np.ndarray, "height width"], *, mpp: float, least_um2: float) -> Any:
    """Outline of a mask's pixels, edges included: contours run through the pixels' centres."""
    import shapely

    found = _binary_mask()(mask.astype(np.uint8)).to_polygons(
        min_area=max(1.0, least_um2 / mpp**2), min_hole_area=max(1.0, MIN_HOLE_UM2 / mpp**2)
    )
    contours = shapely.simplify(shapely.make_valid(np.array(found.geometry, dtype=object)), 0.5)
    grown = shapely.buffer(shapely.make_valid(contours), 0.5, join_style="mitre")
    parts = shapely.get_parts(shapely.union_all(grown))
    outline = shapely.union_all([part for part in parts if part.geom_type in ("Polygon", "MultiPolygon")])
    return shapely.transform(outline, lambda points: points + 0.5)
