"""Linear models of slides, expression, covariates, or all of them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from subfuse.model.baselines.pooling import MeanPooling, patch_summary
from subfuse.model.output import one_subspace
from subfuse.model.patch_grid import BinnedBags
from subfuse.model.subspace_fusion import SubspaceFusionOutput, SubspaceHead


class LinearModel(nn.Module):
    """One linear layer on a patient's slides, expression or both. Logistic or Cox regression, by the objective.

    Slides enter as mean and standard deviation of every feature over the patient's patches, standardised over training
    patients (`fit_summary`). The embedding is these and the standardised expression themselves; what a patient lacks is
    that of the average training patient, 0.

    Args:
        n_outputs: Number of logits.
        n_genes: Number of columns of `expression`; 0: it is not read.
        patch_dim: Width of a patch's features; 0: slides are not read.
    """

    summary_mean: Float[Tensor, " summary"]  # fitted
    summary_scale: Float[Tensor, " summary"]  # fitted

    def __init__(self, n_outputs: int, *, n_genes: int = 0, patch_dim: int = 0) -> None:
        super().__init__()
        self.patch_dim = patch_dim
        self.n_genes = n_genes
        self.pooling = MeanPooling()
        self.head = SubspaceHead(1, n_outputs, 2 * patch_dim + n_genes)
        if patch_dim:
            self.register_buffer("summary_mean", torch.zeros(2 * patch_dim))
            self.register_buffer("summary_scale", torch.ones(2 * patch_dim))

    def forward(
        self,
        patches: Float[Tensor, "batch patch feature"],
        coords: Float[Tensor, "batch patch 2"],
        patch_mask: Bool[Tensor, "batch patch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
        *,
        binned: BinnedBags | None = None,
        need_attention: bool = False,
    ) -> SubspaceFusionOutput:
        """Returns logits; coordinates and what is not read are ignored, see `SubspaceFusion.forward`."""
        has_slides = patch_mask.any(dim=1)
        embedding = self.embed(self.summarise(patches, patch_mask, binned), has_slides, expression, expression_mask)
        is_expression = torch.arange(embedding.shape[1], device=embedding.device) >= 2 * self.patch_dim
        weight = self.pooling(patches, patch_mask)[1] if need_attention and self.patch_dim else None
        return one_subspace(
            self.head,
            embedding,
            expression_embedding=embedding * is_expression,
            attention=None if weight is None else weight[:, None],
        )

    def embed(
        self,
        summary: Float[Tensor, "batch summary"],
        has_slides: Bool[Tensor, " batch"],
        expression: Float[Tensor, "batch gene"],
        expression_mask: Bool[Tensor, " batch"],
    ) -> Float[Tensor, "batch embed"]:
        """Returns what the head multiplies: standardised summaries, then expression; 0 where there is none.

        Args:
            summary: From `summarise`.
            has_slides: Of the patients.
            expression: Ignored where `expression_mask` is False.
            expression_mask: False where expression was not measured.
        """
        genes = torch.where(expression_mask[:, None], expression[:, : self.n_genes], 0.0)
        if not self.patch_dim:
            return genes
        standardised = (summary - self.summary_mean) / self.summary_scale
        return torch.cat([torch.where(has_slides[:, None], standardised, 0.0), genes], dim=1)

    def summarise(
        self,
        patches: Float[Tensor, "batch patch feature"],
        patch_mask: Bool[Tensor, "batch patch"],
        binned: BinnedBags | None = None,
    ) -> Float[Tensor, "batch summary"]:
        """Returns what is read of slides, see `patch_summary`: no columns where slides are not read."""
        if not self.patch_dim:
            return patches.new_zeros(len(patches), 0)
        if binned is None:
            return patch_summary(patches, patch_mask)
        return torch.where(patch_mask.any(dim=1)[:, None], binned.summary, 0.0)

    def fit_summary(self, summaries: Float[Tensor, "patient summary"]) -> None:
        """Fits how summaries are standardised. One that is constant, such as the spread of one patch, becomes 0.

        Args:
            summaries: From `summarise`, of training patients with slides.
        """
        values = summaries.double()
        mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
        is_constant = scale <= 1e-6 * mean.abs().clamp(min=1e-6)
        self.summary_mean.copy_(mean)
        self.summary_scale.copy_(scale.masked_fill(is_constant, 1.0))
