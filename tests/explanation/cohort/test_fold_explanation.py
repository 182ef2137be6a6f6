"""Explanations of one model's patients: complete, and known to be of this model, these patients, this setting."""

import json
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from bright_slides import fit

from small_cohort import deal_folds
from subfuse.errors import DataError
from subfuse.explanation.cohort import fold_explanation
from subfuse.explanation.cohort.fold_explanation import TABLES, FoldModel, explain_model, is_explained, model_folder


@pytest.fixture
def tested(make_cohort):
    cohort = make_cohort(n_patients=12)
    fold = deal_folds(cohort)[0]
    return FoldModel("0", fit(cohort), cohort.select(fold.test).patients[:3])


def test_what_was_explained_is_known_to_be_of_this_model_these_patients_and_this_setting(tested, make_cohort, tmp_path):
    folder = model_folder(tested, tmp_path)
    assert folder.is_relative_to(tmp_path / "survival")
    assert not is_explained(tested, folder, 1.0)
    explain_model(tested, folder, 1.0)

    assert is_explained(tested, folder, 1.0)
    assert not is_explained(tested, folder, 0.5)
    assert not is_explained(replace(tested, patients=tested.patients[:2]), folder, 1.0)
    again = fit(make_cohort(n_patients=12), fold=1)
    assert not is_explained(replace(tested, fitted=again), folder, 1.0)
    other = replace(tested.patients[2], expression=tested.patients[2].expression + np.float32(1))
    assert not is_explained(replace(tested, patients=(*tested.patients[:2], other)), folder, 1.0)


def test_every_table_has_the_patients_it_can_have_and_the_models_name(tested, tmp_path):
    start = time.monotonic()
    explain_model(tested, tmp_path, 1.0)
    seconds = json.loads((tmp_path / fold_explanation.PROVENANCE).read_text())["explaining_seconds"]
    assert 0 < seconds < time.monotonic() - start + 0.1  # rounded
    tables = {name: pd.read_csv(tmp_path / fold_explanation.MODEL_TABLES[name]) for name in TABLES}

    assert all(set(table["fold"].astype(str)) == {"0"} for table in tables.values())
    everybody = {patient.patient_id for patient in tested.patients}
    assert set(tables["contributions"]["patient_id"]) == set(tables["gaps"]["patient_id"]) == everybody
    assert set(tables["genes"]["patient_id"]) == {p.patient_id for p in tested.patients if p.expression is not None}
    shares = tables["contributions"].groupby("patient_id")["contribution"].sum()
    for patient in tested.patients:
        predicted = tested.fitted.predict([patient]).filter(like="contribution_").to_numpy().sum()
        assert shares[patient.patient_id] == pytest.approx(predicted, abs=1e-5)


def test_a_patient_who_fails_is_tried_again_and_where_all_fail_it_is_an_error(tested, tmp_path, monkeypatch):
    explain, failing = fold_explanation._explained_patient, {tested.patients[1].patient_id}

    def explain_or_fail(explained, patient, *rest, **options):
        if patient.patient_id in failing:
            raise DataError("its slide is damaged")
        yield from explain(explained, patient, *rest, **options)

    monkeypatch.setattr(fold_explanation, "_explained_patient", explain_or_fail)
    explain_model(tested, tmp_path, 1.0)
    contributions = pd.read_csv(tmp_path / fold_explanation.MODEL_TABLES["contributions"])
    assert set(contributions["patient_id"]) == {patient.patient_id for patient in tested.patients} - failing
    assert not is_explained(tested, tmp_path, 1.0)

    failing |= {patient.patient_id for patient in tested.patients}
    with pytest.raises(DataError, match="its slide is damaged"):
        explain_model(tested, tmp_path, 1.0)
    failing.clear()
    explain_model(tested, tmp_path, 1.0)
    assert is_explained(tested, tmp_path, 1.0)


def test_three_patients_of_a_model_are_looked_at_closer(tested, tmp_path, monkeypatch):
    closer = []

    def explain(explained, patient, generator, *, tolerance, scrutinise):
        closer.append(scrutinise)
        yield "contributions", pd.DataFrame({"patient_id": [patient.patient_id], "contribution": [1.0]})

    monkeypatch.setattr(fold_explanation, "_explained_patient", explain)
    patients = tuple(replace(tested.patients[0], patient_id=f"P{n}") for n in range(5))
    explain_model(replace(tested, patients=patients), tmp_path, 1.0)
    assert sorted(closer) == [False, False, True, True, True]
