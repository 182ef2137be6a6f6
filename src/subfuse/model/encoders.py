"""Encoder of a gene set's expression."""

import itertools
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class GeneEncoder(nn.Module):
    """Self-normalising network from a vector of expression values to an embedding.

    Blocks of linear, ELU and alpha dropout, then ReLU (section 2 of the paper; Klambauer et al. 2017 for the
    initialisation: weights ~ N(0, 1 / fan in), biases 0). With every gene of the cohort as input it is the encoder
    of the expression-only baseline.

    Args:
        n_genes: Number of input genes, at least 1.
        embed_dim: Width of the embedding.
        hidden: Widths of the hidden layers.
        dropout: Probability of alpha dropout after every layer.

    Raises:
        ValueError: If there is no gene.
    """

    def __init__(
        self, n_genes: int, embed_dim: int = 128, *, hidden: Sequence[int] = (64, 48, 32), dropout: float = 0.1
    ) -> None:
        super().__init__()
        if n_genes < 1:
            raise ValueError(f"n_genes must be at least 1. Found {n_genes}.")
        widths = (n_genes, *hidden, embed_dim)
        layers = [nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths)]
        for layer in layers:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        self.layers = nn.ModuleList(layers)
        self.activation = nn.ELU()
        self.dropout = nn.AlphaDropout(dropout)

    def forward(self, expression: Float[Tensor, "batch gene"]) -> Float[Tensor, "batch embed"]:
        """Returns the embedding, which is never negative."""
        hidden = expression
        for layer in self.layers:
            hidden = self.dropout(self.activation(layer(hidden)))
        return hidden.relu()
