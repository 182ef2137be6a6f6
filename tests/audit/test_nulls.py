from dataclasses import replace

import numpy as np
import pytest
from lifelines.utils import concordance_index

from conftest import deal_folds
from subfuse.training.fitting import train_fold
from subfuse.training.settings import ArchitectureSettings, TrainingSettings


def with_permuted_outcomes(cohort, generator):
    givers = [cohort.patients[i] for i in generator.permutation(len(cohort))]
    return replace(
        cohort,
        patients=tuple(
            replace(taker, slides=(), time_days=giver.time_days, event=giver.event)
            for taker, giver in zip(cohort, givers, strict=True)
        ),
    )


def c_index_of_new_patients(cohort, fold, model):
    fitted = train_fold(
        cohort,
        fold,
        task="survival",
        model_name=model,
        settings=TrainingSettings(epochs=6, batch_size=16, lr=1e-2, accelerator="cpu"),
        architecture=ArchitectureSettings(embed_dim=8),
        seed=0,
    )
    patients = [p for p in cohort if p.patient_id in set(fold.test) and p.expression is not None]
    risk = fitted.predict(patients)["risk"]
    return concordance_index([p.time_days for p in patients], -risk, [p.event for p in patients])


@pytest.mark.parametrize("model", ["cox", "snn"])
def test_models_trained_on_permuted_outcomes_find_nothing(make_cohort, model) -> None:
    cohort = make_cohort(60)
    outcomes = [cohort, *(with_permuted_outcomes(cohort, np.random.default_rng(seed)) for seed in range(4))]
    found = [c_index_of_new_patients(dealt, deal_folds(dealt)[0], model) for dealt in outcomes]
    assert found[0] > 0.6
    standard_error = 0.1 / len(found[1:]) ** 0.5  # C-indices of 30 patients
    assert np.mean(found[1:]) == pytest.approx(0.5, abs=3 * standard_error)
