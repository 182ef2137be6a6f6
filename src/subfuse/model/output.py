"""What every model returns, the linear head of subspaces, and the outputs of ensembles and models of one subspace."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True)
class SubspaceFusionOutput:
    """What every model returns; a model without subspaces reports itself as one."""

    logits: Float[Tensor, "batch output"]
    subspace_logits: Float[Tensor, "batch part output"]  # subspaces and a linear path, if any; their sum is `logits`
    embedding: Float[Tensor, "batch subspace embed"]  # slides and expression fused
    expression_embedding: Float[Tensor, "batch subspace embed"]  # zeros where expression was not measured
    sampling_grid: Float[Tensor, "batch subspace group point 2"] | None  # (x, y) in points of the coarse grid
    attention: Float[Tensor, "batch subspace head patch"] | None = None  # attention that each patch receives
    alignment: Float[Tensor, " batch"] | None = None  # a weighted loss of the model's own, for patients with both

    def cpu(self) -> "SubspaceFusionOutput":
        """Returns the same on the processor."""
        return replace(self, **{name: value.cpu() for name, value in vars(self).items() if value is not None})


class SubspaceHead(nn.Module):
    """Linear classifier of the concatenated subspace embeddings, as the sum of one part per subspace.

    Initialised like a linear layer on the concatenation.

    Args:
        n_subspaces: Number of subspaces.
        n_outputs: Number of outputs.
        embed_dim: Width of one subspace's embedding.
    """

    def __init__(self, n_subspaces: int, n_outputs: int, embed_dim: int) -> None:
        super().__init__()
        bound = (n_subspaces * embed_dim) ** -0.5
        self.weight = nn.Parameter(torch.empty(n_subspaces, n_outputs, embed_dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_outputs).uniform_(-bound, bound))

    def forward(self, embedding: Float[Tensor, "batch subspace embed"]) -> Float[Tensor, "batch subspace output"]:
        """Returns each subspace's share of the logits; every share holds an equal part of the bias."""
        return torch.einsum("bse,soe->bso", embedding, self.weight) + self.bias / len(self.weight)


class Ensemble(nn.Module):
    """Deep ensemble: networks alike but for their initial weights, whose logits are averaged.

    Lakshminarayanan et al. 2017, but for averaging logits instead of probabilities: subspaces' shares of the logits are
    averages then, and still add up to them.

    Relative to the paper: there one network.

    Args:
        members: Networks with the same outputs, at least one.

    Raises:
        ValueError: If there is no member.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise ValueError("members must hold at least one network. Found none.")

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        **options: Any,
    ) -> SubspaceFusionOutput:
        """Returns means over the members; groups and heads of all members stand side by side."""
        outputs = [
            member(patches, coords, patch_mask, expression, expression_mask, **options) for member in self.members
        ]
        return SubspaceFusionOutput(
            logits=_mean([output.logits for output in outputs]),
            subspace_logits=_mean([output.subspace_logits for output in outputs]),
            embedding=_mean([output.embedding for output in outputs]),
            expression_embedding=_mean([output.expression_embedding for output in outputs]),
            sampling_grid=_side_by_side([output.sampling_grid for output in outputs]),
            attention=_side_by_side([output.attention for output in outputs]),
        )


def _mean(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors).mean(dim=0)


def _side_by_side(tensors: list[Tensor | None]) -> Tensor | None:
    known = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(known, dim=2) if known else None


def one_subspace(
    head: SubspaceHead,
    embedding: Float[Tensor, "batch embed"],
    *,
    expression_embedding: Float[Tensor, "batch embed"] | None = None,
    attention: Float[Tensor, "batch head patch"] | None = None,
    alignment: Float[Tensor, " batch"] | None = None,
) -> SubspaceFusionOutput:
    """Returns the head's logits of the embedding, as one subspace.

    Args:
        head: A head for one subspace.
        embedding: What the head sees.
        expression_embedding: What of it comes from expression alone, or the expression's embedding before fusion; 0
            where expression was not measured, and everywhere if None.
        attention: Attention that each patch receives, if it was asked for.
        alignment: See `SubspaceFusionOutput`.
    """
    subspace_logits = head(embedding[:, None])
    if expression_embedding is None:
        expression_embedding = torch.zeros_like(embedding)
    return SubspaceFusionOutput(
        logits=subspace_logits.sum(dim=1),
        subspace_logits=subspace_logits,
        embedding=embedding[:, None],
        expression_embedding=expression_embedding[:, None],
        sampling_grid=None,
        attention=None if attention is None else attention[:, None],
        alignment=alignment,
    )
