"""MCAT: gene sets ask the patches."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.baselines.co_attention import CoAttention
from subfuse.model.baselines.pooling import AttentionPooling, BagEncoder, PatchProjection, clear_padding
from subfuse.model.gene_encoders import GeneSetTokens
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace


class MCAT(nn.Module):
    """Both modalities: multimodal co-attention transformer (Chen et al., ICCV 2021).

    One token per gene set (two self-normalising layers of 256) asks the patches (a layer of 256): genomic-guided
    co-attention leaves one slide token per gene set. Each modality's tokens then pass two transformer layers (8 heads,
    feed-forward 512, dropout 0.25) and gated attention pooling, and both embeddings are concatenated and fused by two
    layers of 256.

    Relative to the paper: the gene sets are the subspaces instead of six functional categories. A patient without
    expression asks with the learned bias of the query; a missing modality's embedding is 0.

    Args:
        n_outputs: Number of logits.
        gene_sets: Columns of `expression` of each gene set, by name.
        patch_dim: Width of a patch's features.
        embed_dim: Width of all tokens, a multiple of `heads`.
        heads: Attention heads of the transformers.
        dropout: Probability of dropout, alpha dropout in the gene encoders.
    """

    def __init__(
        self,
        n_outputs: int,
        *,
        gene_sets: Mapping[str, Sequence[int]],
        patch_dim: int = 1024,
        embed_dim: int = 256,
        heads: int = 8,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.gene_tokens = GeneSetTokens(gene_sets, embed_dim, dropout=dropout)
        self.patch_projection = PatchProjection(patch_dim, embed_dim, dropout)
        self.co_attention = CoAttention(embed_dim)
        self.slide_encoder = TokenEncoder(embed_dim, heads=heads, dropout=dropout)
        self.gene_encoder = TokenEncoder(embed_dim, heads=heads, dropout=dropout)
        self.fusion = nn.Sequential(
            nn.Linear(2 * embed_dim, embed_dim), nn.ReLU(), nn.Linear(embed_dim, embed_dim), nn.ReLU()
        )
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
        """Returns logits from patches and expression; coordinates are ignored, see `SubspaceFusion.forward`.

        Attention has one head per gene set.
        """
        gene_tokens = self.gene_tokens(expression, expression_mask)
        projected = self.patch_projection(clear_padding(patches, patch_mask))
        slide_tokens, attention = self.co_attention(gene_tokens, projected, patch_mask)
        slides = self.slide_encoder(slide_tokens, patch_mask.any(dim=1))
        genes = self.gene_encoder(gene_tokens, expression_mask)
        fused = self.fusion(torch.cat([slides, genes], dim=1))
        return one_subspace(
            self.head, fused, expression_embedding=genes, attention=attention if need_attention else None
        )


class TokenEncoder(nn.Module):
    """Two transformer layers over a patient's few tokens and gated attention pooling.

    Args:
        embed_dim: Width of all tokens, a multiple of `heads`.
        heads: Attention heads.
        dropout: Probability of dropout.
    """

    def __init__(self, embed_dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(
                nn.TransformerEncoderLayer(embed_dim, heads, 2 * embed_dim, dropout=dropout, batch_first=True)
                for _ in range(2)
            )
        )
        pooling = AttentionPooling(embed_dim, embed_dim, gated=True)
        self.pooling = BagEncoder(pooling, patch_dim=embed_dim, embed_dim=embed_dim, dropout=dropout)

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], is_present: Bool[Tensor, " batch"]
    ) -> Float[Tensor, "batch embed"]:
        """Returns the pooled tokens, 0 for patients without this modality."""
        return self.pooling(self.layers(tokens), is_present[:, None].expand(tokens.shape[:2]))[0]
