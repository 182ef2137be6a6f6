"""Attention of one modality's tokens to the other's."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.baselines.pooling import masked_softmax


class CoAttention(nn.Module):
    """Single-head attention from tokens to the masked tokens of another modality.

    Args:
        embed_dim: Width of all tokens.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.projection = (nn.Linear(embed_dim, embed_dim) for _ in range(4))

    def forward(
        self,
        tokens: Float[Tensor, "batch token embed"],
        others: Float[Tensor, "batch other embed"],
        others_mask: Bool[Tensor, "batch other"],
    ) -> tuple[Float[Tensor, "batch token embed"], Float[Tensor, "batch token other"]]:
        """Returns one attended vector per token and its weights, which are 0 where nothing can be attended to.

        Args:
            tokens: They ask. A token of 0 asks with the learned bias, the same for every patient.
            others: They are attended to.
            others_mask: False for those that are padding or missing.
        """
        query = self.query(tokens) * tokens.shape[2] ** -0.5
        score = torch.einsum("bte,boe->bto", query, self.key(others))
        weight = masked_softmax(score, others_mask[:, None])
        return self.projection(weight @ self.value(others)), weight
