"""Kinds of linear models along their paths of penalties, against other implementations."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from linear_bags import N, followed
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import ElasticNet, Ridge

from subfuse.cohort.batches import ClassTarget, NumberTarget, OrderedTarget, SurvivalTarget
from subfuse.errors import DataError
from subfuse.objective.ordered import log_probabilities
from subfuse.training.linear.path import INNER_FOLDS
from subfuse.training.linear.regressions import regressions_of


def outcome_of(kind):
    latent, target = followed()
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(N, 5, generator=generator).double()
    inputs[:, 0] += 2 * latent.double()
    return inputs, (target if kind == "survival" else ClassTarget((latent > 0).long() + (latent > 1).long()))


@pytest.fixture(params=[("survival", 0), ("survival", 1), ("grade", 0)], ids=["elastic net", "ridge", "logistic"])
def regression(request):
    kind, place = request.param
    return regressions_of(*outcome_of(kind), n_outputs=1 if kind == "survival" else 3)[place]


def test_which_linear_models_there_are_for_an_outcome():
    methods = {
        kind: [r.method for r in regressions_of(*outcome_of(kind), n_outputs=3)] for kind in ("survival", "grade")
    }
    assert methods == {"survival": ["elastic net", "ridge"], "grade": ["ridge"]}
    inputs, _ = outcome_of("grade")
    with pytest.raises(DataError, match=r"training patients of two classes\. Found one class among 40"):
        regressions_of(inputs, ClassTarget(torch.ones(N).long()), n_outputs=3)


def ordered(*, turned: bool = False):
    """Grades that follow two of five columns, as a target that is trained by their order."""
    inputs, target = outcome_of("grade")
    return inputs, OrderedTarget(2 - target.label if turned else target.label)


def odds_by_hand(inputs, label, inverse_penalty):
    """Proportional odds with thresholds as such, whose order is kept by their steps, as in textbooks."""
    inputs, label = inputs.numpy(), label.numpy()
    share = (1 / np.bincount(label))[label]

    def loss(values):
        thresholds = np.array([-np.inf, values[0], values[0] + np.exp(values[1]), np.inf])
        score = inputs @ values[2:]
        likely = expit(thresholds[label + 1] - score) - expit(thresholds[label] - score)
        ridge = (values[2:] ** 2).sum() / (2 * inverse_penalty * len(label))
        return -(share * np.log(likely)).sum() / share.sum() + ridge

    found = minimize(loss, np.zeros(2 + inputs.shape[1]), method="BFGS", options={"gtol": 1e-7}).x
    return found[2:], (found[0], found[0] + np.exp(found[1]))


def test_proportional_odds_are_those_of_thresholds():
    inputs, target = ordered()
    (regression,) = regressions_of(inputs, target, n_outputs=2)
    for penalty in (0.01, 1.0):
        weight, bias = regression.fit(inputs, regression.everybody, penalty, None)
        expected, thresholds = odds_by_hand(inputs, target.label, penalty)
        np.testing.assert_allclose(weight[0], expected, atol=2e-3)
        assert not weight[1].any()
        distance = np.log1p(np.exp(float(bias[1])))
        np.testing.assert_allclose([-float(bias[0]), distance - float(bias[0])], thresholds, atol=3e-3)


def test_turning_the_order_round_turns_the_coefficients_round():
    inputs, target = ordered()
    (one,), (other,) = (regressions_of(*ordered(turned=turned), n_outputs=2) for turned in (False, True))
    weight, _ = one.fit(inputs, one.everybody, 0.1, None)
    turned, _ = other.fit(inputs, other.everybody, 0.1, None)
    np.testing.assert_allclose(turned[0], -weight[0], atol=2e-3)
    with pytest.raises(DataError, match="Found one class among 40"):
        regressions_of(inputs, OrderedTarget(torch.ones(N).long()), n_outputs=2)
    few = target.label < 2  # nobody of the highest class
    weight, bias = one.fit(inputs, few, 0.1, None)
    assert torch.cat([weight.flatten(), bias]).isfinite().all()
    logits = torch.cat([inputs @ weight.T + bias])
    assert float(log_probabilities(logits)[few, 2].exp().mean()) < 0.01


def test_a_path_of_proportional_odds_beats_saying_nothing_out_of_fold():
    (regression,) = regressions_of(*ordered(), n_outputs=2)
    best = regression.best(regression.path("genes"))
    assert best.out_of_fold.shape == (N, 2)
    assert best.loss < 0.8 * np.log(3)


def last_best(fits):
    """Which of the weakest penalties fits best or ranks best; a class has no rank."""
    best = int(np.argmin([fit.loss for fit in fits]))
    return max(best, int(np.argmax([fit.concordance for fit in fits])))


def test_a_path_goes_from_strong_to_weak_penalties_and_ends_when_weaker_ones_are_no_better(regression):
    fits = regression.path("genes")
    strengths = [fit.penalty for fit in fits]
    falling = regression.method != "ridge" or len(fits[0].bias) == 1  # the logistic penalty is C, which rises
    assert strengths == sorted(strengths, reverse=falling)
    penalties = regression.penalties(regression.coordinates(regression.inputs)[0])
    assert len(fits) == min(last_best(fits) + 1 + regression.patience, len(penalties))
    regression.inputs = 30 * torch.randn(N, 5, generator=torch.Generator().manual_seed(0)).double()
    noise = regression.path("noise")  # of which the strongest fits best
    assert int(np.argmin([fit.loss for fit in noise])) == 0
    assert len(noise) == min(last_best(noise) + 1 + regression.patience, len(penalties))
    assert all(fit.reads == f"genes, {regression.method}" for fit in fits)
    sizes = [float(fit.weight.square().sum()) for fit in fits]
    assert sizes[0] < sizes[-1]


def test_penalties_are_dense_span_more_than_thirtyfold_and_do_not_depend_on_how_many_patients_there_are():
    for kind in ("survival", "grade"):
        inputs, target = outcome_of(kind)
        twice = (
            SurvivalTarget(target.time_days.repeat(2), target.event.repeat(2))
            if kind == "survival"
            else ClassTarget(target.label.repeat(2))
        )
        doubled = regressions_of(inputs.repeat(2, 1), twice, n_outputs=3)
        for once, again in zip(regressions_of(inputs, target, n_outputs=3), doubled, strict=True):
            penalties = np.array(once.penalties(inputs))
            steps = np.abs(np.diff(np.log(penalties)))
            assert steps.sum() > np.log(30)
            assert steps.max() < np.log(4)
            np.testing.assert_allclose(again.penalties(again.inputs), penalties)


def test_classes_count_alike_in_the_loss_however_small():
    label = torch.tensor([0] * 8 + [1] * 5 + [2])
    inputs, logits = torch.randn(2, 14, 3, generator=torch.Generator().manual_seed(0)).double()
    regression = regressions_of(inputs, ClassTarget(label), n_outputs=3)[0]
    each = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    expected = sum(float(each[label == k].mean()) for k in range(3)) / 3
    assert float(regression.loss(logits, regression.everybody)) == pytest.approx(expected)


def test_logits_out_of_fold_are_of_models_that_did_not_see_the_patient(regression):
    fit = regression.path("genes")[0]
    inputs, _ = regression.coordinates(regression.inputs)
    for k in range(INNER_FOLDS):
        left_out = regression.fold == k
        weight, bias = regression.fit(inputs, ~left_out, fit.penalty, None)
        torch.testing.assert_close(fit.out_of_fold[left_out], inputs[left_out] @ weight.T + bias)
    assert fit.loss == pytest.approx(float(regression.loss(fit.out_of_fold, regression.everybody)))


def test_a_column_of_scale_zero_is_not_read(regression):
    scale = torch.tensor([1.0, 1.0, 0.0, 2.0, 0.0]).double()
    fits = regression.path("some", scale)
    assert all(not fit.weight[:, scale == 0].any() for fit in fits)
    regression.inputs[:, scale == 0] = 1e6
    for fit, again in zip(fits, regression.path("some", scale), strict=True):
        torch.testing.assert_close(again.weight, fit.weight)


def test_a_sum_of_models_is_weighed_best_and_its_loss_is_of_weights_that_did_not_see_the_patient(regression):
    columns = [torch.eye(5)[place].double() for place in (0, 1)]
    parts = [min(regression.path("one", column), key=lambda fit: fit.loss) for column in columns]
    found = regression.weighed_sum(parts)

    shares = torch.linalg.lstsq(torch.stack([p.weight.flatten() for p in parts]).T, found.weight.flatten()).solution
    assert (shares >= -1e-9).all()
    torch.testing.assert_close(sum(s * p.bias for s, p in zip(shares, parts, strict=True)), found.bias)
    logits = sum(s * p.out_of_fold for s, p in zip(shares, parts, strict=True))
    seen = float(regression.loss(logits, regression.everybody))
    assert seen <= min(part.loss for part in parts) + 1e-6
    assert found.loss >= seen
    assert np.isnan(found.penalty)


def test_a_model_that_says_the_opposite_has_no_weight_in_a_sum(regression):
    part = min(regression.path("genes"), key=lambda fit: fit.loss)
    opposite = replace(part, weight=-part.weight, bias=-part.bias, out_of_fold=-part.out_of_fold)
    found = regression.weighed_sum([opposite])
    assert not found.weight.any()
    assert found.reads.startswith("0 × genes")


def survival_of(strength: float, columns: int, seed: int = 0):
    """150 patients whose hazard depends evenly on all columns; strength is the spread of their log hazards."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(150, columns, generator=generator).double()
    log_hazard = strength * inputs.sum(dim=1) / columns**0.5
    died = -torch.rand(150, generator=generator).double().log() * (-log_hazard).exp()
    left = -torch.rand(150, generator=generator).double().log() * 1.5
    return inputs, SurvivalTarget(torch.minimum(died, left).float(), died <= left)


def fits_of(inputs, target):
    regressions = regressions_of(inputs, target, n_outputs=1)
    return regressions[0], [fit for one in regressions for fit in one.path("columns")]


def gain(regression, fit) -> float:
    return float(regression.loss(0 * fit.out_of_fold, regression.everybody)) - fit.loss


def test_a_clear_cox_model_is_chosen_by_its_likelihood_as_it_is():
    regression, fits = fits_of(*survival_of(1.5, 5))
    chosen = regression.best(fits)
    assert gain(regression, chosen) > 0.1
    assert chosen is min(fits, key=lambda fit: fit.loss)
    assert chosen is regression.best(fits, [fits, fits])


@pytest.mark.parametrize("seed", range(2))
def test_a_weak_cox_model_of_many_columns_is_chosen_by_its_order_and_rescaled(seed):
    regression, fits = fits_of(*survival_of(0.8, 300, seed))
    chosen, ranked = regression.best(fits), max(fits, key=lambda fit: fit.concordance)
    assert max(gain(regression, fit) for fit in fits) < 0.05
    assert chosen.concordance == ranked.concordance > min(fits, key=lambda fit: fit.loss).concordance
    slope = float(chosen.out_of_fold.std() / ranked.out_of_fold.std())
    torch.testing.assert_close(chosen.weight, slope * ranked.weight)
    torch.testing.assert_close(chosen.out_of_fold, slope * ranked.out_of_fold)
    tried = [float(regression.loss(s * ranked.out_of_fold, regression.everybody)) for s in np.linspace(0.01, 10, 300)]
    assert chosen.loss <= min(tried) + 1e-6
    assert chosen.reads.endswith(f"× ({ranked.reads})")


def test_log_hazards_in_the_wrong_order_are_made_small_and_not_turned_round():
    regression, fits = fits_of(*survival_of(1.5, 5))
    fit = min(fits, key=lambda fit: fit.loss)
    opposite = replace(fit, out_of_fold=-fit.out_of_fold, loss=9.0, concordance=1 - fit.concordance)
    torch.testing.assert_close(regression.best([opposite]).weight, 0.01 * fit.weight)


def test_log_hazards_of_patients_who_happen_to_be_in_order_are_not_made_endless():
    inputs, target = survival_of(1.0, 5)
    regression, fits = fits_of(inputs, target)
    in_order = -0.01 * target.time_days.argsort().argsort().double()[:, None]
    lucky = replace(fits[0], out_of_fold=in_order, loss=9.0, concordance=1.0)
    assert float(regression.best([lucky]).out_of_fold.std()) == pytest.approx(1)


def test_constant_predictions_rank_as_chance_and_classes_have_no_rank():
    inputs, target = survival_of(1.0, 5)
    regression = regressions_of(inputs, target, n_outputs=1)[0]
    assert regression.concordance(torch.zeros(150, 1)) == 0.5
    assert np.isnan(regressions_of(*outcome_of("grade"), n_outputs=3)[0].path("genes")[0].concordance)


def test_two_weak_models_are_added_with_equal_spread_and_one_that_ranks_by_chance_is_left_out():
    inputs, target = survival_of(0.6, 40, seed=2)
    regressions = regressions_of(inputs, target, n_outputs=1)
    first = torch.arange(40) < 20
    alone = [[fit for one in regressions for fit in one.path("half", h.double())] for h in (first, ~first)]
    found = regressions[0].best([fit for fits in alone for fit in fits], alone)
    ranked = [max(fits, key=lambda fit: fit.concordance) for fits in alone]
    shares = torch.linalg.lstsq(torch.stack([p.weight[0] for p in ranked]).T, found.weight[0, :, None]).solution[:, 0]
    spreads = [float(share * fit.out_of_fold.std()) for share, fit in zip(shares, ranked, strict=True)]
    assert spreads[0] > 0
    assert spreads[0] == pytest.approx(spreads[1])
    torch.testing.assert_close(found.out_of_fold, sum(s * p.out_of_fold for s, p in zip(shares, ranked, strict=True)))

    by_chance = [replace(fit, concordance=0.5) for fit in alone[1]]
    only = regressions[0].best([*alone[0], *by_chance], [alone[0], by_chance])
    assert not only.weight[:, ~first].any()
    torch.testing.assert_close(only.weight, regressions[0].best(alone[0]).weight, rtol=5e-3, atol=1e-6)


def numbers(seed: int = 4):
    """Numbers that follow two of twelve columns; the columns have other means than 0."""
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(60, 12)) + np.arange(12)
    value = inputs[:, 0] - 0.5 * inputs[:, 1] + 0.5 * random.normal(size=60)
    value = (value - value.mean()) / value.std()
    return torch.from_numpy(inputs), NumberTarget(torch.from_numpy(value))


def test_least_squares_are_those_of_scikit_learn():
    inputs, target = numbers()
    net, ridge = regressions_of(inputs, target, n_outputs=1)
    assert (net.method, ridge.method) == ("elastic net", "ridge")
    for fit in net.path("genes"):
        other = ElasticNet(alpha=fit.penalty, l1_ratio=0.5).fit(inputs, target.value)
        np.testing.assert_allclose(fit.weight[0], other.coef_, atol=1e-3)
        np.testing.assert_allclose(fit.bias, other.intercept_, atol=1e-2)
    for fit in ridge.path("genes"):
        other = Ridge(alpha=fit.penalty * len(inputs)).fit(inputs, target.value)
        np.testing.assert_allclose(fit.weight[0], other.coef_, atol=1e-8)
        np.testing.assert_allclose(fit.bias, [other.intercept_], atol=1e-8)


def test_numbers_are_predicted_out_of_fold_and_columns_that_say_nothing_are_left_out():
    inputs, target = numbers()
    net, _ = regressions_of(inputs, target, n_outputs=1)
    fits = net.path("genes")
    best = net.best(fits)
    assert best.loss == pytest.approx(float((best.out_of_fold[:, 0] - target.value).square().mean() / 2))
    assert best.loss < 0.25  # half the variance that saying nothing leaves
    strongest = fits[0].weight[0].abs()
    assert int(strongest.argmax()) == 0
    assert (strongest[2:] == 0).all()
    outlier = NumberTarget(target.value.clone())
    k = int(np.flatnonzero(net.fold == 2)[0])
    outlier.value[k] += 1.0  # of a patient whom a fold predicts: it learns nothing of him
    changed = regressions_of(inputs, outlier, n_outputs=1)[0]
    if (changed.fold == net.fold).all():
        penalty = fits[3].penalty
        for one in (net, changed):
            one.penalties = lambda _inputs, penalty=penalty: [penalty]
        torch.testing.assert_close(net.path("g")[0].out_of_fold[k], changed.path("g")[0].out_of_fold[k])


def test_large_covariates_that_say_nothing_do_not_hide_a_gene():
    """At strong penalties they come first, and the loss rises before it falls."""
    draw, label, n_hidden = np.random.default_rng(0), np.arange(N) % 2, 0
    for _ in range(8):
        gene = draw.normal(size=N) + 1.6 * (label - 0.5)
        inputs = np.column_stack([gene, 5 * draw.normal(size=(N, 4))])
        (regression,) = regressions_of(torch.from_numpy(inputs), ClassTarget(torch.from_numpy(label)), n_outputs=2)
        fits = regression.path("expression")
        assert [fit.penalty for fit in fits] == list(regression.penalties(regression.inputs))
        early = min(fit.loss for fit in fits[:3])
        n_hidden += fits[2].loss > fits[0].loss and regression.best(fits).loss < early - 0.02
    assert n_hidden > 0
