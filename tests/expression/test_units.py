"""Units on the way to the scale of models: what they may hold, and shares with the genes below their sum."""

import numpy as np
import pandas as pd
import pytest
from expression_tables import plain

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.reading import read_expression
from subfuse.expression.table import read_expression_h5ad, write_expression
from subfuse.expression.units import (
    FINISHED,
    MODEL_SCALE,
    ShareBasis,
    UnitMismatch,
    check_values,
    remove_log,
    renormalise,
    stated_sums,
    to_model_scale,
    units_of,
)
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


@pytest.mark.parametrize(
    ("unit", "lowest", "remedy"),
    [
        ("tpm", -3.0, r"z-scores \(zscore\), logarithms of x \+ 0\.001 \(log2_tpm_001, log2_fpkm_001\), or log-ratios"),
        ("log2_tpm", -30.0, r"z-scores \(zscore\), or log-ratios and other logarithms \(zscore with `standardise: coh"),
        ("log2_tpm_001", -30.0, r"z-scores \(zscore\), or log-ratios"),
    ],
)
def test_a_refused_negative_value_says_what_a_table_with_its_lowest_can_be(tmp_path, unit, lowest, remedy):
    table = FPKM.copy()
    table.iloc[0, 0], table.iloc[4, 3] = max(lowest, -11.0), lowest
    with pytest.raises(UnitMismatch, match=rf"row 2 \(P0\), gene G0: .* Values below 0 are {remedy}"):
        read(tmp_path, table, unit)
    found = read_expression(expression_section(table=tmp_path / "e.csv", unit="zscore", standardise="cohort")).values
    assert np.allclose(found.mean(), 0, atol=1e-4)


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


def test_tpm_becomes_log2_sorted_by_patient(tmp_path):
    table = plain(tmp_path, "case,TP53,EGFR\nb,3,0\na,1,7\n")
    expected = pd.DataFrame([[1, 3], [2, 0]], index=["a", "b"], columns=["TP53", "EGFR"], dtype=np.float32)
    pd.testing.assert_frame_equal(table.values, expected, check_names=False)
    assert (table.unit, table.transform, table.scale) == ("tpm", "log2(TPM + 1)", "log2_tpm")


@pytest.mark.parametrize(("unit", "scale"), [("fpkm", "log2_tpm"), ("fpkm_uq", "log2_tpm"), ("counts", "log2_cpm")])
def test_other_linear_units_are_scaled_to_a_million(tmp_path, unit, scale):
    table = plain(tmp_path, "case,G1,G2,G3\na,1,2,5\nb,10,20,50\n", unit)
    np.testing.assert_allclose(2.0 ** table.values.to_numpy() - 1, [[125e3, 25e4, 625e3]] * 2, rtol=1e-5)
    assert unit in table.transform
    assert "3 genes" in table.transform
    assert table.scale == scale


@pytest.mark.parametrize("unit", ["log2_tpm", "zscore"])
def test_finished_units_stay(tmp_path, unit):
    table = plain(tmp_path, "case,G1,G2\na,0.5,1.5\n", unit)
    assert table.values.to_numpy().tolist() == [[0.5, 1.5]]
    assert (table.transform, table.scale) == ("none", unit)


def test_zscores_may_be_negative_but_tpm_may_not(tmp_path):
    text = "case,G1,G2\na,0.5,-1.5\n"
    assert plain(tmp_path, text, "zscore").values.loc["a", "G2"] == -1.5
    with pytest.raises(DataError, match=r"expression.csv, row 2 \(a\), gene G2: a value of at least 0 \(tpm\)"):
        plain(tmp_path, text, "tpm")


@pytest.mark.parametrize(
    ("values", "unit", "message"),
    [
        ((1.5, 3), "counts", r"a whole number \(counts\) is required. Found 1.5 .* unit rsem"),
        ((-2, 3), "counts", r"a value of at least 0 \(counts\)"),
        ((-2, 3), "log2_tpm", r"logarithms of x \+ 0.001 \(log2_tpm_001"),
        ((-11, 3), "log2_tpm_001", "a value of at least -9.976"),
        ((1, 300), "log2_tpm", r"a logarithm, below 40 \(log2_tpm\) is required. Found 300 .* without log2_"),
    ],
)
def test_values_that_contradict_the_unit(tmp_path, values, unit, message):
    with pytest.raises(DataError, match=message):
        plain(tmp_path, f"patient_id\tA\tB\np\t{values[0]}\t{values[1]}\n", unit)


def test_every_unit_becomes_one_scale_and_logarithms_go_back_to_what_they_are_of():
    assert sorted(unit for scale in FINISHED for unit in units_of(scale).split(", ")) == sorted(MODEL_SCALE)
    raw = np.array([[0.0, 3.5, 40.0], [7.0, 0.25, 1e5]])
    for unit, offset in (("log2_fpkm", 1.0), ("log2_counts", 1.0), ("log2_tpm_001", 0.001), ("log2_fpkm_001", 0.001)):
        values = np.log2(raw + offset).astype(np.float32)
        remove_log(values, unit)
        np.testing.assert_allclose(values, raw, rtol=1e-5, atol=1e-6)
        assert values.min() >= 0
    rounded_down = np.log2(np.array([[0.001]])) - 1e-4
    remove_log(rounded_down, "log2_tpm_001")
    assert rounded_down == 0
    for unit in (*FINISHED, "tpm", "counts"):
        values = raw.astype(np.float32)
        remove_log(values, unit)
        np.testing.assert_array_equal(values, raw.astype(np.float32))


def test_stated_sums_are_those_of_the_shares_without_their_logarithm():
    tpm = np.array([[1.0, 3.0, 0.0], [2e5, 7.0, 8e5]])
    for unit, offset in (("log2_tpm", 1.0), ("log2_cpm", 1.0), ("log2_tpm_001", 0.001)):
        np.testing.assert_allclose(stated_sums(np.log2(tpm + offset), unit), tpm.sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(stated_sums(tpm, "tpm"), tpm.sum(axis=1))
    assert stated_sums(tpm, "fpkm") is stated_sums(tpm, "counts") is None


def test_shares_add_up_to_a_million_whatever_they_added_up_to_and_a_sample_of_zeros_stays():
    raw = np.array([[0.1, 0.2, 0.0], [3.0, 1.0, 4.0], [2e5, 0.0, 6e6], [0.0, 0.0, 0.0]])
    expected = raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-300) * 1e6
    np.testing.assert_allclose(np.exp2(renormalise(np.log2(raw + 1))) - 1, expected, rtol=1e-5)
    values = raw.copy()
    assert to_model_scale(values, "fpkm", raw.sum(axis=1), 3) == "log2(TPM + 1), TPM from fpkm over 3 genes"
    assert to_model_scale(raw.copy(), "rsem", raw.sum(axis=1), 3) == "log2(CPM + 1), CPM from rsem over 3 genes"
    np.testing.assert_allclose(np.exp2(values) - 1, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "unit", "remedy", "seems"),
    [
        (np.nan, "tpm", "Fill the cell in", ""),
        (np.inf, "zscore", "Fill the cell in", ""),
        (0.5, "counts", "Declare unit rsem", "no counts of reads"),
        (-0.5, "counts", "Values below 0 are", "z-scores, or logarithms of values below 1"),
        (-0.5, "log2_tpm", "Values below 0 are", "z-scores, or logarithms of values below 1"),
        (-0.5, "log2_cpm", "Values below 0 are", "z-scores, or logarithms of values below 1"),
        (50.0, "log2_tpm", "Declare the unit without log2_", "values without logarithm"),
    ],
)
def test_the_first_value_that_cannot_be_in_the_unit_is_named_with_what_to_do(value, unit, remedy, seems):
    values = np.array([[1.0, 2.0, 3.0], [4.0, value, value], [value, 5.0, 6.0]])
    with pytest.raises(UnitMismatch, match=r"^file, sample 1 gene 1: .* \(3 such value\(s\)\)\. " + remedy) as caught:
        check_values(values, unit, lambda sample, gene: f"sample {sample} gene {gene}", "file")
    assert caught.value.seems == seems


def test_values_at_the_bounds_of_their_unit_pass():
    for value, unit in ((40.0, "log2_tpm"), (-9.966, "log2_tpm_001"), (0.0, "tpm"), (1e9, "counts"), (-30.0, "zscore")):
        check_values(np.full((2, 3), value), unit, lambda sample, gene: f"{sample} {gene}", "file")
    check_values(np.zeros((2, 0)), "tpm", lambda sample, gene: f"{sample} {gene}", "file")


def test_the_last_row_of_a_long_table_is_checked():
    values = np.zeros((2_000_003, 2), np.float32)  # more values than are looked at together
    values[-1, 1] = -1
    with pytest.raises(UnitMismatch, match="row 2000002 gene 1"):
        check_values(values, "tpm", lambda sample, gene: f"row {sample} gene {gene}", "file")
