import math

import pytest
import torch

from subfuse.model.baselines.pooling import AttentionPooling, BagEncoder, MeanPooling, clear_padding, masked_softmax

MASK = torch.tensor([[True, True, False, False], [True, True, True, True], [False, False, False, False]])


def test_masked_softmax_is_a_softmax_over_what_is_left():
    score = torch.tensor([[0.0, math.log(3), 7.0, torch.nan], [1.0, 1.0, 1.0, 1.0], [5.0, torch.nan, 2.0, 0.0]])
    expected = torch.tensor([[0.25, 0.75, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(masked_softmax(score, MASK), expected)
    assert masked_softmax(score[:, :0], MASK[:, :0]).shape == (3, 0)


def test_padding_is_cleared_to_zero_whatever_it_holds():
    patches = torch.tensor([[[2.0, torch.nan], [3.0, torch.inf]]])
    cleared = clear_padding(patches, torch.tensor([[True, False]]))
    torch.testing.assert_close(cleared, torch.tensor([[[2.0, torch.nan], [0.0, 0.0]]]), equal_nan=True)


def test_a_bag_without_padding_is_not_copied():
    patches = torch.ones(1, 2, 3)
    assert clear_padding(patches, torch.ones(1, 2, dtype=torch.bool)) is patches


def test_the_mean_ignores_padding_and_is_zero_without_patches():
    patches = torch.tensor([[[1.0, 10.0], [3.0, 30.0], [torch.nan, 9.0], [9.0, 9.0]]]).expand(3, 4, 2)
    patches = torch.where(torch.tensor([0, 1, 2])[:, None, None] == 1, torch.ones(3, 4, 2), patches)
    pooled, weight = MeanPooling()(patches, MASK)
    torch.testing.assert_close(pooled, torch.tensor([[2.0, 20.0], [1.0, 1.0], [0.0, 0.0]]))
    torch.testing.assert_close(weight.sum(dim=1), torch.tensor([1.0, 1.0, 0.0]))
    single = torch.tensor([[False, True, False, False]])
    torch.testing.assert_close(MeanPooling()(patches[:1], single)[0], torch.tensor([[3.0, 30.0]]))


def test_attention_pooling_by_hand():
    """Scores tanh(x) of 0 and atanh(1/2) differ by 1/2; the third patch is padding."""
    pooling = AttentionPooling(2, 1)
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.tensor([[1.0, 0.0]]))
        pooling.hidden.bias.zero_()
        pooling.score.weight.fill_(2 * math.log(3))  # scores 0 and log 3: weights 1/4 and 3/4
    patches = torch.tensor([[[0.0, 8.0], [math.atanh(0.5), 4.0], [9.0, 9.0]]])
    pooled, attention = pooling(patches, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(attention, torch.tensor([[0.25, 0.75, 0.0]]))
    torch.testing.assert_close(pooled, torch.tensor([[0.75 * math.atanh(0.5), 5.0]]))


@pytest.mark.parametrize("gated", [False, True])
def test_attention_pooling_agrees_with_torchmil(gated: bool):
    torchmil = pytest.importorskip("torchmil.nn")
    theirs = torchmil.AttentionPool(in_dim=5, att_dim=3, gated=gated)
    ours = AttentionPooling(5, 3, gated=gated)
    pairs = [("hidden", "fc1"), ("score", "fc2"), *([("gate", "fc_gated")] if gated else [])]
    for our_name, their_name in pairs:
        layer = getattr(theirs, their_name)
        ours.get_submodule(our_name).load_state_dict(getattr(layer, "module", layer).state_dict())
    patches, mask = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)), MASK[:2]
    torch.testing.assert_close(ours(patches, mask)[0], theirs(patches, mask))


def test_a_bag_without_patches_has_an_embedding_of_zero():
    encoder = BagEncoder(AttentionPooling(2, 3), patch_dim=2, embed_dim=5)
    with torch.no_grad():
        encoder.projection.bias.fill_(1.0)
    embedding, attention = encoder(torch.randn(3, 4, 2), MASK)
    assert embedding[2].abs().max() == 0
    assert embedding[:2].abs().sum() > 0
    assert attention[2].abs().max() == 0
