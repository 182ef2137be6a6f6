import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.metrics import concordance_index_censored
from torch import Tensor
from torch.nn import functional

from subfuse.cohort.batches import ClassTarget, SurvivalTarget, Target
from subfuse.errors import DataError
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective import (
    ClassificationObjective,
    Consistency,
    CoxObjective,
    DiscreteHazardObjective,
    Objective,
    consistency_loss,
    discrete_hazard_nll,
    objective_from_dict,
)
from subfuse.objective.ranking import concordance

BATCH, SUBSPACE, EMBED, GROUP, POINT = 6, 2, 5, 3, 4
GRADES = ("G2", "G3", "G4")
SURVIVAL = SurvivalTarget(
    torch.tensor([10.0, 400.0, 30.0, 800.0, 500.0, 365.0]), torch.tensor([True, False, True, True, False, True])
)
LABELS = ClassTarget(torch.tensor([0, 1, 1, 2, 2, 2]))

CASES = {
    "classification": (ClassificationObjective(GRADES, [1.0, 2.0, 4.0]), LABELS),
    "discrete_hazard": (DiscreteHazardObjective([100.0, 365.0, 730.0]), SURVIVAL),
    "cox": (CoxObjective(), SURVIVAL),
}
EVERY_OBJECTIVE = pytest.mark.parametrize(("objective", "target"), CASES.values(), ids=CASES)
SURVIVAL_OBJECTIVES = pytest.mark.parametrize("objective", [CASES["discrete_hazard"][0], CASES["cox"][0]])


def model_output(n_outputs: int, *, batch: int = BATCH, samples: bool = True, seed: int = 0) -> SubspaceFusionOutput:
    generator = torch.Generator().manual_seed(seed)
    subspace_logits = torch.randn(batch, SUBSPACE, n_outputs, generator=generator, requires_grad=True)
    grid = torch.randn(batch, SUBSPACE, GROUP, POINT, 2, generator=generator, requires_grad=True)
    return SubspaceFusionOutput(
        logits=subspace_logits.sum(dim=1),
        subspace_logits=subspace_logits,
        embedding=torch.randn(batch, SUBSPACE, EMBED, generator=generator),
        expression_embedding=torch.rand(batch, SUBSPACE, EMBED, generator=generator, requires_grad=True),
        sampling_grid=grid if samples else None,
    )


# --- every objective ----------------------------------------------------------------------------------------------


@EVERY_OBJECTIVE
def test_the_total_is_task_plus_half_the_consistency_of_every_subspace(objective: Objective, target: Target):
    output = model_output(objective.n_outputs)
    loss = objective(output, target)
    assert output.sampling_grid is not None
    consistency = sum(
        consistency_loss(output.expression_embedding[:, s], output.sampling_grid[:, s]) for s in range(SUBSPACE)
    )
    torch.testing.assert_close(loss.terms["consistency"], consistency)
    torch.testing.assert_close(loss.total, loss.terms["task"] + 0.5 * consistency)
    assert not any(term.requires_grad for term in loss.terms.values())


@EVERY_OBJECTIVE
def test_a_model_without_sampling_positions_has_the_task_loss_only(objective: Objective, target: Target):
    loss = objective(model_output(objective.n_outputs, samples=False), target)
    assert set(loss.terms) == {"task"}
    torch.testing.assert_close(loss.total, loss.terms["task"])


@EVERY_OBJECTIVE
def test_only_paired_patients_enter_the_consistency(objective: Objective, target: Target):
    output = model_output(objective.n_outputs)
    assert output.sampling_grid is not None
    paired = torch.tensor([True, False, True, True, False, False])
    loss = objective(output, target, paired=paired)
    loss.total.backward()
    expected = sum(
        consistency_loss(output.expression_embedding[paired, s], output.sampling_grid[paired, s])
        for s in range(SUBSPACE)
    )
    torch.testing.assert_close(loss.terms["consistency"], expected)
    gradient = output.sampling_grid.grad
    assert gradient is not None
    assert gradient[~paired].abs().max() == 0
    assert gradient[paired].abs().min(dim=0).values.sum() > 0


def test_the_consistency_of_offsets_can_be_chosen_with_a_weight():
    output = model_output(1)
    assert output.sampling_grid is not None
    loss = CoxObjective(consistency=Consistency(2.0, "offsets"))(output, SURVIVAL)
    expected = sum(
        consistency_loss(output.expression_embedding[:, s], output.sampling_grid[:, s], of="offsets")
        for s in range(SUBSPACE)
    )
    torch.testing.assert_close(loss.total, loss.terms["task"] + 2 * expected)


@EVERY_OBJECTIVE
@pytest.mark.parametrize("n_paired", [0, 1])
def test_fewer_than_two_paired_patients_have_no_consistency(objective: Objective, target: Target, n_paired: int):
    loss = objective(model_output(objective.n_outputs), target, paired=torch.arange(BATCH) < n_paired)
    assert loss.terms["consistency"].item() == 0
    torch.testing.assert_close(loss.total, loss.terms["task"])


@EVERY_OBJECTIVE
@pytest.mark.parametrize("samples", [False, True])
def test_the_alignment_of_paired_patients_is_added_on_average(objective: Objective, target: Target, samples: bool):
    plain = model_output(objective.n_outputs, samples=samples)
    alignment = torch.tensor([5.0, 1.0, 2.0, 7.0, 3.0, 9.0], requires_grad=True)
    aligned = replace(plain, alignment=alignment)
    paired = torch.tensor([False, True, True, False, True, False])
    without, loss = objective(plain, target, paired=paired), objective(aligned, target, paired=paired)
    torch.testing.assert_close(loss.terms["alignment"], torch.tensor(2.0))
    torch.testing.assert_close(loss.total, without.total + 2.0)
    loss.total.backward()
    torch.testing.assert_close(alignment.grad, paired / 3)
    torch.testing.assert_close(objective(aligned, target).terms["alignment"], torch.tensor(4.5))
    nobody = objective(aligned, target, paired=torch.zeros(BATCH, dtype=torch.bool))
    torch.testing.assert_close(nobody.total, nobody.terms["task"])


@EVERY_OBJECTIVE
def test_losses_have_gradients(objective: Objective, target: Target):
    output = model_output(objective.n_outputs)
    objective(output, target).total.backward()
    for tensor in (output.subspace_logits, output.expression_embedding, output.sampling_grid):
        assert tensor is not None
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().sum() > 0


@EVERY_OBJECTIVE
def test_confidence_is_per_subspace_detached_and_follows_their_order(objective: Objective, target: Target):
    output = model_output(objective.n_outputs)
    swapped = SubspaceFusionOutput(
        logits=output.logits,
        subspace_logits=output.subspace_logits.flip(1),
        embedding=output.embedding.flip(1),
        expression_embedding=output.expression_embedding.flip(1),
        sampling_grid=None,
    )
    confidence = objective.confidence(output, target)
    assert confidence.shape == (SUBSPACE,)
    assert not confidence.requires_grad
    torch.testing.assert_close(objective.confidence(swapped, target), confidence.flip(0))


@EVERY_OBJECTIVE
def test_the_description_is_json_and_complete(objective: Objective, target: Target):
    restored = objective_from_dict(json.loads(json.dumps(objective.to_dict())))
    output = model_output(objective.n_outputs)
    assert type(restored) is type(objective)
    assert restored.to_dict() == objective.to_dict()
    assert restored.n_outputs == objective.n_outputs
    assert restored.survival_days == objective.survival_days
    torch.testing.assert_close(restored(output, target).total, objective(output, target).total)


@EVERY_OBJECTIVE
def test_the_wrong_number_of_logits_is_an_error(objective: Objective, target: Target):
    with pytest.raises(ValueError, match=f"must have {objective.n_outputs} columns.*Found {objective.n_outputs + 1}"):
        objective(model_output(objective.n_outputs + 1), target)


def test_an_unknown_objective_lists_the_known_ones():
    with pytest.raises(ValueError, match="classification, discrete_hazard, cox"):
        objective_from_dict({"name": "ranking"})


# --- classification -----------------------------------------------------------------------------------------------


def test_class_weights_are_inverse_frequencies_with_mean_one_over_patients():
    labels = [0] * 6 + [1] * 3 + [2]
    objective = ClassificationObjective.fit(labels, classes=GRADES)
    torch.testing.assert_close(objective.class_weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert objective.class_weights[labels].mean().item() == pytest.approx(1)


def test_a_class_without_training_patients_is_weighted_as_one():
    objective = ClassificationObjective.fit(np.array([0, 0, 2]), classes=GRADES)
    torch.testing.assert_close(objective.class_weights, torch.tensor([0.5, 1.0, 1.0]))


@pytest.mark.parametrize("labels", [[], [0, 3]])
def test_labels_outside_the_classes_are_bad_data(labels: list[int]):
    with pytest.raises(DataError, match="indices of the 3 classes"):
        ClassificationObjective.fit(labels, classes=GRADES)


def test_the_weighted_cross_entropy_by_hand():
    objective = ClassificationObjective(("benign", "malignant"), [1.0, 3.0])
    logits = torch.tensor([[0.0, 0.0], [math.log(4), 0.0]])  # true-class probabilities 1/2 and 1/5
    output = SubspaceFusionOutput(logits, logits[:, None], torch.zeros(2, 1, 1), torch.zeros(2, 1, 1), None)
    loss = objective(output, ClassTarget(torch.tensor([0, 1])))
    assert loss.total.item() == pytest.approx((math.log(2) + 3 * math.log(5)) / 4)


def test_classification_predicts_probabilities_only():
    prediction = CASES["classification"][0].predict(torch.tensor([[0.0, math.log(2), 0.0]]))
    torch.testing.assert_close(prediction.probabilities, torch.tensor([[0.25, 0.5, 0.25]]))
    assert prediction.risk is None
    assert prediction.survival is None


def test_classification_confidence_equals_a_loop():
    objective, target = CASES["classification"]
    output = model_output(3)
    expected = [
        sum(functional.softmax(output.subspace_logits[i, s], dim=0)[target.label[i]].item() for i in range(BATCH))
        for s in range(SUBSPACE)
    ]
    torch.testing.assert_close(objective.confidence(output, target), torch.tensor(expected))


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 0.0, 1.0]])
def test_class_weights_must_be_positive_and_one_per_class(weights: list[float]):
    with pytest.raises(ValueError, match="one positive class weight each"):
        ClassificationObjective(GRADES, weights)


# --- discrete hazards ---------------------------------------------------------------------------------------------


def test_bins_are_quantiles_of_event_times_only():
    time = [1.0, 2.0, 3.0, 4.0, 5.0, 900.0, 1000.0]
    event = [True] * 5 + [False] * 2
    objective = DiscreteHazardObjective.fit(time, event, bins=4)
    assert objective.survival_days == (2.0, 3.0, 4.0)
    assert objective.n_outputs == 4


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


@pytest.mark.parametrize("edges", [[2.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, math.nan]])
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


# --- Cox ----------------------------------------------------------------------------------------------------------


def test_cox_predicts_the_log_hazard_as_risk():
    prediction = CoxObjective().predict(torch.tensor([[1.5], [-2.0]]))
    torch.testing.assert_close(prediction.risk, torch.tensor([1.5, -2.0]))
    assert prediction.survival is None


# --- concordance --------------------------------------------------------------------------------------------------


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
