import pytest
import torch

from subfuse.model import GeneEncoder


def test_layers_activations_and_initialisation():
    torch.manual_seed(0)
    encoder = GeneEncoder(400, 6, hidden=(300, 5), dropout=0.0)
    assert [tuple(layer.weight.shape) for layer in encoder.layers] == [(300, 400), (5, 300), (6, 5)]
    assert abs(encoder.layers[0].weight.std().item() * 400**0.5 - 1) < 0.02
    assert all(not layer.bias.any() for layer in encoder.layers)
    expression = torch.randn(7, 400)
    hidden = expression
    for layer in encoder.layers:
        hidden = torch.nn.functional.elu(hidden @ layer.weight.T)
    torch.testing.assert_close(encoder(expression), hidden.clamp(min=0))


def test_no_gene_is_an_error():
    with pytest.raises(ValueError, match="n_genes must be at least 1"):
        GeneEncoder(0)
