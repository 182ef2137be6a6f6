"""Classes that are trained by their order, from folds to a report and explanations."""

import json
from dataclasses import replace

import numpy as np
import pytest
from brief_run import run

from subfuse.cohort.cohort import Cohort
from subfuse.cohort.task import TaskSpec
from subfuse.objective import CumulativeLogitObjective
from subfuse.report.document import write_report
from subfuse.runs.run import load_run

pytestmark = pytest.mark.walk
GRADES = ("G4", "G3", "G2")  # from the highest to the lowest survival: an order that sorting does not give


def graded(cohort: Cohort) -> Cohort:
    """Three classes that follow the first gene, or of the patient without expression nothing."""
    values = [0.0 if p.expression is None else float(p.expression[0]) for p in cohort]
    cuts = np.quantile(values, [1 / 3, 2 / 3])
    labels = [GRADES[int(np.searchsorted(cuts, value))] for value in values]
    patients = tuple(replace(p, labels={"grade": label}) for p, label in zip(cohort, labels, strict=True))
    task = TaskSpec(column="grade", classes=GRADES, ordinal="cumulative_logits")
    return replace(cohort, patients=patients, tasks={"grade": task})


def test_networks_and_linear_models_learn_the_order(make_cohort, tmp_path):
    cohort = graded(make_cohort(42))
    result = run(cohort, tmp_path / "run", models=("subspace", "logistic"), task=("grade",))
    assert not len(result.failures)
    stored = load_run(result.folder)
    for job in stored.jobs():
        assert isinstance(stored.fitted(job).objective, CumulativeLogitObjective)
    tested = result.predictions.query("split == 'test'")
    shares = tested[[f"p_{name}" for name in GRADES]].to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert (shares >= 0).all()
    own = tested[tested["model"] == "logistic"]
    expected = own[[f"p_{name}" for name in GRADES]].to_numpy() @ np.arange(3)
    true = own["label"].map({name: k for k, name in enumerate(GRADES)})
    assert np.corrcoef(expected, true)[0, 1] > 0.8
    assert "quadratic_kappa" in set(result.metrics["metric"])
    folder = stored.explain(cohort, own["patient_id"].iloc[5], tmp_path / "explained")
    explained = json.loads((folder / "grade" / "explanation.json").read_text())
    assert explained["score_name"] == "the score of G2"
    probabilities = [explained["prediction"][f"p_{name}"] for name in GRADES]
    assert explained["score"] == pytest.approx(np.log(1 / probabilities[0] - 1), abs=1e-3)
    assert "grade" in write_report(result.folder).read_text()
