import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from subfuse.cohort.bags import side_by_side
from subfuse.explanation.sampling import COLOURS, points_on_slides, points_um, sampled_points, sampling_map
from subfuse.features.store import SlideFeatures
from subfuse.model.patch_grid import spatial_cells


def slide(columns: int, rows: int, *, left: int = 0, top: int = 0, size: int = 300, mpp: float = 0.25) -> SlideFeatures:
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    coords = np.stack([left + x.ravel() * size, top + y.ravel() * size], axis=1).astype(np.int32)
    return SlideFeatures(
        features=np.zeros((len(coords), 2), np.float16),
        coords=coords,
        patch_size_level0=size,
        level0_mpp=mpp,
        target_mpp=0.5,
        encoder="fake",
        encoder_sha256="",
        slide_width_px=left + columns * size + 130,  # the patches do not divide the slide
        slide_height_px=top + rows * size + 70,
    )


def test_corners_of_the_coarse_grid_are_the_centres_of_the_corner_cells():
    one = slide(10, 6, left=500, top=200)  # fills a grid of 6 x 10 cells: a cell is a patch
    coords = torch.from_numpy(one.centres_um)
    corners = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 0.5]])
    found = points_um(corners, coords, grid=(6, 10), points=(2, 3))
    left, top, right, bottom = 650 * 0.25, 350 * 0.25, (650 + 9 * 300) * 0.25, (350 + 5 * 300) * 0.25
    middle = [(left + right) / 2, (top + bottom) / 2]
    expected = torch.tensor([[left, top], [right, top], [left, bottom], [right, bottom], middle])
    torch.testing.assert_close(found, expected)
    small = points_um(corners, coords * 1e-3, grid=(6, 10), points=(2, 3))
    torch.testing.assert_close(small, expected * 1e-3)


def test_cells_of_a_single_patch_are_a_micrometre_wide():
    positions = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    found = points_um(positions, torch.tensor([[640.0, 90.0]]), grid=(3, 2), points=(3, 2))
    torch.testing.assert_close(found[1:] - found[0], torch.tensor([[1.0, 0.0], [0.0, 2.0]]))


@pytest.mark.parametrize("grid", [(12, 20), (5, 4), (9, 9)])
def test_every_patch_lies_in_the_cell_that_the_model_puts_it_in(grid):
    """Also where the tissue is smaller than the grid, and where several patches share a cell."""
    coords = torch.from_numpy(side_by_side([slide(7, 5), slide(3, 2, left=90)]))
    mask = torch.ones(1, len(coords), dtype=torch.bool)
    cell = spatial_cells(coords[None], mask, grid, every_cell=True).token[0]
    points = (3, 4)
    column_row = torch.stack([cell % grid[1], cell // grid[1]], dim=-1).float()
    last_cell, last_point = torch.tensor([grid[1] - 1, grid[0] - 1]), torch.tensor([points[1] - 1, points[0] - 1])
    centre = points_um(column_row / last_cell * last_point, coords, grid=grid, points=points)
    right = points_um((column_row + 1) / last_cell * last_point, coords, grid=grid, points=points)
    side = (right - centre)[:, :1]
    assert ((coords - centre).abs() <= side / 2 * 1.01).all()


def test_a_coarse_grid_of_one_point_lies_in_the_middle():
    found = points_um(torch.zeros(1, 2), torch.from_numpy(slide(4, 4).centres_um), grid=(4, 4), points=(1, 1))
    torch.testing.assert_close(found, torch.tensor([[600 * 0.25, 600 * 0.25]]))


def test_points_return_to_their_own_slide_in_level0_pixels():
    """Two slides of different pixel size and offset: every patch centre comes back to where it was."""
    slides = [slide(4, 3, left=700, top=40), slide(3, 5, left=10, top=900, size=150, mpp=0.5)]
    index, pixels = points_on_slides(side_by_side(slides).astype(float), slides)
    assert index.tolist() == [0] * 12 + [1] * 15
    expected = np.concatenate([one.coords + one.patch_size_level0 / 2 for one in slides])
    np.testing.assert_allclose(pixels, expected, atol=0.01)


def test_points_beyond_a_slides_edge_are_on_no_slide():
    slides = [slide(4, 3, left=700, top=40)]
    first = side_by_side(slides)[:1].astype(float)  # centre of the first patch, at level-0 pixel (850, 190)
    moved = first + 0.25 * np.array([[-851.0, 0.0], [-850.0, 0.0], [0.0, -191.0], [1180.0, 0.0], [1179.0, 0.0]])
    assert points_on_slides(moved, slides)[0].tolist() == [-1, 0, -1, -1, 0]


def test_the_table_names_slide_subspace_and_group():
    slides = {"a": slide(3, 4), "b": slide(2, 4)}
    coords = torch.from_numpy(side_by_side(list(slides.values())))
    grid, points = (4, 9), (2, 3)  # 3 patches, 4 of a gap, 2 patches: a cell is a patch
    positions = torch.tensor([[0.0, 0.0], [2.0, 1.0]])  # first and last cell
    sampling_grid = positions.expand(2, 3, 2, 2).clone()
    sampling_grid[1, 2, 0] = torch.tensor([-9.0, 0.0])  # far outside
    table = sampled_points(sampling_grid, coords, slides, subspaces=("t", "m"), grid=grid, points=points)
    assert len(table) == 2 * 3 * 2 - 1
    row = table[(table["subspace"] == "m") & (table["group"] == 1)]
    assert row.to_dict("records") == [
        {"slide_id": "a", "subspace": "m", "group": 1, "x": 150.0, "y": 150.0},
        {"slide_id": "b", "subspace": "m", "group": 1, "x": 450.0, "y": 1050.0},
    ]


def test_points_are_drawn_where_they_are():
    table = pd.DataFrame(
        {"slide_id": "a", "subspace": ["t", "m"], "group": 0, "x": [1000.0, 300.0], "y": [500.0, 90.0]}
    )
    picture = sampling_map(
        Image.new("RGB", (400, 200), "white"), table, slide_width_px=2000, slide_height_px=1000, subspaces=("t", "m")
    )
    pixels = np.asarray(picture)
    assert picture.width == 400
    assert tuple(pixels[100, 200]) == COLOURS[0]
    assert tuple(pixels[18, 60]) == COLOURS[1]
    assert (np.ptp(pixels[:200].astype(int), axis=2) > 0).sum() < 80
    marked = Image.new("RGB", (400, 200), "white")
    marked.putpixel((0, 0), (0, 0, 0))
    empty = sampling_map(marked, table[:0], slide_width_px=2000, slide_height_px=1000, subspaces=("t", "m"))
    np.testing.assert_array_equal(np.asarray(empty)[:200], np.asarray(marked))  # the slide keeps its place


@pytest.mark.parametrize("width", [240, 400, 680])
def test_the_legend_says_what_is_shown_and_names_each_colour_in_a_row_of_its_own(width):
    names = ("tumour", "microenvironment", "third")
    table = pd.DataFrame({"subspace": [], "x": [], "y": []})
    picture = sampling_map(
        Image.new("RGB", (width, 50), "white"), table, slide_width_px=2000, slide_height_px=1000, subspaces=names
    )
    legend, size = np.asarray(picture)[50:].astype(int), max(12, width // 34)  # of the letters
    is_ink = (legend < 250).any(axis=2)
    ends = np.flatnonzero(np.diff(np.r_[0, is_ink.any(axis=1), 0])).reshape(-1, 2)
    assert len(ends) == 1 + len(names)
    assert 0 < ends[0, 0] < size
    assert (ends[2:, 0] - ends[1:-1, 1] < size).all()
    assert 0 < len(legend) - ends[-1, 1] < size
    assert not is_ink[:, -1].any()  # what is written fits
    assert not is_ink[:, 0].any()
    for (top, bottom), colour in zip(ends[1:], COLOURS, strict=False):
        rows, columns = np.nonzero((legend[top:bottom] == colour).all(axis=2))
        assert size / 2 - 3 <= np.ptp(columns) <= size  # a dot of the height of small letters
        assert np.ptp(rows) == np.ptp(columns)
        text = np.flatnonzero((np.ptp(legend[top:bottom], axis=2) < 9).any(axis=0) & is_ink[top:bottom].any(axis=0))
        text = text[text > columns.max() + 1]
        assert 0 < text[0] - columns.max() <= size
    if width > 300:
        written = np.flatnonzero(is_ink[ends[0, 0] : ends[0, 1]].any(axis=0))
        assert written[0] <= size
        assert ends[0, 1] - ends[0, 0] >= size / 2
        assert ends[1, 0] - ends[0, 1] < size
