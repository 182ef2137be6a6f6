"""Deformable attention on a grid of cells: every query attends to a few learned positions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from subfuse.model.patch_grid import PatchCells
from subfuse.model.position_bias import PositionBias, bias_table, read_table, table_axes

EMPTY = 1e-6  # a key whose surroundings hold no patch weighs this much against a filled one
PAIRS_PER_CHUNK = 3_000_000  # query-key pairs held at a time by the table
EXACT_PAIRS_PER_CHUNK = 100_000  # the same where the network is evaluated at every pair


class DeformableAttention(nn.Module):
    """Attention of grid cells to positions that depend on the queries (section 2.1 of the paper; Xia et al. 2022).

    A network of the queries moves the points of a coarse grid; keys and values are the cells' values interpolated
    there; a continuous position bias is added to the logits.

    Relative to the paper: empty cells are left out. The values at a point are the mean of the occupied cells around
    it, and a point weighs as much as it is surrounded by occupied cells (attention ∝ occupancy · exp(logit)).
    Where key and query sizes allow, the projections of queries and keys, and those of values and output, are
    multiplied first; the result is the same up to rounding.

    Args:
        embed_dim: Width of queries and keys.
        grid: Cells, (height, width).
        heads: Attention heads, a multiple of the offset groups.
        head_dim: Width of a head.
        offset_groups: Groups of channels; each samples its own positions.
        downsample: Cells per point of the coarse grid, along each axis.
        offset_scale: Largest movement of a point, in points of the coarse grid.
        offset_kernel: Cells along each axis that a point's offset depends on.
        dropout: Probability of dropout of attention weights.
        align_corners: False repeats the released code, which reads the map half a cell off its positions' meaning.
        table_size: Nodes per axis of the position bias's table; None evaluates its network at every pair.
    """

    def __init__(
        self,
        embed_dim: int,
        *,
        grid: tuple[int, int],
        heads: int,
        head_dim: int,
        offset_groups: int,
        downsample: int,
        offset_scale: float,
        offset_kernel: int,
        dropout: float,
        align_corners: bool,
        table_size: int | None,
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        group_dim = inner // offset_groups
        padding = (offset_kernel - downsample) // 2
        self.grid = grid
        self.heads = heads
        self.groups = offset_groups
        self.offset_scale = offset_scale
        self.dropout = dropout
        self.align_corners = align_corners
        self.table_size = table_size
        self.points = (
            (grid[0] + 2 * padding - offset_kernel) // downsample + 1,
            (grid[1] + 2 * padding - offset_kernel) // downsample + 1,
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.query = nn.Conv1d(embed_dim, inner, 1, groups=offset_groups, bias=False)
        self.key = nn.Conv1d(embed_dim, inner, 1, groups=offset_groups, bias=False)
        self.value = nn.Conv1d(embed_dim, inner, 1, groups=offset_groups, bias=False)
        self.offset_depthwise = nn.Conv2d(
            group_dim, group_dim, offset_kernel, stride=downsample, padding=padding, groups=group_dim
        )
        self.offset_pointwise = nn.Conv2d(group_dim, 2, 1, bias=False)
        self.position_bias = PositionBias(heads // offset_groups)
        self.output = nn.Linear(inner, embed_dim)

    def forward(
        self, queries: Float[Tensor, "batch token embed"], keys: Float[Tensor, "batch token embed"], cells: PatchCells
    ) -> tuple[Float[Tensor, "batch token embed"], Float[Tensor, "batch group point 2"]]:
        """Returns the attention's output per token and the sampled positions, in points of the coarse grid, (x, y)."""
        with torch.autocast(queries.device.type, enabled=False):
            queries = self.norm(queries.to(self.norm.weight.dtype))
            keys = self.norm(keys.to(self.norm.weight.dtype))
            sampling_grid = self._sampling_grid(_to_map(queries, cells, self.grid))
            position = self._normalise(sampling_grid)
            sampled, occupancy = self._sample(_to_map(keys, cells, self.grid), cells, position)
            attended = self._attend(queries, sampled, occupancy.clamp(min=EMPTY).log(), position, cells)
        return attended, sampling_grid

    def base_grid(self, like: Tensor) -> Float[Tensor, "point 2"]:
        """Returns the unmoved points (x, y), row by row."""
        y, x = torch.meshgrid(
            *(torch.arange(n, dtype=like.dtype, device=like.device) for n in self.points), indexing="ij"
        )
        return torch.stack([x, y], -1).flatten(0, 1)

    def _sampling_grid(
        self, query_map: Float[Tensor, "batch embed height width"]
    ) -> Float[Tensor, "batch group point 2"]:
        # Query projection and depthwise convolution are linear: one convolution does both without storing the queries.
        depthwise = self.offset_depthwise
        weight = depthwise.weight.repeat(self.groups, 1, 1, 1) * self.query.weight[..., None]
        hidden = functional.conv2d(
            query_map,
            weight,
            depthwise.bias.repeat(self.groups),
            stride=depthwise.stride,
            padding=depthwise.padding,
            groups=self.groups,
        )
        hidden = functional.gelu(hidden.unflatten(1, (self.groups, -1)).flatten(0, 1))
        offset = self.offset_pointwise(hidden).tanh() * self.offset_scale
        offset = offset.flatten(2).transpose(1, 2).unflatten(0, (-1, self.groups))
        return self.base_grid(offset) + offset

    def _normalise(self, sampling_grid: Float[Tensor, "batch group point 2"]) -> Float[Tensor, "batch group point 2"]:
        """Positions in [-1, 1] from one end of the coarse grid to the other."""
        last = sampling_grid.new_tensor([self.points[1] - 1, self.points[0] - 1])
        return 2 * sampling_grid / last.clamp(min=1) - (last > 0).to(last.dtype)

    def _sample(
        self,
        key_map: Float[Tensor, "batch embed height width"],
        cells: PatchCells,
        position: Float[Tensor, "batch group point 2"],
    ) -> tuple[Float[Tensor, "batch group point channel"], Float[Tensor, "batch group point"]]:
        """Mean of the occupied cells around each position, and the share of occupied cells there."""
        occupied = _to_map(cells.token_mask[..., None].to(key_map.dtype), cells, self.grid)
        maps = torch.cat(
            [key_map.unflatten(1, (self.groups, -1)), occupied[:, None].expand(-1, self.groups, -1, -1, -1)], 2
        )
        sampled = functional.grid_sample(
            maps.flatten(0, 1), position.flatten(0, 1)[:, None], mode="bilinear", align_corners=self.align_corners
        )
        sampled = sampled[:, :, 0].unflatten(0, (-1, self.groups)).transpose(2, 3)
        values, occupancy = sampled[..., :-1], sampled[..., -1]
        return values / occupancy.clamp(min=EMPTY)[..., None], occupancy

    def _attend(
        self,
        queries: Float[Tensor, "batch token embed"],
        sampled: Float[Tensor, "batch group point channel"],
        key_bias: Float[Tensor, "batch group point"],
        position: Float[Tensor, "batch group point 2"],
        cells: PatchCells,
    ) -> Float[Tensor, "batch token embed"]:
        width, head_dim = sampled.shape[-1], self.query.out_channels // self.heads
        per_group = self.heads // self.groups
        wq, wk, wv = (conv.weight.view(self.heads, head_dim, width) for conv in (self.query, self.key, self.value))
        wo = self.output.weight.unflatten(1, (self.heads, head_dim))
        by_group = queries.transpose(1, 2).unflatten(1, (self.groups, 1, width))
        core = (wq.transpose(1, 2) @ wk) * head_dim**-0.5
        query = (core.transpose(1, 2).unflatten(0, (self.groups, -1)) @ by_group).flatten(1, 2)
        sampled, key_bias, position = (
            tensor.repeat_interleave(per_group, dim=1) for tensor in (sampled, key_bias, position)
        )
        axes = table_axes(self.grid, self.reach, self.table_size or 1)
        table = bias_table(self.position_bias, axes)
        bias = read_table(table, axes, position)
        if not cells.is_dense:
            index = cells.cell.clamp(max=bias.shape[-1] - 1)
            bias = bias.gather(-1, index[:, None, None].expand(*bias.shape[:-1], -1))
        logits = sampled @ query + bias + key_bias[..., None]
        attention = functional.dropout(logits.softmax(2), self.dropout, self.training)
        mixed = sampled.transpose(2, 3) @ attention
        folded = torch.einsum("ehd,hdc->ehc", wo, wv).flatten(1)
        return mixed.flatten(1, 2).transpose(1, 2) @ folded.T + self.output.bias

    @property
    def reach(self) -> tuple[float, float]:
        """Bound on |position| along (height, width)."""
        return tuple(float(n > 1) + 2 * self.offset_scale / max(n - 1, 1) for n in self.points)


def _to_map(
    tokens: Float[Tensor, "batch token channel"], cells: PatchCells, grid: tuple[int, int]
) -> Float[Tensor, "batch channel height width"]:
    """Tokens in their cells, zeros where there is no patch."""
    tokens = (tokens * cells.token_mask[..., None]).transpose(1, 2)
    if not cells.is_dense:
        n_cells = grid[0] * grid[1]
        empty = tokens.new_zeros(*tokens.shape[:2], n_cells + 1)
        tokens = empty.scatter(2, cells.cell[:, None].expand_as(tokens), tokens)[..., :-1]
    return tokens.unflatten(2, grid)
