"""Shares of a million mean something only together with the genes below their sum."""

import numpy as np
import pandas as pd
import pytest

from expression_sections import expression_section
from subfuse.expression.reading import read_expression
from subfuse.expression.table import read_expression_h5ad, write_expression
from subfuse.expression.units import ShareBasis, renormalise
from subfuse.preparation.sources import pool_expression

FPKM = pd.DataFrame(
    np.random.default_rng(0).lognormal(size=(5, 12)) * 100,
    index=[f"P{i}" for i in range(5)],
    columns=[f"G{i}" for i in range(12)],
)


def read(tmp_path, table: pd.DataFrame, unit: str = "fpkm"):
    table.to_csv(tmp_path / "e.csv")
    return read_expression(expression_section(table=tmp_path / "e.csv", unit=unit))


def test_shares_over_more_genes_become_those_over_fewer(tmp_path):
    few, full = read(tmp_path, FPKM.iloc[:, :4]), read(tmp_path, FPKM)
    assert not np.allclose(few.values, full.values.iloc[:, :4])
    np.testing.assert_allclose(renormalise(full.values.iloc[:, :4].to_numpy()), few.values, rtol=1e-4)


def test_the_basis_is_stored(tmp_path):
    table = read(tmp_path, FPKM)
    assert table.basis == ShareBasis.of(list(FPKM.columns)) == ShareBasis.of(list(FPKM.columns[::-1]))
    write_expression(tmp_path / "e.h5ad", table)
    assert read_expression_h5ad(tmp_path / "e.h5ad").basis == table.basis


@pytest.mark.parametrize(("unit", "transform"), [("tpm", lambda x: x), ("log2_tpm", lambda x: np.log2(x + 1))])
def test_the_basis_of_given_shares_is_known_where_they_are_complete(tmp_path, unit, transform):
    complete = FPKM.div(FPKM.sum(axis=1), axis=0) * 1e6
    assert read(tmp_path, transform(complete), unit).basis == ShareBasis.of(list(FPKM.columns))
    assert read(tmp_path, transform(complete.iloc[:, :6]), unit).basis is None


def test_cohorts_are_pooled_on_shares_over_the_genes_of_all(tmp_path):
    first, second = read(tmp_path, FPKM.iloc[:, :4]), read(tmp_path, FPKM.set_axis([f"Q{i}" for i in range(5)]))
    pooled, _ = pool_expression({"first": first, "second": second})
    assert pooled is not None
    np.testing.assert_allclose(pooled.values.iloc[:5], pooled.values.iloc[5:], rtol=1e-4)
    assert pooled.basis == first.basis
    assert "shares over the 4 genes of all" in pooled.transform
