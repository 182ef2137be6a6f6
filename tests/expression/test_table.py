"""Tables of expression: what is written comes back, and the standardiser knows its training patients alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.reading import read_expression
from subfuse.expression.table import ExpressionStandardiser, ExpressionTable, read_expression_h5ad, write_expression
from subfuse.expression.units import ShareBasis


@pytest.mark.real_data
def test_real_matrix_survives_writing(real_data, tmp_path):
    path = real_data / "tcga_gbmlgg" / "expression_zscores.csv.gz"
    table = read_expression(expression_section(table=path, unit="zscore"))
    assert table.values.shape == (569, 1544)
    assert not len(table.exclusions)
    write_expression(tmp_path / "e.h5ad", table)
    pd.testing.assert_frame_equal(read_expression_h5ad(tmp_path / "e.h5ad").values, table.values, check_names=False)


@pytest.mark.parametrize("content", [b"", b"not hdf5"])
def test_broken_h5ad(tmp_path, content):
    path = tmp_path / "e.h5ad"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"e\.h5ad.*prepare"):
        read_expression_h5ad(path)


@given(arrays(np.float32, (7, 3), elements=st.floats(-100, 100, width=32)))
def test_standardised_training_values_have_mean_0_and_spread_1_or_0(values):
    fitted = ExpressionStandardiser.fit(values, ("A", "B", "C"))
    standard = fitted.transform(values).astype(np.float64)
    spread = values.std(axis=0, dtype=np.float64)
    clear = spread > 1e-3 * (1 + np.abs(values).max())  # far from float32 rounding
    np.testing.assert_allclose(standard[:, clear].mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(standard[:, clear].std(axis=0), 1, rtol=1e-2)
    assert np.isfinite(standard).all()


def test_constant_gene_has_scale_1_and_becomes_0():
    values = np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]], dtype=np.float32)
    fitted = ExpressionStandardiser.fit(values, ("A", "B"))
    assert fitted.scale[0] == 1
    assert np.abs(fitted.transform(values)[:, 0]).max() < 1e-6


def test_standardiser_ignores_patients_it_was_not_fitted_on():
    random = np.random.default_rng(0)
    values = random.normal(size=(6, 4)).astype(np.float32)
    changed = values.copy()
    changed[4:] = 1e6
    first, second = (ExpressionStandardiser.fit(v[:4], tuple("ABCD")) for v in (values, changed))
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.scale, second.scale)


def test_standardiser_takes_one_patient_or_many():
    values = np.arange(12, dtype=np.float32).reshape(3, 4) ** 2
    fitted = ExpressionStandardiser.fit(values, tuple("ABCD"))
    np.testing.assert_array_equal(fitted.transform(values[1]), fitted.transform(values)[1])
    assert fitted.transform(values[1]).dtype == np.float32


def test_unknown_values_are_ignored_in_fitting_and_become_the_mean():
    values = np.random.default_rng(0).normal(3, 2, size=(9, 2)).astype(np.float32)
    holes = values.copy()
    holes[2:7, 1] = np.nan
    fitted = ExpressionStandardiser.fit(holes, ("GENE", "age"))
    of_known = ExpressionStandardiser.fit(np.delete(values, range(2, 7), axis=0), ("GENE", "age"))
    assert fitted.mean[1] == pytest.approx(of_known.mean[1])
    assert fitted.scale[1] == pytest.approx(of_known.scale[1])
    standard = fitted.transform(holes)
    assert (standard[2:7, 1] == 0).all()
    np.testing.assert_allclose(standard[:, 1].mean(), 0, atol=1e-6)
    with pytest.raises(DataError, match="age must be known for at least one training patient"):
        ExpressionStandardiser.fit(holes[2:7], ("GENE", "age"))


def test_standardiser_refuses_other_gene_numbers_and_infinity():
    values = np.ones((2, 3), dtype=np.float32)
    fitted = ExpressionStandardiser.fit(values, tuple("ABC"))
    with pytest.raises(ValueError, match="3 genes"):
        fitted.transform(values[:, :2])
    with pytest.raises(ValueError, match="not finite"):
        ExpressionStandardiser.fit(np.full((2, 3), np.inf, dtype=np.float32), tuple("ABC"))
    with pytest.raises(ValueError, match="at least one patient"):
        ExpressionStandardiser.fit(values[:0], tuple("ABC"))


def test_a_table_comes_back_with_all_that_later_steps_need(tmp_path):
    values = pd.DataFrame(np.arange(6, dtype=np.float32).reshape(2, 3), ["b", "ß 1"], ["EGFR", "H2AZ1", "TP53"])
    genes = pd.DataFrame({"gene_id": ["ENSG1", "ENSG2", ""], "name_in_source": ["", "H2AFZ", ""]}, values.columns)
    samples = pd.DataFrame({"samples": ["s1; s2", "s3"], "n_samples": [2, 1]}, values.index)
    basis = ShareBasis.of(["EGFR", "H2AZ1", "TP53", "VIM"])
    written = ExpressionTable(values, "fpkm", "log2 of shares", {"file": "e.csv"}, genes, samples=samples, basis=basis)
    write_expression(tmp_path / "e.h5ad", written)
    back = read_expression_h5ad(tmp_path / "e.h5ad")
    pd.testing.assert_frame_equal(back.values, values, check_names=False)
    assert (back.unit, back.scale, back.transform, back.source) == (
        "fpkm",
        "log2_tpm",
        "log2 of shares",
        {"file": "e.csv"},
    )
    assert back.basis == basis
    assert back.names_in_source == written.names_in_source == {"H2AZ1": "H2AFZ"}
    assert back.samples["samples"].tolist() == ["s1; s2", "s3"]


def test_a_table_that_was_read_is_written_again_though_names_repeat_and_some_are_unknown(tmp_path):
    values = pd.DataFrame(np.ones((3, 2), dtype=np.float32), ["a", "b", "c"], ["EGFR", "TP53"])
    samples = pd.DataFrame({"kind": ["tumour", "tumour", None]}, values.index)
    write_expression(tmp_path / "e.h5ad", ExpressionTable(values, "tpm", "none", {"file": "e.csv"}, samples=samples))
    back = read_expression_h5ad(tmp_path / "e.h5ad")
    write_expression(tmp_path / "again.h5ad", back)
    again = read_expression_h5ad(tmp_path / "again.h5ad")
    assert again.samples["kind"].tolist() == back.samples["kind"].tolist() == ["tumour", "tumour", ""]


def test_genes_far_from_training_are_counted_above_and_below():
    fitted = ExpressionStandardiser.fit(np.array([[0, 0, 10, 5], [2, 4, 10, 7]], dtype=np.float32), tuple("ABCD"))
    np.testing.assert_array_equal(fitted.scale, [1, 2, 1, 1])
    above, below = fitted.far_genes(np.array([4.1, 8.0, 6.9, 2.9], dtype=np.float32))
    assert (above, below) == (1 / 4, 2 / 4)  # three spreads themselves are not far


def test_values_are_mapped_and_changes_to_them_stay_in_memory(tmp_path):
    values = pd.DataFrame(np.ones((3, 2), np.float32), index=list("ABC"), columns=["EGFR", "TP53"])
    write_expression(tmp_path / "e.h5ad", ExpressionTable(values, "tpm", "log2(TPM + 1)", {"table": "e.csv"}))
    before = (tmp_path / "e.h5ad").read_bytes()
    found = np.asarray(read_expression_h5ad(tmp_path / "e.h5ad").values)
    assert not found.flags.owndata
    found[:] = 7
    assert (tmp_path / "e.h5ad").read_bytes() == before
    write_expression(tmp_path / "e.h5ad", ExpressionTable(values * 5, "tpm", "log2(TPM + 1)", {"table": "e.csv"}))
    assert (found == 7).all()
    assert (np.asarray(read_expression_h5ad(tmp_path / "e.h5ad").values) == 5).all()
