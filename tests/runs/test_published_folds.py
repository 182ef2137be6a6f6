"""What simple models reach on the published folds of TCGA-GBM/LGG, over all pairs and within IDH."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sksurv.metrics import concordance_index_censored

from subfuse.cohort.cohort import Cohort, Patient
from subfuse.cohort.fold import Fold
from subfuse.cohort.task import TaskSpec
from subfuse.evaluation.predictions import PATIENT, read_tasks
from subfuse.evaluation.strata import pair_decomposition, stratified_metrics
from subfuse.identifiers import site_of_barcode
from subfuse.objective.penalised import BreslowLoss, ridge_cox
from subfuse.preparation.declared_columns import resolve_covariates
from subfuse.run_folder.job import Job
from subfuse.run_folder.tables import read_predictions, stack_predictions
from subfuse.runs.cross_validation import run_job
from subfuse.training.settings import TrainingPlan

pytestmark = [pytest.mark.real_data, pytest.mark.walk]
TASKS = {"survival": TaskSpec(time="time_days", event="event")}
GRADES = {"grade_2_3": TaskSpec(column="grade", classes=("G2", "G3"))}
MARKERS = ("age", "gender", "idh", "codel_1p19q")
FREE = 30.0  # scale of a column that a ridge hardly holds back


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
    ("clinical", ("age", "gender"), 0.770),
    ("clinical", MARKERS, 0.847),
    ("clinical", (*MARKERS, "grade"), 0.866),
    ("clinical", ("age", "gender", "who2021_cdkn2a_homozygous", "grade"), 0.862),
    ("site", (), 0.774),
])  # fmt: skip
def test_what_trivial_models_reach(labels, folds, tmp_path, model, covariates, expected):
    assert c_index(predicted(labels, folds, tmp_path, model, covariates)) == pytest.approx(expected, abs=0.01)


@pytest.fixture(scope="module")
def genes(real_data: Path, labels: pd.DataFrame) -> pd.DataFrame:
    table = pd.read_csv(real_data / "tcga_gbmlgg" / "expression_zscores.csv.gz", index_col=0)
    return table.loc[labels["patient_id"]]


def test_within_idh_little_is_left_of_expression_age_and_sex(labels, folds, genes):
    """A ridge of 2000 per coefficient, age and sex free, as the sum over events."""
    known, parts = labels.set_index("patient_id"), []
    free = np.stack([known["age"].astype(float).fillna(known["age"].astype(float).mean()), known["gender"] == "MALE"])
    for index, fold in enumerate(folds):
        train, test = (known.index.isin(names) for names in (fold.train, fold.test))
        columns = np.hstack([genes.to_numpy(), free.T.astype(float)])
        columns = (columns - columns[train].mean(axis=0)) / columns[train].std(axis=0)
        axes = np.linalg.svd(columns[train, :-2], full_matrices=False)[2]  # a ridge does not notice
        inputs = np.hstack([columns[:, :-2] @ axes.T, FREE * columns[:, -2:]])
        event = known["os_event"].astype(float).to_numpy() == 1
        time_days = known["os_days"].astype(float).to_numpy()
        loss = BreslowLoss.of(inputs[train], time_days[train], event[train])
        weight = ridge_cox(loss, penalty=2000 / event[train].sum(), start=np.zeros(inputs.shape[1]))
        parts.append(pd.DataFrame({"patient_id": known.index[test], "fold": index, "risk": inputs[test] @ weight,
                                   "time_days": time_days[test], "event": event[test]}))  # fmt: skip
    rows = pd.concat(parts, ignore_index=True).assign(
        task="survival", model="ridge", repeat=0, cohort="tcga", split="test"
    )
    (task,) = read_tasks(rows)
    idh = known.loc[rows["patient_id"], "idh"].to_numpy()
    columns = pd.DataFrame({"idh": idh}, index=pd.MultiIndex.from_frame(rows[PATIENT]))

    within = stratified_metrics(task, ["ridge"], columns, n_bootstrap=20, seed=0).set_index("stratum")

    assert within.loc["WT", "value"] == pytest.approx(0.570, abs=0.01)
    assert within.loc["Mutant", "value"] == pytest.approx(0.776, abs=0.01)
    assert within.loc["WT", ["n_patients", "n_events"]].tolist() == [173, 120]


def test_grade_2_against_3_is_what_grade_is_worth_without_the_project(labels, folds, genes, tmp_path):
    assert set(labels["grade"][labels["project"] == "GBM"]) == {"G4"} == set(labels["grade"]) - {"G2", "G3"}
    assert ((labels["grade"] == "G4") == (labels["project"] == "GBM")).all()
    assert (labels["grade"] == "G4").sum() == 90
    assert labels.groupby(labels["patient_id"].map(site_of_barcode))["project"].nunique().tolist() == [1] * 35
    patients = tuple(
        Patient(row["patient_id"], "tcga", expression=genes.loc[row["patient_id"]].to_numpy(np.float32),
                labels={"grade": row["grade"]})
        for row in labels.to_dict("records") if row["grade"] != "G4"
    )  # fmt: skip
    cohort = Cohort("tcga", patients, tuple(genes), "zscore", gene_sets={}, tasks=GRADES)
    there, found = {patient.patient_id for patient in patients}, []
    for index, fold in enumerate(folds):
        sides = (tuple(name for name in side if name in there) for side in (fold.train, (), fold.test))
        job = Job("grade_2_3", "logistic", index, 0)
        run_job(cohort, Fold(*sides), job, tmp_path, TrainingPlan())
        tested = read_predictions(job.folder(tmp_path) / "predictions.csv").query("split == 'test'")
        found.append(roc_auc_score(tested["label"] == "G3", tested["p_G3"]))
    assert np.mean(found) == pytest.approx(0.802, abs=0.01)
    assert np.std(found, ddof=1) == pytest.approx(0.058, abs=0.01)


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
