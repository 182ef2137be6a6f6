"""What there is to be learned from: who trains, validates and tests, and what is fitted beforehand."""

from dataclasses import replace

import numpy as np
import pytest
from brief_training import BRIEF, SMALL, change_patient, train

from small_cohort import deal_folds, with_covariates
from subfuse.cohort.fold import Fold
from subfuse.errors import DataError
from subfuse.training.problem import assign, fitted_downsample, pose
from subfuse.training.settings import TrainingPlan

PLAN = TrainingPlan(training=BRIEF, architecture=SMALL)


def names(patients):
    return {patient.patient_id for patient in patients}


@pytest.mark.parametrize(("model", "lacking"), [("abmil", "P000"), ("snn", "P001"), ("subspace", None)])
def test_who_lacks_outcome_or_all_that_a_model_reads_is_on_no_side(make_cohort, model, lacking):
    cohort = make_cohort()
    cohort = change_patient(cohort, "P005", labels={})
    fold, task = deal_folds(cohort)[0], cohort.tasks["grade"]

    parts = assign(cohort, fold, task, model)

    left_out = {"P005", lacking}
    for side in ("train", "validation", "test"):
        assert names(getattr(parts, side)) == set(getattr(fold, side)) - left_out
    assert left_out - {None} <= {*fold.train, *fold.validation, *fold.test}


def test_a_linear_model_trains_on_all_who_are_not_tested(make_cohort):
    cohort = make_cohort()
    fold = deal_folds(cohort)[0]
    parts = assign(cohort, fold, cohort.tasks["survival"], "cox")
    assert names(parts.train) == {*fold.development} - {"P001"}  # who has no expression
    assert parts.validation == ()


def test_a_side_without_patients_is_an_error_with_both_numbers(make_cohort):
    cohort = make_cohort()
    ids = [patient.patient_id for patient in cohort]
    fold = Fold(tuple(ids[2:9]), ("P001",), tuple(ids[9:]))
    with pytest.raises(
        DataError, match=r"snn needs training and validation patients with expression.* Found 7 and 0\."
    ):
        assign(cohort, fold, cohort.tasks["grade"], "snn")
    assert len(assign(cohort, fold, cohort.tasks["grade"], "abmil").validation) == 1


def test_hospitals_that_training_never_saw_are_not_tested(make_cohort):
    cohort = make_cohort()
    fold, task = deal_folds(cohort)[0], cohort.tasks["grade"]
    sites = {**dict.fromkeys(fold.development, "A"), **dict.fromkeys(fold.test, "B"), fold.test[0]: "a"}
    cohort = replace(cohort, patients=tuple(replace(p, site=sites[p.patient_id]) for p in cohort))
    assert names(assign(cohort, fold, task, "site").test) == {fold.test[0]}
    sites[fold.test[0]] = "B"
    cohort = replace(cohort, patients=tuple(replace(p, site=sites[p.patient_id]) for p in cohort))
    with pytest.raises(DataError, match=rf"site can test only patients whose site .* none of {len(fold.test)}\."):
        assign(cohort, fold, task, "site")


def test_what_is_posed_has_the_inputs_of_the_model_and_names_itself(make_cohort):
    cohort = with_covariates(make_cohort())
    fold, task = deal_folds(cohort)[0], cohort.tasks["survival"]
    posed = {model: pose(cohort, fold, task, model, PLAN) for model in ("subspace", "snn", "abmil", "clinical")}
    assert posed["subspace"].recipe.n_genes == posed["snn"].recipe.n_genes == 10
    assert posed["clinical"].genes == ()
    assert posed["clinical"].recipe.n_covariates == len(cohort.covariates)
    assert posed["abmil"].recipe.patch_dim == posed["subspace"].recipe.patch_dim == 6
    assert [model for model, problem in posed.items() if problem.data.reader.standardiser.patches] == [
        "subspace",
        "abmil",
    ]
    assert posed["subspace"].recipe.gene_sets == {"tumour": (0, 1, 2, 3), "microenvironment": tuple(range(3, 9))}
    assert len({problem.fingerprint()["model"] for problem in posed.values()}) == 4


def test_a_fingerprint_is_of_training_and_validation_patients_alone(make_cohort):
    cohort = make_cohort()
    fold, task = deal_folds(cohort)[0], cohort.tasks["survival"]

    def hash_of(changed, **changes):
        return pose(change_patient(cohort, changed, **changes), fold, task, "snn", PLAN).fingerprint()["data_sha256"]

    first = hash_of("P003")
    assert hash_of(fold.test[3], time_days=1.0) == first
    assert hash_of(fold.train[3], time_days=1.0) != first
    assert hash_of(fold.validation[1], expression=np.zeros(10, np.float32)) != first


@pytest.mark.parametrize(("task", "model"), [("survival", "subspace"), ("grade", "subspace")])
def test_what_is_fitted_before_training_comes_from_training_patients_only(make_cohort, task, model):
    cohort, brief = make_cohort(), BRIEF.model_copy(update={"epochs": 1})
    fold = deal_folds(cohort)[0]
    before = train(cohort, model, task, brief)
    for name in fold.validation:
        large = np.full(len(cohort.genes), 1e3, np.float32)
        cohort = change_patient(cohort, name, expression=large, time_days=1.0, slides=(), labels={"grade": "G4"})
    after = train(cohort, model, task, brief)
    assert before.objective.to_dict() == after.objective.to_dict()  # time bins, class weights
    for part in ("mean", "scale"):
        ours, theirs = (getattr(fitted.standardiser.expression, part) for fitted in (before, after))
        np.testing.assert_array_equal(ours, theirs)
    assert before.recipe == after.recipe  # with the size of the grid


def test_the_grid_of_the_paper_is_sampled_as_there_and_no_grid_has_less_than_a_cell_to_a_point():
    assert fitted_downsample((50, 50)) == 4
    sides = [fitted_downsample((side, side)) for side in range(4, 51)]
    assert sides == sorted(sides)
    assert sides[0] == 1


def test_the_grid_holds_the_widest_training_bag_and_is_no_larger_than_asked(make_cohort):
    cohort = make_cohort()  # slides of four patches a row, up to 14; the third patient has two side by side
    fold, task = deal_folds(cohort)[0], cohort.tasks["grade"]
    grids = {}
    for largest in (4, 50):
        plan = PLAN.model_copy(update={"architecture": SMALL.model_copy(update={"max_grid": largest})})
        grids[largest] = pose(cohort, fold, task, "subspace", plan).recipe.grid
    assert grids[4] == (4, 4)
    assert all(4 <= side <= 20 for side in grids[50])
