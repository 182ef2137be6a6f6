"""What a batch shows in numbers, against scikit-learn, lifelines and definitions written as loops."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from subfuse.audit.confounding import signal
from subfuse.audit.confounding.signal import (
    explained_share,
    held_out_scores,
    martingale_residuals,
    permuted,
    stratified_auc,
    strongest_columns,
    told_apart,
    told_by,
)

N = 120


@pytest.fixture
def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def test_without_strata_the_auc_is_that_of_scikit_learn(draw) -> None:
    batches, scores = draw.integers(0, 3, (2, N)), draw.normal(size=(2, N, 3)).round(1)
    found = stratified_auc(scores, np.eye(3)[batches], np.zeros(N, int))
    for drawing in range(2):
        aucs = [roc_auc_score(batches[drawing] == value, scores[drawing, :, value]) for value in range(3)]
        assert found[drawing] == pytest.approx(np.mean(aucs))


def test_within_strata_pairs_of_two_strata_do_not_count(draw) -> None:
    batch, stratum, scores = draw.integers(0, 2, N), draw.integers(0, 4, N), draw.normal(size=(N, 2)).round(1)
    won = [[0.0, 0], [0.0, 0]]
    for value in (0, 1):
        for i in np.flatnonzero(batch == value):
            for j in np.flatnonzero((batch != value) & (stratum == stratum[i])):
                won[value][0] += (scores[i, value] > scores[j, value]) + (scores[i, value] == scores[j, value]) / 2
                won[value][1] += 1
    expected = np.mean([right / pairs for right, pairs in won])
    assert stratified_auc(scores[None], np.eye(2)[batch][None], stratum)[0] == pytest.approx(expected)
    assert np.isnan(stratified_auc(scores[None], np.eye(2)[batch][None], batch)[0])


@pytest.mark.parametrize("n_columns", [10, 300])
def test_held_out_patients_are_scored_by_the_others_as_by_the_ridge_of_scikit_learn(draw, n_columns) -> None:
    inputs, fold = draw.normal(size=(N, n_columns)), np.arange(N) % 3
    kinds = np.eye(2)[np.stack([draw.integers(0, 2, N), draw.integers(0, 2, N)])]

    scores = held_out_scores(inputs, kinds, fold)

    tested, train = fold == 1, fold != 1
    scaled = (inputs - inputs[train].mean(axis=0)) / inputs[train].std(axis=0) / np.sqrt(n_columns)
    for drawing in range(2):
        expected = Ridge(alpha=2.0).fit(scaled[train], kinds[drawing, train]).predict(scaled[tested])
        assert scores[drawing, tested] == pytest.approx(expected)
    changed = np.where(tested[:, None], 1 - kinds, kinds)
    assert np.array_equal(held_out_scores(inputs, changed, fold)[:, tested], scores[:, tested])


def test_it_does_not_matter_how_many_drawings_are_scored_at_a_time(draw, monkeypatch) -> None:
    inputs, batch, stratum = draw.normal(size=(N, 8)), draw.integers(0, 3, N), draw.integers(0, 2, N)
    inputs[:, 0] += 0.5 * batch
    drawn = (inputs, batch, np.arange(N) % 4, stratum)
    at_once = told_by(*drawn, n_permutations=19, seed=0)
    for n_at_once in (1, 3):
        monkeypatch.setattr(signal, "_BLOCK", n_at_once * 3 * N)
        assert told_by(*drawn, n_permutations=19, seed=0) == at_once


def test_a_value_that_is_new_in_a_fold_has_no_score_there(draw) -> None:
    inputs, fold = draw.normal(size=(N, 4)), np.arange(N) % 3
    batch = np.where(fold == 0, 2, draw.integers(0, 2, N))

    scores = held_out_scores(inputs, np.eye(3)[batch][None], fold)[0]

    assert np.isnan(scores[fold == 0, 2]).all()
    assert np.isfinite(np.delete(scores, np.flatnonzero(fold == 0), axis=0)).all()


def test_p_values_of_batches_that_are_drawn_at_random_are_uniform(draw) -> None:
    p_values = []
    for seed in range(120):
        inputs, batch, stratum = draw.normal(size=(40, 15)), draw.integers(0, 2, 40), draw.integers(0, 2, 40)
        p_values.append(told_by(inputs, batch, np.arange(40) % 4, stratum, n_permutations=39, seed=seed).p_within)
    assert np.mean(p_values) == pytest.approx(0.51, abs=0.08)
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.07)


def test_the_share_is_that_of_the_analysis_of_variance_less_chance(draw) -> None:
    batch = np.arange(N) % 4
    values = draw.normal(size=(N, 1)) + 0.8 * batch[:, None]
    mean = np.array([values[batch == value].mean() for value in range(4)])[batch]
    r2 = ((mean - values.mean()) ** 2).sum() / ((values - values.mean()) ** 2).sum()
    adjusted = 1 - (1 - r2) * (N - 1) / (N - 4)

    share, p_value = explained_share(values, batch, np.zeros(N, int), n_permutations=999, seed=0)

    assert share == pytest.approx(adjusted, abs=0.005)
    assert p_value == pytest.approx(0.001)


def test_what_is_the_batch_alone_is_explained_whole_however_strata_and_batch_are_mixed(draw) -> None:
    stratum = draw.integers(0, 4, 300)
    batch = (stratum + draw.integers(0, 3, 300)) % 6  # strata have different batches
    values = draw.normal(size=(6, 2))[batch] + 5 * draw.normal(size=(4, 2))[stratum]
    share, p_value = explained_share(values, batch, stratum, n_permutations=99, seed=0)
    assert share == pytest.approx(1)
    assert p_value == 0.01
    mixed = values + _scaled_noise(draw, values, stratum)
    half, _ = explained_share(mixed, batch, stratum, n_permutations=99, seed=0)
    assert 0.4 < half < 0.6


def _scaled_noise(draw, values: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    """Noise of as much variance within strata as the batch explains there."""
    residual = pd.DataFrame(values).groupby(stratum).transform(lambda column: column - column.mean())
    return draw.normal(size=values.shape) * residual.to_numpy().std(axis=0)


def test_what_the_stratum_explains_is_not_the_batch(draw) -> None:
    stratum = draw.integers(0, 3, N)
    batch = np.where(draw.random(N) < 0.8, stratum, draw.integers(0, 3, N))
    values = stratum[:, None] + draw.normal(size=(N, 2))
    assert explained_share(values, batch, np.zeros(N, int), n_permutations=199, seed=0)[1] == 0.005
    assert explained_share(values, batch, stratum, n_permutations=199, seed=0)[1] > 0.05
    assert explained_share(1.0 * stratum[:, None], batch, stratum, n_permutations=9, seed=0) == (0.0, 1.0)


def test_p_values_of_nothing_are_uniform(draw) -> None:
    kinds = [(draw.normal(size=(40, 1)), draw.integers(0, 3, 40), draw.integers(0, 2, 40)) for _ in range(60)]
    found = [explained_share(*drawn, n_permutations=39, seed=i)[1] for i, drawn in enumerate(kinds)]
    assert np.mean(found) == pytest.approx(0.51, abs=0.1)
    assert np.mean(np.array(found) <= 0.05) < 0.1


def test_permutations_stay_within_strata(draw) -> None:
    batch, stratum = draw.integers(0, 3, N), draw.integers(0, 4, N)
    drawn = list(permuted(batch, stratum, 5, seed=0))
    for other in drawn:
        assert not np.array_equal(other, batch)
        assert all(np.array_equal(np.sort(other[stratum == s]), np.sort(batch[stratum == s])) for s in range(4))


def test_inputs_scaled_within_batches_tell_them_among_patients_alike(draw) -> None:
    biology = draw.integers(0, 2, N)
    batch = np.where(draw.random(N) < 0.85, biology, 1 - biology)
    inputs = biology[:, None] + 0.3 * draw.normal(size=(N, 20))
    clean = told_by(inputs, batch, np.arange(N) % 4, biology, n_permutations=99, seed=0)
    for value in (0, 1):
        inputs[batch == value] -= inputs[batch == value].mean(axis=0)
    scaled = told_by(inputs, batch, np.arange(N) % 4, biology, n_permutations=99, seed=0)
    assert (clean.auc > 0.6, clean.p_within > 0.05) == (True, True)
    assert (scaled.auc < 0.5, scaled.auc_within > 0.9, scaled.p_within) == (True, True, 0.01)


def test_the_strongest_column_is_named_first(draw) -> None:
    batch, stratum = draw.integers(0, 2, N), draw.integers(0, 2, N)
    inputs = draw.normal(size=(N, 6))
    inputs[:, 4] += 2 * batch
    inputs[:, 2] += 9 * stratum
    assert strongest_columns(inputs, batch, stratum, 3)[0] == 4


def test_martingale_residuals_are_those_of_lifelines(draw) -> None:
    time_days, event = draw.exponential(100, N), draw.random(N) < 0.6
    table = pd.DataFrame({"time": time_days, "event": event, "x": draw.normal(size=N)})
    fitted = CoxPHFitter(penalizer=1e6).fit(table, "time", "event")  # no coefficient: only the baseline is left
    expected = fitted.compute_residuals(table, "martingale").sort_index()["martingale"]
    assert martingale_residuals(time_days, event) == pytest.approx(expected.to_numpy(), abs=1e-3)


def test_columns_that_mean_something_else_in_every_group_tell_within_them(draw) -> None:
    batch, group, stratum = draw.integers(0, 2, N), draw.integers(0, 3, N), draw.integers(0, 2, N)
    axes = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    inputs = 3 * batch[:, None] * axes[group] + draw.normal(size=(N, 2))
    found = told_apart(inputs, batch, group, stratum, n_permutations=99, seed=0)
    assert (found.auc > 0.9, found.auc_within > 0.9, found.p_within) == (True, True, 0.01)
    pooled = told_by(inputs, batch, np.arange(N) % 4, stratum, n_permutations=99, seed=0)
    assert pooled.auc < found.auc - 0.1


def test_what_tells_nothing_within_groups_is_not_found_more_often_than_chance(draw) -> None:
    p_values = []
    for seed in range(40):
        batch, group = draw.integers(0, 2, N), draw.integers(0, 3, N)
        inputs = draw.normal(size=(N, 4)) + 5 * group[:, None]
        found = told_apart(inputs, batch, group, np.zeros(N, dtype=np.int64), n_permutations=39, seed=seed)
        p_values.append(found.p_within)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.15)
    alone = told_apart(inputs, np.zeros(N, dtype=np.int64), group, group, n_permutations=9, seed=0)
    assert np.isnan([alone.auc, alone.auc_within, alone.p_within]).all()
