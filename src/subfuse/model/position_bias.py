"""Continuous position bias of the deformable attention: exact, or read from a table.

A small network f maps the difference between a query cell and a sampled position to one number per head. There are
millions of such pairs per patient, but queries are cells of a regular grid. With a table of f whose spacing divides
the spacing of the cells, all queries of one sampled position share the same two interpolation weights per axis, and a
row of queries reads a contiguous run of the table: a weighted sum of rows, `embedding_bag`.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional


def signed_log(difference: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Returns sign(d) · log(1 + |d|)."""
    return difference.sign() * difference.abs().log1p()


class PositionBias(nn.Module):
    """Bias of the attention logits from the difference between query and key position (Swin v2, Liu et al. 2022).

    A network 2 → hidden → hidden → heads with ReLU of the signed logarithm of the difference, coordinates in [-1, 1].

    The constant added to all biases of a head changes no attention weight and never receives a gradient. It is kept
    as a buffer, so that released weights convert without loss, and is no parameter.

    Args:
        heads: Number of biases per pair.
        hidden: Width of the two hidden layers.
    """

    constant: Tensor

    def __init__(self, heads: int = 1, *, hidden: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(2, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, heads, bias=False)
        self.register_buffer("constant", torch.zeros(heads))

    def forward(self, difference: Float[Tensor, "*axes 2"]) -> Float[Tensor, "*axes head"]:
        """Returns the bias for differences (x, y) between query and key position."""
        hidden = self.second(self.first(signed_log(difference)).relu()).relu()
        return self.output(hidden) + self.constant

    def on_lattice(
        self, x: Float[Tensor, "*batch width"], y: Float[Tensor, "*batch height"]
    ) -> Float[Tensor, "*batch height width head"]:
        """Returns the bias for all pairs of a column and a row difference, without the constant.

        The first layer is a sum of a part of x and a part of y, so no logarithm is taken twice.
        """
        of_x = signed_log(x)[..., None] * self.first.weight[:, 0] + self.first.bias
        of_y = signed_log(y)[..., None] * self.first.weight[:, 1]
        hidden = self.second((of_y[..., :, None, :] + of_x[..., None, :, :]).relu_()).relu_()
        return self.output(hidden)


@dataclass(frozen=True)
class TableAxis:
    """Nodes of the table along one axis.

    Args:
        n_cells: Number of query cells along the axis, at positions spread evenly over [-1, 1].
        reach: Bound on |key position|.
        n_nodes: Least number of nodes over the range of differences.
    """

    n_cells: int
    reach: float
    n_nodes: int

    @property
    def steps_per_cell(self) -> int:
        """Table steps between neighbouring query cells."""
        return math.ceil(self.n_nodes * self._cell_spacing / (2 * (1 + self.reach)))

    @property
    def spacing(self) -> float:
        """Difference between neighbouring nodes."""
        return self._cell_spacing / self.steps_per_cell

    @property
    def nodes_per_phase(self) -> int:
        """Nodes that lie whole cells apart: those that the queries of one key read."""
        return self.starts_per_phase + self.n_cells - 1

    @property
    def starts_per_phase(self) -> int:
        """Nodes of a phase at which the run of a key's queries can start."""
        return (math.ceil(2 * self.reach / self.spacing) + 2) // self.steps_per_cell + 1

    @property
    def _cell_spacing(self) -> float:
        return 2 / max(self.n_cells - 1, 1)

    def nodes(self, like: Tensor) -> Float[Tensor, "phase node"]:
        """Returns the differences at the nodes, by phase."""
        phase = torch.arange(self.steps_per_cell, device=like.device)[:, None]
        index = phase + self.steps_per_cell * torch.arange(self.nodes_per_phase, device=like.device)
        first = -self.reach - (1.0 if self.n_cells > 1 else 0.0)
        return (first + self.spacing * index.double()).to(like.dtype)

    def locate(self, key: Float[Tensor, "*axes"]) -> tuple[Int[Tensor, "*axes"], Float[Tensor, "*axes"]]:
        """Returns the node below the difference between the first cell and a key, and the weight of the next node."""
        steps = (self.reach - key) / self.spacing
        index = steps.detach().floor()
        return index.long(), steps - index


def table_axes(grid: tuple[int, int], reach: tuple[float, float], table_size: int) -> tuple[TableAxis, TableAxis]:
    """Returns the table's axes, (height, width).

    Args:
        grid: Query cells, (height, width).
        reach: Bound on |key position|, (height, width).
        table_size: Least number of nodes per axis.
    """
    return TableAxis(grid[0], reach[0], table_size), TableAxis(grid[1], reach[1], table_size)


def bias_table(bias: PositionBias, axes: tuple[TableAxis, TableAxis]) -> Float[Tensor, "run width"]:
    """Returns every run of the table that a row of queries can read, one per row.

    Runs are numbered by (head, y node, x phase, x start).
    """
    rows, columns = axes
    y = rows.nodes(bias.first.weight).T.flatten()  # in increasing order
    values = bias.on_lattice(columns.nodes(bias.first.weight).flatten(), y)
    values = values.permute(2, 0, 1).unflatten(-1, (columns.steps_per_cell, columns.nodes_per_phase))
    return values.unfold(-1, columns.n_cells, 1).flatten(0, -2)


def read_table(
    table: Float[Tensor, "run width"], axes: tuple[TableAxis, TableAxis], key: Float[Tensor, "batch head point 2"]
) -> Float[Tensor, "batch head point cell"]:
    """Returns the bias between every query cell and every key, by bilinear interpolation.

    Differentiable with respect to the table and, between nodes, the keys.

    Args:
        table: From `bias_table`.
        axes: The same as there.
        key: Positions (x, y) in [-reach, reach].
    """
    rows, columns = axes
    x_node, x_weight = columns.locate(key[..., 0])
    y_node, y_weight = rows.locate(key[..., 1])
    weight = (
        torch.stack([1 - y_weight, y_weight], -1)[..., None] * torch.stack([1 - x_weight, x_weight], -1)[..., None, :]
    )
    x_node = torch.stack([x_node, x_node + 1], -1)
    x_run = x_node % columns.steps_per_cell * columns.starts_per_phase + x_node // columns.steps_per_cell
    row = rows.steps_per_cell * torch.arange(rows.n_cells, device=key.device)
    y_node = y_node[..., None, None] + row[:, None] + torch.arange(2, device=key.device)  # batch head point row 2
    runs_per_node = columns.steps_per_cell * columns.starts_per_phase
    run = y_node[..., None] * runs_per_node + x_run[..., None, None, :]
    runs_per_head = rows.steps_per_cell * rows.nodes_per_phase * runs_per_node
    heads_of_table = len(table) // runs_per_head
    head = torch.arange(key.shape[1], device=key.device) % heads_of_table
    run = run + (head * runs_per_head).view(-1, 1, 1, 1, 1)
    weight = weight.flatten(-2)[..., None, :].expand(*run.shape[:-2], 4)
    bag = functional.embedding_bag(
        run.reshape(-1, 4), table, mode="sum", per_sample_weights=weight.reshape(-1, 4).contiguous()
    )
    return bag.view(*key.shape[:-1], rows.n_cells * columns.n_cells)
