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
    ids, task = [patient.patient_id for patient in cohort], cohort.tasks["grade"]
    fold = Fold(tuple(ids[2:9]), ("P001",), tuple(ids[9:]))
    with pytest.raises(
        DataError, match=r"snn needs training and validation patients with expression.* Found 7 and 0\."
    ):
        assign(cohort, fold, task, "snn")
    assert len(assign(cohort, fold, task, "abmil").validation) == 1
    with pytest.raises(DataError, match=r"Found 0 and 6\."):
        assign(cohort, Fold((), tuple(ids[2:8]), tuple(ids[9:])), task, "snn")
    assert assign(cohort, Fold(tuple(ids[2:9]), tuple(ids[9:]), ()), task, "snn").test == ()  # nobody need be tested


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


def test_of_whom_no_column_is_known_is_tested_by_models_that_read_more(make_cohort):
    cohort = with_covariates(make_cohort())
    fold, task = deal_folds(cohort)[1], cohort.tasks["grade"]
    assert "P003" in fold.test  # of whom nothing is known
    assert {"P003"} == names(assign(cohort, fold, task, "subspace").test) - names(
        assign(cohort, fold, task, "clinical").test
    )


def test_what_is_posed_has_the_inputs_of_the_model_and_names_itself(make_cohort):
    cohort = with_covariates(make_cohort())
    fold, task = deal_folds(cohort)[0], cohort.tasks["survival"]
    posed = {model: pose(cohort, fold, task, model, PLAN) for model in ("subspace", "snn", "abmil", "clinical")}
    assert posed["subspace"].recipe.n_genes == posed["snn"].recipe.n_genes == 10
    assert posed["clinical"].genes == posed["abmil"].genes == ()
    assert posed["abmil"].recipe.n_inputs == 0
    assert posed["clinical"].recipe.n_covariates == len(cohort.covariates)
    assert posed["abmil"].recipe.patch_dim == posed["subspace"].recipe.patch_dim == 6
    assert [model for model, problem in posed.items() if problem.data.reader.standardiser.patches] == [
        "subspace",
        "abmil",
    ]
    assert posed["subspace"].recipe.gene_sets == {"tumour": (0, 1, 2, 3), "microenvironment": tuple(range(3, 9))}
    assert posed["snn"].recipe.pathways == {"first": (0, 1), "second": (2, 3), "third": tuple(range(3, 9))}
    assert posed["clinical"].recipe.pathways == {}
    assert len({problem.fingerprint()["model"] for problem in posed.values()}) == 4
    ensemble = PLAN.model_copy(update={"training": BRIEF.model_copy(update={"members": 3})})
    assert [pose(cohort, fold, task, model, ensemble).recipe.members for model in ("snn", "clinical")] == [3, 1]


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


@pytest.mark.parametrize(("grid", "downsample"), [
    ((50, 50), 4), ((12, 12), 1), ((1, 1), 1), ((8, 50), 2), ((50, 8), 2), ((18, 18), 2), ((17, 19), 1),
])  # fmt: skip
def test_a_grid_has_about_the_144_points_of_the_paper_and_no_less_than_a_cell_to_a_point(grid, downsample):
    """Cells per point along an axis: the root of their number over 144, rounded; it is 1.5 for 18 x 18."""
    assert fitted_downsample(grid) == downsample


def test_the_grid_holds_the_widest_training_bag_and_is_no_larger_than_asked(make_cohort):
    """Slides of four patches a row and up to four rows; the third patient has two, four patches apart: 12 columns."""
    cohort = make_cohort()
    task, with_both, without = cohort.tasks["grade"], deal_folds(cohort)[1], deal_folds(cohort)[0]
    assert "P002" in with_both.train
    assert "P002" not in without.train

    def grid(fold, largest):
        plan = PLAN.model_copy(update={"architecture": SMALL.model_copy(update={"max_grid": largest})})
        return pose(cohort, fold, task, "subspace", plan).recipe.grid

    assert [grid(with_both, largest) for largest in (4, 11, 50)] == [(4, 4), (8, 11), (8, 12)]
    assert grid(without, 50) == (8, 8)  # never smaller


def test_a_linear_path_reads_what_the_cohort_and_the_model_have(make_cohort):
    cohort = make_cohort(48)
    fold = deal_folds(cohort)[0]

    def path(of, model, training=BRIEF):
        plan = PLAN.model_copy(update={"training": training})
        return pose(of, fold, of.tasks["survival"], model, plan).recipe.linear_path

    without_slides = replace(cohort, patients=tuple(replace(p, slides=()) for p in cohort))
    without_genes = replace(cohort, patients=tuple(replace(p, expression=None) for p in cohort))
    assert path(cohort, "abmil") == path(without_genes, "concat") == ("slides",)
    assert path(cohort, "snn") == path(without_slides, "concat") == ("expression",)
    of_columns = with_covariates(replace(without_genes, genes=()))
    assert path(of_columns, "snn") == ("expression",)  # covariates alone
    assert path(cohort, "concat") == ("slides", "expression")
    assert path(cohort, "cox") == ()
    assert path(cohort, "snn", BRIEF.model_copy(update={"linear_path": False})) == ()  # the network alone, as published


@pytest.mark.parametrize(("n", "expected"), [(9, ()), (10, ("expression",))])
def test_a_linear_path_needs_ten_events_or_ten_patients_outside_the_largest_class(make_cohort, n, expected):
    cohort = make_cohort(48)
    fold = deal_folds(cohort)[0]
    parts = assign(cohort, fold, cohort.tasks["survival"], "snn")
    known = [patient.patient_id for patient in (*parts.train, *parts.validation)]
    assert len(known) >= 20
    rarer = set(known[:n])
    patients = tuple(
        replace(p, event=p.patient_id in rarer, labels={"grade": "G2" if p.patient_id in rarer else "G4"})
        for p in cohort
    )
    few = replace(cohort, patients=patients)
    for task in ("survival", "grade"):
        assert pose(few, fold, few.tasks[task], "snn", TrainingPlan()).recipe.linear_path == expected
