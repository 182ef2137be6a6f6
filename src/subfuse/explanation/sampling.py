"""Where the deformable attention looked: its sampled positions on the patient's slides."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from subfuse.cohort.bags import side_by_side
from subfuse.features.store import SlideFeatures
from subfuse.model.patch_grid import patch_pitch, spatial_cells

DESCRIPTION = "where it looked: a description, not an attribution"
COLOURS = ((20, 92, 196), (232, 97, 0), (0, 130, 90), (150, 60, 150), (190, 150, 0), (90, 90, 90))


def points_um(
    sampling_grid: Float[Tensor, "*axes 2"],
    coords: Float[Tensor, "patch 2"],
    *,
    grid: tuple[int, int],
    points: tuple[int, int],
) -> Float[Tensor, "*axes 2"]:
    """Returns sampled positions in the coordinates of the patches, in µm.

    Points 0 and `points` - 1 of the coarse grid are the centres of the first and the last cell; cells are squares that
    the patches were binned on by `spatial_cells`.

    Args:
        sampling_grid: Positions (x, y) in points of the coarse grid.
        coords: Patch centres of the same patient in µm, (x, y), at least one.
        grid: Cells, (height, width).
        points: Points of the coarse grid, (height, width).
    """
    coords, mask = coords[None].double(), torch.ones(1, len(coords), dtype=torch.bool, device=coords.device)
    cell = spatial_cells(coords, mask, grid, every_cell=True).token[0]
    first = torch.stack([cell % grid[1], cell // grid[1]], dim=-1).amin(dim=0)  # cell of the tissue's top left corner
    low, high, pitch = coords[0].amin(dim=0), coords[0].amax(dim=0), patch_pitch(coords, mask)[0]
    size = low.new_tensor([grid[1], grid[0]])
    side = torch.maximum(pitch, ((high - low + pitch) / size).max())
    side = side if side > 0 else torch.ones_like(side)
    last = low.new_tensor([points[1] - 1, points[0] - 1])
    # a coarse grid of one point lies in the middle
    column_row = torch.where(last > 0, sampling_grid.double() / last.clamp(min=1), 0.5) * (size - 1)
    return (low - pitch / 2 + (column_row - first + 0.5) * side).to(sampling_grid.dtype)


def points_on_slides(
    points: Float[np.ndarray, "point 2"], slides: Sequence[SlideFeatures]
) -> tuple[np.ndarray, Float[np.ndarray, "point 2"]]:
    """Returns the slide of each point, and its place there in level-0 pixels.

    A point belongs to the slide of the nearest patch. It is on no slide (-1) where it falls beyond that slide's edges,
    as points can: nothing is there to be seen.

    Args:
        points: Positions (x, y) in µm, with the slides side by side as in a bag.
        slides: The patient's slides, in the order of the bag.
    """
    from scipy.spatial import KDTree  # imports slowly

    placed = side_by_side(slides).astype(np.float64)
    of_patch = np.repeat(np.arange(len(slides)), [len(slide.coords) for slide in slides])
    slide_of_point = of_patch[KDTree(placed).query(points)[1]]
    pixels = np.zeros((len(points), 2))
    for index, slide in enumerate(slides):
        first = int(np.flatnonzero(of_patch == index)[0])
        shift = placed[first] - (slide.coords[0] + slide.patch_size_level0 / 2) * slide.level0_mpp
        here = slide_of_point == index
        pixels[here] = (points[here] - shift) / slide.level0_mpp
        size = (slide.slide_width_px, slide.slide_height_px)
        slide_of_point[here] = np.where(((pixels[here] >= 0) & (pixels[here] < size)).all(axis=1), index, -1)
    return slide_of_point, pixels


def sampled_points(
    sampling_grid: Float[Tensor, "subspace group point 2"],
    coords: Float[Tensor, "patch 2"],
    slides: Mapping[str, SlideFeatures],
    *,
    subspaces: Sequence[str],
    grid: tuple[int, int],
    points: tuple[int, int],
) -> pd.DataFrame:
    """Returns the sampled positions that lie on a slide: slide_id, subspace, group, x, y (level-0 pixels).

    Args:
        sampling_grid: One patient's positions (x, y) in points of the coarse grid.
        coords: Patch centres of the patient's bag in µm.
        slides: The patient's slides by identifier, in the order of the bag.
        subspaces: Names, in the order of the model's subspace axis.
        grid: Cells of the model, (height, width).
        points: Points of its coarse grid, (height, width).
    """
    n_subspaces, n_groups, n_points, _ = sampling_grid.shape
    in_um = points_um(sampling_grid, coords, grid=grid, points=points).flatten(0, 2).double().cpu().numpy()
    slide, pixels = points_on_slides(in_um, list(slides.values()))
    subspace, group, _ = np.indices((n_subspaces, n_groups, n_points)).reshape(3, -1)
    names = [*slides, ""]  # -1 takes the last
    table = pd.DataFrame(
        {
            "slide_id": [names[index] for index in slide],
            "subspace": [subspaces[index] for index in subspace],
            "group": group,
            "x": np.floor(10 * pixels[:, 0]) / 10,  # not rounded: the last pixel would be beyond the edge
            "y": np.floor(10 * pixels[:, 1]) / 10,
        }
    )
    return table[slide >= 0].reset_index(drop=True)


def sampling_map(
    thumbnail: Image.Image,
    points: pd.DataFrame,
    *,
    slide_width_px: float | int,
    slide_height_px: float | int,
    subspaces: Sequence[str],
) -> Image.Image:
    """Draws sampled positions on a thumbnail of the slide, one colour per subspace, with what they are below.

    Args:
        thumbnail: The whole slide at any scale; its pixels stay at the top left.
        points: Rows of `sampled_points` of this slide.
        slide_width_px: Width of the slide at level 0.
        slide_height_px: Height of the slide at level 0.
        subspaces: Names, in the order that decides colours.
    """
    width, height = thumbnail.size
    size = max(12, width // 34)
    canvas = Image.new("RGB", (width, height + round((1.6 + 1.3 * len(subspaces)) * size)), "white")
    canvas.paste(thumbnail.convert("L").convert("RGB"), (0, 0))
    draw = ImageDraw.Draw(canvas)
    radius = max(2.0, width / 200)
    draw.text((size / 2, height + 0.2 * size), DESCRIPTION, fill="black", font=_font(draw, DESCRIPTION, size, width))
    for index, name in enumerate(subspaces):
        colour, of_subspace = COLOURS[index % len(COLOURS)], points[points["subspace"] == name]
        for x, y in of_subspace[["x", "y"]].to_numpy(float):
            _dot(draw, x * width / slide_width_px, y * height / slide_height_px, radius, colour)
        top = height + (1.5 + 1.3 * index) * size
        _dot(draw, size, top + 0.6 * size, size / 3, colour)
        draw.text((1.8 * size, top), name, fill="black", font=_font(draw, name, size, width))
    return canvas


def _dot(
    draw: ImageDraw.ImageDraw, x: float | int, y: float | int, radius: float, colour: tuple[int, int, int]
) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")


def _font(draw: ImageDraw.ImageDraw, text: str, size: int, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font in which the text fits the width."""
    needed = draw.textlength(text, font=ImageFont.load_default(size))
    return ImageFont.load_default(max(6, int(size * min(1.0, (width - 2.5 * size) / max(1.0, needed)))))
