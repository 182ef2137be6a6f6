"""Classification: weights of classes by hand, and confidence against a loop."""

import math

import numpy as np
import pytest
import torch
from objective_cases import BATCH, CASES, GRADES, SUBSPACE, model_output
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from subfuse.cohort.batches import ClassTarget
from subfuse.errors import DataError
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective import ClassificationObjective


def test_class_weights_are_inverse_frequencies_with_mean_one_over_patients():
    labels = [0] * 6 + [1] * 3 + [2]
    objective = ClassificationObjective.fit(labels, classes=GRADES)
    torch.testing.assert_close(objective.class_weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert objective.class_weights[labels].mean().item() == pytest.approx(1)


def test_a_class_without_training_patients_is_weighted_as_one():
    objective = ClassificationObjective.fit(np.array([0, 0, 2]), classes=GRADES)
    torch.testing.assert_close(objective.class_weights, torch.tensor([0.5, 1.0, 1.0]))


@pytest.mark.parametrize(("labels", "found"), [([], "0 labels"), ([0, 3], "2 labels up to 3")])
def test_labels_outside_the_classes_are_bad_data(labels: list[int], found: str):
    with pytest.raises(DataError, match=f"indices of the 3 classes .* Found {found}"):
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


def test_classification_ranks_by_the_mean_auc_of_the_classes():
    objective, target = CASES["classification"]
    logits = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(4))
    shares = functional.softmax(logits, dim=1).numpy()
    expected = np.mean([roc_auc_score(target.label.numpy() == index, shares[:, index]) for index in range(3)])
    assert objective.ranking(logits, target) == pytest.approx(expected)


def test_the_score_of_a_class_is_its_logit_above_the_mean_of_all():
    logits = torch.tensor([[1.0, 4.0, 1.0], [9.0, 0.0, 0.0]])
    weights = CASES["classification"][0].score_weights(logits)
    torch.testing.assert_close((weights * logits).sum(dim=1), torch.tensor([4.0 - 2.0, 9.0 - 3.0]))
    torch.testing.assert_close(weights[0], torch.tensor([-1 / 3, 2 / 3, -1 / 3]))
    assert CASES["classification"][0].explained(logits[0]) == "G3"


@pytest.mark.parametrize("weights", [[1.0, 2.0], [1.0, 0.0, 1.0]])
def test_class_weights_must_be_positive_and_one_per_class(weights: list[float]):
    with pytest.raises(ValueError, match="one positive class weight each"):
        ClassificationObjective(GRADES, weights)


def test_one_class_is_no_classification():
    with pytest.raises(ValueError, match=r"at least two classes.* Found 1 classes \(G2\)"):
        ClassificationObjective(["G2"])
