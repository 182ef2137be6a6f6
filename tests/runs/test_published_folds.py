"""What trivial models reach on the published folds of TCGA-GBM/LGG, and of which pairs a C-index there is made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sksurv.metrics import concordance_index_censored

from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.evaluation.predictions import PATIENT, read_tasks
from subfuse.evaluation.strata import pair_decomposition
from subfuse.identifiers import site_of_barcode
from subfuse.preparation.declared_columns import resolve_covariates
from subfuse.run_folder.job import Job
from subfuse.run_folder.tables import read_predictions, stack_predictions
from subfuse.runs.cross_validation import run_job
from subfuse.training.settings import TrainingPlan

pytestmark = [pytest.mark.real_data, pytest.mark.walk]
TASKS = {"survival": TaskSpec(time="time_days", event="event")}
MARKERS = ("age", "gender", "idh", "codel_1p19q")


@pytest.fixture(scope="module")
def labels(real_data: Path) -> pd.DataFrame:
    table = pd.read_csv(real_data / "tcga_gbmlgg" / "labels.csv", dtype=str).rename(columns={"case_id": "patient_id"})
    return table.sort_values("patient_id").astype(object)


@pytest.fixture(scope="module")
def folds(real_data: Path) -> list[Fold]:
    tables = [pd.read_csv(real_data / "tcga_gbmlgg" / "splits" / f"splits_{i}.csv") for i in range(5)]
    return [Fold(tuple(sorted(t["train"].dropna())), (), tuple(sorted(t["val"].dropna()))) for t in tables]


def predicted(
    labels: pd.DataFrame, folds: Sequence[Fold], out: Path, model: str, covariates: Sequence[str] = ()
) -> pd.DataFrame:
    """Predictions of a trivial model on the published folds; a patient of a hospital of its own has none."""
    patients = tuple(
        Patient(
            row["patient_id"],
            "tcga",
            covariates={name: row[name] for name in covariates if isinstance(row[name], str)},
            time_days=float(row["os_days"]),
            event=float(row["os_event"]) == 1,
            site=site_of_barcode(row["patient_id"]),
        )
        for row in labels.to_dict("records")
    )
    names = resolve_covariates(covariates, labels, TASKS, develops=True)
    cohort = Cohort("tcga", patients, (), None, gene_sets={}, tasks=TASKS, covariates=names)
    jobs = [Job("survival", model, index, 0) for index in range(len(folds))]
    for job in jobs:
        run_job(cohort, folds[job.fold_index], job, out, TrainingPlan())
    table = stack_predictions([read_predictions(job.folder(out) / "predictions.csv") for job in jobs])
    return table.dropna(subset="risk")


def c_index(table: pd.DataFrame) -> float:
    folds = [fold for _, fold in table[table["split"] == "test"].groupby("fold")]
    found = [
        concordance_index_censored(fold["event"].astype(bool), fold["time_days"].astype(float), fold["risk"])[0]
        for fold in folds
    ]
    return float(np.mean(found))


@pytest.mark.parametrize(("model", "covariates", "expected"), [
    ("clinical", MARKERS, 0.847),
    ("clinical", (*MARKERS, "grade"), 0.866),
    ("site", (), 0.774),
])  # fmt: skip
def test_what_trivial_models_reach(labels, folds, tmp_path, model, covariates, expected):
    assert c_index(predicted(labels, folds, tmp_path, model, covariates)) == pytest.approx(expected, abs=0.01)


def test_most_pairs_lie_between_the_classes_of_idh(labels, folds):
    known = labels.set_index("patient_id")
    tested = [(patient, index) for index, fold in enumerate(folds) for patient in fold.test]
    rows = pd.DataFrame(tested, columns=["patient_id", "fold"]).assign(
        task="survival", model="age", repeat=0, cohort="tcga", split="test"
    )
    of_rows = known.loc[rows["patient_id"]]
    rows = rows.assign(
        time_days=of_rows["os_days"].to_numpy(float), event=of_rows["os_event"].to_numpy(float) == 1, risk=0.0
    )
    (task,) = read_tasks(rows)
    columns = pd.DataFrame({"idh": of_rows["idh"].to_numpy()}, index=pd.MultiIndex.from_frame(rows[PATIENT]))

    pairs = pair_decomposition(task, ["age"], columns)

    within = pairs["stratum"] == pairs["other"]
    assert pairs.loc[~within, "share"].sum() == pytest.approx(0.65, abs=0.01)
    assert of_rows["idh"].value_counts()["WT"] == 173
