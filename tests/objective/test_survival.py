"""Survival objectives: bins, risk and survival by hand, and confidence of subspaces."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines.utils import concordance_index
from objective_cases import BATCH, CASES, SURVIVAL, model_output

from subfuse.cohort.batches import SurvivalTarget
from subfuse.errors import DataError
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective import CoxObjective, DiscreteHazardObjective, Objective, discrete_hazard_nll

SURVIVAL_OBJECTIVES = pytest.mark.parametrize("objective", [CASES["discrete_hazard"][0], CASES["cox"][0]])


def test_bins_are_quantiles_of_event_times_only():
    time = [1.0, 2.0, 3.0, 4.0, 5.0, 900.0, 1000.0]
    event = [True] * 5 + [False] * 2
    objective = DiscreteHazardObjective.fit(time, event, bins=4)
    assert objective.survival_days == (2.0, 3.0, 4.0)
    assert objective.n_outputs == 4


def test_four_bins_unless_told_otherwise():
    time = np.arange(1.0, 41.0)
    assert DiscreteHazardObjective.fit(time, time > 0).n_outputs == 4


@SURVIVAL_OBJECTIVES
def test_survival_ranks_by_harrells_concordance_of_the_risk(objective: Objective):
    logits = model_output(objective.n_outputs).logits.detach()
    risk = objective.predict(logits).risk
    expected = concordance_index(SURVIVAL.time_days.numpy(), -risk.numpy(), SURVIVAL.event.numpy())
    assert objective.ranking(logits, SURVIVAL) == pytest.approx(expected)


def test_tensors_and_arrays_fit_alike():
    time, event = np.array([5.0, 1.0, 9.0, 4.0]), np.array([True, True, True, False])
    expected = DiscreteHazardObjective.fit(time, event).to_dict()
    assert DiscreteHazardObjective.fit(torch.tensor(time), torch.tensor(event)).to_dict() == expected


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 6), st.integers(0, 2**31))
@settings(deadline=None, max_examples=100)
def test_every_bin_holds_a_training_event(days: list[int], bins: int, seed: int):
    event = np.random.default_rng(seed).random(len(days)) < 0.7
    event[0] = True
    objective = DiscreteHazardObjective.fit([float(day) for day in days], event, bins=bins)
    event_days = torch.tensor(days, dtype=torch.float32)[torch.from_numpy(event)]
    filled = torch.bucketize(event_days, objective.bin_edges, right=True).unique()
    assert filled.tolist() == list(range(objective.n_outputs))
    assert objective.n_outputs <= bins


@pytest.mark.parametrize("kind", [DiscreteHazardObjective, CoxObjective])
def test_no_training_event_is_bad_data_that_says_what_to_do(kind: type):
    with pytest.raises(DataError, match="Found none among 2") as error:
        kind.fit([1.0, 2.0], [False, False])
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize("edges", [[2.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, math.nan], [1.0, math.inf], [[1.0, 2.0]]])
def test_bin_edges_must_be_increasing_days(edges: list[float]):
    with pytest.raises(ValueError, match="strictly increasing"):
        DiscreteHazardObjective(edges)


def test_a_time_on_an_edge_belongs_to_the_later_bin():
    objective, target = CASES["discrete_hazard"]  # day 365 is an edge and an event time
    output = model_output(4, samples=False)
    expected = discrete_hazard_nll(output.logits, torch.tensor([0, 2, 0, 3, 2, 2]), SURVIVAL.event).mean()
    torch.testing.assert_close(objective(output, target).total, expected)


def test_risk_and_survival_by_hand():
    objective = DiscreteHazardObjective([100.0, 200.0])
    prediction = objective.predict(torch.tensor([[0.0, math.log(3), -math.log(3)]]))  # hazards 1/2, 3/4, 1/4
    torch.testing.assert_close(prediction.survival, torch.tensor([[0.5, 0.125]]))
    torch.testing.assert_close(prediction.risk, -torch.tensor([0.5 + 0.125 + 0.09375]))
    assert prediction.probabilities is None
    assert objective.survival_days == (100.0, 200.0)


def test_higher_hazards_mean_higher_risk_and_lower_survival():
    objective = CASES["discrete_hazard"][0]
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    low, high = objective.predict(logits), objective.predict(logits + 0.5)
    assert (high.risk > low.risk).all()
    assert (high.survival < low.survival).all()
    assert (low.survival.diff(dim=1) <= 0).all()


def test_a_batch_of_censored_patients_trains():
    objective = CASES["discrete_hazard"][0]
    output = model_output(4)
    loss = objective(output, SurvivalTarget(SURVIVAL.time_days, torch.zeros(BATCH, dtype=torch.bool)))
    assert loss.total.isfinite()


def test_cox_predicts_the_log_hazard_as_risk():
    prediction = CoxObjective().predict(torch.tensor([[1.5], [-2.0]]))
    torch.testing.assert_close(prediction.risk, torch.tensor([1.5, -2.0]))
    assert prediction.survival is None


@SURVIVAL_OBJECTIVES
@pytest.mark.parametrize(
    ("time", "event"),
    [
        ([1.0, 2.0, 3.0], [False] * 3),
        ([2.0, 2.0, 2.0], [True] * 3),
        ([1.0, 2.0, 3.0], [False, False, True]),
        ([1.0], [True]),
    ],
    ids=["all censored", "all at one time", "only the last has an event", "one patient"],
)
def test_confidence_is_undefined_without_comparable_pairs(objective: Objective, time: list[float], event: list[bool]):
    target = SurvivalTarget(torch.tensor(time), torch.tensor(event))
    confidence = objective.confidence(model_output(objective.n_outputs, batch=len(time)), target)
    assert confidence.isnan().all()


@SURVIVAL_OBJECTIVES
def test_the_subspace_that_ranks_patients_by_survival_is_confident(objective: Objective):
    ranked = torch.argsort(torch.argsort(-SURVIVAL.time_days)).float()
    subspace_logits = torch.stack([ranked, -ranked], dim=1)[..., None].expand(-1, -1, objective.n_outputs)
    output = SubspaceFusionOutput(
        subspace_logits.sum(dim=1), subspace_logits, torch.zeros(BATCH, 2, 1), torch.zeros(BATCH, 2, 1), None
    )
    torch.testing.assert_close(objective.confidence(output, SURVIVAL), torch.tensor([1.0, 0.0]))
