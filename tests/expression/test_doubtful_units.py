"""Does a table hold what its unit says? Sums and logarithms of shares, and whole numbers."""

import numpy as np
import pandas as pd
import pytest
from expression_tables import shares

from expression_sections import expression_section
from subfuse.expression.reading import read_expression

DEPTH = np.linspace(0.3, 0.9, 6)[:, None]  # of sequencing, in million reads


def quantile_normalised(table: pd.DataFrame) -> pd.DataFrame:
    """Samples of one distribution, ties averaged, as limma and preprocessCore return it."""
    means = np.sort(table.to_numpy(), axis=1).mean(axis=0)
    ranks = table.rank(axis=1) - 1
    return ranks.map(lambda rank: (means[int(np.floor(rank))] + means[int(np.ceil(rank))]) / 2)


def mostly_zero(table: pd.DataFrame) -> pd.DataFrame:
    """Nine of ten values 0, and of the others all but one in ten whole."""
    place = np.arange(table.size).reshape(table.shape)
    return pd.DataFrame(np.where(place % 10, 0, 1 + place % 7 + 0.5 * (place % 100 == 0)), table.index, table.columns)


def few_counts(table: pd.DataFrame, n_different: int) -> pd.DataFrame:
    return pd.DataFrame(1 + np.arange(table.size).reshape(table.shape) % n_different, table.index, table.columns)


def warnings_of(tmp_path, table: pd.DataFrame, unit: str) -> str:
    table.to_csv(tmp_path / "e.csv")
    return "\n".join(read_expression(expression_section(table=tmp_path / "e.csv", unit=unit)).warnings)


@pytest.mark.parametrize(
    ("unit", "transform", "doubt"),
    [
        ("tpm", lambda x: x, ""),
        ("log2_tpm", lambda x: np.log2(x + 1), ""),
        ("log2_cpm", lambda x: np.log2(x + 1), ""),
        ("log2_tpm_001", lambda x: np.log2(x + 0.001), ""),
        ("log2_tpm_001", lambda x: np.log2(x + 0.6), ""),
        ("log2_tpm_001", lambda x: np.log2(x + 1), "no value below 0"),
        ("log2_fpkm_001", lambda x: np.log2(x + 1), "no value below 0"),
        ("log2_tpm", lambda x: np.log2(x * DEPTH / 4 + 1), " over 1200 genes"),
        ("log2_tpm", np.log1p, "exp(x) - 1 sums to that in every sample. Give exp(x) - 1 as unit tpm, or the counts"),
        ("log2_tpm", lambda x: np.log10(x + 1), "look like logarithms to base 10 of what was normalised to 1,000,000"),
        ("log2_cpm", lambda x: np.log1p(x / 100).round(3), "natural logarithms of what was normalised to 10,000 per"),
        ("log2_fpkm", lambda x: np.log1p(x / 100), "Give exp(x) - 1 as unit rsem"),
        ("log2_counts", lambda x: np.log1p(x / 100), "Give exp(x) - 1 as unit rsem"),
        ("log2_cpm", lambda x: np.log1p(x * 0.0123), "natural logarithms of what was normalised to 12,300 per"),
        ("log2_counts", lambda x: np.log1p(x * 30), "natural logarithms of what was normalised to 30,000,00"),
        ("log2_counts", lambda x: np.log1p(x * 23.45), ""),  # no sum that anybody would choose
        ("log2_cpm", lambda x: np.log2(x / 100 + 1), "Found 10,000 in every sample: either counts that were"),
        ("tpm", lambda x: (x * DEPTH).round(), "all values are whole numbers (largest "),
        ("tpm", lambda x: (x * 1e-5).round(), "all values are whole numbers (largest "),
        (
            "fpkm",
            lambda x: (x * DEPTH).round(),
            "or fpkm that were rounded; declared unit fpkm. Declare counts if they are",
        ),
        ("tpm", lambda x: x.iloc[:, :500].round(), "as counts of reads are, or tpm that were rounded"),
        ("tpm", lambda x: x / 1e3, "or TPM times 0.001, which must be undone"),
        ("log2_counts", lambda x: np.log1p((x * DEPTH).round()).round(2), "natural logarithms of counts of reads"),
        ("log2_cpm", lambda x: np.log1p((x * DEPTH).round()), "all exp(x) - 1 are whole numbers. Give the counts"),
        ("log2_counts", lambda x: np.log10((x * DEPTH).round() + 1), "logarithms to base 10 of counts of reads"),
        ("log2_counts", lambda x: quantile_normalised(np.log2((x * DEPTH).round() + 1)), ""),
        ("log2_fpkm", lambda x: quantile_normalised(np.log2(x + 1)), ""),
        ("log2_cpm", lambda x: quantile_normalised(np.log2((x * 0.8).round() + 1)), ""),
        ("log2_cpm", lambda x: quantile_normalised(np.log2(x * 0.8 + 1)), ""),
        ("log2_counts", lambda x: np.log2((x * DEPTH).round() + 1).round(1), ""),
        ("log2_cpm", lambda x: np.log2((x * DEPTH).round() + 1).round(3), "Declare log2_counts if they are counts"),
        ("log2_fpkm_uq", lambda x: np.log2((x * DEPTH).round() + 1), "all 2^x - 1 are whole numbers"),
        ("counts", lambda x: (x * DEPTH).round(), ""),
        ("log2_counts", lambda x: np.log2((x * DEPTH).round() + 1), ""),
        ("rsem", lambda x: (x * DEPTH).round(), ""),
        ("tpm", lambda x: x.round(), ""),
        ("tpm", lambda x: x.round(1), ""),
        ("fpkm", lambda x: (x * DEPTH).round(2), ""),
        ("log2_tpm", lambda x: np.log2(x + 1).round(1), ""),
        ("log2_tpm", lambda x: np.log2(x + 1).round(0), ""),
        ("log2_tpm", lambda x: np.log2(x.round() + 1), ""),
        ("log2_fpkm", lambda x: np.log2(x * DEPTH + 1).round(2), ""),
        ("log2_tpm", lambda x: np.log2(x.iloc[:, :200] + 1).round(2), ""),
        ("tpm", lambda x: x.iloc[:, :40].round(), ""),
        ("tpm", lambda x: x.iloc[:, :49].round(), ""),
        ("tpm", lambda x: x.iloc[:, :50].round(), "all values are whole numbers"),
        ("log2_fpkm", lambda x: np.log2(mostly_zero(x) + 1), ""),
        ("log2_fpkm", lambda x: np.log2(x + 1).round(0), ""),
        ("log2_cpm", lambda x: x * 0, "Found a median of 0 over 1200 genes"),
        ("log2_fpkm", lambda x: np.log2(few_counts(x, 2) + 1), ""),
        ("log2_fpkm", lambda x: np.log2(few_counts(x, 3) + 1), "all 2^x - 1 are whole numbers"),
        ("tpm", lambda x: (x * DEPTH / 4).iloc[:, :999], ""),
        ("tpm", lambda x: (x * DEPTH / 4).iloc[:, :1000], "Found a median of "),
        ("log2_cpm", lambda x: np.log2(x.iloc[:4] / 100 + 1), "Found a median of 10000 over 1200 genes"),
        ("log2_cpm", lambda x: np.log2(x.iloc[:5] / 100 + 1), "Found 10,000 in every sample"),
        ("log2_tpm", lambda x: np.log1p(x.iloc[:4]), " over 1200 genes"),
        ("log2_tpm", lambda x: np.log1p(x.iloc[:5]), "exp(x) - 1 sums to that in every sample"),
        ("log2_cpm", lambda x: np.log2(x * 30 + 1), "Found 30,000,000 in every sample"),
        ("tpm", lambda x: x * DEPTH * 30, "Found a median of "),
        ("tpm", lambda x: x * DEPTH / 4, "Found a median of "),
    ],
)
def test_shares_add_up_to_a_million(tmp_path, unit, transform, doubt):
    found = warnings_of(tmp_path, transform(shares()), unit)
    assert (doubt in found) if doubt else not found


@pytest.mark.parametrize("unit", ["tpm", "log2_tpm"])
def test_samples_on_another_scale_than_the_others_are_named(tmp_path, unit):
    table = shares()
    table.loc[["P1", "P4"]] /= 10
    found = warnings_of(tmp_path, table if unit == "tpm" else np.log2(table + 1), unit)
    assert "Found 100,000 to 100,000 in 2 of 6 samples (P1, P4): they are on another scale than the others" in found


def test_a_part_of_the_genes_may_add_up_to_less(tmp_path):
    assert not warnings_of(tmp_path, np.log2(shares().iloc[:, :400] + 1), "log2_tpm")


@pytest.mark.real_data
def test_logarithms_of_something_else_are_doubted(cases):
    for name, unit in (("l1", "log2_tpm_001"), ("lfpkm", "log2_tpm"), ("ln1", "log2_tpm"), ("log10", "log2_tpm")):
        section = expression_section(table=cases / "log_units" / f"{name}.tsv", format="xena", unit=unit)
        assert "unit" in "\n".join(read_expression(section).warnings), name


@pytest.mark.parametrize(
    ("unit", "scale", "shift", "doubt"),
    [
        ("tpm", 1, 0, "values look like logarithms"),
        ("tpm", 24.8, 0, "values look like logarithms"),
        ("tpm", 26, 0, None),
        ("fpkm", 1, 0, "values look like logarithms"),
        ("zscore", 1, 5, "no value is negative"),
        ("zscore", 500, -100, None),
        ("tpm", 1e6, 0, "TPM sum to one million"),
        ("tpm", 1e4, 0, None),
        ("zscore", 2, -1, None),
    ],
)
def test_doubtful_units_are_warnings(tmp_path, unit, scale, shift, doubt):
    values = np.random.default_rng(0).uniform(0, scale, (4, 60)) + shift
    table = pd.DataFrame(values, index=list("abcd"), columns=[f"G{i}" for i in range(60)])
    table.to_csv(tmp_path / "e.csv")
    warnings = read_expression(expression_section(table=tmp_path / "e.csv", unit=unit)).warnings
    assert bool(warnings) == (doubt is not None)
    assert doubt is None or doubt in warnings[0]


@pytest.mark.parametrize(("base", "digits", "name"), [(np.e, 3, "natural"), (np.e, 7, "natural"), (10, 5, "base 10")])
def test_logarithms_of_high_counts_to_another_base_are_told_by_their_digits(tmp_path, base, digits, name):
    counts = np.random.default_rng(0).integers(20, 100, (6, 200))
    table = pd.DataFrame((np.log(counts + 1) / np.log(base)).round(digits), columns=[f"G{i}" for i in range(200)])
    table.index = [f"P{i}" for i in range(6)]
    assert name in warnings_of(tmp_path, table, "log2_counts")
    right = pd.DataFrame(np.log2(counts + 1).round(digits), table.index, table.columns)
    assert warnings_of(tmp_path, right, "log2_counts") == ""


def test_z_scores_without_a_negative_value_in_some_samples_name_these(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 100))
    values[4:] = np.abs(values[4:]) + 5
    table = pd.DataFrame(values, [f"P{i}" for i in range(6)], [f"G{i}" for i in range(100)])
    assert "Found none in 2 of 6 samples (P4, P5)" in warnings_of(tmp_path, table, "zscore")
    assert warnings_of(tmp_path, table.iloc[:4], "zscore") == ""
    assert "no value is negative" in warnings_of(tmp_path, table.iloc[4:], "zscore")
    assert warnings_of(tmp_path, table.iloc[5:], "zscore") == ""  # one sample may be high in every gene
