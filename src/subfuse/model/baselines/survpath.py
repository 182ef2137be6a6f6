"""SurvPath: attention between pathway tokens and patches."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from subfuse.model.baselines.pooling import clear_padding, masked_softmax
from subfuse.model.gene_encoders import GeneSetTokens
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace


class SurvPath(nn.Module):
    """Both modalities: dense interactions between pathways and patches (Jaume et al., CVPR 2024).

    One token per pathway (two self-normalising layers of 256) and one per patch (a layer of 256) share one attention
    layer, 128 wide: pathways attend to pathways and patches, patches to pathways, but never patches to patches, so
    memory is pathways by patches. A feed-forward layer and layer norm follow, and the means of both kinds of token
    side by side are the embedding.

    Relative to the paper: the classifier of the two means is linear. Without expression the pathways cannot be
    attended to: their queries see the patches alone, equally, and the patches' mean is 0. Without patches that mean is
    0 as well.

    Args:
        n_outputs: Number of logits.
        pathways: Columns of `expression` of each pathway, by name.
        patch_dim: Width of a patch's features.
        token_dim: Width of the tokens.
        attention_dim: Width of attention and of each mean.
        dropout: Probability of dropout in the feed-forward layer, alpha dropout in the pathway encoders.
    """

    def __init__(
        self,
        n_outputs: int,
        *,
        pathways: Mapping[str, Sequence[int]],
        patch_dim: int = 1024,
        token_dim: int = 256,
        attention_dim: int = 128,
        dropout: float = 0.25,
    ) -> None:
        super().__init__()
        self.pathway_tokens = GeneSetTokens(pathways, token_dim, dropout=dropout)
        self.patch_projection = nn.Linear(patch_dim, token_dim)
        self.to_qkv = nn.Linear(token_dim, 3 * attention_dim, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(attention_dim, attention_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(attention_dim, attention_dim),
            nn.LayerNorm(attention_dim),
        )
        self.head = SubspaceHead(1, n_outputs, 2 * attention_dim)

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

        Attention is that of the pathways to the patches, one head per pathway; the rest of it goes to pathways. In
        the output, `expression_embedding` is the embedding with its patch half set to 0.
        """
        pathways = self.pathway_tokens(expression, expression_mask)
        n = pathways.shape[1]
        tokens = torch.cat([pathways, self.patch_projection(clear_padding(patches, patch_mask))], dim=1)
        query, key, value = self.to_qkv(tokens)[:, None].chunk(3, dim=3)  # batch, head, token, embed
        token_mask = torch.cat([expression_mask[:, None].expand(-1, n), patch_mask], dim=1)[:, None, None]
        of_pathways = functional.scaled_dot_product_attention(query[:, :, :n], key, value, attn_mask=token_mask)
        pathway_mean = self.feed_forward(of_pathways[:, 0]).mean(dim=1)
        # weights sum to 1, so that the first layer may come before the sum: of the few pathways, not of all patches
        first = self.feed_forward[0](value[:, :, :n])
        of_patches = functional.scaled_dot_product_attention(query[:, :, n:], key[:, :, :n], first)
        attended = self.feed_forward[1:](of_patches[:, 0])
        patch_mean = _masked_mean(attended, patch_mask & expression_mask[:, None])
        return one_subspace(
            self.head,
            torch.cat([pathway_mean, patch_mean], dim=1),
            expression_embedding=torch.cat(
                [torch.where(expression_mask[:, None], pathway_mean, 0.0), torch.zeros_like(patch_mean)], dim=1
            ),
            attention=_attention(query[:, :, :n], key, token_mask)[:, 0, :, n:] if need_attention else None,
        )


def _attention(
    query: Float[Tensor, "*batch token embed"],
    key: Float[Tensor, "*batch other embed"],
    key_mask: Bool[Tensor, "*#batch #token other"],
) -> Float[Tensor, "*batch token other"]:
    """Returns the weights of `scaled_dot_product_attention`."""
    return masked_softmax(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5, key_mask)


def _masked_mean(
    tokens: Float[Tensor, "batch token embed"], mask: Bool[Tensor, "batch token"]
) -> Float[Tensor, "batch embed"]:
    """Returns the mean of the tokens where `mask` is True, 0 without any."""
    weight = mask.to(tokens.dtype) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.einsum("bt,bte->be", weight, tokens)
