import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis
from sksurv.util import Surv

from subfuse.objective.losses import cox_nll
from subfuse.objective.penalised import (
    L1_SHARE,
    BreslowLoss,
    elastic_net,
    elastic_net_cox,
    ridge_cox,
    ridge_logistic,
)


def followed(n: int = 60, n_columns: int = 25) -> tuple[np.ndarray, np.ndarray, np.ndarray, BreslowLoss]:
    random = np.random.default_rng(0)
    x = random.normal(size=(n, n_columns))
    time = random.exponential(np.exp(-x[:, 0] + 0.5 * x[:, 1])) * 500 + 1
    event = random.random(n) < 0.7
    return x, time, event, BreslowLoss.of(x, time, event)


def test_breslow_equals_the_sum_over_risk_sets_and_efron_without_ties():
    random = np.random.default_rng(1)
    x, weight, event = random.normal(size=(30, 4)), random.normal(size=4), random.random(30) < 0.6
    risk = torch.from_numpy(x @ weight)
    for days in (np.arange(30.0)[::-1].copy(), random.integers(1, 6, 30).astype(float)):
        terms = [float(risk[i] - risk[torch.from_numpy(days >= days[i])].logsumexp(0)) for i in range(30) if event[i]]
        value, _ = BreslowLoss.of(x, days, event)(weight)
        assert value == pytest.approx(-np.mean(terms))
        if len(np.unique(days)) == 30:
            assert value == pytest.approx(float(cox_nll(risk, torch.from_numpy(days), torch.from_numpy(event))))


def test_the_gradient_is_that_of_the_value():
    x, _, event, _ = followed()
    loss = BreslowLoss.of(x, np.random.default_rng(2).integers(1, 9, len(x)).astype(float), event)
    weight, step = np.random.default_rng(3).normal(size=25), 1e-6 * np.eye(25)
    numeric = [(loss(weight + one)[0] - loss(weight - one)[0]) / 2e-6 for one in step]
    np.testing.assert_allclose(loss(weight)[1], numeric, atol=1e-7)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_elastic_net_cox_agrees_with_scikit_survival_wherever_it_starts(share):
    x, time, event, loss = followed()
    penalty = share * loss.strongest_penalty
    # their loss is per patient, ours per event
    theirs = CoxnetSurvivalAnalysis(alphas=[penalty * event.mean()], l1_ratio=L1_SHARE, tol=1e-12, max_iter=10**6)
    theirs.fit(x, Surv.from_arrays(event, time))
    nothing = np.zeros(25)
    for start in (nothing, elastic_net_cox(loss, penalty=2 * penalty, start=nothing), np.ones(25)):
        ours = elastic_net_cox(loss, penalty=penalty, start=start, tolerance=1e-7)
        np.testing.assert_allclose(ours, theirs.coef_[:, 0], atol=1e-4)
    assert 0 < (ours != 0).sum() <= 25


def test_ridge_cox_agrees_with_scikit_survival():
    x, time, event, loss = followed()
    ours = ridge_cox(loss, penalty=0.3, start=np.zeros(25))
    # their likelihood is a sum over events, its penalty half the squared norm
    theirs = CoxPHSurvivalAnalysis(alpha=0.3 * event.sum(), tol=1e-12).fit(x, Surv.from_arrays(event, time))
    np.testing.assert_allclose(ours, theirs.coef_, atol=1e-4)


def test_the_strongest_penalty_leaves_nothing_and_a_weaker_one_something():
    _, _, _, loss = followed()
    assert not elastic_net_cox(loss, penalty=1.001 * loss.strongest_penalty, start=np.zeros(25)).any()
    assert elastic_net_cox(loss, penalty=0.99 * loss.strongest_penalty, start=np.zeros(25)).any()


def test_a_quadratic_is_solved_by_hand():
    # minimise (w - 3)^2 / 2 + |w| / 2 + w^2 / 4: w - 3 + 1/2 + w/2 = 0, so w = 5/3
    weight = elastic_net(lambda w: (0.5 * float((w - 3) @ (w - 3)), w - 3), np.zeros(1), penalty=1.0)
    assert weight[0] == pytest.approx(5 / 3, abs=1e-4)


def test_curvatures_of_a_thousand_to_one_are_solved_with_the_steps_that_there_are():
    """Without acceleration, 300 steps leave three quarters of the way where the loss is flattest."""
    curvature, best = 2.5 * np.logspace(0, -3, 12), np.linspace(1, 3, 12)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        return 0.5 * float(curvature @ (w - best) ** 2), curvature * (w - best)

    weight = elastic_net(loss, np.zeros(12), penalty=2e-3)

    # where curvature (w - best) + 0.001 + 0.001 w = 0
    np.testing.assert_allclose(weight, (curvature * best - 1e-3) / (curvature + 1e-3), atol=0.07)


def test_two_of_three_classes_are_told_as_by_a_regression_of_two_and_the_third_is_ruled_out():
    label = np.repeat([0, 2], [24, 9])
    inputs = np.random.default_rng(0).normal(size=(33, 5)) + label[:, None] * (np.arange(5) == 0)
    weight, bias = ridge_logistic(inputs, label, inverse_penalty=0.5, n_classes=3)
    theirs = LogisticRegression(C=0.5, max_iter=1000, class_weight="balanced").fit(inputs, label)
    probability = softmax(inputs @ weight.T + bias, axis=1)
    np.testing.assert_allclose(probability[:, [0, 2]], theirs.predict_proba(inputs), atol=1e-9)
    assert 0 < probability[:, 1].max() < 1e-9


def test_classes_count_alike_however_many_patients_they_have():
    """At the optimum an intercept without penalty makes weighted probabilities as frequent as weighted classes."""
    label = np.repeat([0, 1, 2], [24, 4, 9])
    inputs = np.random.default_rng(0).normal(size=(37, 5)) + 3.0 * label[:, None] * (np.arange(5) == 0)
    for inverse_penalty in (1e-3, 1.0):
        weight, bias = ridge_logistic(inputs, label, inverse_penalty=inverse_penalty, n_classes=3)
        odds = np.exp(inputs @ weight.T + bias)
        probability = odds / odds.sum(axis=1, keepdims=True)
        of_class = [probability[label == k].mean(axis=0) for k in range(3)]
        np.testing.assert_allclose(np.mean(of_class, axis=0), 1 / 3, atol=2e-3)


def test_one_class_alone_is_certain_whatever_the_inputs():
    weight, bias = ridge_logistic(np.ones((3, 2)), np.array([1, 1, 1]), inverse_penalty=1.0, n_classes=3)
    assert not weight.any()
    assert bias.argmax() == 1
    assert np.isfinite(bias).all()
