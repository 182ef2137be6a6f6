"""Baselines that read slides only: mean pooling, ABMIL, gated ABMIL, CLAM-SB and DSMIL."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from subfuse.model.baselines.pooling import (
    AttentionPooling,
    BagEncoder,
    MeanPooling,
    PatchProjection,
    clear_padding,
    masked_softmax,
)
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace


class MeanMIL(nn.Module):
    """Slides only: the mean of the patches, a linear layer, ReLU, and the head.

    Args:
        n_outputs: Number of logits.
        patch_dim: Width of a patch's features.
        embed_dim: Width of the slide embedding.
    """

    def __init__(self, n_outputs: int, *, patch_dim: int = 1024, embed_dim: int = 128) -> None:
        super().__init__()
        self.slide_encoder = BagEncoder(MeanPooling(), patch_dim=patch_dim, embed_dim=embed_dim)
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
        return one_subspace(self.head, embedding, attention=attention[:, None] if need_attention else None)


class ABMIL(nn.Module):
    """Slides only: attention-based multiple instance learning (Ilse et al., ICML 2018), plain or gated.

    The attention's hidden layer is as wide as the embedding: by default 128, as published.

    Relative to the paper: patches are features of a frozen encoder, so the learned layer follows the pooling.

    Args:
        n_outputs: Number of logits.
        patch_dim: Width of a patch's features.
        embed_dim: Width of the slide embedding and of the attention's hidden layer.
        gated: Whether attention is gated, the paper's second variant.
    """

    def __init__(self, n_outputs: int, *, patch_dim: int = 1024, embed_dim: int = 128, gated: bool = False) -> None:
        super().__init__()
        pooling = AttentionPooling(patch_dim, embed_dim, gated=gated)
        self.slide_encoder = BagEncoder(pooling, patch_dim=patch_dim, embed_dim=embed_dim)
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
        return one_subspace(self.head, embedding, attention=attention[:, None] if need_attention else None)


class CLAMSB(nn.Module):
    """Slides only: CLAM with a single attention branch (Lu et al., Nature Biomedical Engineering 2021).

    A layer of 512 on every patch, gated attention with 256 hidden units, a linear classifier; dropout 0.25: the
    published small model.

    Relative to the paper: its instance-level clustering loss is left out. It needs the class inside the model and has
    no counterpart for survival. No dropout inside the attention.

    Args:
        n_outputs: Number of logits.
        patch_dim: Width of a patch's features.
        embed_dim: Width of the layer on every patch.
        attention_dim: Width of the attention's hidden layer.
        dropout: Probability of dropout on every patch.
    """

    def __init__(
        self,
        n_outputs: int,
        *,
        patch_dim: int = 1024,
        embed_dim: int = 512,
        attention_dim: int = 256,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.patch_projection = PatchProjection(patch_dim, embed_dim, dropout)
        self.pooling = AttentionPooling(embed_dim, attention_dim, gated=True)
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
        projected = self.patch_projection(clear_padding(patches, patch_mask))
        embedding, attention = self.pooling(projected, patch_mask)
        return one_subspace(self.head, embedding, attention=attention[:, None] if need_attention else None)


class DSMIL(nn.Module):
    r"""Slides only: dual-stream multiple instance learning (Li et al., CVPR 2021).

    The first stream scores every patch and keeps, per output, the highest score and its patch, the critical one. The
    second weights patches by the similarity of their query to the critical patch's,
    :math:`\text{softmax}_n(q_n^T q_m / \sqrt{d})`, and classifies the weighted mean of their values. The logits are
    the mean of both streams. Queries are 128 wide as published.

    Relative to the paper: one loss on the mean of the streams instead of one on each; one magnification; the values
    are as wide as the embeddings of the other models.

    Args:
        n_outputs: Number of logits.
        patch_dim: Width of a patch's features.
        embed_dim: Width of the values.
        query_dim: Width of the queries.
    """

    def __init__(self, n_outputs: int, *, patch_dim: int = 1024, embed_dim: int = 128, query_dim: int = 128) -> None:
        super().__init__()
        self.score = nn.Linear(patch_dim, n_outputs)
        self.query = nn.Linear(patch_dim, query_dim)
        self.value = nn.Linear(patch_dim, embed_dim)
        self.head = SubspaceHead(1, n_outputs, n_outputs * embed_dim)

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
        """Returns logits from the patches; coordinates and expression are ignored, see `SubspaceFusion.forward`.

        Attention has one head per output. The head's logits of the embedding are the second stream alone.
        """
        n_patches = patches.shape[1]
        if n_patches == 0:  # there is no maximum of nothing
            patches, patch_mask = functional.pad(patches, (0, 0, 0, 1)), functional.pad(patch_mask, (0, 1))
        patches = clear_padding(patches, patch_mask)
        score = self.score(patches).masked_fill(~patch_mask[..., None], -torch.inf)
        best, critical = score.max(dim=1)  # batch output
        query = self.query(patches)
        critical_query = query.gather(1, critical[..., None].expand(-1, -1, query.shape[2]))
        similarity = torch.einsum("bod,bnd->bon", critical_query, query) * query.shape[2] ** -0.5
        attention = masked_softmax(similarity, patch_mask[:, None])
        embedding = (attention @ self.value(patches)).flatten(start_dim=1)
        has_patches = patch_mask.any(dim=1, keepdim=True)
        logits = 0.5 * (self.head(embedding[:, None]) + torch.where(has_patches, best, 0.0)[:, None])
        return SubspaceFusionOutput(
            logits=logits[:, 0],
            subspace_logits=logits,
            embedding=embedding[:, None],
            expression_embedding=torch.zeros_like(embedding)[:, None],
            sampling_grid=None,
            attention=attention[:, None, :, :n_patches] if need_attention else None,
        )
