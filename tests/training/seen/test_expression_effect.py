"""What expression is expected to change is what it changes on average, and most where it changes most."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from brief_training import BRIEF, train
from objective_cases import CASES

from subfuse.evaluation.predictions import EXPECTED_CHANGE
from subfuse.objective.objective import Objective
from subfuse.training.distillation import Teacher
from subfuse.training.seen.expression_effect import ExpressionEffect
from subfuse.training.stored_model import load_fitted


def drawn(n: int, n_outputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of slides alone, some of which are sure, and with expression, which adds what is new."""
    random = np.random.default_rng(seed)
    alone = random.normal(scale=2.5, size=(n, n_outputs))
    mixed = random.normal(size=(n, n_outputs)) @ np.linalg.cholesky(np.eye(n_outputs) + 0.5)
    return alone, 0.9 * alone + 0.4 + 0.8 * mixed


def changes(objective: Objective, alone: np.ndarray, both: np.ndarray) -> np.ndarray:
    """What expression changes in fact."""
    before, after = (objective.predict(torch.from_numpy(logits).float()) for logits in (alone, both))
    return after.change(before).double().numpy()


@pytest.mark.parametrize("name", ["classification", "cumulative_logits", "discrete_hazard", "regression"])
def test_the_expected_change_is_the_actual_one_on_average_and_orders_patients_by_it(name: str) -> None:
    objective = CASES[name][0]
    (alone, both), ideal = drawn(2000, objective.n_outputs, 99), drawn(20000, objective.n_outputs, 98)
    actual = changes(objective, alone, both)

    def found_by(validation: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
        """The size, and which share of the actual change is that of the three in ten for whom most is expected."""
        expected = ExpressionEffect.fit(*validation).expected_change(objective, alone)
        chosen = expected.argsort()[::-1][: len(alone) * 3 // 10]
        return expected.mean() / actual.mean(), actual[chosen].sum() / actual.sum()

    sizes, shares = zip(*(found_by(drawn(40, objective.n_outputs, seed)) for seed in range(5)), strict=True)
    assert np.mean(sizes) == pytest.approx(1.0, abs=0.1)
    if name != "regression":  # of a number the change is nearly the same for all
        assert np.mean(shares) > 0.95 * found_by(ideal)[1] > 0.4


def test_a_prediction_that_nothing_moves_is_not_expected_to_change() -> None:
    objective = CASES["classification"][0]
    alone, both = drawn(40, 3, 0)
    nothing = ExpressionEffect.fit(alone, alone)
    assert nothing.expected_change(objective, alone).max() < 1e-3
    effect = ExpressionEffect.fit(alone, both)
    sure, unsure = effect.expected_change(objective, np.array([[40.0, 0.0, 0.0], [0.1, 0.0, 0.0]]))
    assert sure < 1e-3 < 0.1 < unsure


def test_a_risk_without_a_size_has_none_and_neither_have_few_patients() -> None:
    alone, both = drawn(40, 1, 0)
    assert np.isnan(ExpressionEffect.fit(alone, both).expected_change(CASES["cox"][0], alone)).all()
    assert ExpressionEffect.fit(alone[:9], both[:9]) is None
    many = drawn(12, 12, 0)
    assert ExpressionEffect.fit(*many) is None


@pytest.mark.parametrize("n_patients", [10, 12])
def test_patients_alike_are_no_fault(n_patients: int) -> None:
    same = np.full((n_patients, 3), 0.2)
    effect = ExpressionEffect.fit(same, same + 1.0)
    assert np.isfinite(effect.expected_change(CASES["classification"][0], same)).all()


def test_it_is_the_same_from_its_arrays_which_hold_no_patient() -> None:
    alone, both = drawn(40, 3, 0)
    effect = ExpressionEffect.fit(alone, both)
    again = ExpressionEffect.from_arrays(effect.arrays(), 3)
    objective = CASES["classification"][0]
    np.testing.assert_array_equal(again.expected_change(objective, alone), effect.expected_change(objective, alone))
    assert sum(value.size for value in effect.arrays().values()) == 3 * 4 + 3 * 3
    assert ExpressionEffect.from_arrays({}, 3) is None
    for wrong in ({"root": np.eye(2, dtype=np.float32)}, {"more": np.zeros(1, np.float32)}):
        with pytest.raises(ValueError, match="the effect of expression must have"):
            ExpressionEffect.from_arrays(effect.arrays() | wrong, 3)


def test_a_model_of_both_and_its_student_say_it_of_patients_with_slides_alone(make_cohort, tmp_path) -> None:
    cohort = make_cohort(70)
    brief = {"task": "grade", "settings": BRIEF.model_copy(update={"epochs": 1, "batch_size": 16})}
    teacher = train(cohort, **brief)
    student = train(cohort, model="distilled", teacher=Teacher(teacher), **brief)
    patients = [cohort.patients[0], *(replace(patient, expression=None) for patient in cohort.patients[2:6])]

    def expected(fitted, patients):
        return fitted.expected_change(patients, fitted.predict_with_logits(patients)[1])

    for fitted in (teacher, student):
        usable = [patient for patient in patients if fitted.usable(patient)]
        found = expected(fitted, usable)
        has_slides = np.array([bool(patient.slides) for patient in usable])
        assert np.isnan(found[~has_slides]).all()
        assert ((found[has_slides] > 0) & (found[has_slides] < 1)).all()
        fitted.save(tmp_path / fitted.recipe.name)
        np.testing.assert_array_equal(expected(load_fitted(tmp_path / fitted.recipe.name), usable), found)
    assert np.isnan(expected(teacher, cohort.patients[2:6])).all()  # have expression
    assert train(cohort, model="abmil", **brief).effect is None
    assert EXPECTED_CHANGE not in teacher.predict(cohort.patients)
