import numpy as np
import pytest
import torch

from subfuse.cohort.batches import ClassTarget, SurvivalTarget
from subfuse.evaluation.metrics import classification_metrics
from subfuse.model.output import SubspaceFusionOutput
from subfuse.objective.classification import ClassificationObjective
from subfuse.objective.ranking import can_be_ranked, macro_auc
from subfuse.objective.survival import DiscreteHazardObjective
from subfuse.training.selection import network_share, score, selection_metric, validation_metrics

FOLLOW_UP = SurvivalTarget(torch.tensor([100.0, 900.0, 400.0]), torch.tensor([True, False, True]))
LABELS = ClassTarget(torch.tensor([0, 2, 1, 2]))
HAZARD, GRADE = DiscreteHazardObjective([300.0]), ClassificationObjective(("a", "b", "c"))


def output_of(logits):
    embedding = torch.zeros(len(logits), 1, 2)
    return SubspaceFusionOutput(logits, logits[:, None], embedding, embedding, None)


def test_the_c_index_counts_correctly_ordered_pairs():
    logits = torch.tensor([[2.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]])  # the third is ranked too low: 2 of 3 pairs
    metrics = validation_metrics("c_index", HAZARD, output_of(logits), FOLLOW_UP)
    assert metrics["validation_c_index"] == pytest.approx(2 / 3)
    assert score("c_index", metrics)[0] == pytest.approx(-2 / 3)


def test_the_auc_is_that_of_the_evaluation():
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    label = torch.arange(40) % 3
    metrics = validation_metrics("auc", GRADE, output_of(logits), ClassTarget(label))
    probabilities = logits.softmax(dim=1).numpy().astype(float)
    expected = classification_metrics(label.numpy(), probabilities)["auc"].value
    assert metrics["validation_auc"] == pytest.approx(expected, abs=1e-6)


def test_a_class_that_no_validation_patient_has_is_left_out_of_the_auc():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    assert macro_auc(probabilities, np.array([0, 1, 0])) == 1.0
    assert np.isnan(macro_auc(probabilities * np.nan, np.array([0, 1, 0])))


def test_the_loss_is_always_reported():
    logits = torch.zeros(3, 2)
    metrics = validation_metrics("loss", HAZARD, output_of(logits), FOLLOW_UP)
    assert list(metrics) == ["validation_loss"]
    assert score("loss", metrics)[0] == pytest.approx(
        np.log(2) * 5 / 3
    )  # one bin of the first patient, two of the others


def test_the_metric_follows_from_the_outcome():
    assert selection_metric("ranking", HAZARD, FOLLOW_UP) == "c_index"
    assert selection_metric("ranking", GRADE, LABELS) == "auc"
    assert selection_metric("ranking", GRADE, ClassTarget(torch.tensor([0, 1]))) == "auc"
    assert selection_metric("loss", HAZARD, FOLLOW_UP) == selection_metric("loss", GRADE, LABELS) == "loss"


@pytest.mark.parametrize(
    ("objective", "target"),
    [
        (HAZARD, SurvivalTarget(torch.tensor([1.0, 2.0]), torch.tensor([False, False]))),
        (HAZARD, SurvivalTarget(torch.tensor([2.0, 1.0]), torch.tensor([True, False]))),
        (GRADE, ClassTarget(torch.tensor([1, 1]))),
    ],
)
def test_the_loss_selects_where_nobody_can_be_ranked(objective, target):
    assert not can_be_ranked(target)
    assert selection_metric("ranking", objective, target) == "loss"


def test_the_loss_decides_between_equal_rankings():
    better = {"validation_auc": 0.8, "validation_loss": 0.5}
    worse = {"validation_auc": 0.8, "validation_loss": 0.6}
    ranked = {"validation_auc": 0.9, "validation_loss": 2.0}
    assert score("auc", ranked) < score("auc", better) < score("auc", worse)


@pytest.mark.parametrize(
    ("strength", "of_line", "expected"),
    [(0.5, 0, 1.0), (1, 0, 1.0), (4 / 3, 0, 0.75), (2, 0, 0.5), (4, 0, 0.25), (-1, 0, 0.0), (3, -1, 0.5), (3, 1, 0.0)],
)
def test_a_network_beside_a_line_gets_the_share_of_the_mixture_with_the_lowest_loss(strength, of_line, expected):
    """Network and line say the truth, too loudly, or the opposite of it."""
    label = torch.arange(60) % 2
    truth = torch.where((torch.arange(60) % 10 < 8)[:, None] == (label[:, None] == torch.arange(2)), 0.7, -0.7)
    classes = ClassificationObjective(("a", "b"))
    assert network_share(strength * truth, of_line * truth, classes, ClassTarget(label)) == expected


def test_a_network_that_ranks_better_than_the_line_and_is_biased_gets_half_of_the_share_with_which_it_ranks_best():
    label = torch.arange(60) % 2
    signs = torch.where(label[:, None] == torch.arange(2), 1.0, -1.0)
    line = torch.where((torch.arange(60) % 10 < 8)[:, None], 0.7, -0.7) * signs
    biased = 0.3 * signs + torch.tensor([0.0, 9.0])
    classes = ClassificationObjective(("a", "b"))
    assert network_share(biased, line, classes, ClassTarget(label)) == (0.0 + 0.75) / 2
    assert network_share(biased[:1], line[:1], classes, ClassTarget(label[:1])) == 0.0  # nobody to rank: loss alone


@pytest.mark.parametrize(("strength", "expected"), [(0.0, 0.0), (1.0, 1.0), (-1.0, 0.0)])
def test_the_share_in_survival_is_that_of_a_network_that_knows_who_dies_early(strength, expected):
    days = torch.arange(10.0, 610.0, 10.0)
    in_each_bin = torch.stack([torch.where(days < 300, 1.0, -1.0), torch.ones(60)], dim=1)  # everybody dies at last
    target = SurvivalTarget(days, torch.ones(60, dtype=torch.bool))
    assert network_share(strength * in_each_bin, torch.zeros(60, 2), HAZARD, target) == expected
