"""One case of every objective, and outputs of a model for them; all axes differ in size."""

import pytest
import torch

from subfuse.cohort.batches import ClassTarget, NumberTarget, SurvivalTarget
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective import (
    ClassificationObjective,
    CoxObjective,
    CumulativeLogitObjective,
    DiscreteHazardObjective,
    RegressionObjective,
)

BATCH, SUBSPACE, EMBED, GROUP, POINT = 6, 2, 5, 3, 4
GRADES = ("G2", "G3", "G4")
SURVIVAL = SurvivalTarget(
    torch.tensor([10.0, 400.0, 30.0, 800.0, 500.0, 365.0]), torch.tensor([True, False, True, True, False, True])
)
LABELS = ClassTarget(torch.tensor([0, 1, 1, 2, 2, 2]))
NUMBERS = NumberTarget(torch.tensor([3.0, -1.0, 12.5, 3.0, 7.0, 0.5]))

CASES = {
    "classification": (ClassificationObjective(GRADES, [1.0, 2.0, 4.0]), LABELS),
    "cumulative_logits": (CumulativeLogitObjective(GRADES, [1.0, 2.0, 4.0]), LABELS),
    "discrete_hazard": (DiscreteHazardObjective([100.0, 365.0, 730.0]), SURVIVAL),
    "cox": (CoxObjective(), SURVIVAL),
    "regression": (RegressionObjective(4.0, 5.0), NUMBERS),
    "regression_huber": (RegressionObjective(4.0, 5.0, error="huber"), NUMBERS),
}
EVERY_OBJECTIVE = pytest.mark.parametrize(("objective", "target"), CASES.values(), ids=CASES)


def model_output(n_outputs: int, *, batch: int = BATCH, samples: bool = True, seed: int = 0) -> SubspaceFusionOutput:
    generator = torch.Generator().manual_seed(seed)
    subspace_logits = torch.randn(batch, SUBSPACE, n_outputs, generator=generator, requires_grad=True)
    grid = torch.randn(batch, SUBSPACE, GROUP, POINT, 2, generator=generator, requires_grad=True)
    return SubspaceFusionOutput(
        logits=subspace_logits.sum(dim=1),
        subspace_logits=subspace_logits,
        embedding=torch.randn(batch, SUBSPACE, EMBED, generator=generator),
        expression_embedding=torch.rand(batch, SUBSPACE, EMBED, generator=generator, requires_grad=True),
        sampling_grid=grid if samples else None,
    )
