import math

import numpy as np
import pytest
import torch
from baseline_inputs import FEATURE, build, inputs
from torch import nn

from subfuse.model.baselines.transmil import NystromBlock, PositionEncoding, TransMIL, pseudo_inverse


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def block(embed_dim: int, *, heads: int, landmarks: int) -> NystromBlock:
    """A block that is attention only: no convolution, no projection."""
    return attention_only(NystromBlock(embed_dim, heads=heads, landmarks=landmarks, dropout=0.0).double())


def attention_only(layer: NystromBlock) -> NystromBlock:
    with torch.no_grad():
        layer.value_convolution.weight.zero_()
        nn.init.eye_(layer.projection.weight)
        layer.projection.bias.zero_()
    return layer


def test_nystrom_attention_agrees_with_torchmil():
    torchmil = pytest.importorskip("torchmil.nn.attention.nystrom_attention")
    ours = block(6, heads=1, landmarks=4)
    theirs = torchmil.NystromAttention(6, att_dim=6, n_heads=1, n_landmarks=4).double()
    theirs.qkv_nn.load_state_dict(ours.to_qkv.state_dict())
    tokens = random(12, 6)  # three tokens per landmark
    torch.testing.assert_close(ours(tokens) - tokens, theirs(ours.norm(tokens)[None])[0])


def test_with_a_landmark_per_token_it_is_softmax_attention(monkeypatch):
    monkeypatch.setattr("subfuse.model.baselines.transmil.pseudo_inverse", torch.linalg.pinv)
    ours = block(6, heads=2, landmarks=50)
    tokens = random(9, 6)
    query, key, value = ours.to_qkv(ours.norm(tokens)).view(9, 3, 2, 3).permute(1, 2, 0, 3)
    weight = (query @ key.transpose(1, 2) / math.sqrt(3)).softmax(dim=2)
    expected = (weight @ value).transpose(0, 1).reshape(9, 6)
    torch.testing.assert_close(ours(tokens) - tokens, expected)


def test_values_are_convolved_along_the_tokens_of_a_head():
    ours = block(4, heads=2, landmarks=3)
    with_convolution = block(4, heads=2, landmarks=3)
    with_convolution.load_state_dict(ours.state_dict())
    kernel = random(2, 1, 33)
    with torch.no_grad():
        with_convolution.value_convolution.weight.copy_(kernel)
    tokens = random(7, 4)
    value = ours.to_qkv(ours.norm(tokens))[:, 8:].detach().numpy()
    added = (with_convolution(tokens) - ours(tokens)).detach().numpy()
    for channel in range(4):
        weights = kernel[channel // 2, 0].numpy()
        expected = np.correlate(np.pad(value[:, channel], 16), weights, mode="valid")
        np.testing.assert_allclose(added[:, channel], expected, atol=1e-12)


def test_the_position_encoding_agrees_with_torchmil():
    torchmil = pytest.importorskip("torchmil.models.transmil")
    ours, theirs = PositionEncoding(3).double(), torchmil.PPEG(3).double()
    for layer, name in zip(ours.convolutions, ("proj", "proj1", "proj2"), strict=True):
        layer.load_state_dict(getattr(theirs, name).state_dict())
    tokens = random(16, 3)
    with_class_token = torch.cat([torch.zeros(1, 3).double(), tokens])[None]
    torch.testing.assert_close(ours(tokens, 4), theirs(with_class_token, 4, 4)[0, 1:])


def test_bags_agree_with_torchmil():
    """Seven patches and the first two again are a square, with the class token ten tokens: two per landmark."""
    torchmil = pytest.importorskip("torchmil.models.transmil")
    ours = TransMIL(1, patch_dim=FEATURE, embed_dim=4, heads=1, landmarks=5, dropout=0.0).double()
    theirs = torchmil.TransMIL((FEATURE,), att_dim=4, n_heads=1, n_landmarks=5, feat_ext=ours.patch_projection.float())
    theirs, ours = theirs.double(), ours.double()
    for layer, block in zip(theirs.layers, (ours.first, ours.second), strict=True):
        attention_only(block)
        layer.att_module.qkv_nn.load_state_dict(block.to_qkv.state_dict())
    for layer, name in zip(ours.position.convolutions, ("proj", "proj1", "proj2"), strict=True):
        getattr(theirs.pos_layer, name).load_state_dict(layer.state_dict())
    with torch.no_grad():
        theirs.cls_token.copy_(ours.class_token[None])
        theirs.classifier.weight.copy_(ours.head.weight[0])
        theirs.classifier.bias.copy_(ours.head.bias)
    batch = inputs(patch=7)
    batch["patch_mask"][:] = True
    expected = torch.cat([theirs(bag[None]) for bag in batch["patches"]])
    torch.testing.assert_close(ours(**batch).logits[:, 0], expected)


def test_the_pseudo_inverse_converges_to_that_of_numpy():
    matrix = (3 * random(2, 4, 4)).softmax(dim=2)
    torch.testing.assert_close(pseudo_inverse(matrix, iterations=30), torch.linalg.inv(matrix))


@pytest.mark.parametrize("patch", [1, 2, 3, 4, 5, 9, 10])
def test_bags_of_any_size_fill_a_square(patch: int):
    model, batch = build("transmil").eval(), inputs(patch=patch)
    batch["patch_mask"][:] = True
    assert model(**batch).logits.isfinite().all()


def test_torchmils_attention_depends_on_padding_although_it_is_masked():
    """Why it is not used: segments of its landmarks grow with the padded length."""
    torchmil = pytest.importorskip("torchmil.nn.attention.nystrom_attention")
    theirs = torchmil.NystromAttention(6, att_dim=6, n_heads=1, n_landmarks=4).double()
    tokens, mask = random(1, 12, 6), torch.ones(1, 12, dtype=torch.bool)
    longer = torch.cat([tokens, torch.zeros(1, 12, 6).double()], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(1, 12, dtype=torch.bool)], dim=1)
    assert not torch.allclose(theirs(longer, longer_mask)[:, :12], theirs(tokens, mask))


def test_size_is_as_published():
    blocks = 2 * (512 * 3 * 512 + 513 * 512 + 2 * 512 + 8 * 33)
    position = 512 * (49 + 25 + 9 + 3)
    count = 1025 * 512 + 512 + blocks + position + 2 * 512 + 513 * 4
    model = TransMIL(4)
    assert sum(p.numel() for p in model.parameters()) == count
    assert (model.first.heads, model.first.landmarks) == (model.second.heads, model.second.landmarks) == (8, 256)
