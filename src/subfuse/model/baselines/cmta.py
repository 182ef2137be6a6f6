"""CMTA: each modality is translated from the other, and aligned with it."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from subfuse.model.baselines.co_attention import CoAttention
from subfuse.model.baselines.pooling import PatchProjection, clear_padding
from subfuse.model.gene_encoders import GeneSetTokens
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace


class CMTA(nn.Module):
    r"""Both modalities: cross-modal translation and alignment (Zhou and Chen, ICCV 2023).

    An encoder per modality summarises its tokens (patches; one per gene set) in a class token, :math:`p` and
    :math:`g`. Attention in both directions carries each modality's tokens to the other, and a decoder per modality
    summarises what arrived as a translation :math:`\hat p, \hat g`. The means of each pair are fused by two layers;
    the loss :math:`\text{weight} \cdot (|p - \hat p| + |g - \hat g|)`, means over patients with both modalities and
    over features, draws the translations to :math:`p` and :math:`g`, which themselves get no gradient from it.
    Everything is 256 wide, with 2 layers of 8 heads per encoder and decoder.

    Relative to the paper: exact attention in place of its Nyström approximation, without a position encoding over the
    order of patches: padding and order do not matter. The gene sets are the subspaces. A patient with one modality has
    no translation: its own summary stands alone, and that of the missing one is 0.

    Args:
        n_outputs: Number of logits.
        gene_sets: Columns of `expression` of each gene set, by name.
        patch_dim: Width of a patch's features.
        embed_dim: Width of all tokens, a multiple of `heads`.
        heads: Attention heads of encoders and decoders.
        dropout: Probability of dropout, alpha dropout in the gene encoders.
        alignment_weight: Weight of the alignment loss.
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
        alignment_weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.alignment_weight = alignment_weight
        self.gene_tokens = GeneSetTokens(gene_sets, embed_dim, dropout=dropout)
        self.patch_projection = PatchProjection(patch_dim, embed_dim, dropout)
        self.patch_encoder, self.gene_encoder, self.patch_decoder, self.gene_decoder = (
            ClassTokenTransformer(embed_dim, heads=heads, dropout=dropout) for _ in range(4)
        )
        self.patches_to_genes = CoAttention(embed_dim)
        self.genes_to_patches = CoAttention(embed_dim)
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

        Attention is that of the gene sets to the patches, one head per gene set.
        """
        genes = self.gene_tokens(expression, expression_mask)
        gene_mask = expression_mask[:, None].expand(genes.shape[:2])
        projected = self.patch_projection(clear_padding(patches, patch_mask))
        slide_summary, patch_tokens = self.patch_encoder(projected, patch_mask)
        gene_summary, gene_tokens = self.gene_encoder(genes, gene_mask)
        from_genes, _ = self.patches_to_genes(patch_tokens, gene_tokens, gene_mask)
        from_patches, attention = self.genes_to_patches(gene_tokens, patch_tokens, patch_mask)
        slide_translation, _ = self.patch_decoder(from_genes, patch_mask)
        gene_translation, _ = self.gene_decoder(from_patches, gene_mask)
        has_slides = patch_mask.any(dim=1)
        paired = has_slides & expression_mask
        slides = _merge(slide_summary, slide_translation, has_slides, paired)
        expression_embedding = _merge(gene_summary, gene_translation, expression_mask, paired)
        alignment = _distance(slide_summary, slide_translation) + _distance(gene_summary, gene_translation)
        return one_subspace(
            self.head,
            self.fusion(torch.cat([slides, expression_embedding], dim=1)),
            expression_embedding=expression_embedding,
            attention=attention if need_attention else None,
            alignment=torch.where(paired, self.alignment_weight * alignment, 0.0),
        )


class ClassTokenTransformer(nn.Module):
    """Two self-attention layers over masked tokens and a class token.

    Args:
        embed_dim: Width of all tokens, a multiple of `heads`.
        heads: Attention heads.
        dropout: Probability of dropout of the attention's result.
    """

    def __init__(self, embed_dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, embed_dim))
        self.layers = nn.ModuleList(SelfAttention(embed_dim, heads=heads, dropout=dropout) for _ in range(2))
        self.norm = nn.LayerNorm(embed_dim)

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], mask: Bool[Tensor, "batch token"]
    ) -> tuple[Float[Tensor, "batch embed"], Float[Tensor, "batch token embed"]]:
        """Returns the class token and the tokens."""
        tokens = torch.cat([self.class_token.expand(len(tokens), -1, -1), tokens], dim=1)
        mask = functional.pad(mask, (1, 0), value=True)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        tokens = self.norm(tokens)
        return tokens[:, 0], tokens[:, 1:]


class SelfAttention(nn.Module):
    """Layer norm, self-attention over masked tokens and a residual connection.

    PyTorch's fused attention keeps no matrix of tokens by tokens.

    Args:
        embed_dim: Width of all tokens, a multiple of `heads`.
        heads: Attention heads.
        dropout: Probability of dropout of the attention's result; dropout of its weights would need that matrix.
    """

    def __init__(self, embed_dim: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(embed_dim)
        self.to_qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.projection = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Float[Tensor, "batch token embed"], mask: Bool[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token embed"]:
        """Returns the tokens after attention; every patient must have a token."""
        batch, n_tokens, embed_dim = tokens.shape
        qkv = self.to_qkv(self.norm(tokens)).view(batch, n_tokens, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # batch head token dim
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        merged = attended.transpose(1, 2).reshape(batch, n_tokens, embed_dim)
        return tokens + self.dropout(self.projection(merged))


def _merge(
    summary: Float[Tensor, "batch embed"],
    translation: Float[Tensor, "batch embed"],
    is_present: Bool[Tensor, " batch"],
    paired: Bool[Tensor, " batch"],
) -> Float[Tensor, "batch embed"]:
    """Returns the mean of summary and translation, the summary where there is no translation, 0 where neither is."""
    merged = torch.where(paired[:, None], 0.5 * (summary + translation), summary)
    return torch.where(is_present[:, None], merged, 0.0)


def _distance(
    summary: Float[Tensor, "batch embed"], translation: Float[Tensor, "batch embed"]
) -> Float[Tensor, " batch"]:
    """Returns the mean absolute difference over features; only the translation gets a gradient."""
    return (translation - summary.detach()).abs().mean(dim=1)
