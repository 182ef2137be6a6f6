"""Matrices of genes and patients in any orientation, of cBioPortal and of Xena."""

import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from expression_tables import GENES, PATIENTS, VALUES, matrix, read

from subfuse.errors import ConfigurationError, DataError
from subfuse.expression.table import write_expression


@pytest.mark.parametrize(("cell", "found"), [(None, r"only empty cells \(samples: 3, genes: 2\)"), (0.0, "only zeros")])
def test_a_table_without_any_value(tmp_path, cell, found):
    matrix(values=np.full((3, 2), np.nan if cell is None else cell)).to_csv(tmp_path / "e.csv")
    with pytest.raises(DataError, match=rf"e\.csv: .* Found {found}"):
        read(tmp_path / "e.csv", unit="tpm")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_both_orientations_give_the_same_table(tmp_path, transposed, declared):
    table = matrix().T if transposed else matrix()
    table.to_csv(tmp_path / "e.csv")
    keys = {"orientation": "genes_by_patients" if transposed else "patients_by_genes"} if declared else {}
    found = read(tmp_path / "e.csv", unit="tpm", **keys)
    pd.testing.assert_frame_equal(found.values, np.log2(matrix() + 1), check_names=False)


@pytest.mark.parametrize(("ours", "theirs"), [("P-01", "p-01"), ("0001", "1")])
def test_patients_of_another_spelling_are_named_in_pairs(tmp_path, ours, theirs):
    (tmp_path / "m.csv").write_text(f"patient_id,EGFR\n{theirs},1.5\n")
    with pytest.raises(
        DataError,
        match=f"first column: {theirs}; header: EGFR; nearest: {ours} and {theirs}, which differ only in case",
    ):
        read(tmp_path / "m.csv", unit="tpm", patients=[ours])


def test_patients_of_the_cohort_tell_the_orientation(tmp_path):
    table = matrix(rows=["a", "b", "c"])
    table.T.to_csv(tmp_path / "e.tsv", sep="\t")
    found = read(tmp_path / "e.tsv", unit="tpm", patients=["b", "z"])
    assert found.values.index.tolist() == ["a", "b", "c"]
    assert found.values.columns.tolist() == GENES


def test_a_symbol_column_makes_rows_genes_and_names_them(tmp_path):
    table = matrix(columns=["ENSG00000146648.18", "ENSG00000141510.2"], rows=["a", "b", "c"]).T
    table.insert(0, "gene_name", ["EGFR", ""])
    table.insert(1, "gene_type", "protein_coding")
    table.to_csv(tmp_path / "e.csv", index_label="gene_id")
    found = read(tmp_path / "e.csv", unit="tpm")
    assert found.values.columns.tolist() == ["EGFR", "ENSG00000141510"]
    assert found.genes.loc["EGFR", "gene_id"] == "ENSG00000146648.18"


@pytest.mark.parametrize("comment", ["", '# Program:featureCounts v2.0.6; Command:"featureCounts" "-T" "4"\n'])
def test_a_table_of_feature_counts_is_read_without_its_exons(tmp_path, comment):
    exons = pd.DataFrame(
        {"Chr": "chr7;chr7", "Start": "55;77", "End": "60;99", "Strand": "+;+", "Length": [29, 31]}, index=GENES
    )
    table = exons.join(matrix().T.astype(int)).rename_axis("Geneid")
    (tmp_path / "counts.txt").write_text(comment + table.to_csv(sep="\t"))
    found = read(tmp_path / "counts.txt", unit="counts", patients=PATIENTS)
    matrix().astype(int).to_csv(tmp_path / "plain.csv")
    pd.testing.assert_frame_equal(found.values, read(tmp_path / "plain.csv", unit="counts").values, check_names=False)


def test_ambiguous_or_foreign_identifiers_need_a_declaration(tmp_path):
    matrix(columns=PATIENTS[:2]).to_csv(tmp_path / "both.csv")
    with pytest.raises(ConfigurationError, match=r"both\.csv: the orientation is ambiguous: 3 .* 2 in the header"):
        read(tmp_path / "both.csv", unit="tpm")
    matrix(rows=["x", "y", "z"]).to_csv(tmp_path / "none.csv")
    with pytest.raises(
        DataError, match=r"patients of the cohort are required .* patients: a, b; first column: x, y, z; header: EGFR"
    ):
        read(tmp_path / "none.csv", unit="tpm", patients=["a", "b"])
    assert len(read(tmp_path / "none.csv", unit="tpm").values) == 3  # the documented layout


def cbioportal(tmp_path: Path, name: str, comment: str = "") -> Path:
    rows = ["Hugo_Symbol\tEntrez_Gene_Id\tS1-01\tS1-02\tS2-01", "EGFR\t1956\t10.5\t1\t0", "\t7157\t89.5\t1\t4"]
    (tmp_path / name).write_text(comment + "\n".join(rows) + "\n")
    clinical = "#Patient\tSample\tType\n#a\tb\tc\nPATIENT_ID\tSAMPLE_ID\tSAMPLE_TYPE\n"
    sheet = "P1\tS1-01\tPrimary\nP1\tS1-02\tRecurrence\nP2\tS2-01\tPrimary\n"
    (tmp_path / "data_clinical_sample.txt").write_text(clinical + sheet)
    return tmp_path / name


@pytest.mark.parametrize("comment", ["", "#version\n#second\n"])
def test_cbioportal_rsem_becomes_log2_cpm_of_primary_samples(tmp_path, comment):
    path = cbioportal(tmp_path, "data_mrna_seq_v2_rsem.txt", comment)
    found = read(path, format="cbioportal", sample_sheet=tmp_path / "data_clinical_sample.txt")
    assert (found.unit, found.scale) == ("rsem", "log2_cpm")
    assert found.values.index.tolist() == ["P1", "P2"]
    assert found.values.columns.tolist() == ["EGFR", "7157"]  # a row without symbol keeps its Entrez number
    np.testing.assert_allclose(2 ** found.values.loc["P1"] - 1, [105e3, 895e3], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("data_mrna_seq_tpm.txt", "tpm"),
        ("data_mrna_seq_fpkm.txt", "fpkm"),
        ("data_mrna_seq_rpkm.txt", "fpkm"),
        ("data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt", "zscore"),
    ],
)
def test_cbioportal_tells_the_unit_by_its_name(tmp_path, name, unit):
    assert read(cbioportal(tmp_path, name), format="cbioportal").unit == unit
    assert read(cbioportal(tmp_path, name), format="cbioportal", unit="rsem").unit == "rsem"  # declared: it wins


def test_cbioportal_without_unit_or_with_another_layout(tmp_path):
    with pytest.raises(ConfigurationError, match=r"data_mrna_affymetrix.txt: `unit` of `expression` is required"):
        read(cbioportal(tmp_path, "data_mrna_affymetrix.txt"), format="cbioportal")
    matrix().to_csv(tmp_path / "data_mrna_seq_tpm.csv")
    with pytest.raises(DataError, match="Hugo_Symbol or Entrez_Gene_Id as first column"):
        read(tmp_path / "data_mrna_seq_tpm.csv", format="cbioportal")


@pytest.mark.parametrize(
    ("words", "unit", "offset"),
    [
        ("log2(tpm+0.001)", "log2_tpm_001", 0.001),
        ("log2(FPKM + 1)", "log2_fpkm", 1),
        ("log2(count+1)", "log2_counts", 1),
    ],
)
def test_xena_takes_logarithms_back_and_reads_the_unit_beside(tmp_path, words, unit, offset):
    raw = np.array([[0, 4e5], [6e5, 6e5]])  # genes × patients
    path = tmp_path / "expression.tsv"
    pd.DataFrame(np.log2(raw + offset).round(4), index=GENES, columns=["a", "b"]).to_csv(path, sep="\t")
    (tmp_path / "expression.tsv.json").write_text(json.dumps({"unit": words}))
    found = read(path, format="xena")
    expected = raw if unit == "log2_tpm_001" else raw / raw.sum(axis=0) * 1e6
    np.testing.assert_allclose(2 ** found.values.T.to_numpy() - 1, expected, rtol=2e-3, atol=1e-2)
    assert found.unit == unit


def test_xena_without_described_unit_asks_for_it(tmp_path):
    matrix().T.to_csv(tmp_path / "e.tsv", sep="\t")
    with pytest.raises(ConfigurationError, match="`unit` of `expression` is required"):
        read(tmp_path / "e.tsv", format="xena")
    assert read(tmp_path / "e.tsv", format="xena", unit="log2_tpm").values.loc[PATIENTS[1], "EGFR"] == 7


def test_a_declared_unit_that_the_source_contradicts_is_refused_or_named(tmp_path):
    data = anndata.AnnData(VALUES, obs=pd.DataFrame(index=PATIENTS), var=pd.DataFrame(index=GENES))
    data.uns["unit"], data.layers["tpm"] = "counts", VALUES
    data.write_h5ad(tmp_path / "e.h5ad")
    with pytest.raises(DataError, match=r"e\.h5ad: `unit` .* Found tpm declared and counts in uns"):
        read(tmp_path / "e.h5ad", format="h5ad", unit="tpm")
    assert read(tmp_path / "e.h5ad", format="h5ad", unit="counts").unit == "counts"
    assert read(tmp_path / "e.h5ad", format="h5ad", unit="tpm", layer="tpm").unit == "tpm"  # uns speaks of X

    matrix().T.to_csv(tmp_path / "e.tsv", sep="\t")
    (tmp_path / "e.tsv.json").write_text(json.dumps({"unit": "log2(count+1)"}))
    packed = tmp_path / "packed" / "e.tsv.gz"
    packed.parent.mkdir()
    matrix().T.to_csv(packed, sep="\t")
    (packed.parent / "e.tsv.json").write_text(json.dumps({"unit": "log2(count+1)"}))
    for path in (tmp_path / "e.tsv", packed):
        with pytest.raises(DataError, match=r"Found log2_tpm declared and log2_counts in e\.tsv\.json"):
            read(path, format="xena", unit="log2_tpm")

    path = tmp_path / "data_mrna_seq_v2_rsem.txt"
    matrix().T.rename_axis("Hugo_Symbol").to_csv(path, sep="\t")
    renamed = read(path, format="cbioportal", unit="fpkm")
    assert any("unit fpkm is declared and used, but the file's name says rsem" in text for text in renamed.warnings)
    assert not any("the file's name" in text for text in read(path, format="cbioportal").warnings)


def test_earlier_symbols_versions_and_duplicates(tmp_path):
    columns = ["H2AFZ", "ENSG00000146648.18", "ENSG00000146648.3", "KEEP"]
    matrix(columns=columns, values=np.array([[1, 1, 3, 1]] * 3)).to_csv(tmp_path / "e.csv")
    found = read(tmp_path / "e.csv", unit="tpm")
    assert found.values.columns.tolist() == ["H2AZ1", "ENSG00000146648", "KEEP"]
    assert found.values["ENSG00000146648"].tolist() == [2, 2, 2]
    assert found.source["names"] == "1 earlier names replaced by approved symbols"
    assert found.exclusions["id"].tolist() == ["ENSG00000146648.18 (column 3)"]


def test_dates_are_left_out_with_a_warning(tmp_path):
    matrix(columns=["1-Mar", "EGFR"]).to_csv(tmp_path / "e.csv")
    found = read(tmp_path / "e.csv", unit="tpm")
    assert found.values.columns.tolist() == ["EGFR"]
    assert "turned 1 gene(s) into dates: 1-Mar" in found.warnings[0]
    (tmp_path / "aliases.csv").write_text("previous,approved\n1-Mar,MARCHF1\n")
    assert "MARCHF1" in read(tmp_path / "e.csv", unit="tpm", aliases=tmp_path / "aliases.csv").values


def test_standardised_cohorts_forget_scale_and_shift(tmp_path):
    random = np.random.default_rng(0)
    values = random.gamma(2, 20, (25, 6))
    patients, genes = [f"p{i:02d}" for i in range(25)], [f"G{i}" for i in range(6)]
    matrix(patients, genes, np.log2(values + 1)).to_csv(tmp_path / "a.csv")
    matrix(patients, genes, 2 * np.log2(values + 1) + 3).to_csv(tmp_path / "b.csv")
    a, b = (
        read(tmp_path / f"{name}.csv", unit="log2_tpm", standardise="cohort", patients=patients[:24])
        for name in ("a", "b")
    )
    np.testing.assert_allclose(a.values, b.values, atol=1e-4)
    np.testing.assert_allclose(a.values.std(axis=0, ddof=0), 1, atol=1e-3)
    assert (a.scale, len(a.values)) == ("cohort_zscore", 24)  # p24 is not in the cohort
    assert "z-scores over 24 patients" in a.transform
    write_expression(tmp_path / "a.h5ad", a)
    assert anndata.read_h5ad(tmp_path / "a.h5ad").uns["scale"] == "cohort_zscore"


def beside_patients(path: Path, **changes: object) -> Path:
    """A table as MCAT has it: a row for each slide, two of the first patient, genes among other columns."""
    table = matrix().add_suffix("_rnaseq").reset_index(names="case_id")
    table.insert(1, "slide_id", [f"{patient}.svs" for patient in table["case_id"]])
    table["EGFR_cnv"] = "lost"
    table = pd.concat([table, table.iloc[:1]], ignore_index=True).assign(**changes)
    table.to_csv(path)
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.csv.zip"])
def test_expression_among_the_columns_of_patients(tmp_path, name):
    path = beside_patients(tmp_path / name)
    found = read(path, unit="tpm", gene_suffix="_rnaseq", patient_column="case_id")
    pd.testing.assert_frame_equal(found.values, np.log2(matrix() + 1), check_names=False)


@pytest.mark.parametrize(
    ("changes", "keys", "message"),
    [
        ({}, {"gene_suffix": "_mut"}, r"columns of genes that end in _mut are required\. Found none"),
        (
            {},
            {"patient_column": "bcr"},
            r"a column bcr is required, as `patient_column` says\. Found case_id, slide_id",
        ),
        (
            {"case_id": [*PATIENTS[:-1], None, PATIENTS[0]]},
            {},
            r"an identifier is required in case_id\. Found an empty",
        ),
        ({"EGFR_rnaseq": [1.0, 2.0, 3.0, 4.0]}, {}, rf"{PATIENTS[0]}"),
        ({"EGFR_rnaseq": ["high", "1", "2", "high"]}, {}, r"column EGFR_rnaseq: a number is required\. Found 'high'"),
    ],
)
def test_expression_among_other_columns_that_cannot_be_read(tmp_path, changes, keys, message):
    path = beside_patients(tmp_path / "t.csv", **changes)
    with pytest.raises(DataError, match=rf"t\.csv.*{message}"):
        read(path, unit="tpm", **{"gene_suffix": "_rnaseq", "patient_column": "case_id", **keys})
