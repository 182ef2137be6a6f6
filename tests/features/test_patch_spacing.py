"""The size of patches from where they lie, on tissue of any shape and density."""

from pathlib import Path

import numpy as np
import pytest

from subfuse.errors import DataError
from subfuse.features.patch_spacing import spacing

SIDE = 512
PATH = Path("slide.h5")


def grid(side: float, *, n: int = 30, share: float = 1.0, seed: int = 0, shift: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Corners of a share of the patches of a square of n x n."""
    cells = np.stack(np.meshgrid(np.arange(n), np.arange(n)), axis=-1).reshape(-1, 2)
    kept = np.random.default_rng(seed).random(len(cells)) < share
    return (cells[kept] * side).round() + shift


LAYOUTS = {
    "dense": grid(SIDE),
    "half": grid(SIDE, share=0.5),
    "strip": np.array([[0, 0], [1, 0], [3, 0], [5, 0], [0, 1], [2, 1], [4, 1], [1, 2], [3, 2], [5, 2]]) * SIDE,
    "board": np.array([[x, y] for x in range(8) for y in range(8) if (x + y) % 2]) * SIDE,
    "most without a neighbour": np.array([[0, 0], [2, 0], [4, 2], [6, 2], [0, 4], [2, 6], [7, 6], [8, 6]]) * SIDE,
    "row": np.array([[0, 7], [2, 7], [3, 7], [7, 7]]) * SIDE,
    "row without neighbours": np.array([[0, 7], [2, 7], [5, 7]]) * SIDE,
    "column": np.array([[7, 0], [7, 1], [7, 2], [7, 9]]) * SIDE,
    "two": np.array([[0, 0], [SIDE, 0]]),
    "again": np.repeat(grid(SIDE, n=3), 2, axis=0),
    "pieces, each on its own grid": np.concatenate(
        [grid(SIDE, n=6, share=0.6, seed=i, shift=(i * 7_008, i * 992)) for i in range(6)]
    ),
    "overlapping pieces": np.concatenate([grid(SIDE, n=8), grid(SIDE, n=8, shift=(7 * SIDE + 128, 96))]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_size_is_found_in_every_layout(name):
    for corners in (LAYOUTS[name], LAYOUTS[name][:, ::-1], LAYOUTS[name] + 1234, LAYOUTS[name] / 2):
        side = SIDE / 2 if corners.max() == LAYOUTS[name].max() / 2 else SIDE
        assert spacing(corners, PATH) == side


@pytest.mark.parametrize("share", [0.3, 0.1, 0.03, 0.01])
@pytest.mark.parametrize("seed", range(5))
def test_the_size_is_found_where_few_patches_were_kept(share, seed):
    assert spacing(grid(SIDE, n=60, share=share, seed=seed), PATH) == SIDE


@pytest.mark.parametrize("seed", range(5))
def test_pieces_of_tissue_whose_grids_differ_by_a_part_of_a_patch(seed):
    generator = np.random.default_rng(seed)
    pieces = [
        grid(
            256,
            n=int(generator.integers(2, 7)),
            share=0.7,
            seed=seed + i,
            shift=tuple(generator.integers(0, 900, 2) * 64),
        )
        for i in range(6)
    ]
    assert spacing(np.concatenate(pieces), PATH) == 256


@pytest.mark.parametrize("share", [1.0, 0.3, 0.05])
def test_places_that_are_rounded_move_it_by_a_pixel_at_most(share):
    assert spacing(grid(506.46, share=share, n=50), PATH) == pytest.approx(506.46, abs=1)
    jitter = np.random.default_rng(1).integers(-1, 2, (10_000, 1)) * [[1, 0]]
    corners = grid(SIDE, share=share, n=50)
    assert spacing(corners + jitter[: len(corners)], PATH) == pytest.approx(SIDE, abs=2)


def test_patches_that_overlap_seem_as_large_as_their_distance():
    assert spacing(grid(SIDE // 2), PATH) == SIDE // 2


def test_patches_without_a_common_line_are_refused():
    with pytest.raises(DataError, match=r"slide.h5: the size of the patches .* no two of the 3 patches lie in one row"):
        spacing(np.array([[0, 0], [500, 300], [901, 777]]), PATH)
    with pytest.raises(DataError, match="patch_size_level0"):
        spacing(np.zeros((1, 2)), PATH)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n_patches", [10, 20, 50])
def test_a_sample_of_patches_of_one_grid_lies_on_it(n_patches, seed):
    cells = np.random.default_rng(seed).choice(2_000, n_patches, replace=False)
    assert spacing(np.stack([cells % 40, cells // 40], axis=1) * 256, PATH) == 256


def test_few_patches_are_not_taken_to_lie_on_a_coarser_grid_by_chance():
    cells = [[0, 0], [4, 0], [9, 1], [13, 1], [20, 6], [20, 10], [31, 7], [35, 7], [40, 17], [44, 17], [50, 22]]
    assert spacing(np.array(cells) * 224, PATH) == 224


@pytest.mark.parametrize(
    ("corners", "mpp", "found"),
    [
        (np.random.default_rng(1).integers(0, 50_000, (2_000, 2)), None, "px apart|lie on no common grid"),
        (np.concatenate([grid(SIDE), grid(SIDE) + 1]), None, "patches lie 1 px apart, which is no size of patches"),
        (grid(6), 0.25, r"patches lie 6 px \(1.5 µm\) apart"),
        (grid(3_320), 0.25, r"patches lie 3320 px \(830 µm\) apart"),
        (np.array([[0, 0], [0, 9_000]]), None, "patches lie 9000 px apart"),
    ],
)
def test_sizes_that_no_patches_have_are_refused(corners, mpp, found):
    with pytest.raises(DataError, match=rf"({found}).* write the attribute into the file"):
        spacing(corners, PATH, mpp)
