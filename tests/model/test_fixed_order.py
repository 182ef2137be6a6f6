import pytest
import torch
from torch import Tensor

from subfuse.model import fixed_order
from subfuse.model.fixed_order import average_pool, running_sum, sample


def both_ways(monkeypatch: pytest.MonkeyPatch, operation, *inputs: Tensor) -> list[tuple[Tensor, ...]]:
    """Result and gradients as torch computes them, then those of the fixed order."""
    found = []
    for is_asked_for in (False, True):
        monkeypatch.setattr(fixed_order, "_is_asked_for", lambda values, answer=is_asked_for: answer)
        result = operation(*inputs)
        direction = torch.linspace(-1, 2, result.numel(), dtype=result.dtype).view_as(result)
        found.append((result, *torch.autograd.grad(result, inputs, direction)))
    return found


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(4, 7), (1, 3)])
def test_samples_and_their_gradients_are_those_of_torch_also_beyond_the_edge(monkeypatch, align_corners, size):
    torch.manual_seed(0)
    maps = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    position = (3 * torch.rand(2, 40, 2, dtype=torch.float64) - 1.5).requires_grad_()
    assert (position.abs() > 1).any()
    expected, found = both_ways(monkeypatch, lambda *of: sample(*of, align_corners=align_corners), maps, position)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("n_tokens", "n_parts"), [(12, 4), (13, 4), (7, 7), (9, 8), (5, 1)])
def test_means_of_parts_are_those_of_torch(monkeypatch, n_tokens, n_parts):
    torch.manual_seed(0)
    tokens = torch.randn(2, n_tokens, 3, dtype=torch.float64, requires_grad=True)
    expected, found = both_ways(monkeypatch, lambda of: average_pool(of, n_parts), tokens)
    torch.testing.assert_close(found, expected)
    assert found[0].shape == (2, n_parts, 3)


def test_running_sums_are_those_of_torch(monkeypatch):
    values = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    expected, found = both_ways(monkeypatch, running_sum, values)
    torch.testing.assert_close(found, expected)


def test_torch_computes_unless_a_gpu_is_asked_for_a_fixed_order():
    assert not fixed_order._is_asked_for(torch.ones(1))
    torch.use_deterministic_algorithms(True)
    try:
        assert not fixed_order._is_asked_for(torch.ones(1))
    finally:
        torch.use_deterministic_algorithms(False)
