"""Runs of two folds whose networks are trained for a moment."""

import pytest

from small_cohort import deal_folds
from subfuse.runs.cross_validation import cross_validate
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

pytestmark = pytest.mark.walk
BRIEF = {
    "plan": TrainingPlan(
        training=TrainingSettings(epochs=2, batch_size=8),
        architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
    ),
    "allow_inputs": ["GENE0"],  # shows the latent behind both outcomes
}


def run(cohort, out, models=("subspace", "snn"), task=("survival", "grade"), **changes):
    options = {"folds": deal_folds(cohort), **BRIEF, **changes}
    return cross_validate(cohort, task=task, models=models, out=out, **options)
