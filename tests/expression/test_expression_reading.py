import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from expression_sections import expression_section
from subfuse.errors import ConfigurationError, DataError
from subfuse.expression.gdc.star import read_star_file
from subfuse.expression.reading import read_expression
from subfuse.expression.table import ExpressionStandardiser, read_expression_h5ad, write_expression

STAR_HEADER = (
    "# gene-model: GENCODE v36\ngene_id\tgene_name\tgene_type\tunstranded\tstranded_first\tstranded_second\t"
    "tpm_unstranded\tfpkm_unstranded\tfpkm_uq_unstranded\nN_unmapped\t\t\t9\t9\t9\t\t\t\n"
)


def plain(tmp_path: Path, text: str | bytes, unit: str = "tpm", name: str = "expression.csv"):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_expression(expression_section(table=path, unit=unit))


# --- genes that models must not see ---------------------------------------------------------------------------------


def test_an_excluded_gene_is_listed_and_still_counts_in_the_sums(tmp_path):
    path = tmp_path / "expression.csv"
    path.write_text("case,G1,CSHL1,G3,CSHL1\na,1,2,3,2\nb,5,0,3,0\n")
    table = read_expression(expression_section(table=path, unit="counts", exclude=("CSHL1",)))
    assert table.values.columns.tolist() == ["G1", "G3"]
    np.testing.assert_allclose(2.0 ** table.values.to_numpy() - 1, [[125e3, 375e3], [625e3, 375e3]], rtol=1e-5)
    left_out = table.exclusions[table.exclusions["level"] == "gene"]
    assert left_out["id"].tolist() == ["CSHL1 (column 3)", "CSHL1 (column 5)"]
    assert set(left_out["reason"]) == {"named in expression.exclude"}


@pytest.mark.parametrize("name", ["H2AFZ", "H2AZ1"])
def test_an_excluded_gene_may_have_its_earlier_name(tmp_path, name):
    path = tmp_path / "expression.csv"
    path.write_text("case,H2AFZ,EGFR\na,1,2\n")
    table = read_expression(expression_section(table=path, unit="tpm", exclude=(name,)))
    assert table.values.columns.tolist() == ["EGFR"]


@pytest.mark.parametrize(
    ("name", "hint"), [("cshl1", "Near: CSHL1"), ("CSHL", "Near: CSHL1"), ("XYZ", "that name. Correct")]
)
def test_an_excluded_gene_must_be_in_the_table(tmp_path, name, hint):
    path = tmp_path / "expression.csv"
    path.write_text("case,CSHL1,EGFR\na,1,2\n")
    message = rf"expression.exclude: {name} must be a gene of .*expression.csv.*{hint}"
    with pytest.raises(ConfigurationError, match=message):
        read_expression(expression_section(table=path, unit="tpm", exclude=(name,)))


# --- matrices --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.csv.gz", "e.txt.gz"])
def test_separator_compression_bom_and_line_ends(tmp_path, name):
    text = "\ufeffcase,G1,G2\r\nTCGA-02-0047,1,3\r\ncase.7,0,1\r\n".replace(",", "\t" if "t" in name[2:4] else ",")
    content = gzip.compress(text.encode(), mtime=0) if name.endswith("gz") else text.encode()
    table = plain(tmp_path, content, name=name)
    assert list(table.values.index) == ["TCGA-02-0047", "case.7"]
    assert list(table.values.columns) == ["G1", "G2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("<!DOCTYPE html>\n<html></html>", "web page"),
        ("case;G1;G2\na;1;2\n", "commas or tabs"),
        ("case,G1\n", "Found only a header"),
        ("case,G1,G2\na,1,2\na,3,4\n", "Found several of a"),
        ("case,G1,G2\na,1,2\nb,x1,4\n", r"row 3 \(b\), column G1: a number is required. Found 'x1'"),
        ("case,G1,G2\na,1,2\nb,3,\n", r"row 3 \(b\), gene G2: a finite number is required\. Found an empty cell or NA"),
        ("case,G1,G2\na,1,2\nb,3\n", r"row 3 \(b\), gene G2: a finite number"),
        ("case,G1,G2\na,1,NA\nb,1,2\n", r"row 2 \(a\), gene G2: a finite number"),
        ("case,G1,G2\na,inf,2\n", r"row 2 \(a\), gene G1: a finite number .*Found inf"),
        ("case,G1,G2\n,1,2\n", "row 2: an identifier"),
        ("case,G1,\na,1,2\n", "Column 3 has none"),
        ("case,G1\na,1,2\n", "cells are required, as the header has"),
    ],
)
def test_bad_matrices_name_file_row_and_gene(tmp_path, text, message):
    with pytest.raises(DataError, match=f"expression.csv.*{message}"):
        plain(tmp_path, text)


def test_truncated_gzip(tmp_path):
    content = gzip.compress(("case,G1\n" + "".join(f"p{i},{i}\n" for i in range(5000))).encode())
    with pytest.raises(DataError, match=r"expression\.csv\.gz"):
        plain(tmp_path, content[: len(content) // 2], name="expression.csv.gz")


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_expression(expression_section(table=tmp_path / "none.csv", unit="tpm"))


def test_repeated_symbol_keeps_the_higher_mean(tmp_path):
    table = plain(tmp_path, "case,G1,G2,G1\na,1,1,3\nb,1,1,7\n")
    assert list(table.values.columns) == ["G2", "G1"]
    assert table.values["G1"].tolist() == [2, 3]
    assert table.exclusions[["level", "id"]].to_numpy().tolist() == [["gene", "G1 (column 2)"]]
    with pytest.raises(DataError, match="G1 twice"):
        plain(tmp_path, "case,G1,G1\na,1,3\n", "zscore")


def test_sample_barcodes_primary_first_and_never_normal(tmp_path):
    rows = ["TCGA-02-0001-02A,9,9", "TCGA-02-0001-01A,1,1", "TCGA-02-0001-01B,3,3", "TCGA-02-0002-11A,1,1"]
    table = plain(tmp_path, "\n".join(["case,G1,G2", *rows]))
    assert table.values.to_dict("index") == {"TCGA-02-0001": {"G1": 1.0, "G2": 1.0}}
    reasons = dict(zip(table.exclusions["id"], table.exclusions["reason"], strict=True))
    assert reasons["TCGA-02-0002-11A"] == "normal tissue"
    assert reasons["TCGA-02-0001-02A"] == "TCGA-02-0001-01A of the same patient is used (not the primary tumour)"
    assert "FFPE" in reasons["TCGA-02-0001-01B"]
    assert table.samples.loc["TCGA-02-0001", "samples"] == "TCGA-02-0001-01A"


def test_patient_without_any_expression_is_excluded(tmp_path):
    table = plain(tmp_path, "case,G1,G2\na,0,0\nb,1,2\n")
    assert list(table.values.index) == ["b"]
    assert table.exclusions.to_numpy().tolist() == [["expression", "a", "no gene is expressed"]]


# --- STAR ------------------------------------------------------------------------------------------------------------


def star_text(values: dict[str, tuple[str, str, float]]) -> str:
    rows = [
        f"{gene_id}\t{name}\t{kind}\t{value * 10:g}\t0\t0\t{value:g}\t{value / 2:g}\t{value / 4:g}"
        for gene_id, (name, kind, value) in values.items()
    ]
    return STAR_HEADER + "\n".join(rows) + "\n"


def star_values(scale: float) -> dict[str, tuple[str, str, float]]:
    return {
        "ENSG01.1": ("TP53", "protein_coding", 1 * scale),
        "ENSG02.3": ("EGFR", "protein_coding", 3 * scale),
        "ENSG02.3_PAR_Y": ("EGFR", "protein_coding", 0),
        "ENSG03.1": ("MIAT", "lncRNA", 7 * scale),
        "ENSG04.1": ("XIST", "lncRNA", 15 * scale),
    }


@pytest.fixture
def star_folder(tmp_path):
    """Two patients; the first has normal tissue, a recurrence, and two primaries of different depth."""
    samples = [
        ("f0", "TCGA-02-0001", "TCGA-02-0001-11A", "Solid Tissue Normal", 8),
        ("f1", "TCGA-02-0001", "TCGA-02-0001-02A", "Recurrent Tumor", 9),
        ("f2", "TCGA-02-0001", "TCGA-02-0001-01A", "Primary Tumor", 1),
        ("f3", "TCGA-02-0001", "TCGA-02-0001-01A", "Primary Tumor", 2),
        ("f4", "case 2, case 2", "sample x", "Primary Tumor", 1),
        ("f5", "absent", "sample y", "Primary Tumor", None),
    ]
    lines = ["File ID\tFile Name\tData Type\tCase ID\tSample ID\tSample Type"]
    for identifier, case, sample, kind, scale in samples:
        name = f"{identifier}.rna_seq.augmented_star_gene_counts.tsv"
        lines.append(f"{identifier}\t{name}\tGene Expression Quantification\t{case}\t{sample}\t{kind}")
        if scale is not None:
            (tmp_path / "star" / identifier).mkdir(parents=True)
            (tmp_path / "star" / identifier / name).write_text(star_text(star_values(scale)), encoding="utf-8")
    lines.append("f9\tf9.htseq.counts.gz\tGene Expression Quantification\tx\ty\tPrimary Tumor")
    (tmp_path / "sheet.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def read_star(folder: Path, unit: str = "tpm"):
    section = expression_section(
        folder=folder / "star", format="gdc_star", sample_sheet=folder / "sheet.tsv", unit=unit
    )
    return read_expression(section, keep_genes={"MIAT"})


def test_star_sample_choice_and_gene_axis(star_folder):
    table = read_star(star_folder)
    assert list(table.values.index) == ["TCGA-02-0001", "case 2"]
    assert list(table.values.columns) == ["TP53", "EGFR", "MIAT"]
    np.testing.assert_allclose(2 ** table.values.to_numpy() - 1, [[2, 6, 14], [1, 3, 7]], rtol=1e-5)
    assert table.genes.loc["EGFR", "gene_id"] == "ENSG02.3"
    by_level = table.exclusions.groupby("level")["id"].apply(list).to_dict()
    assert by_level["gene"] == ["ENSG02.3_PAR_Y"]
    assert by_level["expression"] == [
        "f5.rna_seq.augmented_star_gene_counts.tsv",
        "TCGA-02-0001-11A",
        "TCGA-02-0001-01A (f2.rna_seq.augmented_star_gene_counts.tsv)",
        "TCGA-02-0001-02A",
    ]


@pytest.mark.parametrize("unit", ["fpkm", "fpkm_uq", "counts"])
def test_star_units_sum_over_all_genes_before_the_choice(star_folder, unit):
    table = read_star(star_folder, unit)
    np.testing.assert_allclose(2 ** table.values["EGFR"].to_numpy() - 1, 3 / 26 * 1e6, rtol=1e-4)
    assert "5 genes" in table.transform


def test_star_genes_of_any_type_may_be_excluded(star_folder):
    section = expression_section(
        folder=star_folder / "star", format="gdc_star", sample_sheet=star_folder / "sheet.tsv", unit="tpm",
        exclude=("EGFR", "XIST"),
    )  # fmt: skip
    assert read_expression(section).values.columns.tolist() == ["TP53"]


def test_star_files_of_different_releases(star_folder):
    path = star_folder / "star" / "f3" / "f3.rna_seq.augmented_star_gene_counts.tsv"
    path.write_text(star_text({"ENSG01.2": ("TP53", "protein_coding", 1.0)}), encoding="utf-8")
    with pytest.raises(DataError, match=r"f3.*same genes in the same order"):
        read_star(star_folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("<html>", "web page"),
        (STAR_HEADER, "at least one gene"),
        ("gene_id\tcount\nENSG1\t5\n", "Missing columns: gene_name"),
        (star_text({"ENSG01.1": ("TP53", "protein_coding", -1.0)}), r"gene ENSG01.1 \(TP53\): unstranded must be"),
        (star_text({"ENSG01.1": ("TP53", "protein_coding", 1.0)}).replace("\t10\t", "\t?\t"), "Found '\\?'"),
    ],
)
def test_bad_star_files(tmp_path, content, message):
    path = tmp_path / "x.augmented_star_gene_counts.tsv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"x.augmented.*{message}"):
        read_star_file(path)


def test_sample_sheet_without_files(star_folder):
    (star_folder / "star2").mkdir()
    section = expression_section(
        folder=star_folder / "star2", format="gdc_star", sample_sheet=star_folder / "sheet.tsv", unit="tpm"
    )
    with pytest.raises(DataError, match="Found none; listed: 6, in the folder: 0"):
        read_expression(section)
    (star_folder / "star2" / "F3.rna_seq.augmented_star_gene_counts.tsv").touch()
    with pytest.raises(DataError, match=r"in the folder: 1. listed: .*; in the folder: .*; nearest: .* only in case"):
        read_expression(section)


@pytest.mark.real_data
def test_real_star_head(real_data):
    content = read_star_file(next((real_data / "gdc").glob("star_counts_3_genes*.tsv")))
    assert content["gene_name"].tolist() == ["TSPAN6", "TNMD", "DPM1"]
    assert content["unstranded"].tolist() == [3231, 0, 1083]


@pytest.mark.real_data
def test_real_matrix_survives_writing(real_data, tmp_path):
    path = real_data / "tcga_gbmlgg" / "expression_zscores.csv.gz"
    table = read_expression(expression_section(table=path, unit="zscore"))
    assert table.values.shape == (569, 1544)
    assert not len(table.exclusions)
    write_expression(tmp_path / "e.h5ad", table)
    pd.testing.assert_frame_equal(read_expression_h5ad(tmp_path / "e.h5ad").values, table.values, check_names=False)


# --- h5ad ------------------------------------------------------------------------------------------------------------


def test_h5ad_round_trip_keeps_gene_ids(star_folder, tmp_path):
    table = read_star(star_folder)
    write_expression(tmp_path / "e.h5ad", table)
    back = read_expression_h5ad(tmp_path / "e.h5ad")
    pd.testing.assert_frame_equal(back.values, table.values, check_names=False)
    assert (back.unit, back.transform, back.source) == (table.unit, table.transform, table.source)
    assert back.genes.loc["MIAT", ["gene_id", "gene_type"]].tolist() == ["ENSG03.1", "lncRNA"]


@pytest.mark.parametrize("content", [b"", b"not hdf5"])
def test_broken_h5ad(tmp_path, content):
    path = tmp_path / "e.h5ad"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"e\.h5ad.*prepare"):
        read_expression_h5ad(path)


# --- standardiser ----------------------------------------------------------------------------------------------------


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
