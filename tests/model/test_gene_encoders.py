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


GENE_SETS = {"one": (4, 1), "two.named": (1, 2, 3)}


def alone(tokens: GeneSetTokens, index: int, n_genes: int) -> GeneEncoder:
    """The network of one set, with its weights."""
    encoder, start = GeneEncoder(n_genes, 5, hidden=(5,), dropout=0.0), sum(tokens.sizes[:index])
    weights = {
        "layers.0.weight": tokens.first_weight[start : start + n_genes].T,
        "layers.0.bias": tokens.first_bias[index],
        "layers.1.weight": tokens.second_weight[index].T,
        "layers.1.bias": tokens.second_bias[index],
    }
    encoder.load_state_dict(weights)
    return encoder


def test_every_gene_set_has_a_token_from_its_own_genes_and_network():
    tokens = GeneSetTokens(GENE_SETS, 5, dropout=0.0)
    torch.nn.init.normal_(tokens.first_bias)
    torch.nn.init.normal_(tokens.second_bias)
    expression, measured = torch.randn(3, 6), torch.tensor([True, False, True])
    expression[1] = torch.nan
    output = tokens(expression, measured)
    for index, columns in enumerate(GENE_SETS.values()):
        expected = alone(tokens, index, len(columns))(expression[measured][:, list(columns)])
        torch.testing.assert_close(output[measured, index], expected)
    assert output[1].abs().max() == 0
    assert "columns" not in tokens.state_dict()  # which genes are in a set is no weight
    output.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in tokens.parameters())


def test_networks_of_gene_sets_start_and_shrink_as_networks_alone_do():
    torch.manual_seed(3)
    tokens = GeneSetTokens(GENE_SETS, 5, dropout=0.0)
    torch.manual_seed(3)
    encoders = [GeneEncoder(len(columns), 5, hidden=(5,)) for columns in GENE_SETS.values()]
    for amount in (0.0, 0.02):
        for network in (tokens, *encoders):
            network.shrink_genes(amount)
        for index, encoder in enumerate(encoders):
            same = alone(tokens, index, tokens.sizes[index]).state_dict()
            assert all(torch.allclose(value, same[name]) for name, value in encoder.state_dict().items())


def test_no_gene_set_is_an_error():
    with pytest.raises(ValueError, match="at least one gene set"):
        GeneSetTokens({}, 5, dropout=0.0)
