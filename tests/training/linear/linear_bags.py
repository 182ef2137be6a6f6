"""Patients whose slides or genes tell their outcome."""

import numpy as np
import torch

from subfuse.cohort.batches import BagBatch, SurvivalTarget

N, PATCH, FEATURE, GENE = 40, 3, 2, 6


def bags(latent: torch.Tensor, *, of_slides: float = 0.0, of_genes: float = 0.0) -> BagBatch:
    """Patients whose first feature and first gene rise with a latent variable."""
    generator = torch.Generator().manual_seed(5)
    n = len(latent)
    patches = torch.randn(n, PATCH, FEATURE, generator=generator)
    expression = torch.randn(n, GENE, generator=generator)
    patches[:, :, 0] += of_slides * latent[:, None]
    expression[:, 0] += of_genes * latent
    return BagBatch(
        patient_id=tuple(f"P{i}" for i in range(n)),
        patches=patches,
        coords=torch.zeros(n, PATCH, 2),
        patch_mask=torch.ones(n, PATCH, dtype=torch.bool),
        expression=expression,
        expression_mask=torch.ones(n, dtype=torch.bool),
        target=None,
    )


def followed(n: int = N) -> tuple[torch.Tensor, SurvivalTarget]:
    random = np.random.default_rng(2)
    latent = torch.from_numpy(random.normal(size=n)).float()
    days = 500 * torch.exp(-latent) * torch.from_numpy(random.exponential(size=n)).float()
    return latent, SurvivalTarget(days, torch.from_numpy(random.random(n) < 0.7))
