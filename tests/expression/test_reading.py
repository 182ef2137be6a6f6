import gzip

import numpy as np
import pandas as pd
import pytest
from expression_tables import plain

from expression_sections import expression_section
from subfuse.errors import ConfigurationError, DataError
from subfuse.expression.reading import read_expression


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


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.csv.gz", "e.txt.gz"])
def test_separator_compression_bom_and_line_ends(tmp_path, name):
    text = "\ufeffcase,G1,G2\r\nTCGA-02-0047,1,3\r\ncase.7,0,1\r\n".replace(",", "\t" if "t" in name[2:4] else ",")
    content = gzip.compress(text.encode(), mtime=0) if name.endswith("gz") else text.encode()
    table = plain(tmp_path, content, name=name)
    assert list(table.values.index) == ["TCGA-02-0047", "case.7"]
    assert list(table.values.columns) == ["G1", "G2"]


def test_decimal_commas_of_a_table_with_semicolons_are_read_and_said(tmp_path):
    table = plain(tmp_path, "case;G1;G2\na;1,5;2\nb;3;0,25\n")
    points = plain(tmp_path, "case,G1,G2\na,1.5,2\nb,3,0.25\n")
    assert table.values.equals(points.values)
    assert any("semicolons separate its columns; commas are read as decimal" in said for said in table.warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("<!DOCTYPE html>\n<html></html>", "web page"),
        ("case|G1|G2\na|1|2\n", "commas, tabs or semicolons"),
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


def test_patient_without_any_expression_is_excluded(tmp_path):
    table = plain(tmp_path, "case,G1,G2\na,0,0\nb,1,2\n")
    assert list(table.values.index) == ["b"]
    assert table.exclusions.to_numpy().tolist() == [["expression", "a", "no gene is expressed"]]


@pytest.mark.parametrize(
    "names",
    [
        ("__no_feature", "__alignment_not_unique"),
        ("N_unmapped", "N_noFeature"),
        ("N_multimapping", "__ambiguous"),
        ("no_feature", "too_low_aQual"),  # of HTSeq up to 0.5
        ("Unassigned_NoFeatures", "Unassigned_Unmapped"),  # of featureCounts
        ("Total", "TOTAL_READS"),
    ],
)
def test_what_a_program_says_of_reads_without_a_gene_is_no_gene(tmp_path, names):
    genes = "patient_id,EGFR,VIM,TP53\nA,10,20,70\nB,5,5,90\n"
    summed = f"patient_id,EGFR,{names[0]},VIM,TP53,{names[1]}\nA,10,900,20,70,1000000\nB,5,7,5,90,80000\n"
    expected, found = (plain(tmp_path, text, unit="counts", name=f"{i}.csv") for i, text in enumerate((genes, summed)))
    np.testing.assert_array_equal(found.values, expected.values)
    assert list(found.values) == ["EGFR", "VIM", "TP53"]
    assert found.basis == expected.basis
    reasons = found.exclusions.set_index("id")["reason"]
    assert [name.partition(" ")[0] for name in reasons.index] == list(names)
    assert reasons.str.startswith("no gene").all()


@pytest.mark.parametrize(("n_genes", "is_left_out"), [(12, True), (3, False)])
def test_a_row_that_is_the_sum_of_all_others_is_no_gene_whatever_it_is_called(tmp_path, n_genes, is_left_out):
    counts = np.random.default_rng(0).integers(1, 999, size=(3, n_genes))
    table = pd.DataFrame(counts, index=["A", "B", "C"], columns=[f"TP{k}" for k in range(n_genes)])
    text = table.assign(Reads=table.sum(axis=1)).rename_axis("patient_id").to_csv()
    assert ("Reads" in plain(tmp_path, text, unit="counts").values) is not is_left_out
    one_more = table.assign(Reads=table.sum(axis=1).add([0, 0, 50])).rename_axis("patient_id").to_csv()
    assert "Reads" in plain(tmp_path, one_more, unit="counts", name="more.csv").values  # a gene, however high
