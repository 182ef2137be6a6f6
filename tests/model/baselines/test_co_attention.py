import torch
from torch import nn

from subfuse.model.baselines.co_attention import CoAttention

BATCH, TOKEN, OTHER, EMBED = 2, 3, 5, 4


def test_co_attention_agrees_with_pytorch():
    generator = torch.Generator().manual_seed(0)
    tokens, others = torch.randn(BATCH, TOKEN, EMBED, generator=generator), torch.randn(BATCH, OTHER, EMBED)
    mask = torch.tensor([[True, True, False, True, False], [True, False, False, False, False]])
    ours, theirs = CoAttention(EMBED), nn.MultiheadAttention(EMBED, 1, batch_first=True)
    with torch.no_grad():
        layers = (ours.query, ours.key, ours.value)
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        theirs.out_proj.load_state_dict(ours.projection.state_dict())
    expected, expected_weight = theirs(tokens, others, others, key_padding_mask=~mask)
    attended, weight = ours(tokens, others, mask)
    torch.testing.assert_close(attended, expected)
    torch.testing.assert_close(weight, expected_weight)


def test_nothing_to_attend_to_is_the_bias_of_the_projection():
    attention = CoAttention(EMBED)
    attended, weight = attention(torch.ones(1, TOKEN, EMBED), torch.ones(1, OTHER, EMBED), torch.zeros(1, OTHER) > 0)
    torch.testing.assert_close(attended, attention.projection.bias.expand(1, TOKEN, EMBED))
    assert weight.abs().max() == 0
