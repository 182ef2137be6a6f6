"""The grid of patches: how large they are and where they stand."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

THUMBNAIL_PX = 1024  # longer side of the pictures of a slide
MPP_PLACE = "the slide table (of one new patient: --mpp)"  # where `mpp` is declared


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
                f"Tiling needs 0 <= overlap_px < tile_px, mpp > 0, min_tissue_fraction in 0..1. Got {self}."
            )

    @property
    def folder_name(self) -> str:
        """Name of the folder of everything made with this tiling, as TRIDENT names it.

        Example:
            >>> Tiling().folder_name
            '20x_256px_0px_overlap'
        """
        return f"{10 / self.mpp:g}x_{self.tile_px}px_{self.overlap_px}px_overlap"

    def patch_size_level0(self, mpp: float) -> int:
        """Returns the side of a patch in whole pixels of a slide with `mpp` µm per level-0 pixel."""
        return max(1, round(self.tile_px * self.mpp / mpp))

    def stride_level0(self, mpp: float) -> int:
        """Returns the distance of neighbouring patches in whole level-0 pixels."""
        return max(1, round((self.tile_px - self.overlap_px) * self.mpp / mpp))


def grid_starts(length: int, size: int, stride: int) -> Int[np.ndarray, " start"]:
    """Returns where patches begin on one axis; only patches that fit.

    Example:
        >>> grid_starts(10, 4, 3).tolist(), grid_starts(3, 4, 3).tolist()
        ([0, 3, 6], [])
    """
    return np.arange(0, length - size + 1, stride)
