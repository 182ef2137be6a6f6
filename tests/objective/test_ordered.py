"""Cumulative logits against differences of logistic functions, and scores that grow with the class."""

import numpy as np
import pytest
import torch
from objective_cases import BATCH, CASES, GRADES, SUBSPACE, model_output
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from subfuse.cohort.batches import ClassTarget
from subfuse.objective.ordered import CumulativeLogitObjective, log_probabilities

OBJECTIVE, TARGET = CASES["cumulative_logits"]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """As they are defined: each class is above one threshold and not above the next."""
    above = [logits[0]]
    for distance in logits[1:]:
        above.append(above[-1] - np.log1p(np.exp(distance)))
    return -np.diff([1.0, *expit(above), 0.0])


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_probabilities_are_differences_of_cumulative_ones(n_classes: int) -> None:
    logits = torch.randn(9, n_classes - 1, dtype=torch.float64, generator=torch.Generator().manual_seed(n_classes))
    found = log_probabilities(logits).exp()
    np.testing.assert_allclose(found, [probabilities(row) for row in logits.numpy()], rtol=1e-12)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(9, dtype=torch.float64))


def test_two_classes_are_plain_logistic_regression() -> None:
    logits = torch.tensor([[-1.5], [0.0], [2.0]])
    torch.testing.assert_close(log_probabilities(logits)[:, 1].exp(), logits[:, 0].sigmoid())


def test_a_class_that_is_hardly_possible_has_a_finite_loss_and_gradient() -> None:
    logits = torch.tensor([[80.0, -60.0], [-80.0, 60.0]], requires_grad=True)
    loss = CumulativeLogitObjective(GRADES).task_loss(logits, ClassTarget(torch.tensor([0, 1])))
    loss.backward()
    assert loss.isfinite()
    assert loss > 50
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_the_loss_weighs_patients_by_their_class() -> None:
    logits = model_output(2).logits.detach()
    own = [probabilities(row)[label] for row, label in zip(logits.double().numpy(), TARGET.label, strict=True)]
    weights = np.array([1.0, 2.0, 4.0])[TARGET.label.numpy()]
    expected = -(weights * np.log(own)).sum() / weights.sum()
    assert OBJECTIVE.task_loss(logits, TARGET).item() == pytest.approx(expected, rel=1e-5)


def test_a_higher_first_logit_means_a_higher_class_and_is_the_score() -> None:
    logits = torch.tensor([[step, 0.3] for step in np.linspace(-3, 3, 7)]).float()
    found = OBJECTIVE.predict(logits).probabilities
    assert found is not None
    expected_class = (found * torch.arange(3)).sum(dim=1)
    assert (expected_class.diff() > 0).all()
    torch.testing.assert_close((OBJECTIVE.score_weights(logits) * logits).sum(dim=1), logits[:, 0])
    assert {OBJECTIVE.explained(row) for row in logits} == {"G4"}
    assert (OBJECTIVE.n_outputs, OBJECTIVE.columns) == (2, ["p_G2", "p_G3", "p_G4"])


def test_confidence_equals_a_loop() -> None:
    output = model_output(2)
    shares = output.subspace_logits.detach().double().numpy()
    expected = [sum(probabilities(shares[i, s])[TARGET.label[i]] for i in range(BATCH)) for s in range(SUBSPACE)]
    np.testing.assert_allclose(OBJECTIVE.confidence(output, TARGET), expected, rtol=1e-5)


def test_ranking_is_the_mean_auc_of_the_classes() -> None:
    logits = torch.randn(BATCH, 2, generator=torch.Generator().manual_seed(4))
    shares = np.array([probabilities(row) for row in logits.double().numpy()])
    expected = np.mean([roc_auc_score(TARGET.label.numpy() == index, shares[:, index]) for index in range(3)])
    assert OBJECTIVE.ranking(logits, TARGET) == pytest.approx(expected)
