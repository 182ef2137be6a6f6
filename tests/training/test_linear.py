from dataclasses import replace

import numpy as np
import pytest
import torch
from sksurv.linear_model import CoxnetSurvivalAnalysis
from sksurv.util import Surv

from subfuse.cohort.batches import BagBatch, ClassTarget, SurvivalTarget
from subfuse.errors import DataError
from subfuse.model.baselines.expression import LinearModel
from subfuse.objective.losses import cox_nll
from subfuse.training.linear import COX_PATH, L1_SHARE, breslow_loss, elastic_net, fit_linear


def test_breslow_equals_the_sum_over_risk_sets_and_efron_without_ties():
    random = np.random.default_rng(1)
    x, weight = torch.from_numpy(random.normal(size=(30, 4))), torch.from_numpy(random.normal(size=4))
    event = torch.from_numpy(random.random(30) < 0.6)
    for days in (torch.arange(30).float().flip(0), torch.from_numpy(random.integers(1, 6, 30)).float()):
        risk = x @ weight
        terms = [risk[i] - risk[days >= days[i]].logsumexp(0) for i in range(30) if event[i]]
        found = breslow_loss(x, SurvivalTarget(days, event))(weight)
        torch.testing.assert_close(found, -torch.stack(terms).mean())
        if len(days.unique()) == 30:
            torch.testing.assert_close(found, cox_nll(risk, days, event))


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_elastic_net_cox_agrees_with_scikit_survival(share):
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 25))
    time = random.exponential(np.exp(-x[:, 0] + 0.5 * x[:, 1])) * 500 + 1
    event = random.random(60) < 0.7
    loss = breslow_loss(torch.from_numpy(x), SurvivalTarget(torch.from_numpy(time).float(), torch.from_numpy(event)))
    zero = torch.zeros(25, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(zero), zero)
    penalty = share * float(gradient.abs().max()) / L1_SHARE
    ours = elastic_net(loss, zero.detach(), penalty=penalty, steps=5000, tolerance=1e-10)
    # their loss is per patient, ours per event
    theirs = CoxnetSurvivalAnalysis(alphas=[penalty * event.mean()], l1_ratio=L1_SHARE, tol=1e-12, max_iter=10**6)
    theirs.fit(x, Surv.from_arrays(event, time))
    np.testing.assert_allclose(ours.numpy(), theirs.coef_[:, 0], atol=1e-4)
    assert 0 < (ours != 0).sum() <= 25


def test_the_strongest_penalty_of_the_path_leaves_nothing():
    target = torch.tensor([3.0, -2.0, 0.5])
    weight = elastic_net(lambda w: 0.5 * (w - target).square().sum(), torch.zeros(3), penalty=3.0 / L1_SHARE)
    assert not weight.any()


def test_every_cox_model_that_can_be_chosen_ranks_patients():
    generator = torch.Generator().manual_seed(3)
    n = 12
    batch = BagBatch(
        patient_id=tuple(f"P{i}" for i in range(n)),
        patches=torch.zeros(n, 0, 1),
        coords=torch.zeros(n, 0, 2),
        patch_mask=torch.zeros(n, 0, dtype=torch.bool),
        expression=torch.randn(n, 30, generator=generator),
        expression_mask=torch.ones(n, dtype=torch.bool),
        target=SurvivalTarget(torch.rand(n, generator=generator) * 900, torch.arange(n) % 2 == 0),
    )
    nobody_died = replace(batch, target=replace(batch.target, event=torch.zeros(n, dtype=torch.bool)))
    fits = fit_linear(LinearModel(1, n_genes=30), batch, nobody_died)  # all penalties validate alike
    assert len(fits) == len(COX_PATH)
    assert all(np.any(fit.weight) for fit in fits)


def classified(label: list[int], *, renumber: dict[int, int] | None = None, seed: int = 0) -> BagBatch:
    """Patients whose first gene rises with the label, which may then be numbered anew; others are left out."""
    generator = torch.Generator().manual_seed(seed)
    expression = torch.randn(len(label), 5, generator=generator)
    expression[:, 0] += 3 * torch.tensor(label)
    numbers = renumber if renumber is not None else {number: number for number in label}
    kept = [index for index, number in enumerate(label) if number in numbers]
    n = len(kept)
    return BagBatch(
        patient_id=tuple(f"P{i}" for i in kept),
        patches=torch.zeros(n, 0, 1),
        coords=torch.zeros(n, 0, 2),
        patch_mask=torch.zeros(n, 0, dtype=torch.bool),
        expression=expression[kept],
        expression_mask=torch.ones(n, dtype=torch.bool),
        target=ClassTarget(torch.tensor([numbers[label[index]] for index in kept])),
    )


@pytest.mark.parametrize("absent", [0, 3])
def test_a_class_without_training_patients_has_no_probability_and_the_others_are_as_without_it(absent):
    present = [label for label in range(4) if label != absent]
    renumber = {label: number for number, label in enumerate(present)}
    training, validating = present * 8, [0, 1, 2, 3] * 2
    four, three = LinearModel(4, n_genes=5), LinearModel(3, n_genes=5)
    fit_linear(four, classified(training), classified(validating, seed=1))
    fit_linear(three, classified(training, renumber=renumber), classified(validating, renumber=renumber, seed=1))

    everybody = classified(validating, seed=1)
    probability = four(**everybody.inputs()).logits.softmax(dim=1)
    assert probability[:, absent].max() < 1e-8
    torch.testing.assert_close(probability[:, present], three(**everybody.inputs()).logits.softmax(dim=1))


def test_classes_count_alike_however_many_patients_they_have():
    """At the optimum an intercept without penalty makes weighted probabilities as frequent as weighted classes."""
    counts = {0: 24, 1: 4, 2: 9}
    train = classified([label for label, n in counts.items() for _ in range(n)])
    model = LinearModel(3, n_genes=5)

    for fit in fit_linear(model, train, classified([0, 1, 2] * 3, seed=1)):
        logits = train.expression.numpy() @ fit.weight.T + fit.bias
        probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        of_class = [probability[train.target.label.numpy() == label].mean(axis=0) for label in counts]
        np.testing.assert_allclose(np.mean(of_class, axis=0), 1 / 3, atol=2e-3)


def test_training_patients_of_one_class_are_refused():
    with pytest.raises(DataError, match=r"training patients of two classes\. Found one class among 6"):
        fit_linear(LinearModel(2, n_genes=5), classified([1] * 6), classified([0, 1]))


def test_a_quadratic_is_solved_by_hand():
    # minimise (w - 3)^2 / 2 + |w| / 2 + w^2 / 4: w - 3 + 1/2 + w/2 = 0, so w = 5/3
    weight = elastic_net(lambda w: 0.5 * (w - 3).square().sum(), torch.zeros(1, dtype=torch.float64), penalty=1.0)
    assert float(weight) == pytest.approx(5 / 3, abs=1e-4)
