"""Students beside their teachers: every number again from the rows, on the patients whom the student predicts."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from subfuse.run_folder.job import Job
from subfuse.run_folder.names import TEACHER_PREDICTIONS
from subfuse.run_folder.tables import order_columns
from subfuse.runs.distillation.comparison import STUDENT_COLUMNS, TITLES, compare_students

NOISE = {"subspace": 0.6, "distilled": 1.5, "abmil": 3.0, "subspace-without-expression": 2.0, "snn": 1.0}
TOLD = ["subspace", "distilled", "abmil", "subspace-without-expression"]


def rows_of(model: str, fold: int) -> pd.DataFrame:
    """Test patients of a fold; the first has no slide, and students of slides do not know it."""
    draw = np.random.default_rng([fold, list(NOISE).index(model)])
    names = [f"P{fold}{index:02d}" for index in range(30)]
    positive = np.arange(30) % 3 == 0
    logit = 2.0 * positive - 1 + NOISE[model] * draw.normal(size=30)
    p = 1 / (1 + np.exp(-logit))
    table = pd.DataFrame({"patient_id": names, "cohort": "c", "task": "grade", "model": model, "repeat": 0,
                          "fold": fold, "split": "test", "label": np.where(positive, "G4", "G2"), "p_G2": 1 - p,
                          "p_G4": p, "has_slides": True, "has_expression": True})  # fmt: skip
    return order_columns(table.iloc[1 if model in ("distilled", "abmil") else 0 :])


@pytest.fixture
def run(tmp_path):
    """The run folder with what teachers say, and its predictions."""
    for fold in (0, 1):
        said = pd.concat([rows_of(model, fold) for model in ("subspace", "subspace-without-expression")])
        path = Job("grade", "distilled", fold).folder(tmp_path) / TEACHER_PREDICTIONS
        path.parent.mkdir(parents=True)
        said.to_csv(path, index=False)
    models = ("subspace", "snn", "abmil", "distilled")
    return tmp_path, pd.concat([rows_of(model, fold) for model in models for fold in (0, 1)], ignore_index=True)


def test_every_number_is_that_of_the_same_patients(run):
    out, predictions = run
    found = compare_students(out, predictions, n_bootstrap=50, seed=0)
    assert list(found.columns) == list(STUDENT_COLUMNS)
    assert found["model"].tolist() == TOLD
    assert found["title"].tolist() == [TITLES[model] for model in TOLD]
    aucs = {}
    for model in TOLD:
        of_folds = [rows_of(model, fold).query("not patient_id.str.endswith('00')") for fold in (0, 1)]
        aucs[model] = np.mean([roc_auc_score(rows["label"] == "G4", rows["p_G4"]) for rows in of_folds])
    found = found.set_index("model")
    np.testing.assert_allclose(found["value"], [aucs[model] for model in TOLD], rtol=1e-9)
    expected = [aucs[model] - aucs["distilled"] for model in TOLD]
    np.testing.assert_allclose(found["difference"].fillna(0.0), expected, atol=1e-9)
    assert np.isnan(found.loc["distilled", "difference"])
    assert (found["n_patients"] == 58).all()
    others = found.drop(index="distilled")
    assert (
        (others["difference_lower"] <= others["difference"]) & (others["difference"] <= others["difference_upper"])
    ).all()


def test_without_students_there_is_nothing_to_tell(run):
    out, predictions = run
    assert compare_students(out, predictions[predictions["model"] != "distilled"], n_bootstrap=50, seed=0).empty
    for path in out.rglob(TEACHER_PREDICTIONS):
        path.unlink()
    assert compare_students(out, predictions, n_bootstrap=50, seed=0).empty
