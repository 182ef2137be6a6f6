import pytest
import torch
from torch import Tensor
from torch.nn import functional

from subfuse.model import position_bias_error
from subfuse.model.deformable_attention import EMPTY, DeformableAttention
from subfuse.model.patch_grid import SpatialCells

GRID = (8, 11)
EMBED = 12


def attention(*, heads: int, head_dim: int, groups: int, table_size: int | None) -> DeformableAttention:
    torch.manual_seed(0)
    module = DeformableAttention(
        EMBED,
        grid=GRID,
        heads=heads,
        head_dim=head_dim,
        offset_groups=groups,
        downsample=3,
        offset_scale=1.5,
        offset_kernel=5,
        dropout=0.1,
        align_corners=True,
        table_size=table_size,
    )
    return module.double().eval()


def cells_of(occupied: Tensor) -> SpatialCells:
    n_cells = occupied.shape[1]
    every = torch.arange(n_cells).expand(len(occupied), -1)
    return SpatialCells(cell=every, token_mask=occupied, token=every.where(occupied, n_cells), is_dense=True)


def interpolate(image: Tensor, x: float, y: float) -> Tensor:
    """Of (channel, height, width) at fractional cell coordinates, zeros outside."""
    total = image.new_zeros(len(image))
    for row in range(image.shape[1]):
        for column in range(image.shape[2]):
            weight = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            total = total + weight * image[:, row, column]
    return total


def attended_in_loops(module: DeformableAttention, queries: Tensor, keys: Tensor, occupied: Tensor) -> Tensor:
    """One patient, occupied cells as queries, projections unfolded."""
    heads, groups = module.heads, module.groups
    height, width = GRID
    normed = [module.norm(tensor) * occupied[:, None] for tensor in (queries, keys)]
    query = module.query(normed[0].T[None]).unflatten(1, (groups, -1))  # 1 group channel cell
    maps = query[0].unflatten(2, GRID)
    offset = module.offset_pointwise(functional.gelu(module.offset_depthwise(maps))).tanh() * 1.5
    rows, columns = offset.shape[2:]
    points = [(r, c) for r in range(rows) for c in range(columns)]
    key_map, occupancy_map = normed[1].T.unflatten(1, GRID), occupied.double().view(1, *GRID)
    output = torch.zeros(height * width, EMBED, dtype=torch.float64)
    mixed = []
    for head in range(heads):
        group = head // (heads // groups)
        channels = slice(group * EMBED // groups, (group + 1) * EMBED // groups)
        size = module.query.out_channels // heads
        wk, wv = (w.weight[head * size : (head + 1) * size, :, 0] for w in (module.key, module.value))
        position, sampled, occupancy = [], [], []
        for r, c in points:
            p = torch.stack([c + offset[group, 0, r, c], r + offset[group, 1, r, c]])
            v = 2 * p / torch.tensor([columns - 1, rows - 1]) - 1
            x, y = ((v + 1) / 2 * torch.tensor([width - 1, height - 1])).tolist()
            position.append(v)
            occupancy.append(interpolate(occupancy_map, x, y).clamp(min=EMPTY))
            sampled.append(interpolate(key_map[channels], x, y) / occupancy[-1])
        position, sampled, occupancy = torch.stack(position), torch.stack(sampled), torch.cat(occupancy)
        q = query.flatten(1, 2)[0, head * size : (head + 1) * size].T  # cell channel
        row, column = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
        u = torch.stack([2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1], -1).flatten(0, 1)
        bias = module.position_bias(u[:, None] - position)[..., head % (heads // groups)]
        logits = q @ (sampled @ wk.T).T * size**-0.5 + bias
        weights = logits.exp() * occupancy
        mixed.append(weights / weights.sum(1, keepdim=True) @ (sampled @ wv.T))
    output = module.output(torch.cat(mixed, 1))
    return output[occupied]


@pytest.mark.parametrize(
    ("heads", "head_dim", "groups"),
    [(2, 16, 2), (3, 2, 3), (6, 8, 2), (4, 3, 1)],
    ids=["folded", "plain", "both", "wide"],
)
@pytest.mark.parametrize("table_size", [None, 1500])
def test_equals_loops(heads, head_dim, groups, table_size):
    module = attention(heads=heads, head_dim=head_dim, groups=groups, table_size=table_size)
    generator = torch.Generator().manual_seed(1)
    queries, keys = (torch.randn(2, 88, EMBED, generator=generator).double() for _ in range(2))
    occupied = torch.rand(2, 88, generator=generator) < 0.6
    with torch.no_grad():
        found = module(queries, keys, cells_of(occupied)).output
        for b in range(2):
            expected = attended_in_loops(module, queries[b], keys[b], occupied[b])
            tolerance = 1e-10 if table_size is None else 1e-4
            torch.testing.assert_close(found[b][occupied[b]], expected, atol=tolerance, rtol=tolerance)


def test_table_error_compares_with_the_network():
    coarse = attention(heads=6, head_dim=8, groups=2, table_size=20)
    fine = attention(heads=6, head_dim=8, groups=2, table_size=2000)
    assert position_bias_error(coarse) > 20 * position_bias_error(fine, n_pairs=100) > 0
