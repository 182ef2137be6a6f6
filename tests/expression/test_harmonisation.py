import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp, wasserstein_distance

from subfuse.errors import DataError
from subfuse.expression.harmonisation import harmonise
from subfuse.expression.table import ExpressionStandardiser, ExpressionTable

SETS = {"tumour": ("A", "B", "X"), "microenvironment": ("C", "N"), "nothing": ("N", "O")}


def table(values: np.ndarray, genes: str, unit: str = "log2_tpm") -> ExpressionTable:
    patients = [f"p{row}" for row in range(len(values))]
    return ExpressionTable(pd.DataFrame(values, index=patients, columns=list(genes)), unit, "none", {})


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_genes_are_matched_by_name_and_counted(random):
    report = harmonise(table(random.normal(size=(30, 4)), "ABCX"), table(random.normal(size=(20, 3)), "CBA"), SETS)
    report = report.set_index("gene_set")
    assert report[["n_genes", "n_shared"]].to_numpy().tolist() == [[3, 2], [2, 1], [2, 0], [4, 3]]
    assert report["missing"].tolist() == ["X", "", "", "X"]
    assert report.loc["nothing", "missing_in_reference"] == "N, O"
    assert report.loc["nothing", ["shift", "ks", "wasserstein"]].isna().all()


def test_measures_agree_with_independent_ones(random):
    old, new = random.normal(size=(400, 1)), random.normal(0.8, 1.5, size=(300, 1))
    row = harmonise(table(old, "A"), table(new, "A"), {"tumour": ("A",)}).iloc[0]
    assert row["ks"] == pytest.approx(ks_2samp(old[:, 0], new[:, 0]).statistic)
    assert row["wasserstein"] == pytest.approx(wasserstein_distance(old[:, 0], new[:, 0]) / old.std(), rel=0.05)
    assert row["shift"] == pytest.approx(abs(old.mean() - new.mean()) / np.sqrt((old.var() + new.var()) / 2))


def test_order_of_patients_and_genes_does_not_matter_and_equal_cohorts_do_not_differ(random):
    values = random.normal(size=(30, 3))
    values[:, 2] = 5  # constant in both
    same = harmonise(table(values, "ABC"), table(values[::-1, [2, 0, 1]], "CAB"), SETS).set_index("gene_set")
    np.testing.assert_allclose(same.loc["all genes", ["shift", "shift_max", "ks", "wasserstein"]].astype(float), 0)


def test_a_model_knows_means_and_spreads_only(random):
    old, new = random.normal(size=(50, 2)), random.normal(3, 1, size=(40, 2))
    fitted = ExpressionStandardiser.fit(old.astype(np.float32), ("A", "B"))
    from_model = harmonise(fitted, table(new, "BA"), SETS).set_index("gene_set")
    from_table = harmonise(table(old, "AB"), table(new, "BA"), SETS).set_index("gene_set")
    assert from_model.loc["tumour", "shift"] == pytest.approx(from_table.loc["tumour", "shift"], rel=1e-4)
    assert np.isnan(from_model.loc["tumour", "ks"])


def test_cohorts_in_different_units_cannot_be_compared(random):
    values = random.normal(size=(5, 1))
    with pytest.raises(DataError, match=r"log2_tpm \(unit log2_tpm\) and zscore \(unit zscore\)"):
        harmonise(table(values, "A"), table(values, "A", "zscore"), SETS)
