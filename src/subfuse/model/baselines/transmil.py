"""TransMIL: a transformer over the patches of a bag with Nyström attention."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.baselines.pooling import PatchProjection
from subfuse.model.fixed_order import average_pool
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace

_PINV_ITERATIONS = 6
_VALUE_KERNEL = 33


class TransMIL(nn.Module):
    """Slides only: transformer-based correlated multiple instance learning (Shao et al., NeurIPS 2021).

    A layer of 512 on every patch, a class token, two Nyström attention blocks (8 heads, 256 landmarks, 6 iterations
    for the pseudo-inverse) with a convolutional position encoding between them, layer norm, and a linear classifier of
    the class token: the published sizes. Patches count as a square in the order of the bag, filled up with the first
    patches again, so their order matters.

    Relative to the paper: a bag of fewer patches than landmarks gets one landmark per token instead of zeros. Bags are
    passed one by one: landmarks are means of neighbouring tokens and would change with padding. For that reason
    torchmil's module is not used: it takes no padding mask, and its pseudo-inverse starts from a maximum over the
    batch, so patients would influence each other.

    Args:
        n_outputs: Number of logits.
        patch_dim: Width of a patch's features.
        embed_dim: Width of all layers, a multiple of `heads`.
        heads: Attention heads.
        landmarks: Landmarks of the Nyström attention.
        dropout: Probability of dropout after attention.
    """

    def __init__(
        self,
        n_outputs: int,
        *,
        patch_dim: int = 1024,
        embed_dim: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.patch_projection = PatchProjection(patch_dim, embed_dim, 0.0)
        self.class_token = nn.Parameter(torch.randn(1, embed_dim))
        self.first = NystromBlock(embed_dim, heads=heads, landmarks=landmarks, dropout=dropout)
        self.position = PositionEncoding(embed_dim)
        self.second = NystromBlock(embed_dim, heads=heads, landmarks=landmarks, dropout=dropout)
        self.norm = nn.LayerNorm(embed_dim)
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
        """Returns logits from the patches; coordinates and expression are ignored, see `SubspaceFusion.forward`.

        There is no attention in the output: products of Nyström factors are not a distribution over patches.
        """
        bags = zip(patches, patch_mask, strict=True)
        return one_subspace(self.head, torch.stack([self._embed(bag[is_real]) for bag, is_real in bags]))

    def _embed(self, patches: Float[Tensor, "patch feature"]) -> Float[Tensor, " embed"]:
        """Returns the class token after the transformer, 0 without patches."""
        if len(patches) == 0:
            return self.class_token.new_zeros(self.class_token.shape[1])
        side = math.isqrt(len(patches) - 1) + 1  # square root, rounded up
        tokens = self.patch_projection(patches)
        tokens = torch.cat([self.class_token, tokens, tokens[: side**2 - len(tokens)]])
        tokens = self.first(tokens)
        tokens = torch.cat([tokens[:1], self.position(tokens[1:], side)])
        return self.norm(self.second(tokens)[0])


class NystromBlock(nn.Module):
    r"""Layer norm, Nyström self-attention of one bag and a residual connection.

    With landmarks :math:`\tilde q, \tilde k`, means of neighbouring queries and keys, the attention is
    :math:`\text{softmax}(q \tilde k^T) \, \text{softmax}(\tilde q \tilde k^T)^+ \, \text{softmax}(\tilde q k^T) \, v`
    plus a convolution of the values along the tokens (Xiong et al., AAAI 2021). No matrix of tokens by tokens exists.

    Args:
        embed_dim: Width, a multiple of `heads`.
        heads: Attention heads.
        landmarks: Landmarks; a bag of fewer tokens uses as many as it has tokens.
        dropout: Probability of dropout of the attention's result.
    """

    def __init__(self, embed_dim: int, *, heads: int, landmarks: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.landmarks = heads, landmarks
        self.norm = nn.LayerNorm(embed_dim)
        self.to_qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.value_convolution = nn.Conv1d(
            heads, heads, _VALUE_KERNEL, padding=_VALUE_KERNEL // 2, groups=heads, bias=False
        )
        self.projection = nn.Linear(embed_dim, embed_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "token embed"]) -> Float[Tensor, "token embed"]:
        """Returns the tokens after attention."""
        n_tokens, embed_dim = tokens.shape
        qkv = self.to_qkv(self.norm(tokens)).view(n_tokens, 3, self.heads, -1)
        query, key, value = qkv.permute(1, 2, 0, 3)  # head token dim
        attended = self._attend(query * query.shape[2] ** -0.5, key, value)
        # one kernel per head, along the tokens, shared by the dimensions of the head
        attended = attended + self.value_convolution(value.permute(2, 0, 1)).permute(1, 2, 0)
        merged = attended.transpose(0, 1).reshape(n_tokens, embed_dim)
        return tokens + self.dropout(self.projection(merged))

    def _attend(
        self, query: Float[Tensor, "head token dim"], key: Float[Tensor, "head token dim"], value: Tensor
    ) -> Float[Tensor, "head token dim"]:
        n_landmarks = min(self.landmarks, query.shape[1])
        query_landmarks, key_landmarks = (average_pool(part, n_landmarks) for part in (query, key))
        to_landmarks = (query @ key_landmarks.transpose(1, 2)).softmax(dim=2)
        among_landmarks = (query_landmarks @ key_landmarks.transpose(1, 2)).softmax(dim=2)
        from_landmarks = (query_landmarks @ key.transpose(1, 2)).softmax(dim=2)
        return to_landmarks @ (pseudo_inverse(among_landmarks) @ (from_landmarks @ value))


class PositionEncoding(nn.Module):
    """Depthwise 7 × 7, 5 × 5 and 3 × 3 convolutions over a square of tokens, added to it (PPEG of the paper).

    Args:
        embed_dim: Width.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(embed_dim, embed_dim, kernel, padding=kernel // 2, groups=embed_dim) for kernel in (7, 5, 3)
        )

    def forward(self, tokens: Float[Tensor, "token embed"], side: int) -> Float[Tensor, "token embed"]:
        """Returns `side` × `side` tokens with their neighbourhood added."""
        square = tokens.T.reshape(1, -1, side, side)
        square = square + sum(convolution(square) for convolution in self.convolutions)
        return square.flatten(start_dim=2)[0].T


def pseudo_inverse(
    matrix: Float[Tensor, "head row row"], *, iterations: int = _PINV_ITERATIONS
) -> Float[Tensor, "head row row"]:
    """Returns an approximation of the Moore-Penrose inverse that needs matrix products only (Razavi et al. 2014).

    Args:
        matrix: Not negative, as a softmax gives it.
        iterations: Number of iterations.
    """
    largest = matrix.sum(dim=1).amax(dim=1) * matrix.sum(dim=2).amax(dim=1)
    inverse = matrix.transpose(1, 2) / largest[:, None, None]
    identity = torch.eye(matrix.shape[1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(iterations):
        product = matrix @ inverse
        inverse = 0.25 * inverse @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product)))
    return inverse
