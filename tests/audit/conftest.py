"""Patients and a run of them, shared by tests of the audit; subfuse is imported late, once its shapes are checked."""

from pathlib import Path

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    from drawn_predictions import cohort

    return cohort(n=150)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder to be filled once."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def cohort(make_cohort):
    return make_cohort(30, n_genes=24)


@pytest.fixture
def run(cohort, trained: Path) -> Path:
    from small_cohort import deal_folds
    from subfuse.runs.cross_validation import cross_validate
    from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

    if not trained.exists():
        plan = TrainingPlan(
            training=TrainingSettings(epochs=2, batch_size=8),
            architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
        )
        cross_validate(cohort, task="grade", models=["concat", "snn"], folds=deal_folds(cohort), out=trained, plan=plan)
    return trained
