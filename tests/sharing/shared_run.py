"""A run of an ensemble and linear models on survival and classes, and its export; made once per test process."""

from dataclasses import replace
from pathlib import Path

import pytest

from command_run import evaluate_roughly
from small_cohort import deal_folds, make_cohort
from subfuse.cohort.cohort import Cohort
from subfuse.runs.cross_validation import cross_validate
from subfuse.sharing.export import export_run
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings

N_PATIENTS = 64  # of whom the last four are new
_PLAN = TrainingPlan(
    training=TrainingSettings(epochs=2, batch_size=8, members=2),
    architecture=ArchitectureSettings(embed_dim=16, max_grid=8, table_size=32),
)


def named(cohort: Cohort) -> Cohort:
    """The cohort with identifiers that no other text holds, and expression above zero."""
    patients = (replace(p, patient_id=f"SECRET-{p.patient_id}") for p in cohort)
    return replace(
        cohort,
        patients=tuple(p if p.expression is None else replace(p, expression=p.expression + 10) for p in patients),
    )


def shared_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Cohort]:
    """The run folder, the folder of its exported models, and new patients; `everyone` is the whole cohort."""
    root = tmp_path_factory.getbasetemp() / "sharing"
    cohort = everyone(root)
    if not (root / "shared" / "subfuse.json").exists():
        known = cohort.select([p.patient_id for p in cohort.patients[:-4]])
        with pytest.MonkeyPatch.context() as patch:
            evaluate_roughly(patch)
            cross_validate(
                known,
                task=("survival", "grade"),
                models=("subspace", "cox", "logistic"),
                folds=deal_folds(known),
                out=root / "run",
                plan=_PLAN,
                allow_inputs=["GENE0"],
            )
        export_run(root / "run", root / "shared", license="cc-by-4.0")
    return root / "run", root / "shared", cohort.select([p.patient_id for p in cohort.patients[-4:]])


def everyone(root: Path) -> Cohort:
    """The whole cohort, with its feature files below a folder."""
    return named(make_cohort.__wrapped__(root)(N_PATIENTS))


def without(cohort: Cohort, modality: str) -> Cohort:
    """The cohort without slides, or without expression."""
    gone = {"slides": ()} if modality == "slides" else {"expression": None}
    return replace(cohort, patients=tuple(replace(patient, **gone) for patient in cohort))
