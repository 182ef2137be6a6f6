"""Baselines: the same inputs and the same output as `SubspaceFusion`, reported as one subspace."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.encoders import GeneEncoder
from subfuse.model.subspace_fusion import SubspaceFusionOutput, SubspaceHead


class AttentionPooling(nn.Module):
    r"""Weighted mean of a bag's patches with learned weights.

    For features :math:`x_n` the weights are :math:`a = \text{softmax}_n(w^T \tanh(V x_n + b))` over the real patches
    (Ilse et al. 2018, "Attention-based deep multiple instance learning", equations 7 and 8, plus the bias b).

    Args:
        patch_dim: Width of a patch's features.
        hidden: Width of the attention's hidden layer.
    """

    def __init__(self, patch_dim: int, hidden: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(patch_dim, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)  # softmax would ignore a bias

    def forward(
        self, patches: Float[Tensor, "batch patch feature"], patch_mask: Bool[Tensor, "batch patch"]
    ) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, "batch patch"]]:
        """Returns the pooled features and the weights: 0 on padding, and all 0 for a bag without patches."""
        patches = torch.where(patch_mask[..., None], patches, 0.0)
        score = self.score(self.hidden(patches).tanh())[..., 0]
        score = score.masked_fill(~patch_mask, torch.finfo(score.dtype).min)
        attention = torch.where(patch_mask, score.softmax(dim=1), 0.0)
        return torch.einsum("bn,bnf->bf", attention, patches), attention


class SlideEncoder(nn.Module):
    """Attention pooling, a linear layer and ReLU.

    Args:
        patch_dim: Width of a patch's features.
        embed_dim: Width of the embedding and of the attention's hidden layer.
    """

    def __init__(self, patch_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.pooling = AttentionPooling(patch_dim, embed_dim)
        self.projection = nn.Linear(patch_dim, embed_dim)

    def forward(
        self, patches: Float[Tensor, "batch patch feature"], patch_mask: Bool[Tensor, "batch patch"]
    ) -> tuple[Float[Tensor, "batch embed"], Float[Tensor, "batch patch"]]:
        """Returns the embedding, 0 for a bag without patches, and the attention."""
        pooled, attention = self.pooling(patches, patch_mask)
        embedding = self.projection(pooled).relu()
        return torch.where(patch_mask.any(dim=1, keepdim=True), embedding, 0.0), attention


class ABMIL(nn.Module):
    """Slides only: attention-based multiple instance learning (Ilse et al. 2018).

    Args:
        n_outputs: Number of logits.
        patch_dim: Width of a patch's features.
        embed_dim: Width of the slide embedding and of the attention's hidden layer.
    """

    modalities = frozenset({"slides"})

    def __init__(self, n_outputs: int, *, patch_dim: int = 1024, embed_dim: int = 128) -> None:
        super().__init__()
        self.slide_encoder = SlideEncoder(patch_dim, embed_dim)
        self.head = SubspaceHead(1, n_outputs, embed_dim)

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        need_attention: bool = False,
    ) -> SubspaceFusionOutput:
        """Returns logits from the patches; coordinates and expression are ignored, see `SubspaceFusion.forward`."""
        embedding, attention = self.slide_encoder(patches, patch_mask)
        return _output(
            self.head,
            embedding,
            expression_embedding=torch.zeros_like(embedding),
            attention=attention if need_attention else None,
        )


class SNN(nn.Module):
    """Expression only: the self-normalising gene encoder of the paper on all genes.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of genes.
        embed_dim: Width of the embedding.
        dropout: Probability of alpha dropout.
    """

    modalities = frozenset({"expression"})

    def __init__(self, n_outputs: int, *, n_genes: int, embed_dim: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.expression_encoder = GeneEncoder(n_genes, embed_dim, dropout=dropout)
        self.head = SubspaceHead(1, n_outputs, embed_dim)

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        need_attention: bool = False,
    ) -> SubspaceFusionOutput:
        """Returns logits from expression; patches are ignored, see `SubspaceFusion.forward`."""
        embedding = _encode_measured(self.expression_encoder, expression, expression_mask)
        return _output(self.head, embedding, expression_embedding=embedding)


class ConcatFusion(nn.Module):
    """Both modalities: the embeddings of `ABMIL` and `SNN` side by side, then one linear layer.

    A missing modality has embedding 0. In the output, `expression_embedding` is the embedding with its slide half set
    to 0.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of genes.
        patch_dim: Width of a patch's features.
        embed_dim: Width of each modality's embedding.
        dropout: Probability of alpha dropout in the gene encoder.
    """

    modalities = frozenset({"slides", "expression"})

    def __init__(
        self, n_outputs: int, *, n_genes: int, patch_dim: int = 1024, embed_dim: int = 128, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.slide_encoder = SlideEncoder(patch_dim, embed_dim)
        self.expression_encoder = GeneEncoder(n_genes, embed_dim, dropout=dropout)
        self.head = SubspaceHead(1, n_outputs, 2 * embed_dim)

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        need_attention: bool = False,
    ) -> SubspaceFusionOutput:
        """Returns logits from patches and expression; coordinates are ignored, see `SubspaceFusion.forward`."""
        slide_embedding, attention = self.slide_encoder(patches, patch_mask)
        expression_embedding = _encode_measured(self.expression_encoder, expression, expression_mask)
        return _output(
            self.head,
            torch.cat([slide_embedding, expression_embedding], dim=1),
            expression_embedding=torch.cat([torch.zeros_like(slide_embedding), expression_embedding], dim=1),
            attention=attention if need_attention else None,
        )


class LinearModel(nn.Module):
    """Expression only: one linear layer, i.e. logistic regression or Cox regression, depending on the objective.

    The embedding is the standardised expression itself; a patient without expression gets that of the average training
    patient, 0.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of genes.
    """

    modalities = frozenset({"expression"})

    def __init__(self, n_outputs: int, *, n_genes: int) -> None:
        super().__init__()
        self.head = SubspaceHead(1, n_outputs, n_genes)

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        need_attention: bool = False,
    ) -> SubspaceFusionOutput:
        """Returns logits from expression; patches are ignored, see `SubspaceFusion.forward`."""
        embedding = torch.where(expression_mask[:, None], expression, 0.0)
        return _output(self.head, embedding, expression_embedding=embedding)


def _encode_measured(
    encoder: GeneEncoder, expression: Float[Tensor, "batch gene"], expression_mask: Bool[Tensor, " batch"]
) -> Float[Tensor, "batch embed"]:
    """Returns the embedding of expression, 0 where it was not measured."""
    measured = expression_mask[:, None]
    # masked before as well: the gradient of an unmeasured NaN would be NaN
    return torch.where(measured, encoder(torch.where(measured, expression, 0.0)), 0.0)


def _output(
    head: SubspaceHead,
    embedding: Float[Tensor, "batch embed"],
    *,
    expression_embedding: Float[Tensor, "batch embed"],
    attention: Float[Tensor, "batch patch"] | None = None,
) -> SubspaceFusionOutput:
    """Returns the output of a model with one subspace and one attention head."""
    subspace_logits = head(embedding[:, None])
    return SubspaceFusionOutput(
        logits=subspace_logits.sum(dim=1),
        subspace_logits=subspace_logits,
        embedding=embedding[:, None],
        expression_embedding=expression_embedding[:, None],
        sampling_grid=None,
        attention=None if attention is None else attention[:, None, None],
    )
