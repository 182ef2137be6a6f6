"""What holds for every objective."""

from dataclasses import replace

import pytest
import torch
from objective_cases import BATCH, CASES, EVERY_OBJECTIVE, SUBSPACE, SURVIVAL, model_output

from subfuse.cohort.batches import Target
from subfuse.errors import ConfigurationError
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective import Consistency, CoxObjective, Objective, consistency_loss


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


TAUGHT = [case for name, case in CASES.items() if name != "cox"]


@pytest.mark.parametrize("objective", [objective for objective, _ in TAUGHT])
def test_predictions_are_as_far_from_a_teacher_as_what_they_mean(objective: Objective):
    """Zero where both mean the same, whatever the logits are; else above it."""
    student, teacher = (model_output(objective.n_outputs, seed=seed).logits.detach() for seed in (0, 1))
    same = student + (3.0 if objective.name == "classification" else 0.0)
    torch.testing.assert_close(objective.distance(student, same), torch.zeros(BATCH), atol=1e-6, rtol=0)
    assert (objective.distance(student, teacher) > 1e-4).all()
    hot = objective.distance(student, teacher, temperature=4.0)
    assert torch.equal(hot, objective.distance(student, teacher)) is not bool(objective.classes)


@pytest.mark.parametrize("name", CASES)
def test_predictions_change_by_how_much_what_they_mean_differs(name: str):
    objective = CASES[name][0]
    before, after = (objective.predict(model_output(objective.n_outputs, seed=seed).logits.detach()) for seed in (0, 1))
    changed, same = after.change(before), before.change(before)
    if name == "cox":
        assert torch.isnan(changed).all()
        return
    torch.testing.assert_close(same, torch.zeros(BATCH))
    torch.testing.assert_close(before.change(after), changed)
    if before.probabilities is not None and after.probabilities is not None:
        moved = (after.probabilities - before.probabilities).clamp(min=0).sum(dim=1)
        torch.testing.assert_close(changed, moved)
    assert (changed > 0).all()
    assert (changed <= 1).all() or objective.predicts == "regression"


def test_log_hazards_of_single_patients_are_not_taught():
    logits = torch.zeros(BATCH, 1)
    with pytest.raises(ConfigurationError, match=r"needs hazards in time bins .* Found CoxObjective"):
        CASES["cox"][0].distance(logits, logits)


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


def test_the_alignment_of_a_single_patient_counts_whole():
    aligned = replace(model_output(1), alignment=torch.arange(1.0, BATCH + 1))
    loss = CoxObjective()(aligned, SURVIVAL, paired=torch.arange(BATCH) == 3)
    torch.testing.assert_close(loss.terms["alignment"], torch.tensor(4.0))


@EVERY_OBJECTIVE
def test_scores_are_sums_of_weighted_logits(objective: Objective, target: Target):
    logits = model_output(objective.n_outputs).logits.detach()
    score = (objective.score_weights(logits) * logits).sum(dim=1)
    mean = logits.mean(dim=1)
    expected = {"classification": logits.max(dim=1).values - mean, "cumulative_logits": logits[:, 0]}
    expected |= {"regression": 5.0 * logits[:, 0]}  # in the unit of the number
    torch.testing.assert_close(score, expected.get(objective.name, mean))


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
def test_the_wrong_number_of_logits_is_an_error(objective: Objective, target: Target):
    with pytest.raises(ValueError, match=f"must have {objective.n_outputs} columns.*Found {objective.n_outputs + 1}"):
        objective(model_output(objective.n_outputs + 1), target)
