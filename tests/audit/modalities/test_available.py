"""What models are worth with one modality hidden: of patients who have both, by the models that did not see them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from small_cohort import deal_folds
from subfuse.audit.audited_task import audited_tasks
from subfuse.audit.fitting import read_jobs
from subfuse.audit.modalities.available import AVAILABLE_COLUMNS, BOTH, by_available_modality, hidden
from subfuse.evaluation.intervals import evaluate_predictions
from subfuse.run_folder.tables import read_predictions
from subfuse.training.stored_model import load_fitted


@pytest.fixture
def found(run, cohort):
    predictions = read_predictions(run / "predictions.csv")
    (task,) = audited_tasks(predictions, n_bootstrap=50)
    return by_available_modality(task, read_jobs(run, predictions), cohort), predictions


def test_every_model_of_both_has_three_rows_of_the_same_patients(found, cohort):
    table, _ = found
    assert list(table) == list(AVAILABLE_COLUMNS)
    assert list(table["available"]) == [BOTH, "slides alone", "expression alone"]
    assert set(table["model"]) == {"concat"}
    n_both = sum(bool(p.slides) and p.expression is not None for p in cohort)
    assert set(table["n_patients"]) == {n_both}
    assert table["difference"].isna().tolist() == [True, False, False]
    np.testing.assert_allclose(table["value"][1:], table["value"][0] + table["difference"][1:], atol=1e-9)
    told = table[1:]
    assert (told["lower"] <= told["difference"]).all()
    assert (told["difference"] <= told["upper"]).all()


def test_values_are_those_of_patients_who_lack_the_modality(found, run, cohort):
    table, predictions = found
    for row, gone in zip(table[1:].itertuples(), ("expression", "slides"), strict=True):
        parts = []
        for index, fold in enumerate(deal_folds(cohort)):
            rows = predictions.query("model == 'concat' and fold == @index").set_index("patient_id", drop=False)
            both = [p for p in cohort.select(fold.test) if p.slides and p.expression is not None]
            alone = load_fitted(run / "grade" / "concat" / f"fold_{index}").predict([hidden(p, gone) for p in both])
            tested = rows.loc[alone["patient_id"]].copy()
            tested[["p_G2", "p_G4"]] = alone[["p_G2", "p_G4"]].to_numpy()
            parts += [rows[rows["split"] != "test"], tested]
        metrics = evaluate_predictions(pd.concat(parts, ignore_index=True), n_bootstrap=1)
        assert row.value == pytest.approx(metrics.loc[metrics["metric"] == "auc", "value"].item())


def test_nobody_with_both_is_no_table(run, cohort):
    predictions = read_predictions(run / "predictions.csv")
    (task,) = audited_tasks(predictions, n_bootstrap=10)
    apart = replace(cohort, patients=tuple(hidden(p, "slides") for p in cohort))
    assert by_available_modality(task, read_jobs(run, predictions), apart).empty
