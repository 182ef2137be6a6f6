"""Networks trained for a moment, and what tests look at of them."""

import csv
from dataclasses import replace

import torch

from small_cohort import deal_folds
from subfuse.training.fitting import train_fold
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

SMALL = ArchitectureSettings(embed_dim=32, max_grid=8, dropout=0.0, table_size=32)
BRIEF = TrainingSettings(epochs=3, batch_size=4, lr=3e-3)


def train(cohort, model="subspace", task="survival", settings=BRIEF, seed=1, fold=0, **kwargs):
    return train_fold(
        cohort,
        deal_folds(cohort)[fold],
        task=task,
        model_name=model,
        plan=TrainingPlan(training=settings, architecture=SMALL, seed=seed),
        **kwargs,
    )


def read_log(folder):
    with open(folder / "log.csv") as file:
        return list(csv.DictReader(file))


def weights_of(fitted):
    return torch.cat([value.flatten().double() for value in fitted.model.state_dict().values()])


def change_patient(cohort, patient_id, **changes):
    patients = tuple(replace(p, **changes) if p.patient_id == patient_id else p for p in cohort)
    return replace(cohort, patients=patients)
