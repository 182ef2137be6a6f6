"""Expression in AnnData files: layers, logarithms, names of patients and genes."""

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from expression_tables import GENES, PATIENTS, VALUES, matrix, read, shares

from expression_sections import expression_section
from subfuse.errors import ConfigurationError, DataError
from subfuse.expression.reading import read_expression
from subfuse.expression.table import write_expression


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
def test_annotated_files_of_other_tools(cases):
    folder = cases / "h5ad"
    with pytest.raises(DataError, match="Found layers: tpm"):
        read_h5ad(folder / "noX.h5ad")
    with pytest.raises(DataError, match="natural logarithms"):
        read_h5ad(folder / "ln.h5ad", "log2_cpm")
    table = read_h5ad(folder / "nanpid.h5ad", patient_column="pid")
    assert "nan" not in table.values.index
    assert "no name of a patient" in set(table.exclusions["reason"])


@pytest.mark.parametrize("sparse", [False, True])
def test_anndata_with_patients_in_obs_and_symbols_in_var(tmp_path, sparse):
    import scipy.sparse

    values = scipy.sparse.csr_matrix(VALUES) if sparse else VALUES
    obs = pd.DataFrame({"patient": ["a", "b", "c"]}, index=["s1", "s2", "s3"])
    var = pd.DataFrame({"gene_name": GENES}, index=["ENSG00000146648.18", "ENSG00000141510.2"])
    anndata.AnnData(values, obs=obs, var=var).write_h5ad(tmp_path / "e.h5ad")
    found = read(tmp_path / "e.h5ad", format="h5ad", unit="tpm", patient_column="patient")
    expected = np.log2(matrix(["a", "b", "c"]) + 1)
    pd.testing.assert_frame_equal(found.values, expected, check_names=False)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_small_anndata_file_that_declares_a_large_table_is_refused_before_it_is_read(tmp_path, sparse):
    anndata.AnnData(VALUES, obs=pd.DataFrame(index=PATIENTS), var=pd.DataFrame(index=GENES)).write_h5ad(
        tmp_path / "e.h5ad"
    )
    with h5py.File(tmp_path / "e.h5ad", "a") as file:
        del file["X"]
        if sparse:
            file.create_group("X").attrs.update({"encoding-type": "csr_matrix", "shape": [10**7, 1000]})
        else:
            file.create_dataset("X", shape=(10**7, 1000), chunks=(1000, 10), dtype="float32")
    with pytest.raises(DataError, match=r"e\.h5ad: .* Found [\d,]+ bytes that declare 40,[\d,]+ of them"):
        read(tmp_path / "e.h5ad", format="h5ad", unit="tpm")


def test_a_prepared_table_is_a_source(tmp_path):
    matrix().to_csv(tmp_path / "e.csv")
    first = read(tmp_path / "e.csv", unit="counts")
    write_expression(tmp_path / "e.h5ad", first)
    again = read(tmp_path / "e.h5ad", format="h5ad")
    pd.testing.assert_frame_equal(again.values, first.values, check_names=False)
    assert again.scale == first.scale == "log2_cpm"


def test_anndata_needs_unit_and_column(tmp_path):
    anndata.AnnData(VALUES, obs=pd.DataFrame(index=PATIENTS), var=pd.DataFrame(index=GENES)).write_h5ad(
        tmp_path / "e.h5ad"
    )
    with pytest.raises(ConfigurationError, match=r'uns\["unit"\] does not tell it'):
        read(tmp_path / "e.h5ad", format="h5ad")
    with pytest.raises(DataError, match=r"obs must have the column 'patient'"):
        read(tmp_path / "e.h5ad", format="h5ad", unit="tpm", patient_column="patient")
    with pytest.raises(ConfigurationError, match="format: h5ad"):
        read(tmp_path / "e.h5ad", unit="tpm")


@pytest.mark.parametrize("stated", ["TPM", "log2(TPM+1)", "raw counts", "", 3])
def test_a_unit_of_other_words_is_refused_unless_one_is_declared(tmp_path, stated):
    write_h5ad(tmp_path / "a.h5ad", uns={"unit": stated})
    with pytest.raises(DataError, match=r'a\.h5ad: uns\["unit"\] must be one of counts, .*, zscore\. Found ') as error:
        read_h5ad(tmp_path / "a.h5ad", None)
    assert f"Found {str(stated)!r}. Declare" in str(error.value)
    declared = read_h5ad(tmp_path / "a.h5ad", "tpm")
    assert declared.unit == "tpm"
    assert any(f"says {str(stated)!r}. Check the unit" in warning for warning in declared.warnings)
