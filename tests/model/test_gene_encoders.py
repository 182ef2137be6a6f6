import pytest
import torch

from subfuse.model import GeneEncoder
from subfuse.model.gene_encoders import GeneSetTokens


def test_layers_activations_and_initialisation():
    torch.manual_seed(0)
    encoder = GeneEncoder(400, 6, hidden=(300, 5), dropout=0.0)
    assert [tuple(layer.weight.shape) for layer in encoder.layers] == [(300, 400), (5, 300), (6, 5)]
    assert abs(encoder.layers[0].weight.std().item() * 400**0.5 - 0.1) < 0.002
    assert abs(encoder.layers[1].weight.std().item() * 300**0.5 - 1) < 0.05
    assert all(not layer.bias.any() for layer in encoder.layers)
    expression = torch.randn(7, 400)
    hidden = expression
    for layer in encoder.layers:
        hidden = torch.nn.functional.elu(hidden @ layer.weight.T)
    torch.testing.assert_close(encoder(expression), hidden.clamp(min=0))


def test_shrinking_shortens_every_gene_by_the_same_length_and_ends_at_zero():
    encoder = GeneEncoder(4, 6, hidden=(9, 5), dropout=0.0)
    weight = encoder.layers[0].weight
    before = torch.zeros(9, 4)
    before[0, :3], before[2, :2] = torch.tensor([3.0, 0.0, 0.1]), torch.tensor([4.0, 0.5])
    with torch.no_grad():
        weight.copy_(before)
    encoder.shrink_genes(0.0)
    torch.testing.assert_close(weight.detach(), before, atol=0, rtol=0)
    encoder.shrink_genes(0.1)  # by 0.1 times the square root of 9
    torch.testing.assert_close(weight.norm(dim=0), torch.tensor([4.7, 0.2, 0.0, 0.0]))
    torch.testing.assert_close(weight[:, 0] / 4.7, before[:, 0] / 5.0)


def test_no_gene_is_an_error():
    with pytest.raises(ValueError, match="n_genes must be at least 1"):
        GeneEncoder(0)
    assert GeneEncoder(1, 6)(torch.zeros(2, 1)).shape == (2, 6)


def test_every_gene_set_has_a_token_from_its_own_genes():
    tokens = GeneSetTokens({"one": (4, 1), "two.named": (1, 2, 3)}, 5, dropout=0.0)
    expression, measured = torch.randn(3, 6), torch.tensor([True, False, True])
    output = tokens(expression, measured)
    for index, columns in enumerate(([4, 1], [1, 2, 3])):
        torch.testing.assert_close(output[measured, index], tokens.encoders[index](expression[measured][:, columns]))
    assert output[1].abs().max() == 0
    assert all(name.startswith("encoders.") for name in tokens.state_dict())  # which genes are in a set is no weight


def test_no_gene_set_is_an_error():
    with pytest.raises(ValueError, match="at least one gene set"):
        GeneSetTokens({}, 5, dropout=0.0)
