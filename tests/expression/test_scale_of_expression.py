"""Does a table hold what its unit says? Sums and logarithms of shares, and the layers of AnnData files."""

import anndata
import numpy as np
import pandas as pd
import pytest

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.reading import read_expression

N_GENES = 1200


DEPTH = np.linspace(0.3, 0.9, 6)[:, None]  # of sequencing, in million reads


def shares(n_patients: int = 6) -> pd.DataFrame:
    """TPM of all genes, one of them without expression."""
    values = np.random.default_rng(0).lognormal(sigma=2, size=(n_patients, N_GENES))
    values[:, 0] = 0
    values *= 1e6 / values.sum(axis=1, keepdims=True)
    return pd.DataFrame(values, [f"P{i}" for i in range(n_patients)], [f"G{i}" for i in range(N_GENES)])


def quantile_normalised(table: pd.DataFrame) -> pd.DataFrame:
    """Samples of one distribution, ties averaged, as limma and preprocessCore return it."""
    means = np.sort(table.to_numpy(), axis=1).mean(axis=0)
    ranks = table.rank(axis=1) - 1
    return ranks.map(lambda rank: (means[int(np.floor(rank))] + means[int(np.ceil(rank))]) / 2)


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
        ("log2_tpm_001", lambda x: np.log2(x + 1), "no value below 0"),
        ("log2_fpkm_001", lambda x: np.log2(x + 1), "no value below 0"),
        ("log2_tpm", lambda x: np.log2(x * DEPTH / 4 + 1), " over 1200 genes"),
        ("log2_tpm", np.log1p, "exp(x) - 1 sums to that in every sample. Give exp(x) - 1 as unit tpm, or the counts"),
        ("log2_tpm", lambda x: np.log10(x + 1), "look like logarithms to base 10 of what was normalised to 1,000,000"),
        ("log2_cpm", lambda x: np.log1p(x / 100).round(3), "natural logarithms of what was normalised to 10,000 per"),
        ("log2_fpkm", lambda x: np.log1p(x / 100), "Give exp(x) - 1 as unit rsem"),
        ("log2_counts", lambda x: np.log1p(x / 100), "Give exp(x) - 1 as unit rsem"),
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


def write_h5ad(path, *, x=True, obs=None, var=None, layers=None, uns=None, raw=None, names=None):
    table = shares(3).iloc[:, :3] if names is None else shares(3).iloc[:, :3].set_axis(names, axis=1)
    data = anndata.AnnData(
        table.to_numpy(np.float32) if x else None,
        obs=pd.DataFrame(obs or {}, index=table.index),
        var=pd.DataFrame(var or {}, index=table.columns),
        layers={name: values.astype(np.float32) for name, values in (layers or {}).items()},
        uns=uns or {},
    )
    if raw is not None:
        data.raw = anndata.AnnData(raw.astype(np.float32), obs=data.obs, var=data.var)
    data.write_h5ad(path)


def read_h5ad(path, unit="tpm", **keys):
    return read_expression(expression_section(table=path, format="h5ad", unit=unit, **keys))


def test_a_file_without_x_names_its_layers(tmp_path):
    tpm = shares(3).iloc[:, :3].to_numpy()
    write_h5ad(tmp_path / "a.h5ad", x=False, layers={"tpm": tpm})
    with pytest.raises(DataError, match=r"a\.h5ad: values in X are required\. Found layers: tpm\. Name one as `layer`"):
        read_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(DataError, match="the layer 'counts' is required"):
        read_h5ad(tmp_path / "a.h5ad", layer="counts")
    values = read_h5ad(tmp_path / "a.h5ad", layer="tpm").values.to_numpy()
    np.testing.assert_allclose(values, np.log2(tpm[:, 0:] + 1), rtol=1e-5)


def test_raw_values_are_a_layer(tmp_path):
    counts = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    write_h5ad(tmp_path / "a.h5ad", raw=counts)
    values = read_h5ad(tmp_path / "a.h5ad", "counts", layer="raw").values.to_numpy()
    expected = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1)
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize("note", [{}, {"base": np.e}, {"base": 10.0}])
@pytest.mark.parametrize("unit", ["log2_cpm", "log2_tpm_001", "tpm"])
def test_natural_logarithms_are_refused(tmp_path, note, unit):
    write_h5ad(tmp_path / "a.h5ad", uns={"log1p": note})
    with pytest.raises(DataError, match=r"a\.h5ad: .* is required, as declared\. Found .*logarithms"):
        read_h5ad(tmp_path / "a.h5ad", unit)


def test_logarithms_to_base_two_are_what_they_say(tmp_path):
    write_h5ad(tmp_path / "a.h5ad", uns={"log1p": {"base": 2}}, layers={"log": np.full((3, 3), 2.0)})
    assert (read_h5ad(tmp_path / "a.h5ad", "log2_cpm", layer="log").values == 2).all(axis=None)


def test_observations_without_a_patient_are_excluded(tmp_path):
    write_h5ad(tmp_path / "a.h5ad", obs={"pid": ["A", np.nan, "B"]})
    table = read_h5ad(tmp_path / "a.h5ad", patient_column="pid")
    assert table.values.index.tolist() == ["A", "B"]
    np.testing.assert_allclose(table.values.loc["B"], np.log2(shares(3).iloc[2, :3] + 1), rtol=1e-5)
    assert ["expression", "P1", "no name of a patient"] in table.exclusions.to_numpy().tolist()
    write_h5ad(tmp_path / "b.h5ad", obs={"pid": ["", "nan", "NA"]})
    with pytest.raises(DataError, match="with the name of a patient"):
        read_h5ad(tmp_path / "b.h5ad", patient_column="pid")


def test_gene_names_beside_numbers_or_missing_ones(tmp_path):
    identifiers = ["ENSG00000146648.1", "ENSG00000141510.2", "ENSG00000012048.3"]
    write_h5ad(tmp_path / "a.h5ad", names=["0", "1", "2"], var={"gene_ids": identifiers})
    assert read_h5ad(tmp_path / "a.h5ad").values.columns.tolist() == [name[:-2] for name in identifiers]
    write_h5ad(tmp_path / "b.h5ad", var={"feature_name": ["EGFR", np.nan, "TP53"]})
    assert read_h5ad(tmp_path / "b.h5ad").values.columns.tolist() == ["EGFR", "G1", "TP53"]


@pytest.mark.real_data
def test_logarithms_of_something_else_are_doubted(cases):
    for name, unit in (("l1", "log2_tpm_001"), ("lfpkm", "log2_tpm"), ("ln1", "log2_tpm"), ("log10", "log2_tpm")):
        section = expression_section(table=cases / "log_units" / f"{name}.tsv", format="xena", unit=unit)
        assert "unit" in "\n".join(read_expression(section).warnings), name


@pytest.mark.real_data
def test_annotated_files_of_other_tools(cases):
    folder = cases / "h5ad"
    with pytest.raises(DataError, match="Found layers: tpm"):
        read_h5ad(folder / "noX.h5ad")
    with pytest.raises(DataError, match="natural logarithms"):
        read_h5ad(folder / "ln.h5ad", "log2_cpm")
    table = read_h5ad(folder / "nanpid.h5ad", patient_column="pid")
    assert "nan" not in table.values.index
    assert "no name of a patient" in set(table.exclusions["reason"])
