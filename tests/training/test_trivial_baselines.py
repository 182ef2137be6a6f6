"""Models that read a column of the patients and nothing else: hospital, batch."""

from dataclasses import replace

import numpy as np
import pytest

from subfuse.cohort.fold import Fold
from subfuse.errors import DataError
from subfuse.runs.compatibility import check_compatible
from subfuse.training.fitting import train_fold
from subfuse.training.models import compared_in, is_trivial
from subfuse.training.problem import covariates_read
from subfuse.training.settings import TrainingPlan
from subfuse.training.stored_model import load_fitted

SITES = ("CS", "DU", "FG", None)


@pytest.fixture
def cohort(make_cohort):
    """32 patients of four hospitals, one of them unknown, and of two projects that tell the grade."""
    drawn = make_cohort(32)
    patients = tuple(
        replace(
            patient,
            site=SITES[i % 4],
            labels={**patient.labels, "project": "gbm" if patient.labels["grade"] == "G4" else "lgg"},
        )
        for i, patient in enumerate(drawn)
    )
    return replace(drawn, patients=patients, batch="project")


@pytest.fixture
def fold(cohort) -> Fold:
    ids = [patient.patient_id for patient in cohort]
    return Fold(tuple(ids[:16]), tuple(ids[16:24]), tuple(ids[24:]))


def test_patients_of_a_hospital_are_predicted_alike_and_others_not_at_all(cohort, fold, tmp_path):
    fitted = train_fold(cohort, fold, task="survival", model_name="site", plan=TrainingPlan())
    assert fitted.covariates == ("site=cs", "site=du", "site=fg")
    elsewhere = replace(cohort.patients[0], patient_id="new", site="ZZ")
    risk = fitted.predict([*cohort, elsewhere])["risk"].to_numpy()
    for i, site in enumerate(SITES):
        same = risk[i:32:4]
        assert np.isnan(same).all() if site is None else np.ptp(same) == 0
    assert len(np.unique(risk[:3])) > 1
    assert np.isnan(risk[-1])
    fitted.save(tmp_path)
    np.testing.assert_array_equal(load_fitted(tmp_path).predict(cohort.patients)["risk"], risk[:-1])


def test_a_batch_that_is_the_grade_predicts_it(cohort, fold):
    fitted = train_fold(cohort, fold, task="grade", model_name="batch", plan=TrainingPlan())
    assert fitted.covariates == ("project=gbm", "project=lgg")
    predicted = fitted.predict(cohort.patients)
    assert [("G4" if p > 0.5 else "G2") for p in predicted["p_G4"]] == [p.labels["grade"] for p in cohort]
    assert check_compatible(fitted, replace(cohort, batch=None)) == []  # of another cohort, which need not declare it


def test_the_batch_of_a_cohort_that_declares_none_is_named(cohort, fold):
    with pytest.raises(DataError, match="batch"):
        train_fold(replace(cohort, batch=None), fold, task="grade", model_name="batch", plan=TrainingPlan())


def test_they_are_compared_where_test_patients_share_them_with_training(cohort, fold):
    trivial = lambda *given: {name for name in compared_in(*given) if is_trivial(name)}  # noqa: E731
    assert trivial(cohort, [fold]) == {"site", "batch"}
    by_site = Fold(
        tuple(p.patient_id for p in cohort if p.site == "CS"),
        tuple(p.patient_id for p in cohort if p.site == "DU"),
        tuple(p.patient_id for p in cohort if p.site in ("FG", None)),
    )
    assert trivial(cohort, [by_site]) == {"batch"}
    assert trivial(cohort) == trivial(cohort, [by_site, fold]) == {"site", "batch"}
    alone = replace(cohort, patients=tuple(replace(p, site="CS") for p in cohort), batch=None, covariates=("age",))
    assert trivial(alone, [fold]) == {"clinical"}


def test_other_models_read_the_declared_covariates(cohort):
    declared = replace(cohort, covariates=("age",))
    assert covariates_read(declared, "subspace") == covariates_read(declared, "clinical") == ("age",)
    assert covariates_read(declared, "site") == ("site=cs", "site=du", "site=fg")
