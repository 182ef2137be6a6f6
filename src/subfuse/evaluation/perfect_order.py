"""Columns that alone order patients nearly perfectly, and how likely one without any relation is to do so."""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

NEARLY_PERFECT = 0.99  # C-index or AUC of one column, in either direction
_BLOCK = 4  # events compared at a time, before columns that can no longer be nearly perfect are dropped


def best_concordance(
    values: Float[np.ndarray, "patient column"], comparable: Bool[np.ndarray, "patient patient"]
) -> Float[np.ndarray, " column"]:
    """Returns every column's concordance in its better direction, exact where it is at least 0.99, else 0.

    Ties count one half. A column is dropped as soon as the pairs that remain cannot make it nearly perfect, which for
    most columns takes a few patients, so that 20,000 genes of 500 patients take about a second.

    Args:
        values: Of every patient and column, nothing missing.
        comparable: True where the row's patient is compared with the column's.
    """
    cases = np.flatnonzero(comparable.any(axis=1))
    # those compared with most patients first: they decide soonest
    cases = cases[np.argsort(-comparable[cases].sum(axis=1), kind="stable")]
    n_pairs = int(comparable.sum())
    open_columns = np.arange(values.shape[1])
    balance = np.zeros(values.shape[1])  # pairs in rising order minus pairs in falling order
    n_seen = 0
    for start in range(0, len(cases), _BLOCK):
        remaining = values[:, open_columns]
        for case in cases[start : start + _BLOCK]:
            others = comparable[case]
            balance[open_columns] += np.sign(remaining[others] - remaining[case]).sum(axis=0, dtype=np.float64)
            n_seen += int(others.sum())
        reachable = np.abs(balance[open_columns]) + n_pairs - n_seen
        open_columns = open_columns[reachable >= (2 * NEARLY_PERFECT - 1) * n_pairs - 1e-9]
        if not len(open_columns):
            break
    share = np.zeros(values.shape[1])
    share[open_columns] = 0.5 + np.abs(balance[open_columns]) / (2 * n_pairs)
    return share


def _allowed(n_pairs: int) -> int:
    """Returns how many pairs a nearly perfect column may have in the wrong order."""
    return math.floor((1 - NEARLY_PERFECT) * n_pairs + 1e-9)


def log_chance_of_separation(n_cases: int, n_controls: int) -> float:
    """Returns an upper bound of the log-probability that a random order separates two classes nearly perfectly.

    Orders with j wrong pairs are at most the partitions of j, fewer than exp(pi sqrt(2 j / 3)), in either direction.
    """
    n_wrong = _allowed(n_cases * n_controls)
    orders = math.log(2) + math.log(n_wrong + 1) + math.pi * math.sqrt(2 * n_wrong / 3)
    return orders - _log_choose(n_cases + n_controls, n_cases)


def log_chance_of_order(n_later: Int[np.ndarray, " event"]) -> float:
    """Returns an upper bound of the log-probability that a random order sorts all events nearly perfectly.

    In a random order, the numbers of wrong pairs of the events are independent, each uniform from 0 to the number of
    later patients; at most C(events + wrong, events) combinations sum to no more than the pairs that may be wrong, in
    either direction.

    Args:
        n_later: Of every event, patients who were followed for longer.
    """
    n_events, n_wrong = len(n_later), _allowed(int(n_later.sum()))
    return math.log(2) + _log_choose(n_events + n_wrong, n_events) - float(np.log1p(n_later).sum())


def _log_choose(total: int, chosen: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)
