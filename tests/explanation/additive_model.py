"""A model of which every share can be worked out, and three patients of whom something is missing."""

import torch
from torch import nn

from subfuse.cohort.batches import BagBatch
from subfuse.model.output import SubspaceFusionOutput

BATCH, PATCH, FEATURE, GENE, SUBSPACE, OUTPUT = 3, 5, 4, 7, 2, 6
SUBSPACES = ("tumour", "microenvironment")


class AdditiveModel(nn.Module):
    """Subspace logits linear in the mean patch and the expression, plus an optional product of the two."""

    def __init__(self, interaction: float = 0.0, uses_expression: bool = True):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shape = {"dtype": torch.float64, "generator": generator}
        self.patch_weight = nn.Parameter(torch.randn(SUBSPACE, OUTPUT, FEATURE, **shape))
        self.gene_weight = nn.Parameter(torch.randn(SUBSPACE, OUTPUT, GENE, **shape))
        self.bias = nn.Parameter(torch.randn(OUTPUT, **shape))
        self.interaction = interaction
        self.uses_expression = uses_expression
        self.dropout = nn.Dropout(0.5)

    def forward(self, patches, coords, patch_mask, expression, expression_mask, *, need_attention=False):
        if not (patch_mask.any(dim=1) | expression_mask).all():
            raise ValueError("a patient without any data")  # as SubspaceFusion does
        weight = patch_mask.to(patches)[..., None]
        mean = self.dropout((patches * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1))
        slide = torch.einsum("bf,scf->bsc", mean, self.patch_weight)
        gene = torch.einsum("bg,scg->bsc", expression * expression_mask[:, None], self.gene_weight)
        gene = gene if self.uses_expression else torch.zeros_like(slide)
        logits = slide + gene + self.interaction * slide * gene + self.bias / SUBSPACE
        embedding = patches.new_zeros(len(patches), SUBSPACE, 8)
        return SubspaceFusionOutput(
            logits=logits.sum(dim=1),
            subspace_logits=logits,
            embedding=embedding,
            expression_embedding=embedding,
            sampling_grid=None,
            attention=None,
        )


def three_patients() -> BagBatch:
    """Patient a: all patches; b: two patches; c: three patches, no expression."""
    generator = torch.Generator().manual_seed(1)
    patch_mask = torch.arange(PATCH) < torch.tensor([[PATCH], [2], [3]])
    expression_mask = torch.tensor([True, True, False])
    draw = {"dtype": torch.float64, "generator": generator}
    return BagBatch(
        patient_id=("a", "b", "c"),
        patches=torch.randn(BATCH, PATCH, FEATURE, **draw) * patch_mask[..., None],
        coords=torch.rand(BATCH, PATCH, 2, **draw),
        patch_mask=patch_mask,
        expression=torch.randn(BATCH, GENE, **draw) * expression_mask[:, None],
        expression_mask=expression_mask,
        target=None,
    )
