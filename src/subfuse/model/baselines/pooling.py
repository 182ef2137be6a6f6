"""Pooling of a bag of patches, or of any masked tokens, into one vector."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def masked_softmax(score: Float[Tensor, "*axes key"], mask: Bool[Tensor, "*#axes key"]) -> Float[Tensor, "*axes key"]:
    """Returns the softmax over the keys where `mask` is True; 0 elsewhere, and all 0 where there is no key."""
    score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
    return torch.where(mask, score.softmax(dim=-1), 0.0)


def clear_padding(
    patches: Float[Tensor, "batch patch feature"], patch_mask: Bool[Tensor, "batch patch"]
) -> Float[Tensor, "batch patch feature"]:
    """Returns the patches with 0 on padding, which may hold anything, even NaN; themselves where there is none."""
    if patch_mask.device.type == "cpu" and patch_mask.all():  # elsewhere the question would wait for the device
        return patches
    return torch.where(patch_mask[..., None], patches, 0.0)


class MeanPooling(nn.Module):
    """Mean of a bag's patches."""

    def forward(
        self, patches: Float[Tensor, "batch patch feature"], patch_mask: Bool[Tensor, "batch patch"]
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch patch"]]:
        """Returns the mean and the equal weights: 0 on padding, and all 0 for a bag without patches."""
        weight = patch_mask.to(patches.dtype) / patch_mask.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("bn,bnf->bf", weight, clear_padding(patches, patch_mask)), weight


def patch_summary(
    patches: Float[Tensor, "batch patch feature"], patch_mask: Bool[Tensor, "batch patch"]
) -> Float[Tensor, "batch summary"]:
    """Returns mean and standard deviation (divided by n) of every feature over the patches; 0 without any."""
    mean, weight = MeanPooling()(patches, patch_mask)
    deviation = clear_padding(patches - mean[:, None], patch_mask)
    variance = torch.einsum("bn,bnf->bf", weight, deviation.square())
    spread = torch.where(variance > 0, variance, 1.0).sqrt()  # the gradient of a root at 0 is not finite
    return torch.cat([mean, torch.where(variance > 0, spread, 0.0)], dim=1)


class AttentionPooling(nn.Module):
    r"""Weighted mean of a bag's patches with learned weights.

    For features :math:`x_n` the weights are :math:`a = \text{softmax}_n(w^T \tanh(V x_n + b))` over the real patches;
    gated, :math:`a = \text{softmax}_n(w^T (\tanh(V x_n + b) \odot \sigma(U x_n + c)))` (Ilse et al. 2018,
    "Attention-based deep multiple instance learning", equations 7 to 9, plus the biases b and c).

    Args:
        patch_dim: Width of a patch's features.
        hidden: Width of the attention's hidden layer.
        gated: Whether a gate multiplies the hidden layer.
    """

    def __init__(self, patch_dim: int, hidden: int, *, gated: bool = False) -> None:
        super().__init__()
        self.hidden = nn.Linear(patch_dim, hidden)
        self.gate = nn.Linear(patch_dim, hidden) if gated else None
        self.score = nn.Linear(hidden, 1, bias=False)  # softmax would ignore a bias

    def forward(
        self, patches: Float[Tensor, "batch patch feature"], patch_mask: Bool[Tensor, "batch patch"]
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch patch"]]:
        """Returns the pooled features and the weights: 0 on padding, and all 0 for a bag without patches."""
        patches = clear_padding(patches, patch_mask)
        hidden = self.hidden(patches).tanh()
        if self.gate is not None:
            hidden = hidden * self.gate(patches).sigmoid()
        attention = masked_softmax(self.score(hidden)[..., 0], patch_mask)
        return torch.einsum("bn,bnf->bf", attention, patches), attention


class BagEncoder(nn.Module):
    """Pooling, a linear layer and ReLU.

    Args:
        pooling: `MeanPooling` or `AttentionPooling`.
        patch_dim: Width of a patch's features.
        embed_dim: Width of the embedding.
        dropout: Probability of dropout after the ReLU.
    """

    def __init__(
        self, pooling: MeanPooling | AttentionPooling, *, patch_dim: int, embed_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.pooling = pooling
        self.projection = nn.Linear(patch_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, patches: Float[Tensor, "batch patch feature"], patch_mask: Bool[Tensor, "batch patch"]
    ) -> tuple[Float[Tensor, "batch embed"], Float[Tensor, "batch patch"]]:
        """Returns the embedding, 0 for a bag without patches, and the attention."""
        pooled, attention = self.pooling(patches, patch_mask)
        embedding = self.dropout(self.projection(pooled).relu())
        return torch.where(patch_mask.any(dim=1, keepdim=True), embedding, 0.0), attention


class PatchProjection(nn.Sequential):
    """Linear layer, ReLU and dropout on every patch; padding must be cleared first.

    Args:
        patch_dim: Width of a patch's features.
        embed_dim: Width of the result.
        dropout: Probability of dropout.
    """

    def __init__(self, patch_dim: int, embed_dim: int, dropout: float) -> None:
        super().__init__(nn.Linear(patch_dim, embed_dim), nn.ReLU(), nn.Dropout(dropout))
