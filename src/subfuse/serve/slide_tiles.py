"""Slides as a browser reads them: square tiles of a pyramid, and thumbnails."""

import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image

from subfuse.cohort.cohort import Cohort
from subfuse.errors import SubfuseError
from subfuse.explanation.ground import NO_PLACES, slide_ground, thumbnail_path
from subfuse.explanation.tile_gallery import NOT_LOCATED, locate_slides, open_prepared
from subfuse.features.store import read_places
from subfuse.serve.schema import SlideInfo
from subfuse.slides.opening import OpenedSlide

TILE_PX = 256
_OPEN_SLIDES = 8  # kept open at once
_JPEG_QUALITY = 80
_PICTURES = 64  # of whole slides kept in memory


class Unavailable(LookupError):
    """Something that cannot be shown, and why."""


@dataclass(frozen=True)
class _Slide:
    slide_id: str
    patient_id: str
    features: Path


class SlideShelf:
    """The slides of a cohort, opened when they are looked at. Threads may call every method at once."""

    def __init__(self, cohort: Cohort) -> None:
        self._slides = {
            path.stem: _Slide(path.stem, patient.patient_id, path) for patient in cohort for path in patient.slides
        }
        self._places = locate_slides(cohort)
        # a slide that falls out of the cache is closed when the last thread has let go of it
        self._pyramid = lru_cache(maxsize=_OPEN_SLIDES)(self._open)
        self._size = lru_cache(maxsize=None)(_size_of)
        self._picture = lru_cache(maxsize=_PICTURES)(_picture_of)

    def info(self, slide_id: str) -> SlideInfo:
        """Returns a slide's size and pyramid, and whether its pixels can be read here.

        Raises:
            Unavailable: There is no such slide.
        """
        slide = self._found(slide_id)
        width, height, mpp, patch_size, has_places = self._size(slide.features)
        reason = None
        try:
            self._pyramid(slide_id)
        except Unavailable as error:
            reason = str(error)
        return SlideInfo(
            slide_id=slide_id,
            patient_id=slide.patient_id,
            width_px=width,
            height_px=height,
            mpp=mpp,
            patch_size_px=patch_size,
            tile_px=TILE_PX,
            levels=_n_levels(width, height),
            available=reason is None,
            reason=reason,
            picture=self._shown(slide, has_places),
        )

    def tile(self, slide_id: str, level: int, column: int, row: int) -> bytes:
        """Returns one tile as JPEG.

        Args:
            slide_id: The slide.
            level: Level of the pyramid; the last is the slide's full resolution.
            column: Place of the tile from the left.
            row: Place of the tile from the top.

        Raises:
            Unavailable: There is no such slide or tile, or the slide cannot be read.
        """
        slide = self._pyramid(slide_id)
        last = _n_levels(slide.width_px, slide.height_px) - 1
        if not 0 <= level <= last:
            raise Unavailable(f"slide {slide_id} has the levels 0 to {last}. Found {level}.")
        scale = 2 ** (last - level)
        columns, rows = (-(-length // (scale * TILE_PX)) for length in (slide.width_px, slide.height_px))
        if not (0 <= column < columns and 0 <= row < rows):
            raise Unavailable(f"level {level} of slide {slide_id} has {columns} x {rows} tiles. Found {column}, {row}.")
        left, top = column * scale * TILE_PX, row * scale * TILE_PX
        width, height = min(scale * TILE_PX, slide.width_px - left), min(scale * TILE_PX, slide.height_px - top)
        size = (-(-width // scale), -(-height // scale))
        try:
            if slide.is_costly(left, top, width, height, size=size):
                picture = self._from_picture(slide_id, (left, top, left + width, top + height), size)
            else:
                picture = slide.picture(left, top, width, height, size=size)
        except SubfuseError as error:
            raise Unavailable(f"slide {slide_id} cannot be read at this place: {error}") from error
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
        return buffer.getvalue()

    def thumbnail(self, slide_id: str) -> bytes:
        """Returns the picture of the whole slide as JPEG, or that of the places of its patches.

        Raises:
            Unavailable: There is no such slide, or neither is known.
        """
        slide = self._found(slide_id)
        if self._shown(slide, self._size(slide.features)[4]) == "none":
            raise Unavailable(f"slide {slide_id} has no picture, and {NO_PLACES}.")
        return self._picture(slide.features)[0]

    def _from_picture(self, slide_id: str, box: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
        """A rectangle (left, top, right, bottom in level-0 pixels) of the picture made in preparation."""
        slide = self._slides[slide_id]
        width, height, *_, has_places = self._size(slide.features)
        if self._shown(slide, has_places) != "slide":
            raise Unavailable(f"slide {slide_id} takes too long to be read at this level. Zoom in.")
        with Image.open(io.BytesIO(self._picture(slide.features)[0])) as picture:
            across, down = picture.width / width, picture.height / height
            right, bottom = min(box[2] * across, picture.width), min(box[3] * down, picture.height)
            return picture.resize(size, box=(box[0] * across, box[1] * down, right, bottom))

    def _shown(self, slide: _Slide, has_places: bool) -> Literal["slide", "places", "none"]:
        if thumbnail_path(slide.features).exists() and self._picture(slide.features)[1] is None:
            return "slide"
        return "places" if has_places else "none"

    def _found(self, slide_id: str) -> _Slide:
        if slide_id not in self._slides:
            raise Unavailable(f"there is no slide {slide_id!r} in this cohort.")
        return self._slides[slide_id]

    def _open(self, slide_id: str) -> OpenedSlide:
        place = self._places.get(self._found(slide_id).slide_id, NOT_LOCATED)
        if isinstance(place, str):
            raise Unavailable(f"slide {slide_id} cannot be read here: {place.rstrip('.')}.")
        try:
            return open_prepared(place, read_places(self._slides[slide_id].features))
        except SubfuseError as error:
            raise Unavailable(f"slide {slide_id} cannot be opened: {error}") from error


def _n_levels(width: int, height: int) -> int:
    """Levels of a pyramid, each half as wide and high as the next, from a single pixel on."""
    return (max(width, height) - 1).bit_length() + 1


def _size_of(features: Path) -> tuple[int, int, float, int, bool]:
    """Width and height in level-0 pixels, µm per pixel, patch size in pixels; whether patches have known places."""
    slide = read_places(features)
    size = (slide.slide_width_px, slide.slide_height_px)
    return *size, slide.level0_mpp, slide.patch_size_level0, slide.has_coordinates


def _picture_of(features: Path) -> tuple[bytes, str | None]:
    """The picture of a slide as JPEG, and why it shows the places of the patches instead."""
    ground, buffer = slide_ground(features, read_places(features)), io.BytesIO()
    ground.picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue(), ground.reason
