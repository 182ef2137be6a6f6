"""Folders of PNG or JPEG images, read as one virtual slide."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image

from subfuse.bounded_files import require_regular_file
from subfuse.errors import DataError, preview
from subfuse.slides.tissue import (
    MAX_PEN_SHARE,
    MPP_PLACE,
    THUMBNAIL_PX,
    TISSUE_MPP,
    Patch,
    Tiling,
    grid_starts,
    stained_and_pen,
)
from subfuse.slides.whole_slides import ACCEPTED

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

_FORMATS = ("PNG", "JPEG")  # whatever the name says: other decoders are not asked
_WHITE = 220  # a pixel with every channel above is empty glass
_BLACK = 35  # a pixel with every channel below is unscanned or a fold
_IMAGES_AT_ONCE = 64  # decoded for one picture; about a second


@dataclass(frozen=True)
class _Marks:
    """Pen marks of one image, searched for at the resolution at which they are searched for on slides."""

    mpp: float  # µm per pixel of `pen`
    pen: Bool[np.ndarray, "height width"]
    n_stained: int  # pixels that are stained or marked

    def share(self, left: float, top: float, side: float) -> float:
        """Share of a square that is marked; all in µm from the image's top left."""
        (x0, x1), (y0, y1) = ((round(n / self.mpp), round((n + side) / self.mpp)) for n in (left, top))
        return float(self.pen[y0:y1, x0:x1].mean()) if self.pen[y0:y1, x0:x1].size else 0.0


class ImageFolder:
    """Images in name order, laid out row by row on a virtual slide that is about as wide as high in images.

    Level-0 pixels are the images' own; every image stands at the top left of a cell as large as the largest image.
    """

    format = "images"

    def __init__(self, path: Path, *, mpp: float | None, tiling: Tiling) -> None:
        self.mpp = math.nan if mpp is None else mpp  # whoever opens a slide checks
        self._tiling = tiling
        self._unreadable: dict[str, str] = {}
        self._small: dict[int, Image.Image] = {}
        self._marks: dict[int, _Marks] = {}
        sizes = {image: self._size_of(image) for image in _images_of(path)}
        self._images = [image for image, size in sizes.items() if size is not None]
        self._sizes = [size for size in sizes.values() if size is not None]
        self._require_readable(path)
        self._path = path
        self._columns = math.ceil(math.sqrt(len(self._images)))
        self._cell = (max(width for width, _ in self._sizes), max(height for _, height in self._sizes))
        self.bounds_corner = (0, 0)
        self.width_px = self._cell[0] * self._columns
        self.height_px = self._cell[1] * math.ceil(len(self._images) / self._columns)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Images that could not be read, as far as they have been tried."""
        if not self._unreadable:
            return ()
        listing = preview([f"{name} ({reason})" for name, reason in sorted(self._unreadable.items())])
        return (f"{len(self._unreadable)} of {len(self._unreadable) + len(self._small)} images skipped: {listing}",)

    @property
    def patches_per_part(self) -> int:
        """Largest number of patches of one image."""
        return max(len(self._grid(index)) for index in range(len(self._images)))

    def close(self) -> None:
        """Nothing stays open."""

    def parts(self) -> Sequence[int]:
        """Returns the indices of the images, after checking that each holds a patch."""
        for index, image in enumerate(self._images):
            if len(self._grid(index)) == 0:
                width, height = self._sizes[index]
                need = self._tiling.tile_px * self._tiling.mpp
                raise DataError(
                    f"{image}: an image of at least {need:g} x {need:g} µm (one patch) is required. Found {width} x "
                    f"{height} px, {width * self.mpp:g} x {height * self.mpp:g} µm. "
                    f"Remove it, or correct `mpp` in {MPP_PLACE}."
                )
        return range(len(self._images))

    def read(self, part: int) -> list[Patch]:
        """Returns an image's patches with tissue and without pen marks, row by row; none if it cannot be decoded."""
        try:
            image = _decoded(self._images[part])
        except Exception as error:  # damaged images lead Pillow to errors of any type
            self._unreadable[self._images[part].name] = str(error)
            return []
        self._small[part] = image.resize(self._small_box(part)[2:], Image.Resampling.BOX)
        marks = self._marks[part] = self._marks_on(image)
        scaled = np.asarray(image.resize(self._scaled_size(part), Image.Resampling.BICUBIC))
        tile, least = self._tiling.tile_px, self._tiling.min_tissue_fraction
        cell_x, cell_y = self._corner(part)
        patches = []
        for x, y in self._grid(part):
            pixels = np.ascontiguousarray(scaled[y : y + tile, x : x + tile])
            is_marked = marks.share(*(n * self._tiling.mpp for n in (x, y, tile))) > MAX_PEN_SHARE
            if not is_marked and _is_tissue(pixels).mean() >= least:
                patches.append(Patch(cell_x + round(x / self._scale), cell_y + round(y / self._scale), pixels))
        return patches

    def tissue(self, coords: Int[np.ndarray, "patch 2"]) -> Any:
        """Returns the outline of the patches that were kept, in level-0 pixels (a shapely geometry)."""
        import shapely

        self._require_readable(self._path)
        size = self._tiling.patch_size_level0(self.mpp)
        return shapely.union_all(shapely.box(*coords.T, *(coords.T + size)))

    def pen(self) -> Any:
        """Returns the outline of the pen marks on the images read so far, in level-0 pixels (a shapely geometry)."""
        import shapely

        shapes = []
        for index, marks in self._marks.items():
            corner, size = np.array(self._corner(index)), marks.mpp / self.mpp
            left_top = np.argwhere(marks.pen)[:, ::-1] * size + corner
            shapes.append(shapely.union_all(shapely.box(*left_top.T, *(left_top + size).T)))
        return shapely.union_all(shapes)

    def pen_share(self) -> float:
        """Returns the share of the stained and marked area of the images read so far that is pen."""
        n_stained = sum(marks.n_stained for marks in self._marks.values())
        return sum(int(marks.pen.sum()) for marks in self._marks.values()) / n_stained if n_stained else 0.0

    def thumbnail(self) -> Image.Image:
        """Returns the montage of the images read so far, at most `THUMBNAIL_PX` wide and high."""
        scale = self._thumbnail_scale
        canvas = Image.new(
            "RGB", (max(1, round(self.width_px * scale)), max(1, round(self.height_px * scale))), "white"
        )
        for index, image in self._small.items():
            canvas.paste(image, self._small_box(index)[:2])
        canvas.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        return canvas

    def picture(self, x: int, y: int, width: int, height: int, *, size: tuple[int, int]) -> Image.Image:
        """Returns a rectangle of the virtual slide, scaled; white where no image is, or one that cannot be decoded."""
        canvas, scale = Image.new("RGB", size, "white"), (size[0] / width, size[1] / height)
        for index in self._touched(x, y, width, height):
            path, (first_x, first_y), (wide, high) = self._images[index], self._corner(index), self._sizes[index]
            left, right = (round((n - x) * scale[0]) for n in (first_x, first_x + wide))
            top, bottom = (round((n - y) * scale[1]) for n in (first_y, first_y + high))
            if right <= 0 or bottom <= 0 or left >= size[0] or top >= size[1]:
                continue
            shape = (max(1, right - left), max(1, bottom - top))
            try:
                image = _decoded(path, shown=shape)
            except Exception as error:  # damaged images lead Pillow to errors of any type
                self._unreadable[path.name] = str(error)
                continue
            canvas.paste(image if image.size == shape else image.resize(shape, Image.Resampling.BOX), (left, top))
        return canvas

    def is_costly(self, x: int, y: int, width: int, height: int, *, size: tuple[int, int]) -> bool:
        """Returns whether more images than `_IMAGES_AT_ONCE` would be decoded for a picture."""
        return len(self._touched(x, y, width, height)) > _IMAGES_AT_ONCE

    def _touched(self, x: int, y: int, width: int, height: int) -> list[int]:
        """Indices of the images whose cells a rectangle touches."""
        columns, rows = (
            range(max(0, start // side), -(-(start + length) // side))
            for start, length, side in ((x, width, self._cell[0]), (y, height, self._cell[1]))
        )
        places = (row * self._columns + column for row in rows for column in columns if column < self._columns)
        return [index for index in places if index < len(self._images)]

    @property
    def _scale(self) -> float:
        """Pixels of the patches per pixel of the images."""
        return self.mpp / self._tiling.mpp

    @property
    def _thumbnail_scale(self) -> float:
        return min(1.0, THUMBNAIL_PX / max(self.width_px, self.height_px))

    def _marks_on(self, image: Image.Image) -> _Marks:
        """Pen marks of an image, brought to the resolution at which they are told from stain."""
        factor = max(1.0, TISSUE_MPP / self.mpp)
        width, height = (max(1, round(n / factor)) for n in image.size)
        mpp = factor * self.mpp
        stained, pen = stained_and_pen(np.array(image.resize((width, height), Image.Resampling.BOX)), mpp=mpp)
        return _Marks(mpp, pen, int(np.count_nonzero(stained)))

    def _corner(self, index: int) -> tuple[int, int]:
        row, column = divmod(index, self._columns)
        return column * self._cell[0], row * self._cell[1]

    def _small_box(self, index: int) -> tuple[int, int, int, int]:
        """Left, top, width and height of an image in the montage."""
        (x, y), (width, height), scale = self._corner(index), self._sizes[index], self._thumbnail_scale
        return round(x * scale), round(y * scale), max(1, round(width * scale)), max(1, round(height * scale))

    def _scaled_size(self, index: int) -> tuple[int, int]:
        width, height = self._sizes[index]
        return max(1, round(width * self._scale)), max(1, round(height * self._scale))

    def _grid(self, index: int) -> list[tuple[int, int]]:
        """Corners (x, y) of the patches in the rescaled image, centred; what is left over at the edges is dropped."""
        tile, stride = self._tiling.tile_px, self._tiling.tile_px - self._tiling.overlap_px
        starts = []
        for length in self._scaled_size(index):
            axis = grid_starts(length, tile, stride)
            starts.append([] if len(axis) == 0 else (axis + (length - tile - axis[-1]) // 2).tolist())
        return [(x, y) for y in starts[1] for x in starts[0]]

    def _size_of(self, image: Path) -> tuple[int, int] | None:
        try:
            require_regular_file(image, "image")
            with Image.open(image, formats=_FORMATS) as opened:
                return opened.size
        except Exception as error:  # damaged images lead Pillow to errors of any type
            self._unreadable[image.name] = str(error)
            return None

    def _require_readable(self, path: Path) -> None:
        if not set(range(len(self._images))) - {i for i, p in enumerate(self._images) if p.name in self._unreadable}:
            raise DataError(
                f"{path}: at least one readable image is required. Found {'; '.join(self.warnings)}. "
                "Copy the images again from their source."
            )


def is_image_source(path: Path) -> bool:
    """Returns whether a path is a folder or a PNG or JPEG image rather than a slide file."""
    return path.is_dir() or path.suffix.lower() in IMAGE_SUFFIXES


def _images_of(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    names = (p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    images = sorted(names, key=lambda p: p.name)
    if not images:
        found = preview(sorted(p.name for p in path.iterdir())) or "nothing"
        raise DataError(f"{path}: {ACCEPTED} is required. Found a folder with {found}. Correct the path.")
    return images


def _decoded(path: Path, *, shown: tuple[int, int] | None = None) -> Image.Image:
    """The image, or one no smaller than it will be shown: JPEG is decoded to an eighth in a tenth of the time."""
    require_regular_file(path, "image")
    with Image.open(path, formats=_FORMATS) as opened:
        if opened.mode.startswith(("I", "F")):
            raise ValueError(f"{opened.mode} pixels, 8 bits per channel are required")
        if shown is not None:
            opened.draft(None, shown)
        return opened.convert("RGB")


def _is_tissue(image: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
    """True where a pixel is neither nearly white nor nearly black."""
    return (image.min(axis=2) <= _WHITE) & (image.max(axis=2) >= _BLACK)
