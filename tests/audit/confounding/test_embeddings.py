"""Embeddings are those of the model that tested a patient, and say of the batch what can be told within a fold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_calibration import N, draw_cohort, held_out_predictions
from small_cohort import deal_folds, unchecked
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.confounding.confounders import MeanFeatures, confounder_findings
from subfuse.audit.confounding.embeddings import embeddings_of_tested
from subfuse.audit.fitting import read_jobs
from subfuse.cohort.cohort import Cohort
from subfuse.run_folder.tables import read_predictions
from subfuse.runs.cross_validation import cross_validate
from subfuse.training.settings import ArchitectureSettings, TrainingPlan, TrainingSettings
from subfuse.training.stored_model import load_fitted

PLAN = TrainingPlan(
    training=TrainingSettings(epochs=1, batch_size=8), architecture=ArchitectureSettings(embed_dim=16), seed=0
)


@pytest.fixture(scope="module")
def kept() -> dict[str, Path]:
    """Holds the folder of one run for all tests, which read it."""
    return {}


@pytest.fixture
def ran(kept, make_cohort, tmp_path_factory) -> tuple[Cohort, Path]:
    cohort = make_cohort(24)
    if not kept:
        kept["run"] = tmp_path_factory.mktemp("kept") / "run"
        options = {"task": "survival", "models": ["snn", "cox"], "allow_inputs": ["GENE0"], "plan": PLAN}
        with unchecked():
            cross_validate(cohort, folds=deal_folds(cohort), out=kept["run"], **options)
    return cohort, kept["run"]


def test_a_patient_has_the_embedding_of_the_model_that_tested_it(ran) -> None:
    cohort, run = ran
    predictions = read_predictions(run / "predictions.csv")
    (task,) = audited_tasks(predictions, n_bootstrap=10)
    jobs = [job for job in read_jobs(run, predictions) if job.job.model == "snn"]
    found = embeddings_of_tested(task, jobs, cohort)
    tested = predictions[(predictions["model"] == "snn") & (predictions["split"] == "test")]
    assert set(found) == set(tested["patient_id"])
    for job in jobs:
        fitted = load_fitted(job.folder)
        head = fitted.model.head
        for patient in job.ids("test"):
            logits = found[patient] @ head.weight[0].T.detach().double().numpy() + head.bias.detach().double().numpy()
            risk = -np.cumprod(1 / (1 + np.exp(logits))).sum()  # of discrete hazards
            row = tested[tested["patient_id"] == patient]
            assert risk == pytest.approx(row["risk"].item(), abs=1e-5)
    linear = predictions[predictions["model"] == "cox"]
    assert embeddings_of_tested(audited_tasks(linear, n_bootstrap=10)[0], jobs, cohort) == {}


def test_embeddings_are_told_beside_the_inputs_and_decide_nothing() -> None:
    fold = np.random.default_rng(0).permutation(N) % 5
    cohort = draw_cohort("random", 1)
    (task,) = audited_tasks(held_out_predictions(cohort, fold))
    task = replace(task, values={})
    generator = np.random.default_rng(2)
    axes = generator.normal(size=(5, 8))  # the model of every fold has its own
    is_x = np.array([p.labels["project"] == "x" for p in cohort])
    embedded = 3 * is_x[:, None] * axes[fold] + generator.normal(size=(N, 8))
    embeddings = {p.patient_id: row for p, row in zip(cohort, embedded, strict=True)}

    (alone,), inputs = confounder_findings(cohort, task, MeanFeatures(), dict)
    (beside,), both = confounder_findings(cohort, task, MeanFeatures(), lambda: embeddings)

    assert both["input"].tolist() == [*inputs["input"], "embeddings"]
    assert both["auc"].iloc[-1] > 0.9
    assert both["auc_within"].iloc[-1] > 0.8
    assert f"embeddings tell it (AUC {both['auc'].iloc[-1]:.3f}" in beside.found
    assert (beside.level, alone.level) == ("ok", "ok")
    columns = [name for name in inputs if name != "input"]
    assert both[columns].iloc[: len(inputs)].equals(inputs[columns])
