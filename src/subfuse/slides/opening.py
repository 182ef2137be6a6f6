"""A slide opened for reading: the file of a scanner or images, behind one interface."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int
from PIL import Image

from subfuse.errors import DataError
from subfuse.slides.image_folders import ImageFolder, is_image_source
from subfuse.slides.outlines import outline_file
from subfuse.slides.source import SlideSource
from subfuse.slides.tissue import MPP_PLACE, Patch, Tiling, require_plausible_mpp
from subfuse.slides.tissue_rule import FIXED
from subfuse.slides.whole_slides import ACCEPTED, WholeSlide


@runtime_checkable
class OpenedSlide(Protocol):
    """A slide that is open. Places (x, y) and outlines (shapely geometries) are in level-0 pixels from its top left."""

    format: str  # the scanner's vendor or container, or "images"
    width_px: int  # at level 0
    height_px: int
    mpp: float  # µm per level-0 pixel
    bounds_corner: tuple[int, int]  # of the scanned area

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is doubtful about the slide, as far as it has been read."""

    @property
    def patches_per_part(self) -> int:
        """Most patches of one part."""

    def parts(self) -> Sequence[Any]:
        """Returns what `read` takes, one after the other, to read every patch."""

    def read(self, part: Any) -> list[Patch]:
        """Returns the patches of a part; threads may call it at once."""

    def tissue(self, coords: Int[np.ndarray, "patch 2"]) -> Any:
        """Returns the outline of the tissue, given the corners of the patches that were kept."""

    def pen(self) -> Any:
        """Returns the outline of the pen marks found so far, possibly empty."""

    def pen_share(self) -> float:
        """Returns the share of the stained and marked area that is pen."""

    def thumbnail(self) -> Image.Image:
        """Returns a small picture of the whole."""

    def picture(self, x: int, y: int, width: int, height: int, *, size: tuple[int, int]) -> Image.Image:
        """Returns a rectangle in level-0 pixels, scaled to a size; white where nothing is. Threads may call it."""

    def is_costly(self, x: int, y: int, width: int, height: int, *, size: tuple[int, int]) -> bool:
        """Returns whether so much would be read for a picture that nobody should wait for it."""

    def close(self) -> None:
        """Closes the file."""


def open_slide(source: SlideSource, tiling: Tiling, *, device: str = "cpu") -> OpenedSlide:
    """Opens a slide file or images alike; whoever opens a slide closes it.

    Args:
        source: Where it is.
        tiling: Of its patches.
        device: Where a model that finds tissue runs, if one does.

    Raises:
        DataError: The slide is missing, of another kind or damaged, its pixel size is unknown or implausible, or it has
            no outlines where they are declared.
        ConfigurationError: The extra `wsi` is missing, or a model of tissue that is declared.
    """
    if not source.path.exists():
        raise DataError(f"{source.path}: {ACCEPTED} is required. Found nothing. Correct the path of {source.slide_id}.")
    slide: OpenedSlide
    if is_image_source(source.path):
        _require_fixed(source)
        slide = ImageFolder(source.path, mpp=source.mpp, tiling=tiling)
    else:
        outlines = outline_file(source.tissue, source.slide_id)
        slide = WholeSlide(
            source.path, mpp=source.mpp, tiling=tiling, tissue=source.tissue, outlines=outlines, device=device
        )
    try:
        _require_mpp(slide.mpp, source)
    except DataError:
        slide.close()
        raise
    return slide


@contextmanager
def opened_slide(source: SlideSource, tiling: Tiling, *, device: str = "cpu") -> Iterator[OpenedSlide]:
    """Opens a slide for as long as it is read, see `open_slide`."""
    with closing(open_slide(source, tiling, device=device)) as slide:
        yield slide


def _require_fixed(source: SlideSource) -> None:
    if source.tissue != FIXED:
        raise DataError(
            f"{source.path}: a slide file is required where slides.tissue is {source.tissue.partition(':')[0]}. Found "
            "images, whose places on the slide are not known. Remove `tissue`, or leave the slide out."
        )


def _require_mpp(mpp: float, source: SlideSource) -> None:
    if source.mpp is None and math.isnan(mpp):
        raise DataError(
            f"{source.path}: the pixel size is required (µm per pixel). Found none in the file. "
            f"Declare `mpp` for {source.slide_id} in {MPP_PLACE}."
        )
    require_plausible_mpp(mpp, source.path, source.slide_id)
