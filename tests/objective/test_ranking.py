"""Ranks of patients against scikit-survival and pairs counted one by one."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.metrics import concordance_index_censored
from torch import Tensor

from subfuse.cohort.batches import ClassTarget, SurvivalTarget
from subfuse.objective.ranking import can_be_ranked, concordance, macro_auc


@st.composite
def follow_up(draw: st.DrawFn) -> tuple[Tensor, SurvivalTarget]:
    n = draw(st.integers(2, 15))
    integers = st.lists(st.integers(0, 6), min_size=n, max_size=n)  # ties of every kind
    risk = torch.tensor([draw(integers), draw(integers), draw(integers)], dtype=torch.float64).T
    time = torch.tensor(draw(integers), dtype=torch.float64)
    event = torch.tensor(draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    return risk, SurvivalTarget(time, event)


@given(follow_up())
@settings(deadline=None, max_examples=200)
def test_concordance_equals_scikit_survival(case: tuple[Tensor, SurvivalTarget]):
    risk, target = case
    value = concordance(risk, target)
    for subspace in range(risk.shape[1]):
        try:
            with np.errstate(invalid="ignore"):  # 0 / 0 if only ties are events
                expected = concordance_index_censored(
                    target.event.numpy(), target.time_days.numpy(), risk[:, subspace].numpy()
                )[0]
        except ValueError:  # all censored, or no comparable pair
            expected = math.nan
        assert value[subspace].item() == pytest.approx(expected, nan_ok=True)


@given(follow_up())
@settings(deadline=None, max_examples=50)
def test_follow_up_ranks_patients_where_a_pair_is_comparable(case: tuple[Tensor, SurvivalTarget]):
    _, target = case
    followed = list(zip(target.time_days.tolist(), target.event.tolist(), strict=True))
    comparable = [
        (first, second)
        for first, died in followed
        for second, also in followed
        if died and (second > first or (second == first and not also))
    ]
    assert can_be_ranked(target) == bool(comparable)


def test_one_class_ranks_nobody():
    assert not can_be_ranked(ClassTarget(torch.tensor([2, 2])))
    assert can_be_ranked(ClassTarget(torch.tensor([2, 2, 0])))


def test_macro_auc_counts_pairs_of_every_class_that_occurs():
    label = np.array([0, 0, 2, 2, 2])  # nobody of class 1
    probabilities = np.array([[0.5, 0.2, 0.3], [0.3, 0.3, 0.4], [0.3, 0.1, 0.6], [0.6, 0.0, 0.4], [0.1, 0.8, 0.1]])

    def by_pairs(index: int) -> float:
        cases, controls = probabilities[label == index, index], probabilities[label != index, index]
        wins = [1.0 if case > control else 0.5 if case == control else 0.0 for case in cases for control in controls]
        return sum(wins) / len(wins)

    assert macro_auc(probabilities, label) == pytest.approx((by_pairs(0) + by_pairs(2)) / 2)
    assert math.isnan(macro_auc(np.where(probabilities == 0.8, np.nan, probabilities), label))
