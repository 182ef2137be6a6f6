"""How far networks differ: within an ensemble, between folds, and both together."""

import numpy as np
import pandas as pd

from subfuse.runs.prediction.spread import joint_spread, with_spread


def drawn(n_folds: int, n_networks: int) -> tuple[pd.DataFrame, np.ndarray]:
    random = np.random.default_rng(1)
    values = random.normal(size=(n_folds, 1, 5)) + 0.3 * random.normal(size=(n_folds, n_networks, 5))
    tables = []
    for fold, networks in enumerate(values):
        each = [pd.DataFrame({"patient_id": range(5), "fold": fold, "p_A": row, "label": "x"}) for row in networks]
        tables.append(with_spread(each[0].assign(p_A=networks.mean(axis=0)), each if n_networks > 1 else []))
    return pd.concat(tables), values


def test_within_an_ensemble_it_is_the_standard_deviation_of_its_networks():
    table, values = drawn(1, 4)
    np.testing.assert_allclose(table["spread_p_A"], values[0].std(axis=0, ddof=1))
    np.testing.assert_allclose(joint_spread(table, ["patient_id"])["spread_p_A"], values[0].std(axis=0, ddof=1))


def test_of_several_folds_both_kinds_add_up():
    table, values = drawn(3, 4)
    found = joint_spread(table, ["patient_id"])["spread_p_A"] ** 2
    between = values.mean(axis=1).var(axis=0, ddof=1)
    np.testing.assert_allclose(found, between + values.var(axis=1, ddof=1).mean(axis=0))
    alone, values = drawn(3, 1)
    np.testing.assert_allclose(joint_spread(alone, ["patient_id"])["spread_p_A"], values[:, 0].std(axis=0, ddof=1))


def test_of_one_network_nothing_is_known():
    table, _ = drawn(1, 1)
    assert table["spread_p_A"].isna().all()
    assert joint_spread(table, ["patient_id"])["spread_p_A"].isna().all()
