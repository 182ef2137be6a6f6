from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_predictions import cohort, predictions

from small_cohort import deal_folds
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.modalities.exchanged import (
    exchanged_grid,
    interaction_finding,
    shuffle_finding,
    shuffled_predictions,
)
from subfuse.cohort.cohort import Cohort
from subfuse.training.stored_model import load_fitted


class _Product:
    """A model of the length of the slides' list and of the first gene: their sum, and some of their product."""

    def __init__(self, product: float) -> None:
        self.product = product

    def align(self, patients):
        return patients

    def predict(self, patients):
        x = np.array([float(patient.labels["x"]) for patient in patients])
        y = np.array([float(patient.expression[0]) for patient in patients])
        return pd.DataFrame({"risk": x + y + self.product * x * y})


def test_what_a_model_has_beyond_the_sum_of_its_modalities_is_told(make_cohort):
    cohort = make_cohort(24)
    draw = np.random.default_rng(0)
    patients = [replace(p, labels={**p.labels, "x": str(draw.normal())}) for p in cohort if p.expression is not None]
    cohort = replace(cohort, patients=tuple(patients))
    names = [p.patient_id for p in patients]

    grids = [exchanged_grid(_Product(product), cohort, names) for product in (0.0, 2.0)]

    for i, j in ((0, 0), (1, 4), (7, 2)):
        x, y = float(patients[i].labels["x"]), float(patients[j].expression[0])
        assert grids[1][i, j, 0] == pytest.approx(x + y + 2 * x * y)
    tables = [interaction_finding("survival", "concat", [grid])[1].set_index("part")["share"] for grid in grids]
    finding, _ = interaction_finding("survival", "concat", grids[:1])
    assert tables[0]["interaction"] == pytest.approx(0, abs=1e-9)
    assert tables[1]["interaction"] > 0.2
    assert "and 0% (0% to 0%) of both together only" in finding.found


@pytest.mark.parametrize(("n", "noise", "level", "verb"), [
    (150, 9.0, "ok", "uses slides"), (24, 1.0, "note", "is not shown to use slides"),
    (24, 0.3, "warning", "does not visibly use slides"),
])  # fmt: skip
def test_a_loss_that_few_patients_do_not_show_is_no_evidence_that_a_modality_is_unused(n, noise, level, verb):
    rows = [predictions(cohort(n=n), model="subspace", noise=each) for each in (0.3, noise)]
    (task,) = audited_tasks(rows[0], n_bootstrap=200)
    tested = rows[1][rows[1]["split"] == "test"]
    finding, table = shuffle_finding(task, "subspace", tested, "slides")
    assert (finding.level, table["difference"].iloc[0] <= 0) == (level, True)
    assert finding.found.startswith(f"Subspace fusion {verb}: exchanged between patients, C-index changes by ")


def test_a_gain_by_chance_is_no_evidence_that_a_modality_is_unused():
    rows = [predictions(cohort(n=24), model="subspace", noise=each) for each in (1.0, 0.3)]
    (task,) = audited_tasks(rows[0], n_bootstrap=200)
    tested = rows[1][rows[1]["split"] == "test"]
    finding, table = shuffle_finding(task, "subspace", tested, "slides")
    assert table["difference"].iloc[0] > 0
    assert table["lower"].iloc[0] < -0.05
    assert (finding.level, finding.found[:46]) == ("note", "Subspace fusion is not shown to use slides: ex")


def test_shuffling_exchanges_one_modality(run: Path, cohort: Cohort) -> None:
    fitted = load_fitted(run / "grade" / "snn" / "fold_0")
    ids = [i for i in deal_folds(cohort)[0].test if i != "P001"]

    original = fitted.predict(cohort.select(ids).patients).set_index("patient_id")["p_G4"]
    slides = shuffled_predictions(fitted, cohort, ids, "slides", np.random.default_rng(0))
    expression = shuffled_predictions(fitted, cohort, ids, "expression", np.random.default_rng(0))

    np.testing.assert_allclose(slides.set_index("patient_id")["p_G4"], original, atol=1e-6)
    assert (np.abs(expression.set_index("patient_id")["p_G4"] - original) > 1e-6).any()
