"""Whole-slide images: pixels at a physical resolution."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from subfuse.bounded_files import require_regular_file
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.slides.outlines import read_outlines
from subfuse.slides.tissue import (
    MAX_PEN_SHARE,
    MPP_PLACE,
    THUMBNAIL_PX,
    TISSUE_MPP,
    Patch,
    Tiling,
    Tissue,
    disagreement,
    find_tissue,
    grid_starts,
    square_pixel,
)
from subfuse.slides.tissue_models import model_outline
from subfuse.slides.tissue_rule import FIXED, OTSU, TISSUE_MODELS, model_of

ACCEPTED = (
    "a tiled pyramidal slide that OpenSlide reads (SVS, tiled TIFF, NDPI, MRXS, SCN, BIF, VMS, CZI, DICOM), "
    "a PNG or JPEG image, or a folder of them"
)

_UM_PER_UNIT = {"µm": 1.0, "\u03bcm": 1.0, "&#181;m": 1.0, "&#xB5;m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_BLOCK_PX = 4096  # side of what is read at once, so that memory does not grow with the slide


class WholeSlide:
    """A slide file opened through OpenSlide."""

    patches_per_part = 1

    def __init__(
        self,
        path: Path,
        *,
        mpp: float | None,
        tiling: Tiling,
        tissue: str = FIXED,
        outlines: Path | None = None,
        device: str = "cpu",
    ) -> None:
        """Opens a slide.

        Args:
            path: The file.
            mpp: µm per level-0 pixel as declared; None: as the file says.
            tiling: Of the patches.
            tissue: How tissue is found, see `tissue_rule`.
            outlines: Where it is outlined instead.
            device: Where a model that finds tissue runs.
        """
        self._path = path
        self._tiling = tiling
        self._tissue = tissue
        self._outlines = outlines
        self._device = device
        self._slide = _opened(path)
        properties = self._slide.properties
        self.width_px, self.height_px = self._slide.dimensions
        self.format = properties.get("openslide.vendor", "OpenSlide")
        self.mpp, pixel_notes = _pixel_size(properties, mpp, path)  # NaN: whoever opens a slide checks
        self._shapes = self._slide.level_dimensions
        self._downsamples, level_notes = _downsamples(self._slide)
        self.warnings = (*pixel_notes, *level_notes)
        whole = {"x": 0, "y": 0, "width": self.width_px, "height": self.height_px}
        self._bounds = [int(properties.get(f"openslide.bounds-{name}", n)) for name, n in whole.items()]
        self.bounds_corner = (self._bounds[0], self._bounds[1])  # of the scanned area in level-0 pixels, (x, y)

    def close(self) -> None:
        """Closes the file."""
        self._slide.close()

    def parts(self) -> Sequence[tuple[int, int]]:
        """Returns the top-left corners (x, y) of the patches with enough tissue, row by row.

        One grid spans the scanned area, so patches of neighbouring pieces of tissue neither overlap nor leave it.
        """
        import shapely

        left, top, width, height = self._bounds
        size, stride = (f(self.mpp) for f in (self._tiling.patch_size_level0, self._tiling.stride_level0))
        y, x = np.meshgrid(
            top + grid_starts(height, size, stride), left + grid_starts(width, size, stride), indexing="ij"
        )
        x, y = x.ravel(), y.ravel()
        boxes = shapely.box(x, y, x + size, y + size)
        fraction = _covered(boxes, self._found.outline) / size**2
        kept = (fraction > 0) & (fraction >= self._tiling.min_tissue_fraction)
        kept &= _covered(boxes, self._found.pen) <= MAX_PEN_SHARE * size**2
        return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))

    def read(self, part: tuple[int, int]) -> list[Patch]:
        """Returns the patch at a place, from the coarsest level that is fine enough. Threads may call it at once."""
        size = self._tiling.patch_size_level0(self.mpp)
        level = self._coarsest_level(size / self._tiling.tile_px)
        side = round(size / self._downsamples[level])
        return [Patch(*part, _scaled(self._region(*part, side, side, level=level), *[self._tiling.tile_px] * 2))]

    def tissue(self, coords: Int[np.ndarray, "patch 2"]) -> Any:
        """Returns the outline of the tissue in level-0 pixels (a shapely polygon or several)."""
        return self._found.outline

    def pen(self) -> Any:
        """Returns the outline of the pen marks in level-0 pixels (a shapely geometry, possibly empty)."""
        return self._found.pen

    def pen_share(self) -> float:
        """Returns the share of the stained and marked area that is pen."""
        return self._found.pen_share

    def thumbnail(self) -> Image.Image:
        """Returns the whole slide, at most `THUMBNAIL_PX` wide and high."""
        scale = min(1.0, THUMBNAIL_PX / max(self.width_px, self.height_px))
        return Image.fromarray(_scaled(self._overview, round(self.width_px * scale), round(self.height_px * scale)))

    def picture(self, x: int, y: int, width: int, height: int, *, size: tuple[int, int]) -> Image.Image:
        """Returns a rectangle, scaled, from the coarsest level that is fine enough; what was not scanned is white."""
        level = self._coarsest_level(width / size[0])
        shape = self._shape_at(level, x, y, width, height)
        with _readable(self._path, f"x={x}, y={y} (level {level})"):
            pixels = self._slide.read_region((x, y), level, shape)
        ground = Image.new("RGB", pixels.size, "white")
        ground.paste(pixels, mask=pixels.getchannel("A"))
        return Image.fromarray(_scaled(np.asarray(ground), *size))

    def is_costly(self, x: int, y: int, width: int, height: int, *, size: tuple[int, int]) -> bool:
        """Returns whether more than a block would be read for a picture, as of a slide that has no coarse level."""
        columns, rows = self._shape_at(self._coarsest_level(width / size[0]), x, y, width, height)
        return columns * rows > _BLOCK_PX**2

    def _shape_at(self, level: int, x: int, y: int, width: int, height: int) -> tuple[int, int]:
        """Pixels of a level, across and down, of a rectangle."""
        downsample, (columns, rows) = self._downsamples[level], self._shapes[level]
        return (
            max(1, min(round(width / downsample), columns - int(x / downsample))),
            max(1, min(round(height / downsample), rows - int(y / downsample))),
        )

    @cached_property
    def _found(self) -> Tissue:
        """Tissue and pen marks in level-0 pixels, within the scanned area."""
        import shapely

        found = self._outlined() if self._outlines else self._searched()
        self.warnings = (*self.warnings, *found.notes)
        left, top, width, height = self._bounds
        return replace(
            found, outline=shapely.intersection(found.outline, shapely.box(left, top, left + width, top + height))
        )

    def _outlined(self) -> Tissue:
        assert self._outlines is not None
        return read_outlines(self._outlines, bounds_corner=self.bounds_corner, size=(self.width_px, self.height_px))

    def _searched(self) -> Tissue:
        """Searched for at the same physical resolution in every slide."""
        import shapely

        image, scale = self._at(TISSUE_MPP, self._overview)
        found = find_tissue(image, mpp=float(scale.mean()) * self.mpp, by_otsu=self._tissue == OTSU)
        outline, pen = (shapely.transform(shape, lambda points: points * scale) for shape in (found.outline, found.pen))
        model = model_of(self._tissue)
        if model is not None:
            picture, scale = self._at(TISSUE_MODELS[model], self._whole(TISSUE_MODELS[model] / self.mpp))
            outline = model_outline(picture, mpp=float(scale.mean()) * self.mpp, model=model, device=self._device)
            outline = shapely.difference(shapely.transform(outline, lambda points: points * scale), pen)
        return replace(found, outline=outline, pen=pen)

    def _at(
        self, mpp: float, picture: UInt8[np.ndarray, "height width 3"]
    ) -> tuple[UInt8[np.ndarray, "height2 width2 3"], Float[np.ndarray, " 2"]]:
        """A picture of the whole slide at a resolution (µm per pixel), and level-0 pixels per pixel of it (x, y)."""
        factor = max(1.0, mpp / self.mpp)
        image = _scaled(picture, round(self.width_px / factor), round(self.height_px / factor))
        return image, np.array([self.width_px / image.shape[1], self.height_px / image.shape[0]])

    @cached_property
    def _overview(self) -> UInt8[np.ndarray, "height width 3"]:
        """The whole slide, fine enough for the search for tissue and for the thumbnail; read once."""
        return self._whole(min(TISSUE_MPP / self.mpp, max(self.width_px, self.height_px) / THUMBNAIL_PX))

    def _whole(self, downsample: float) -> UInt8[np.ndarray, "height width 3"]:
        """The whole slide, about so many times smaller, never smaller still.

        It is read in blocks from the coarsest level that is fine enough, so a slide without a coarse level takes
        longer, not more memory.
        """
        level = self._coarsest_level(downsample)
        shrink = max(1, int(1.02 * downsample / self._downsamples[level]))
        width, height = self._shapes[level]
        block = _BLOCK_PX // shrink * shrink or shrink
        image = np.empty((-(-height // shrink), -(-width // shrink), 3), np.uint8)
        for top in range(0, height, block):
            for left in range(0, width, block):
                part = image[top // shrink : (top + block) // shrink, left // shrink : (left + block) // shrink]
                x, y = (round(n * self._downsamples[level]) for n in (left, top))
                size = (min(block, width - left), min(block, height - top))
                part[:] = _scaled(self._region(x, y, *size, level=level), part.shape[1], part.shape[0])
        return image

    def _coarsest_level(self, downsample: float) -> int:
        """The coarsest level that is fine enough; one that misses the resolution by 2 % is not passed over."""
        return max((i for i, n in enumerate(self._downsamples) if n <= max(1.02 * downsample, 1.0)), default=0)

    def _region(self, x: int, y: int, width: int, height: int, *, level: int) -> UInt8[np.ndarray, "height width 3"]:
        with _readable(self._path, f"x={x}, y={y} (level {level})"):
            pixels = np.asarray(self._slide.read_region((x, y), level, (width, height)))
        return np.ascontiguousarray(pixels[:, :, :3])


def _opened(path: Path) -> Any:
    try:
        from openslide import OpenSlide
    except ImportError as error:
        raise ConfigurationError(
            f"Reading slides needs OpenSlide ({error}). Run: pip install 'subfuse[wsi]'."
        ) from error
    require_regular_file(path, "slide")
    vendor = None
    try:
        vendor = OpenSlide.detect_format(path)
        return OpenSlide(path)
    except Exception as error:  # damaged files lead readers to errors of any type
        found = f"a {vendor} file" if vendor else f"a {path.suffix or 'nameless'} file of another kind"
        raise DataError(
            f"{path}: {ACCEPTED} is required. Found {found}, of which OpenSlide says: {' '.join(str(error).split())}. "
            "Copy it again, or convert it: vips tiffsave IN out.tif --tile --pyramid."
        ) from error


@contextmanager
def _readable(path: Path, place: str) -> Iterator[None]:
    """Turns the reader's errors about damaged pixels into one that names the slide."""
    try:
        yield
    except Exception as error:  # damaged files lead readers to errors of any type
        raise DataError(
            f"{path}: the pixels at {place} must be readable. Found damage ({error}). "
            "Copy the slide again from its source."
        ) from error


def _pixel_size(properties: Mapping[str, str], declared: float | None, path: Path) -> tuple[float, tuple[str, ...]]:
    """µm per level-0 pixel, the declared one first, and what contradicts it in the header; NaN: it says nothing.

    Raises:
        DataError: What the header says cannot be read, or pixels are not square; a declared size is taken all the same.
    """
    try:
        recorded = _recorded_mpp(properties, path)
    except DataError as error:
        if declared is None:
            raise
        return declared, (f"declared {declared:g} µm per pixel is used, although the file says another: {error}",)
    return declared or recorded or math.nan, disagreement(declared=declared, recorded=recorded)


def _recorded_mpp(properties: Mapping[str, str], path: Path) -> float | None:
    """The pixel size of the header; OME-XML is preferred to the tags of its TIFF, they to the vendor's own words."""
    sizes = _ome_sizes(properties.get("tiff.ImageDescription", ""), path)
    for names in (("openslide.mpp-x", "openslide.mpp-y"), ("aperio.MPP",)):
        sizes = sizes or [_number(properties[name], path) for name in names if name in properties]
    if not sizes:
        return None
    return square_pixel(sizes[0], sizes[-1], path)


def _ome_sizes(description: str, path: Path) -> list[float]:
    """Physical size of the pixels of an OME-XML description's first image, in µm by axis; none where there is none."""
    pixels = re.search(r"<(?:\w+:)?Pixels\s[^>]*>", description)
    sizes = []
    for axis in "XY" if pixels else "":
        size = re.search(rf"""\sPhysicalSize{axis}=["']([^"']*)["']""", pixels[0]) if pixels else None
        unit = re.search(rf"""\sPhysicalSize{axis}Unit=["']([^"']+)["']""", pixels[0]) if pixels else None
        if size is None:
            continue
        factor = _UM_PER_UNIT.get(unit[1] if unit else "µm")
        if factor is None:
            raise _unreadable_size(f"{size[1]} {unit[1] if unit else ''}", path)
        sizes.append(_number(size[1], path) * factor)
    return sizes


def _number(text: str, path: Path) -> float:
    """A number as scanners write it, also with a decimal comma."""
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        raise _unreadable_size(text, path) from None
    if not 0 < number < math.inf:
        raise _unreadable_size(text, path)
    return number


def _unreadable_size(words: str, path: Path) -> DataError:
    return DataError(
        f"{path}: the pixel size is required (µm per pixel). Found {words[:40]!r} in the header. Declare `mpp` in "
        f"{MPP_PLACE}."
    )


def _downsamples(slide: Any) -> tuple[list[float], tuple[str, ...]]:
    """How much coarser each level is; infinitely, where its shape is that of another picture (a label, a macro)."""
    (width, height), found, others = slide.dimensions, [], []
    for level, (columns, rows) in enumerate(slide.level_dimensions):
        fits = abs(width * rows - height * columns) <= 0.05 * height * columns + max(width, height)
        found.append(float(slide.level_downsamples[level]) if fits else math.inf)
        others += [] if fits else [f"{columns} x {rows} px"]
    note = f"levels of another shape are not used: {preview(others)} of a slide of {width} x {height} px"
    return found, (note,) if others else ()


def _covered(boxes: Any, shape: Any) -> Float[np.ndarray, " box"]:
    """Area of each box that a shape covers."""
    import shapely

    shapely.prepare(shape)
    area = np.where(shapely.contains(shape, boxes), shapely.area(boxes), 0.0)
    border = np.flatnonzero((area == 0) & shapely.intersects(shape, boxes))
    area[border] = shapely.area(shapely.intersection(boxes[border], shape))
    return area


def _scaled(image: np.ndarray, width: int, height: int) -> UInt8[np.ndarray, "height width 3"]:
    """Averages areas when shrinking, so nothing aliases; ten times faster than Pillow, and readers share the cores."""
    import cv2

    width, height = max(1, width), max(1, height)
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_CUBIC
    )
