"""How far a student is from its teacher, by hand; patients who are not taught have the loss of the task alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from subfuse.cohort.batches import ClassTarget
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective import ClassificationObjective
from subfuse.training.distillation.lessons import Lesson, Lessons, TermWeights

OUTPUT, SUBSPACE, EMBED, GROUP, POINT = 3, 2, 5, 4, 6
OBJECTIVE, WEIGHTS = ClassificationObjective(("a", "b", "c")), TermWeights(0.5, 0.25, 2.0, 3.0)
PATIENTS = ("first", "second", "third")


def said(seed: int, batch: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "logits": torch.randn(batch, OUTPUT, generator=generator),
        "embedding": torch.randn(batch, SUBSPACE, EMBED, generator=generator),
        "sampling_grid": torch.randn(batch, SUBSPACE, GROUP, POINT, 2, generator=generator),
    }


def student(seed: int) -> SubspaceFusionOutput:
    values = {name: value.requires_grad_() for name, value in said(seed).items()}
    rest = {"subspace_logits": values["logits"][:, None], "expression_embedding": torch.zeros(3, SUBSPACE, EMBED)}
    return SubspaceFusionOutput(**values, **rest)


def lesson(seed: int, batch: int = 3) -> Lesson:
    spread = torch.tensor([[0.5, 2.0]]).expand(batch, -1)
    return Lesson(torch.ones(batch, dtype=torch.bool), **said(seed, batch), spread=spread, weights=WEIGHTS)


def test_distances_by_hand():
    taught, output = lesson(1), student(2)
    found = taught.distances(OBJECTIVE, output)
    theirs, ours = said(1), {name: value.detach().numpy() for name, value in said(2).items()}
    apart = (ours["embedding"] - theirs["embedding"].numpy()) / np.array([0.5, 2.0])[None, :, None]
    np.testing.assert_allclose(found["embedding"].detach(), (apart**2).mean(axis=(1, 2)), rtol=1e-5)
    step = ours["sampling_grid"] - theirs["sampling_grid"].numpy()
    np.testing.assert_allclose(found["positions"].detach(), (step**2).sum(axis=-1).mean(axis=(1, 2, 3)), rtol=1e-5)
    expected = OBJECTIVE.distance(output.logits, theirs["logits"], temperature=3.0)
    torch.testing.assert_close(found["prediction"], expected)


def test_a_student_like_its_teacher_has_the_loss_of_the_task_alone():
    output, target = student(1), ClassTarget(torch.tensor([0, 2, 1]))
    loss = OBJECTIVE(output, target)
    taught = lesson(1).added_to(loss, OBJECTIVE, output)
    torch.testing.assert_close(taught.total, loss.total, atol=1e-6, rtol=0)
    assert set(taught.terms) - set(loss.terms) == {"teacher_prediction", "teacher_embedding", "teacher_positions"}


def test_terms_are_weighted_and_only_taught_patients_have_them():
    output, target = student(2), ClassTarget(torch.tensor([0, 2, 1]))
    everybody = lesson(1)
    taught = replace(everybody, is_taught=torch.tensor([True, False, True]))
    distances = everybody.distances(OBJECTIVE, output)
    loss = OBJECTIVE(output, target, paired=torch.zeros(3, dtype=torch.bool))
    found = taught.added_to(loss, OBJECTIVE, output)
    means = {name: (value[0] + value[2]) / 3 for name, value in distances.items()}
    expected = 0.5 * means["prediction"] + 0.25 * means["embedding"] + 2.0 * means["positions"]
    torch.testing.assert_close(found.total - loss.total, expected)
    found.total.backward()
    assert output.embedding.grad[1].abs().max() == 0
    assert output.sampling_grid.grad[1].abs().max() == 0
    assert output.embedding.grad[0].abs().min() > 0


@pytest.mark.parametrize("asked", [("third", "unknown", "first"), ("unknown",), ("second",) * 2])
def test_lessons_are_put_together_in_the_order_of_a_batch(asked):
    of_patient = {name: lesson(seed, 1) for seed, name in enumerate(PATIENTS)}
    found = Lessons(of_patient).of(asked)
    assert found.is_taught.tolist() == [name in PATIENTS for name in asked]
    assert found.weights == WEIGHTS
    for place, name in enumerate(asked):
        row = of_patient[name].logits[0] if name in PATIENTS else torch.zeros(OUTPUT)
        torch.testing.assert_close(found.logits[place], row)
        assert found.sampling_grid[place].shape == (SUBSPACE, GROUP, POINT, 2)
