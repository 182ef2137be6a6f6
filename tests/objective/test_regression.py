"""Regression: hand-worked losses, what contributions add up to, and confidence as for survival without censoring."""

import numpy as np
import pytest
import torch
from objective_cases import NUMBERS, model_output
from scipy.stats import spearmanr
from sklearn.linear_model import HuberRegressor

from subfuse.cohort.batches import NumberTarget
from subfuse.objective import RegressionObjective
from subfuse.objective.objective import UnfittableObjectiveError
from subfuse.objective.regression import HUBER


def test_the_number_is_standardised_by_training_patients():
    objective = RegressionObjective.fit([10.0, 20.0, 60.0])
    assert objective.mean.item() == pytest.approx(30)
    assert objective.scale.item() == pytest.approx(np.std([10.0, 20.0, 60.0]))
    logits = objective.as_logits(NumberTarget(torch.tensor([10.0, 20.0, 60.0]))).value
    torch.testing.assert_close(objective.predict(logits[:, None]).value, torch.tensor([10.0, 20.0, 60.0]))


def test_errors_by_hand():
    target = NumberTarget(torch.tensor([12.0, 10.0, 4.0]))  # residuals 1, 0 and 3 standard deviations
    logits = torch.tensor([[0.0], [0.0], [0.0]])
    squared, huber = RegressionObjective(10.0, 2.0), RegressionObjective(10.0, 2.0, error="huber")
    assert squared.task_loss(logits, target).item() == pytest.approx((0.5 + 0 + 4.5) / 3)
    assert huber.task_loss(logits, target).item() == pytest.approx((0.5 + 0 + HUBER * (3 - HUBER / 2)) / 3)


def test_huber_resists_an_outlier_as_another_implementation_does():
    random = np.random.default_rng(0)
    x = random.normal(size=200)
    y = 2 * x + 0.1 * random.normal(size=200)
    y[:10] += 40
    slopes = {}
    for error in ("squared", "huber"):
        objective = RegressionObjective(0.0, 0.1, error=error)  # the spread of the noise
        weight = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

        def closure(objective=objective, weight=weight, optimiser=optimiser):
            optimiser.zero_grad()
            logits = (weight[0] * torch.from_numpy(x) + weight[1])[:, None]
            loss = objective.task_loss(logits, NumberTarget(torch.from_numpy(y).float()))
            loss.backward()
            return loss

        optimiser.step(closure)
        slopes[error] = 0.1 * float(weight.detach()[0])
    other = HuberRegressor(epsilon=HUBER, alpha=0).fit(x[:, None], y)
    assert slopes["huber"] == pytest.approx(2, abs=0.02)
    assert slopes["huber"] == pytest.approx(other.coef_[0], abs=0.02)
    assert slopes["squared"] == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-3)
    assert abs(slopes["squared"] - 2) > 0.1


def test_confidence_is_the_share_of_pairs_that_a_subspace_has_in_order():
    objective = RegressionObjective(0.0, 1.0)
    output = model_output(1)
    confidence = objective.confidence(output, NUMBERS)
    value = NUMBERS.value
    higher = value[:, None] > value
    for subspace, found in enumerate(confidence.tolist()):
        share = output.subspace_logits[:, subspace, 0].detach()
        right = ((share[:, None] > share) & higher).sum() / higher.sum()
        assert found == pytest.approx(right.item())
    alike = NumberTarget(torch.ones(len(value)))
    assert objective.confidence(output, alike).isnan().all()


def test_ranking_is_spearman_and_undefined_of_constants():
    objective, logits = RegressionObjective(0.0, 1.0), model_output(1).logits.detach().round()
    expected = spearmanr(logits[:, 0], NUMBERS.value).statistic
    assert objective.ranking(logits, NUMBERS) == pytest.approx(expected)
    assert np.isnan(objective.ranking(torch.ones_like(logits), NUMBERS))


def test_contributions_have_the_unit_of_the_number():
    objective = RegressionObjective(30.0, 5.0)
    output = model_output(1)
    shares = torch.einsum("bso,bo->bs", output.subspace_logits, objective.score_weights(output.logits))
    torch.testing.assert_close(30 + shares.sum(dim=1), objective.predict(output.logits).value)
    assert objective.explained(output.logits[0]) == "predicted_value"


@pytest.mark.parametrize("values", [[3.0, 3.0], []])
def test_numbers_that_do_not_differ_cannot_be_learnt(values):
    with pytest.raises(UnfittableObjectiveError, match="must differ in the number that is learnt"):
        RegressionObjective.fit(values)


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"mean": float("nan")}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="mean must be a number, scale one above 0"):
        RegressionObjective(**{"mean": 0.0, "scale": 1.0, **wrong})
