"""The baseline network that reads expression only."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.gene_encoders import GeneEncoder, encode_measured
from subfuse.model.output import SubspaceFusionOutput, SubspaceHead, one_subspace


class SNN(nn.Module):
    """Expression only: the self-normalising gene encoder of the paper on all genes.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of genes.
        embed_dim: Width of the embedding.
        dropout: Probability of alpha dropout.
    """

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
        embedding = encode_measured(self.expression_encoder, expression, expression_mask)
        return one_subspace(self.head, embedding, expression_embedding=embedding)
