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

    def __init__(self, heads: int, *, hidden: int = 32) -> None:
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
        hidden = (of_y[..., :, None, :] + of_x[..., None, :, :]).relu_()
        # As one matrix: products of tensors with more axes copy their arguments.
        values = functional.linear(self.second(hidden.flatten(0, -2)).relu_(), self.output.weight)
        return values.view(*hidden.shape[:-1], -1)


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


@dataclass(frozen=True)
class BiasTable:
    """Position bias on a lattice of differences, ready to be read.

    Args:
        runs: Every run of the table that a row of queries can read, numbered by (head, y node, x phase, x start).
        rows: Nodes along y.
        columns: Nodes along x.
    """

    runs: Float[Tensor, "run width"]
    rows: TableAxis
    columns: TableAxis

    @classmethod
    def of(cls, bias: PositionBias, rows: TableAxis, columns: TableAxis) -> "BiasTable":
        """Returns the table of a position bias; gradients flow to its network."""
        y = rows.nodes(bias.first.weight).T.flatten()  # in increasing order
        values = bias.on_lattice(columns.nodes(bias.first.weight).flatten(), y)
        values = values.permute(2, 0, 1).unflatten(-1, (columns.steps_per_cell, columns.nodes_per_phase))
        return cls(values.unfold(-1, columns.n_cells, 1).flatten(0, -2), rows, columns)

    def locate(self, position: Float[Tensor, "map point 2"]) -> "TableReading":
        """Returns where the keys at these positions (x, y) read the table."""
        x_node, x_weight = self.columns.locate(position[..., 0])
        y_node, y_weight = self.rows.locate(position[..., 1])
        runs_per_node = self.columns.steps_per_cell * self.columns.starts_per_phase
        runs_per_head = self.rows.steps_per_cell * self.rows.nodes_per_phase * runs_per_node
        head = torch.arange(len(position), device=position.device) % (len(self.runs) // runs_per_head)
        x_node = torch.stack([x_node, x_node + 1], -1)
        x_run = (
            x_node % self.columns.steps_per_cell * self.columns.starts_per_phase + x_node // self.columns.steps_per_cell
        )
        y_run = torch.stack([y_node, y_node + 1], -1) * runs_per_node + (head * runs_per_head)[:, None, None]
        return TableReading(
            run=(y_run[..., :, None] + x_run[..., None, :]).flatten(-2).int(),
            x_weight=x_weight,
            y_weight=y_weight,
            n_rows=self.rows.n_cells,
            n_cells=self.rows.n_cells * self.columns.n_cells,
            runs_per_row=self.rows.steps_per_cell * runs_per_node,
        )


@dataclass(frozen=True)
class TableReading:
    """The four runs that the first row of queries reads for every key, and their weights.

    Bilinear interpolation: corners in the order (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1).
    """

    run: Int[Tensor, "map point corner"]
    x_weight: Float[Tensor, "map point"]  # of the corners at x + 1
    y_weight: Float[Tensor, "map point"]  # of the corners at y + 1
    n_rows: int
    n_cells: int
    runs_per_row: int  # from one row of queries to the next

    def read(self, runs: Float[Tensor, "run width"], maps: slice) -> Float[Tensor, "map point cell"]:
        """Returns the bias between every key of some maps and every cell."""
        return self._weighted_sum(runs, maps, _outer(_ends(self.y_weight[maps]), _ends(self.x_weight[maps])))

    def weight_gradients(
        self, runs: Float[Tensor, "run width"], maps: slice, grad: Float[Tensor, "map point cell"]
    ) -> tuple[Float[Tensor, "map point"], Float[Tensor, "map point"]]:
        """Returns the gradients with respect to the weights along x and along y, given that of what `read` returns."""
        slope = torch.arange(-1, 2, 2, dtype=grad.dtype, device=grad.device)  # made there: a list would be copied
        along_x = self._weighted_sum(runs, maps, _outer(_ends(self.y_weight[maps]), slope))
        grad_x = torch.linalg.vecdot(along_x, grad)
        along_y = self._weighted_sum(runs, maps, _outer(slope, _ends(self.x_weight[maps])))
        return grad_x, torch.linalg.vecdot(along_y, grad)

    def add_run_gradients(
        self, grad_runs: Float[Tensor, "run width"], maps: slice, grad: Float[Tensor, "map point cell"]
    ) -> None:
        """Adds the gradient with respect to the runs, given that of what `read` returns.

        Sorted by run, the sum over everything that a run was read for is a bag like those of `read`.
        """
        weight = _outer(_ends(self.y_weight[maps]), _ends(self.x_weight[maps]))
        run, order = self._runs_of_rows(maps).flatten().sort()
        runs = torch.arange(len(grad_runs), device=run.device)
        first = torch.searchsorted(run, runs)  # counting them would wait for the device
        grad_runs += functional.embedding_bag(
            order // weight.shape[-1],
            grad.reshape(-1, grad_runs.shape[1]),
            first,
            mode="sum",
            per_sample_weights=self._weights_of_rows(weight).flatten()[order],
        )

    def _weighted_sum(
        self, runs: Float[Tensor, "run width"], maps: slice, weight: Float[Tensor, "map point corner"]
    ) -> Float[Tensor, "map point cell"]:
        rows = functional.embedding_bag(
            self._runs_of_rows(maps).flatten(0, 2),
            runs,
            mode="sum",
            per_sample_weights=self._weights_of_rows(weight).flatten(0, 2),
        )
        return rows.view(*weight.shape[:2], self.n_cells)

    def _runs_of_rows(self, maps: slice) -> Int[Tensor, "map point row corner"]:
        row = torch.arange(self.n_rows, dtype=self.run.dtype, device=self.run.device)
        return self.run[maps, :, None] + (row * self.runs_per_row)[:, None]

    def _weights_of_rows(self, weight: Float[Tensor, "map point corner"]) -> Float[Tensor, "map point row corner"]:
        return weight[:, :, None].repeat(1, 1, self.n_rows, 1)


def _ends(weight: Float[Tensor, "map point"]) -> Float[Tensor, "map point 2"]:
    return torch.stack([1 - weight, weight], -1)


def _outer(y: Float[Tensor, "*y 2"], x: Float[Tensor, "*x 2"]) -> Float[Tensor, "*both 4"]:
    return (y[..., :, None] * x[..., None, :]).flatten(-2)
