"""Encoders of gene sets' expression."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

_FIRST_LAYER_SCALE = 0.1  # of the initial weights of the genes


class GeneEncoder(nn.Module):
    """Self-normalising network from a vector of expression values to an embedding.

    Blocks of linear, ELU and alpha dropout, then ReLU (section 2 of the paper; Klambauer et al. 2017 for the
    initialisation: weights ~ N(0, 1 / fan in), biases 0). With every gene of the cohort as input it is the encoder
    of the expression-only baseline.

    Relative to the paper: the first layer starts at a tenth of those weights, so that what is learned outweighs the
    random mixture of hundreds of genes that is there at the start; `shrink_genes` lets the trainer drop genes.

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
        with torch.no_grad():
            layers[0].weight.mul_(_FIRST_LAYER_SCALE)
        self.layers = nn.ModuleList(layers)
        self.activation = nn.ELU()
        self.dropout = nn.AlphaDropout(dropout)

    def forward(self, expression: Float[Tensor, "batch gene"]) -> Float[Tensor, "batch embed"]:
        """Returns the embedding, which is never negative."""
        hidden = expression
        for layer in self.layers:
            hidden = self.dropout(self.activation(layer(hidden)))
        return hidden.relu()

    @torch.no_grad()
    def shrink_genes(self, amount: float) -> None:
        r"""Shortens every gene's vector of weights in the first layer, to zero where it is shorter than the cut.

        The proximal step of a group lasso with the genes as groups (Yuan and Lin 2006):
        :math:`w_g \leftarrow \max(0, 1 - a \sqrt{h} / \lVert w_g \rVert) w_g` for the h hidden units.

        Args:
            amount: :math:`a`, learning rate times penalty.
        """
        weight = self.layers[0].get_parameter("weight")
        weight.copy_(_shortened(weight, amount, dim=0))


class GeneSetTokens(nn.Module):
    """One token per gene set, each from a self-normalising network of its own; sets may share genes.

    The networks are `GeneEncoder`s with one hidden layer, computed together: hundreds of small ones cost as many calls.

    Args:
        gene_sets: Columns of `expression` of each set, by name.
        embed_dim: Width of a token and of the networks' hidden layer.
        dropout: Probability of alpha dropout.

    Raises:
        ValueError: If there is no gene set.
    """

    columns: Int[Tensor, " gene"]  # of all sets, one after the other
    starts: Int[Tensor, " set"]  # of every set's columns

    def __init__(self, gene_sets: Mapping[str, Sequence[int]], embed_dim: int, *, dropout: float) -> None:
        super().__init__()
        if not gene_sets:
            raise ValueError("gene_sets must name at least one gene set. Found none.")
        self.sizes = [len(columns) for columns in gene_sets.values()]
        self.register_buffer("columns", torch.tensor([i for s in gene_sets.values() for i in s]), persistent=False)
        self.register_buffer("starts", torch.tensor([0, *self.sizes[:-1]]).cumsum(0), persistent=False)
        layers = [GeneEncoder(size, embed_dim, hidden=(embed_dim,)).layers for size in self.sizes]
        first, second = zip(*layers, strict=True)
        self.first_weight = nn.Parameter(torch.cat([layer.weight.detach().T for layer in first]))  # gene, hidden
        self.first_bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in first]))  # set, hidden
        self.second_weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in second]))
        self.second_bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in second]))
        self.activation = nn.ELU()
        self.dropout = nn.AlphaDropout(dropout)

    def forward(
        self, expression: Float[Tensor, "batch gene"], expression_mask: Bool[Tensor, " batch"]
    ) -> Float[Tensor, "batch set embed"]:
        """Returns the tokens, 0 where expression was not measured."""
        measured = expression_mask[:, None]
        # masked before as well: the gradient of an unmeasured NaN would be NaN
        genes = torch.where(measured, expression, 0.0)[:, self.columns]
        rows = torch.arange(genes.shape[1], device=genes.device).expand_as(genes)
        starts = self.starts + genes.shape[1] * torch.arange(len(genes), device=genes.device)[:, None]
        hidden = functional.embedding_bag(  # of every patient and set, the sum of the set's weights times its genes
            rows.flatten(), self.first_weight, starts.flatten(), mode="sum", per_sample_weights=genes.flatten()
        )
        hidden = hidden.unflatten(0, starts.shape).transpose(0, 1)
        hidden = self.dropout(self.activation(hidden + self.first_bias[:, None]))
        hidden = torch.baddbmm(self.second_bias[:, None], hidden, self.second_weight)
        tokens = self.dropout(self.activation(hidden)).relu()
        return torch.where(measured[..., None], tokens.transpose(0, 1), 0.0)

    @torch.no_grad()
    def shrink_genes(self, amount: float) -> None:
        """Shortens the weights of every gene in every set, as `GeneEncoder.shrink_genes` does."""
        self.first_weight.copy_(_shortened(self.first_weight, amount, dim=1))


def _shortened(weight: Float[Tensor, "row column"], amount: float, *, dim: int) -> Float[Tensor, "row column"]:
    """Returns vectors along `dim` shortened by `amount` times the root of their width, at most to zero."""
    length = weight.norm(dim=dim, keepdim=True).clamp(min=1e-12)
    return weight * (1 - amount * weight.shape[dim] ** 0.5 / length).clamp(min=0)


def encode_measured(
    encoder: nn.Module, expression: Float[Tensor, "batch gene"], expression_mask: Bool[Tensor, " batch"]
) -> Float[Tensor, "batch embed"]:
    """Returns the embedding of expression, 0 where it was not measured."""
    measured = expression_mask[:, None]
    # masked before as well: the gradient of an unmeasured NaN would be NaN
    return torch.where(measured, encoder(torch.where(measured, expression, 0.0)), 0.0)
