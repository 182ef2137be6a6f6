"""Concordance of many columns at once, and the chance of a nearly perfect one."""

import itertools
import math

import numpy as np
import pytest
from sksurv.metrics import concordance_index_censored

from subfuse.evaluation.perfect_order import best_concordance, log_chance_of_order, log_chance_of_separation


def test_concordance_is_exact_where_nearly_perfect() -> None:
    generator = np.random.default_rng(1)
    time, event = generator.permutation(60) * 1.0, generator.random(60) < 0.7
    swapped = time.copy()
    swapped[[3, 9]] = swapped[[9, 3]]
    values = np.column_stack([-time, swapped, np.round(time / 3), generator.normal(size=60)])
    later = event[:, None] & ((time > time[:, None]) | ((time == time[:, None]) & ~event))

    found = best_concordance(values, later)

    for column in range(4):
        exact = concordance_index_censored(event, time, values[:, column])[0]
        best = max(exact, 1 - exact)
        assert found[column] == pytest.approx(best if best >= 0.99 else 0.0, abs=1e-12)


@pytest.mark.parametrize(("n_cases", "n_controls"), [(2, 3), (3, 3), (2, 6)])
def test_the_chance_of_a_perfect_separation_is_that_of_all_orders(n_cases: int, n_controls: int) -> None:
    n = n_cases + n_controls
    orders = list(itertools.combinations(range(n), n_cases))
    perfect = sum(max(order) == n_cases - 1 or min(order) == n_controls for order in orders)

    assert np.exp(log_chance_of_separation(n_cases, n_controls)) == pytest.approx(perfect / len(orders))


def test_as_many_orders_are_counted_as_the_numbers_of_wrong_pairs_have_partitions() -> None:
    n_cases, n_controls = 20, 30  # 600 pairs, of which 6 may be wrong
    counted = np.exp(log_chance_of_separation(n_cases, n_controls)) * math.comb(n_cases + n_controls, n_cases) / 2

    assert counted == pytest.approx(7 * math.exp(math.pi * math.sqrt(2 * 6 / 3)))
    assert counted >= 1 + 1 + 2 + 3 + 5 + 7 + 11  # partitions of 0 to 6


def test_the_chance_of_a_perfect_order_of_events_is_that_of_all_orders() -> None:
    n_later = np.array([4, 3, 1])  # five patients, the third of whom was followed for less than the fourth
    later = {0: (1, 2, 3, 4), 1: (2, 3, 4), 3: (4,)}
    orders = list(itertools.permutations(range(5)))
    right = sum(all(order[i] < order[j] for i, others in later.items() for j in others) for order in orders)

    assert np.exp(log_chance_of_order(n_later)) == pytest.approx(2 * right / len(orders))


def test_the_chance_that_few_pairs_are_wrong_is_no_smaller_than_drawn() -> None:
    random = np.random.default_rng(0)
    is_case = np.arange(12) < 6
    comparable = is_case[:, None] & ~is_case
    drawn = np.concatenate([best_concordance(random.random((12, 20_000)), comparable) for _ in range(10)])

    assert (drawn >= 0.99).mean() <= np.exp(log_chance_of_separation(6, 6)) <= 3 * (drawn >= 0.99).mean()
