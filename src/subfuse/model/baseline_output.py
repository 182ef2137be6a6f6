"""The output of a model that has one subspace."""

import torch
from jaxtyping import Float
from torch import Tensor

from subfuse.model.subspace_fusion import SubspaceFusionOutput, SubspaceHead


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
