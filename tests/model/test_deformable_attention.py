import pytest
import torch
from torch import Tensor
from torch.nn import functional

from subfuse.model.deformable_attention import DeformableAttention, position_bias_error
from subfuse.model.patch_grid import SpatialCells

GRID = (8, 11)
EMBED = 12
SCALE = 1.5


def attention(
    *,
    heads: int,
    head_dim: int,
    groups: int,
    table_size: int | None,
    grid: tuple[int, int] = GRID,
    downsample: int = 3,
    kernel: int = 5,
) -> DeformableAttention:
    torch.manual_seed(0)
    module = DeformableAttention(
        EMBED,
        grid=grid,
        heads=heads,
        head_dim=head_dim,
        offset_groups=groups,
        downsample=downsample,
        offset_scale=SCALE,
        offset_kernel=kernel,
        dropout=0.1,
        align_corners=True,
        table_size=table_size,
    )
    with torch.no_grad():
        module.offset_pointwise.weight *= 8  # points that use their range
    return module.double().eval()


def cells_of(occupied: Tensor) -> SpatialCells:
    n_cells = occupied.shape[1]
    every = torch.arange(n_cells).expand(len(occupied), -1)
    return SpatialCells(cell=every, token_mask=occupied, token=every.where(occupied, n_cells), is_dense=True)


def occupied_cells_of(occupied: Tensor) -> SpatialCells:
    """The same without the empty cells, padded."""
    n_cells = occupied.shape[1]
    cell = (~occupied).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(occupied.sum(1).max())]
    mask = occupied.gather(1, cell)
    return SpatialCells(cell.where(mask, n_cells), mask, torch.zeros(len(cell), 0, dtype=torch.long), is_dense=False)


def bag(n_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    queries, keys = (torch.randn(2, n_cells, EMBED, generator=generator).double() for _ in range(2))
    occupied = torch.rand(2, n_cells, generator=generator) < 0.6
    occupied[0, -1] = True
    return queries, keys, occupied


def interpolation(x: Tensor, y: Tensor, grid: tuple[int, int]) -> Tensor:
    """Weights of the cells at fractional cell coordinates, row by row; outside the grid are zeros."""
    rows, columns = (torch.arange(n).double() for n in grid)
    return ((1 - (y - rows).abs()).clamp(min=0)[:, None] * (1 - (x - columns).abs()).clamp(min=0)).flatten()


def centred(index: Tensor, n: int) -> Tensor:
    """Positions from -1 to 1; around 0 where there is a single one."""
    return 2 * index / (n - 1) - 1 if n > 1 else 2 * index


def attended_in_loops(
    module: DeformableAttention, queries: Tensor, keys: Tensor, occupied: Tensor
) -> tuple[Tensor, Tensor]:
    """One patient, projections unfolded: the output of each cell, and what it receives per head."""
    heads, groups, grid = module.heads, module.groups, module.grid
    height, width = grid
    normed = [module.norm(tensor) * occupied[:, None] for tensor in (queries, keys)]
    query = module.query(normed[0].T[None]).unflatten(1, (groups, -1))  # 1 group channel cell
    maps = query[0].unflatten(2, grid)
    offset = module.offset_pointwise(functional.gelu(module.offset_depthwise(maps))).tanh() * SCALE
    rows, columns = offset.shape[2:]
    mixed, received = [], []
    for head in range(heads):
        group = head // (heads // groups)
        channels = slice(group * EMBED // groups, (group + 1) * EMBED // groups)
        size = module.query.out_channels // heads
        wk, wv = (w.weight[head * size : (head + 1) * size, :, 0] for w in (module.key, module.value))
        position, weights = [], []
        for r, c in ((r, c) for r in range(rows) for c in range(columns)):
            vx, vy = centred(c + offset[group, 0, r, c], columns), centred(r + offset[group, 1, r, c], rows)
            position.append(torch.stack([vx, vy]))
            weights.append(interpolation((vx + 1) / 2 * (width - 1), (vy + 1) / 2 * (height - 1), grid) * occupied)
        position, weights = torch.stack(position), torch.stack(weights)  # point cell
        occupancy = weights.sum(1).clamp(min=1e-6)  # a point without patches weighs next to nothing
        sampled = weights @ normed[1][:, channels] / occupancy[:, None]
        q = query.flatten(1, 2)[0, head * size : (head + 1) * size].T  # cell channel
        row, column = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
        u = torch.stack([centred(column, width), centred(row, height)], -1).flatten(0, 1)
        bias = module.position_bias(u[:, None] - position)[..., head % (heads // groups)]
        given = (q @ (sampled @ wk.T).T * size**-0.5 + bias).exp() * occupancy
        given = given / given.sum(1, keepdim=True)
        mixed.append(given @ (sampled @ wv.T))
        received.append(given[occupied].mean(0) / occupancy @ weights)
    return module.output(torch.cat(mixed, 1)), torch.stack(received)


WIDTHS = {"folded": (2, 16, 2), "plain": (3, 2, 3), "both": (6, 8, 2), "wide": (4, 3, 1)}
GEOMETRIES = {
    "one row of points": ((5, 11), 3, 5),
    "one column of cells": ((6, 1), 1, 3),
    "two rows of cells": ((2, 6), 1, 1),
}


@pytest.mark.parametrize(
    ("widths", "geometry"),
    [pytest.param(widths, (GRID, 3, 5), id=name) for name, widths in WIDTHS.items()]
    + [pytest.param((6, 8, 2), geometry, id=name) for name, geometry in GEOMETRIES.items()],
)
@pytest.mark.parametrize("table_size", [None, 300])
def test_equals_loops(widths, geometry, table_size):
    (heads, head_dim, groups), (grid, downsample, kernel) = widths, geometry
    module = attention(
        heads=heads,
        head_dim=head_dim,
        groups=groups,
        table_size=table_size,
        grid=grid,
        downsample=downsample,
        kernel=kernel,
    )
    queries, keys, occupied = bag(grid[0] * grid[1])
    cells, tolerance = cells_of(occupied), 1e-10 if table_size is None else 3e-3
    with torch.no_grad():
        found = module(queries, keys, cells, need_attention=True)
        for b in range(2):
            output, received = attended_in_loops(module, queries[b], keys[b], occupied[b])
            torch.testing.assert_close(
                found.output[b][occupied[b]], output[occupied[b]], atol=tolerance, rtol=tolerance
            )
            torch.testing.assert_close(found.received[b], received, atol=tolerance, rtol=tolerance)


def test_empty_cells_may_be_left_out():
    module = attention(heads=6, head_dim=8, groups=2, table_size=50)
    queries, keys, occupied = bag(GRID[0] * GRID[1])
    cells = occupied_cells_of(occupied)
    index = cells.cell.clamp(max=GRID[0] * GRID[1] - 1)
    some = [tensor.gather(1, index[..., None].expand(-1, -1, EMBED)) for tensor in (queries, keys)]
    with torch.no_grad():
        dense = module(queries, keys, cells_of(occupied), need_attention=True)
        sparse = module(*some, cells, need_attention=True)
    for b in range(2):
        n = int(occupied[b].sum())
        torch.testing.assert_close(sparse.output[b, :n], dense.output[b, occupied[b]])
        torch.testing.assert_close(sparse.received[b, :, :n], dense.received[b][:, occupied[b]])
        assert not sparse.received[b, :, n:].any()


def test_what_is_received_is_not_dropped_and_only_computed_where_asked_for():
    module = attention(heads=6, head_dim=8, groups=2, table_size=50)
    queries, keys, occupied = bag(GRID[0] * GRID[1])
    expected = module(queries, keys, cells_of(occupied), need_attention=True).received
    module.train()
    torch.testing.assert_close(module(queries, keys, cells_of(occupied), need_attention=True).received, expected)
    assert module(queries, keys, cells_of(occupied)).received is None


@pytest.mark.parametrize(("grid", "reach"), [((8, 11), (4.0, 2.5)), ((5, 11), (3.0, 2.5))])
def test_reach_is_as_far_as_the_last_point_can_move(grid, reach):
    module = attention(heads=2, head_dim=4, groups=2, table_size=20, grid=grid)
    assert module.reach == reach  # 2 or 1 rows and 3 columns of points that move by 1.5


def test_table_error_compares_with_the_network():
    coarse = attention(heads=6, head_dim=8, groups=2, table_size=20)
    fine = attention(heads=6, head_dim=8, groups=2, table_size=600)
    error = position_bias_error(coarse)
    assert error > 10 * position_bias_error(fine, n_pairs=100) > 0
    coarse.position_bias.constant.fill_(3.0)  # which changes no attention
    assert position_bias_error(coarse) == pytest.approx(error, rel=1e-6)
    assert position_bias_error(torch.nn.Linear(2, 2)) == 0
