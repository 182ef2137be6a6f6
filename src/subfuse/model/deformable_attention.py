"""Deformable attention on a grid of cells: every query attends to a few learned positions."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from subfuse.model.biased_attention import attend_by_table, attend_exactly
from subfuse.model.fixed_order import sample
from subfuse.model.patch_grid import PatchCells
from subfuse.model.position_bias import BiasTable, PositionBias, TableAxis

EMPTY = 1e-6  # a key whose surroundings hold no patch weighs this much against a filled one


@dataclass(frozen=True)
class Attended:
    """What deformable attention returns."""

    output: Float[Tensor, "batch token embed"]
    sampling_grid: Float[Tensor, "batch group point 2"]  # (x, y) in points of the coarse grid
    received: Float[Tensor, "batch head token"] | None  # mean over queries of the attention that a token receives


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
        offset_kernel: Cells along each axis that a point's offset depends on; exceeds `downsample` by an even number.
        dropout: Probability of dropout of attention weights.
        align_corners: False repeats the released code, which reads the map half a cell off its positions' meaning.
        table_size: Nodes per axis of the position bias's table; None evaluates its network at every pair.
    """

    last_point: Float[Tensor, "2"]  # (x, y) of the last point, from 0

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
        self.points = (grid[0] // downsample, grid[1] // downsample)
        last = torch.tensor([self.points[1] - 1.0, self.points[0] - 1.0])
        self.register_buffer("last_point", last, persistent=False)
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
        self,
        queries: Float[Tensor, "batch token embed"],
        keys: Float[Tensor, "batch token embed"],
        cells: PatchCells,
        *,
        need_attention: bool = False,
    ) -> Attended:
        """Returns the attention's output per token, the sampled positions, and what each token received.

        Computed in the precision of the parameters, also under autocast.
        """
        with torch.autocast(queries.device.type, enabled=False):
            queries = self.norm(queries.to(self.norm.weight.dtype))
            keys = self.norm(keys.to(self.norm.weight.dtype))
            sampling_grid = self._sampling_grid(_to_map(queries, cells, self.grid))
            position = self._normalise(sampling_grid)
            sampled, occupancy = self._sample(_to_map(keys, cells, self.grid), cells, position)
            query, key = self._query_and_key(queries, sampled)
            mixed = self._attend(query, key, self._per_head(sampled), occupancy, position, cells, dropout=self.dropout)
            received = self._received(query, key, occupancy, position, cells) if need_attention else None
            return Attended(self._merge(mixed), sampling_grid, received)

    @torch.no_grad()
    def table_error(self, n_pairs: int, *, generator: torch.Generator) -> float:
        """Returns the largest error of the table over random pairs of cell and position, in logits."""
        if self.table_size is None:
            return 0.0
        like = self.norm.weight
        n_keys = math.ceil(n_pairs / (self.grid[0] * self.grid[1]))
        height, width = self.reach
        position = 2 * torch.rand(n_keys, 1, 2, generator=generator).to(like) - 1
        position = (position * like.new_tensor([width, height])).repeat_interleave(self.heads // self.groups, dim=0)
        cell = torch.stack(torch.meshgrid(*self._axis_positions(like), indexing="xy"), -1).flatten(0, 1)
        table = BiasTable.of(self.position_bias, *self.table_axes)
        read = table.locate(position).read(table.runs, slice(None))[:, 0]
        read = read.unflatten(0, (n_keys, -1)).transpose(1, 2)
        exact = self.position_bias(cell - position[:: self.heads // self.groups])
        error = read - exact + self.position_bias.constant
        return float(error.abs().flatten()[:: max(1, error.numel() // n_pairs)].max())

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
            depthwise.get_parameter("bias").repeat(self.groups),
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
        last = self.last_point.to(sampling_grid.dtype)
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
        sampled = sample(maps.flatten(0, 1), position.flatten(0, 1), align_corners=self.align_corners)
        sampled = sampled.unflatten(0, (-1, self.groups)).transpose(2, 3)
        values, occupancy = sampled[..., :-1], sampled[..., -1]
        if not self.align_corners:
            return values, torch.ones_like(occupancy)
        return values / occupancy.clamp(min=EMPTY)[..., None], occupancy

    def _query_and_key(
        self, queries: Float[Tensor, "batch token embed"], sampled: Float[Tensor, "batch group point channel"]
    ) -> tuple[Float[Tensor, "map inner token"], Float[Tensor, "map point inner"]]:
        """Queries and keys whose inner products are the scaled logits: of whichever width is smaller."""
        width, head_dim = sampled.shape[-1], self.query.out_channels // self.heads
        shape = (self.groups, self.heads // self.groups, head_dim, width)
        of_query, of_key = self.query.weight.view(shape) * head_dim**-0.5, self.key.weight.view(shape)
        by_group = queries.transpose(1, 2).unflatten(1, (self.groups, 1, width))
        if width < head_dim:
            return (of_key.mT @ of_query @ by_group).flatten(0, 2), self._per_head(sampled)
        return (of_query @ by_group).flatten(0, 2), (sampled[:, :, None] @ of_key.mT).flatten(0, 2)

    def _per_head(self, tensor: Float[Tensor, "batch group ..."]) -> Float[Tensor, "map ..."]:
        return tensor.repeat_interleave(self.heads // self.groups, dim=1).flatten(0, 1)

    def _attend(
        self,
        query: Float[Tensor, "map channel token"],
        key: Float[Tensor, "map point channel"],
        value: Float[Tensor, "map point mixed"],
        occupancy: Float[Tensor, "batch group point"],
        position: Float[Tensor, "batch group point 2"],
        cells: PatchCells,
        *,
        dropout: float,
    ) -> Float[Tensor, "map mixed token"]:
        """Attention-weighted sums of any values."""
        n_cells = self.grid[0] * self.grid[1]
        cell = cells.cell.clamp(max=n_cells - 1).repeat_interleave(self.heads, dim=0)  # padding reads any cell
        key_bias = self._per_head(occupancy.clamp(min=EMPTY).log())
        position = self._per_head(position)
        dropout = dropout if self.training else 0.0
        if self.table_size is None:
            x, y = self._axis_positions(position)
            return attend_exactly(
                query,
                key,
                value,
                key_bias=key_bias,
                position=position,
                position_bias=self.position_bias,
                x=x,
                y=y,
                dropout=dropout,
            )
        table = BiasTable.of(self.position_bias, *self.table_axes)
        return attend_by_table(
            query,
            key,
            value,
            key_bias=key_bias,
            position=position,
            table=table,
            cell=None if cells.is_dense else cell,
            dropout=dropout,
        )

    def _merge(self, mixed: Float[Tensor, "map channel token"]) -> Float[Tensor, "batch token embed"]:
        """Value and output projection, multiplied first: attention mixed the inputs of the value projection."""
        width, head_dim = mixed.shape[1], self.value.out_channels // self.heads
        of_value = self.value.weight.view(self.heads, head_dim, width)
        of_output = self.output.weight.unflatten(1, (self.heads, head_dim))
        weight = torch.einsum("ehd,hdc->ehc", of_output, of_value).flatten(1)
        by_token = mixed.unflatten(0, (-1, self.heads)).flatten(1, 2).mT
        return functional.linear(by_token, weight, self.output.bias)

    @torch.no_grad()
    def _received(
        self,
        query: Float[Tensor, "map channel token"],
        key: Float[Tensor, "map point channel"],
        occupancy: Float[Tensor, "batch group point"],
        position: Float[Tensor, "batch group point 2"],
        cells: PatchCells,
    ) -> Float[Tensor, "batch head token"]:
        """Attention to the points, handed on to the cells that the points are interpolated from."""
        unit = torch.eye(key.shape[1], dtype=key.dtype, device=key.device).expand(len(key), -1, -1)
        attention = self._attend(query, key, unit, occupancy, position, cells, dropout=0.0)
        attention = attention.unflatten(0, (-1, self.heads))  # batch head point token
        of_query = cells.token_mask.to(key.dtype)
        of_query = of_query / of_query.sum(1, keepdim=True).clamp(min=1)
        of_point = torch.einsum("bhpt,bt->bhp", attention, of_query).flatten(0, 1) / self._per_head(
            occupancy.clamp(min=EMPTY)
        )
        # Interpolation is linear in the map, so its gradient with respect to the map is its transpose.
        of_cell, _ = torch.ops.aten.grid_sampler_2d_backward(
            of_point[:, None, None],
            of_point.new_zeros(len(of_point), 1, *self.grid),
            self._per_head(position)[:, None],
            0,  # bilinear
            0,  # zeros outside
            self.align_corners,
            [True, False],
        )
        of_cell = of_cell.flatten(1).unflatten(0, (-1, self.heads))
        index = cells.cell.clamp(max=of_cell.shape[-1] - 1)[:, None].expand(-1, self.heads, -1)
        return of_cell.gather(2, index) * cells.token_mask[:, None]

    def _axis_positions(self, like: Tensor) -> tuple[Float[Tensor, " width"], Float[Tensor, " height"]]:
        """Positions of columns and rows of cells in [-1, 1]."""
        height, width = (
            torch.linspace(-1, 1, n, dtype=like.dtype, device=like.device) if n > 1 else like.new_zeros(1)
            for n in self.grid
        )
        return width, height

    @property
    def table_axes(self) -> tuple[TableAxis, TableAxis]:
        """Nodes of the position bias's table, (height, width)."""
        (height, width), size = self.reach, self.table_size or 1
        return TableAxis(self.grid[0], height, size), TableAxis(self.grid[1], width, size)

    @property
    def reach(self) -> tuple[float, float]:
        """Bound on |position| along (height, width)."""
        height, width = (float(n > 1) + 2 * self.offset_scale / max(n - 1, 1) for n in self.points)
        return height, width


def position_bias_error(model: nn.Module, n_pairs: int = 4096) -> float:
    """Returns the largest error of a model's tabulated position bias over random pairs of cell and position.

    An error of ε changes no attention weight by more than a factor e^(2ε). It grows with the weights of the position
    bias's network, so it is worth looking at now and then; twice the `table_size` about halves it.

    Args:
        model: A `SubspaceFusion`, or any module that holds `DeformableAttention` modules.
        n_pairs: Pairs per attention module, the same at every call.

    Returns:
        The maximum over all attention modules, in logits; 0 where the network itself is used.
    """
    generator = torch.Generator().manual_seed(0)
    modules = [module for module in model.modules() if isinstance(module, DeformableAttention)]
    return max((module.table_error(n_pairs, generator=generator) for module in modules), default=0.0)


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
