"""Gated Kronecker fusion of one embedding per modality, and the models built on it: Pathomic Fusion and PORPOISE."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.baselines.pooling import AttentionPooling, BagEncoder, MeanPooling, PatchProjection, clear_padding
from subfuse.model.gene_encoders import GeneEncoder, encode_measured
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace


class KroneckerFusion(nn.Module):
    r"""All products of two gated embeddings, then two linear layers.

    Each embedding is gated by both, :math:`\sigma(W_z [h_1, h_2]) \odot \text{ReLU}(W h_m)`, and extended by a 1, so
    that the Kronecker product holds each embedding itself as well; the extended embeddings skip to the second layer
    (Chen et al., IEEE TMI 2020, "Pathomic Fusion", equations of section III-D).

    Relative to the paper: a missing modality is 0 after its gate, which leaves the other's own terms.

    Args:
        embed_dim: Width of each embedding.
        gated_dim: Width of each gated embedding.
        hidden: Width of both layers and of the result.
        dropout: Probability of dropout after every layer.
    """

    def __init__(self, embed_dim: int, *, gated_dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.content = nn.ModuleList(nn.Linear(embed_dim, gated_dim) for _ in range(2))
        self.gate = nn.ModuleList(nn.Linear(2 * embed_dim, gated_dim) for _ in range(2))
        self.product = nn.Linear((gated_dim + 1) ** 2, hidden)
        self.joint = nn.Linear(hidden + 2 * (gated_dim + 1), hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        slides: Float[Tensor, "batch embed"],
        expression: Float[Tensor, "batch embed"],
        has_slides: Bool[Tensor, " batch"],
        expression_mask: Bool[Tensor, " batch"],
    ) -> Float[Tensor, "batch hidden"]:
        """Returns the fused embedding.

        Args:
            slides: Embedding of the slides.
            expression: Embedding of the expression.
            has_slides: False for a patient without slides.
            expression_mask: False where expression was not measured.
        """
        both = torch.cat([slides, expression], dim=1)
        first = self._gated(0, slides, both, has_slides)
        second = self._gated(1, expression, both, expression_mask)
        product = torch.einsum("bi,bj->bij", first, second).flatten(start_dim=1)
        hidden = self.dropout(self.product(product).relu())
        return self.dropout(self.joint(torch.cat([hidden, first, second], dim=1)).relu())

    def _gated(
        self, index: int, embedding: Float[Tensor, "batch embed"], both: Tensor, is_present: Bool[Tensor, " batch"]
    ) -> Float[Tensor, "batch gated"]:
        gated = self.dropout(self.gate[index](both).sigmoid() * self.content[index](embedding).relu())
        return torch.cat([torch.where(is_present[:, None], gated, 0.0), torch.ones_like(gated[:, :1])], dim=1)


class PathomicFusion(nn.Module):
    """Both modalities: Pathomic Fusion (Chen et al., IEEE TMI 2020), 128 wide with 128 hidden units.

    Relative to the paper: the slide embedding is the mean of the patches' frozen features and a layer, instead of a
    convolutional network trained on one region; its third modality, cell graphs, is left out.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of genes.
        patch_dim: Width of a patch's features.
        embed_dim: Width of each modality's embedding and of the fusion.
        dropout: Probability of dropout in the fusion.
        gene_dropout: Probability of alpha dropout in the gene encoder.
    """

    def __init__(
        self,
        n_outputs: int,
        *,
        n_genes: int,
        patch_dim: int = 1024,
        embed_dim: int = 128,
        dropout: float = 0.25,
        gene_dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.slide_encoder = BagEncoder(MeanPooling(), patch_dim=patch_dim, embed_dim=embed_dim)
        self.expression_encoder = GeneEncoder(n_genes, embed_dim, dropout=gene_dropout)
        self.fusion = KroneckerFusion(embed_dim, gated_dim=embed_dim, hidden=embed_dim, dropout=dropout)
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
        """Returns logits from patches and expression; coordinates are ignored, see `SubspaceFusion.forward`."""
        slides, attention = self.slide_encoder(patches, patch_mask)
        genes = encode_measured(self.expression_encoder, expression, expression_mask)
        fused = self.fusion(slides, genes, patch_mask.any(dim=1), expression_mask)
        return one_subspace(
            self.head, fused, expression_embedding=genes, attention=attention[:, None] if need_attention else None
        )


class PORPOISE(nn.Module):
    """Both modalities: attention MIL and a self-normalising network, bilinear fusion (Chen et al., Cancer Cell 2022).

    A layer of 512 on every patch, gated attention with 256 hidden units, both embeddings 256 wide, gene layers of 256,
    Kronecker fusion of both scaled down 8 times to 32, 256 hidden units, dropout 0.25.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of genes.
        patch_dim: Width of a patch's features.
        embed_dim: Width of each modality's embedding and of the fused one; patches are twice as wide.
        dropout: Probability of dropout, alpha dropout in the gene encoder.
    """

    def __init__(
        self, n_outputs: int, *, n_genes: int, patch_dim: int = 1024, embed_dim: int = 256, dropout: float = 0.25
    ) -> None:
        super().__init__()
        patch_embed_dim = 2 * embed_dim
        self.patch_projection = PatchProjection(patch_dim, patch_embed_dim, dropout)
        pooling = AttentionPooling(patch_embed_dim, embed_dim, gated=True)
        self.slide_encoder = BagEncoder(pooling, patch_dim=patch_embed_dim, embed_dim=embed_dim, dropout=dropout)
        self.expression_encoder = GeneEncoder(n_genes, embed_dim, hidden=(embed_dim,), dropout=dropout)
        self.fusion = KroneckerFusion(embed_dim, gated_dim=embed_dim // 8, hidden=embed_dim, dropout=dropout)
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
        """Returns logits from patches and expression; coordinates are ignored, see `SubspaceFusion.forward`."""
        projected = self.patch_projection(clear_padding(patches, patch_mask))
        slides, attention = self.slide_encoder(projected, patch_mask)
        genes = encode_measured(self.expression_encoder, expression, expression_mask)
        fused = self.fusion(slides, genes, patch_mask.any(dim=1), expression_mask)
        return one_subspace(
            self.head, fused, expression_embedding=genes, attention=attention[:, None] if need_attention else None
        )
