import math

import pytest
import torch

from subfuse.model.position_bias import BiasTable, PositionBias, TableAxis, signed_log


def test_signed_log_is_odd_and_exact():
    values = torch.tensor([0.0, math.e - 1, 1 - math.e, 3.0])
    torch.testing.assert_close(signed_log(values), torch.tensor([0.0, 1.0, -1.0, math.log(4)]))


def test_lattice_equals_single_differences():
    bias, x, y = PositionBias(3).double(), torch.randn(5).double(), torch.randn(4).double()
    torch.nn.init.normal_(bias.constant)
    difference = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
    torch.testing.assert_close(bias.on_lattice(x, y) + bias.constant, bias(difference))


@pytest.mark.parametrize(
    ("n_cells", "reach", "n_nodes"), [(50, 1.727, 256), (50, 1.727, 64), (7, 1.2, 33), (1, 0.5, 9), (2, 5.0, 16)]
)
def test_axis_covers_every_difference(n_cells, reach, n_nodes):
    axis = TableAxis(n_cells, reach, n_nodes)
    nodes = axis.nodes(torch.zeros(0).double()).T.flatten()
    torch.testing.assert_close(nodes.diff(), torch.full((len(nodes) - 1,), axis.spacing).double())
    assert axis.spacing <= 2 * (1 + reach) / n_nodes * (1 + 1e-12)
    if axis.steps_per_cell > 1:  # and is no finer than that
        assert axis.spacing * axis.steps_per_cell / (axis.steps_per_cell - 1) > 2 * (1 + reach) / n_nodes
    cells = torch.linspace(-1, 1, n_cells, dtype=torch.float64) if n_cells > 1 else torch.zeros(1).double()
    last_start = int(axis.locate(torch.tensor(-reach).double())[0] + 1) // axis.steps_per_cell
    assert axis.starts_per_phase <= last_start + 3
    for key in torch.linspace(-reach, reach, 23, dtype=torch.float64):
        index, weight = axis.locate(key)
        assert 0 <= weight < 1
        start = index + 1
        assert int(start) // axis.steps_per_cell < axis.starts_per_phase
        read = nodes[index + axis.steps_per_cell * torch.arange(n_cells)] + weight * axis.spacing
        torch.testing.assert_close(read, cells - key, atol=1e-12, rtol=0)


@pytest.mark.parametrize("grid", [(5, 7), (1, 6), (8, 1)])
@pytest.mark.parametrize("heads", [1, 2])
def test_reading_interpolates_the_network(grid, heads):
    torch.manual_seed(0)
    bias, reach = PositionBias(heads).double(), (1.5, 1.2)
    table = BiasTable.of(bias, *(TableAxis(n, bound, 600) for n, bound in zip(grid, reach, strict=True)))
    position = (2 * torch.rand(4, 9, 2).double() - 1) * torch.tensor([1.2, 1.5])
    y, x = (torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in grid)
    cells = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    exact = bias(cells - position[:, :, None])
    exact = torch.stack([exact[i, ..., i % heads] for i in range(4)])
    found = table.locate(position).read(table.runs, slice(1, 3))
    torch.testing.assert_close(found, exact[1:3], atol=2e-4, rtol=0)


def test_gradients_of_what_is_read_are_those_of_interpolation():
    torch.manual_seed(0)
    bias, maps = PositionBias(2).double(), slice(1, 4)
    table = BiasTable.of(bias, TableAxis(3, 1.5, 20), TableAxis(4, 1.2, 20))
    runs = table.runs.detach().requires_grad_()
    reading = table.locate(2 * torch.rand(4, 5, 2).double() - 1)
    leaves = reading.x_weight.requires_grad_(), reading.y_weight.requires_grad_(), runs
    read = reading.read(runs, maps)
    direction = torch.randn_like(read)
    x_weight, y_weight, expected = torch.autograd.grad(read, leaves, direction)
    with torch.no_grad():
        of_x, of_y = reading.weight_gradients(runs, maps, direction)
        of_runs = torch.ones_like(runs)
        reading.add_run_gradients(of_runs, maps, direction)
    torch.testing.assert_close((of_x, of_y), (x_weight[maps], y_weight[maps]))
    torch.testing.assert_close(of_runs, expected + 1)


def test_the_constant_is_no_parameter():
    bias = PositionBias(2)
    assert "constant" in bias.state_dict()
    assert "constant" not in dict(bias.named_parameters())
