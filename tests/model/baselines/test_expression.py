import pytest
import torch
from baseline_inputs import build, inputs
from torch import nn

from subfuse.model.baselines.expression import SNN
from subfuse.model.baselines.linear import LinearModel


@pytest.mark.parametrize("name", ["snn", "linear"])
def test_unmeasured_expression_gives_the_bias(name: str):
    model, batch = build(name).eval(), inputs()
    batch["expression_mask"][3] = False
    output = model(**batch)
    torch.testing.assert_close(output.logits[3], model.head.bias)
    assert output.embedding[3].abs().max() == 0


@pytest.mark.parametrize(
    ("model", "count"),
    [
        # 431 genes: 64, 48, 32, 128; head
        (SNN(4, n_genes=431), 432 * 64 + 65 * 48 + 49 * 32 + 33 * 128 + 516),
        (LinearModel(1, n_genes=431), 432),
        (LinearModel(1, n_genes=431, patch_dim=10), 452),
    ],
)
def test_sizes(model: nn.Module, count: int):
    assert sum(p.numel() for p in model.parameters()) == count
