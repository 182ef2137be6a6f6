"""Baselines that read both modalities with one embedding each: concatenation and late fusion."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.baselines.pooling import AttentionPooling, BagEncoder
from subfuse.model.gene_encoders import GeneEncoder, encode_measured
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace


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

    def __init__(
        self, n_outputs: int, *, n_genes: int, patch_dim: int = 1024, embed_dim: int = 128, dropout: float = 0.1
    ) -> None:
        super().__init__()
        pooling = AttentionPooling(patch_dim, embed_dim)
        self.slide_encoder = BagEncoder(pooling, patch_dim=patch_dim, embed_dim=embed_dim)
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
        expression_embedding = encode_measured(self.expression_encoder, expression, expression_mask)
        return one_subspace(
            self.head,
            torch.cat([slide_embedding, expression_embedding], dim=1),
            expression_embedding=torch.cat([torch.zeros_like(slide_embedding), expression_embedding], dim=1),
            attention=attention[:, None] if need_attention else None,
        )


class LateFusion(nn.Module):
    """Both modalities: `ABMIL` and `SNN` with a head each, whose logits add up.

    In the output each branch is a subspace, slides first, so its share of every logit can be read. A missing modality
    adds its half of the bias only.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of genes.
        patch_dim: Width of a patch's features.
        embed_dim: Width of each modality's embedding.
        dropout: Probability of alpha dropout in the gene encoder.
    """

    def __init__(
        self, n_outputs: int, *, n_genes: int, patch_dim: int = 1024, embed_dim: int = 128, dropout: float = 0.1
    ) -> None:
        super().__init__()
        pooling = AttentionPooling(patch_dim, embed_dim)
        self.slide_encoder = BagEncoder(pooling, patch_dim=patch_dim, embed_dim=embed_dim)
        self.expression_encoder = GeneEncoder(n_genes, embed_dim, dropout=dropout)
        self.head = SubspaceHead(2, n_outputs, embed_dim)

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
        slides, attention = self.slide_encoder(patches, patch_mask)
        genes = encode_measured(self.expression_encoder, expression, expression_mask)
        embedding = torch.stack([slides, genes], dim=1)
        subspace_logits = self.head(embedding)
        attention = torch.stack([attention, torch.zeros_like(attention)], dim=1)[:, :, None]
        return SubspaceFusionOutput(
            logits=subspace_logits.sum(dim=1),
            subspace_logits=subspace_logits,
            embedding=embedding,
            expression_embedding=torch.stack([torch.zeros_like(genes), genes], dim=1),
            sampling_grid=None,
            attention=attention if need_attention else None,
        )
