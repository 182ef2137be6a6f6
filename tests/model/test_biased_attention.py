import pytest
import torch
from torch import Tensor

from subfuse.model.biased_attention import attend_by_table, attend_exactly, keep_mask
from subfuse.model.position_bias import BiasTable, PositionBias, TableAxis

GRID = (4, 5)
REACH = (1.5, 1.2)
MAPS, POINTS, TOKENS, CHANNELS, MIXED = 6, 7, 20, 3, 2


def arguments(*, heads: int = 1, seed: int = 0) -> tuple[dict[str, Tensor], PositionBias]:
    torch.manual_seed(seed)
    bias = PositionBias(heads).double()
    tensors = {
        "query": torch.randn(MAPS, CHANNELS, TOKENS),
        "key": torch.randn(MAPS, POINTS, CHANNELS),
        "value": torch.randn(MAPS, POINTS, MIXED),
        "key_bias": torch.randn(MAPS, POINTS),
        "position": (2 * torch.rand(MAPS, POINTS, 2) - 1) * torch.tensor([REACH[1], REACH[0]]),
    }
    return {name: tensor.double().requires_grad_() for name, tensor in tensors.items()}, bias


def table_of(bias: PositionBias, size: int = 40) -> BiasTable:
    return BiasTable.of(bias, *(TableAxis(n, reach, size) for n, reach in zip(GRID, REACH, strict=True)))


def axis_positions() -> dict[str, Tensor]:
    x, y = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in reversed(GRID))
    return {"x": x, "y": y}


def cell_positions() -> Tensor:
    return torch.stack(torch.meshgrid(*axis_positions().values(), indexing="xy"), -1).flatten(0, 1)


def attention_in_loops(query, key, value, *, key_bias, position, bias) -> Tensor:
    output = []
    for i in range(MAPS):
        columns = []
        for t, u in enumerate(cell_positions()):
            head = i % len(bias.constant)
            logits = torch.stack(
                [key[i, k] @ query[i, :, t] + key_bias[i, k] + bias(u - position[i, k])[head] for k in range(POINTS)]
            )
            columns.append(logits.softmax(0) @ value[i])
        output.append(torch.stack(columns, 1))
    return torch.stack(output)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("budget", [1, 10_000_000])
def test_exact_equals_loops(heads, budget, monkeypatch):
    monkeypatch.setattr("subfuse.model.biased_attention.EXACT_PAIRS_PER_CHUNK", {"cpu": budget, "cuda": budget})
    tensors, bias = arguments(heads=heads)
    expected = attention_in_loops(**tensors, bias=bias)
    found = attend_exactly(**tensors, position_bias=bias, **axis_positions(), dropout=0.0)
    torch.testing.assert_close(found, expected)
    variables = [*tensors.values(), *bias.parameters()]
    direction = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, variables, direction), torch.autograd.grad(expected, variables, direction)
    )


@pytest.mark.parametrize("heads", [1, 2])
def test_a_fine_table_equals_loops(heads):
    tensors, bias = arguments(heads=heads)
    expected = attention_in_loops(**tensors, bias=bias)
    found = attend_by_table(**tensors, table=table_of(bias, 500), cell=None, dropout=0.0)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("cell", [None, torch.tensor([3, 19, 0, 7, 11]).expand(MAPS, -1)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("budget", [1, 250, 10_000_000])
def test_gradients_of_the_table_by_finite_differences(cell, dropout, budget, monkeypatch):
    monkeypatch.setattr("subfuse.model.biased_attention.PAIRS_PER_CHUNK", {"cpu": budget, "cuda": budget})
    tensors, bias = arguments(heads=2)
    table = table_of(bias, 8)
    runs = table.runs.detach().requires_grad_()
    query = tensors["query"][..., : TOKENS if cell is None else cell.shape[1]].detach().requires_grad_()
    direction = torch.randn(MAPS, MIXED, query.shape[2], dtype=torch.float64)

    def weighted_output(runs, query, key, value, key_bias, position):
        torch.manual_seed(0)  # the same weights are dropped in every evaluation
        output = attend_by_table(
            query,
            key,
            value,
            key_bias=key_bias,
            position=position,
            table=BiasTable(runs, table.rows, table.columns),
            cell=cell,
            dropout=dropout,
        )
        return (output * direction).sum()

    inputs = (runs, query, *(tensors[name] for name in ("key", "value", "key_bias", "position")))
    torch.autograd.gradcheck(weighted_output, inputs, fast_mode=True)
    torch.autograd.gradcheck(lambda *rest: weighted_output(runs.detach(), *rest), inputs[1:], fast_mode=True)
    of_all = torch.autograd.grad(weighted_output(*inputs), runs)
    of_runs = torch.autograd.grad(weighted_output(runs, *(tensor.detach() for tensor in inputs[1:])), runs)
    torch.testing.assert_close(of_runs, of_all)


@pytest.mark.parametrize("budget", [1, 65, 10_000_000])
def test_gradients_of_exact_attention_with_dropout_by_finite_differences(budget, monkeypatch):
    monkeypatch.setattr("subfuse.model.biased_attention.EXACT_PAIRS_PER_CHUNK", {"cpu": budget, "cuda": budget})
    tensors, bias = arguments(heads=2)

    def output(*inputs):
        torch.manual_seed(0)  # the same weights are dropped in every evaluation
        named = dict(zip(tensors, inputs, strict=True))
        return attend_exactly(**named, position_bias=bias, **axis_positions(), dropout=0.4)

    torch.autograd.gradcheck(output, tuple(tensors.values()), fast_mode=True)


@pytest.mark.parametrize("exact", [True, False])
def test_gradients_are_as_precise_where_the_caller_differentiates_under_autocast(exact):
    tensors, bias = arguments()

    def gradient(dtype: torch.dtype) -> Tensor:
        inputs = {name: tensor.detach().to(dtype).requires_grad_() for name, tensor in tensors.items()}
        network = bias.to(dtype)
        if exact:
            axes = {name: position.to(dtype) for name, position in axis_positions().items()}
            output = attend_exactly(**inputs, position_bias=network, **axes, dropout=0.0)
        else:
            output = attend_by_table(**inputs, table=table_of(network), cell=None, dropout=0.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.autograd.grad(output.square().sum(), inputs["query"])[0].double()

    torch.testing.assert_close(gradient(torch.float32), gradient(torch.float64), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("exact", [True, False])
def test_dropout_keeps_the_mean(exact):
    tensors, bias = arguments()
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    torch.manual_seed(0)

    def attend(dropout: float) -> Tensor:
        if exact:
            return attend_exactly(**tensors, position_bias=bias, **axis_positions(), dropout=dropout)
        return attend_by_table(**tensors, table=table_of(bias), cell=None, dropout=dropout)

    with torch.no_grad():
        draws = torch.stack([attend(0.3) for _ in range(600)])
        error = (draws.mean(0) - attend(0.0)) / (draws.std(0) / 600**0.5)
    assert 0.7 < error.square().mean() < 1.35


def test_keep_mask_drops_the_share_asked_for():
    torch.manual_seed(0)
    mask = keep_mask(torch.Size([3, 41, 5003]), 0.1, device=torch.device("cpu"))
    assert mask.shape == (3, 41, 5003)
    assert abs(mask.float().mean().item() - 0.9) < 5 * (0.09 / mask.numel()) ** 0.5
    assert keep_mask(torch.Size([0, 2]), 0.1, device=torch.device("cpu")).shape == (0, 2)
