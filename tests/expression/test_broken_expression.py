"""Every kind of broken expression table is one clear line, or read as what it is."""

import gzip

import pytest

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.reading import read_expression

GOOD = "patient_id\tEGFR\tTP53\nTCGA-02-0001\t1\t3\nTCGA-02-0002\t7\t0\n"
EXPECTED = {"TCGA-02-0001": {"EGFR": 1.0, "TP53": 2.0}, "TCGA-02-0002": {"EGFR": 3.0, "TP53": 0.0}}


def read(tmp_path, content, *, name="expression.tsv", unit="tpm", **keys):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_expression(expression_section(table=path, unit=unit, **keys))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("\ufeff" + GOOD, "expression.tsv"),
        (GOOD.replace("\n", "\r\n"), "expression.tsv"),
        (GOOD.replace("\t", ","), "expression.csv"),
        (gzip.compress(GOOD.encode(), mtime=0), "expression.tsv.gz"),
        (GOOD.replace("patient_id", '"patient\nid"').replace("TCGA-02-0002", '"TCGA-02-0002\n"'), "expression.tsv"),
        (GOOD.replace("\t", " \t "), "expression.tsv"),
        (GOOD.replace("TCGA-02-0001", "tcga-02-0001"), "expression.tsv"),
        (GOOD, "données d'expression µ/tableau été.tsv"),
    ],
    ids=["bom", "crlf", "commas", "gzip", "quoted line breaks", "spaces", "lower case", "path"],
)
def test_harmless_oddities_change_nothing(tmp_path, content, name):
    assert read(tmp_path, content, name=name).values.to_dict("index") == EXPECTED


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\n\n", "an empty file or first line"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (gzip.compress(GOOD.encode(), mtime=0), r"a gzip file. Let its name end in \.gz"),
        (b"PK\x03\x04rest", "an Excel workbook or zip"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (GOOD.replace("EGFR", "CAFÉ").encode("latin-1"), "UTF-8"),
        (GOOD.replace("\t", "|").encode(), "commas, tabs or semicolons"),
        (GOOD.replace("\t", " ").encode(), "commas, tabs or semicolons"),
        (GOOD.replace("\t1\t3", ",1,3").encode(), r"row 2 \(TCGA-02-0001,1,3\), gene EGFR: a finite number"),
        (GOOD.replace("\t1\t3", "\t1\tNaN").encode(), r"row 2 \(TCGA-02-0001\), gene TP53: a finite number"),
        (GOOD.replace("\t1\t3", "\tinf\t3").encode(), r"row 2 .*gene EGFR: a finite number .* Found inf"),
        (
            GOOD.replace("\t1\t3", "\t-1\t3").encode(),
            r"gene EGFR: a value of at least 0 \(tpm\) .* are z-scores \(zscore\)",
        ),
        (GOOD.replace("\t1\t3", "\t1,5\t3").encode(), r"row 2 .*column EGFR: a number is required. Found '1,5'"),
        (GOOD.replace("\t1\t3", "\t1\t3\t4").encode(), "cells are required, as the header has"),
        (GOOD.replace("0002", "0001").encode(), "required once. Found several of TCGA-02-0001"),
        (GOOD.replace("0002", "0001-01A").encode(), "barcodes of one length per patient .* TCGA-02-0001-01A"),
        (GOOD.replace("\tTP53", "\t").encode(), "Column 3 has none"),
        (GOOD.splitlines()[0].encode(), "Found only a header"),
        (b"patient_id\tEGFR\na\t0\nb\t0\n", "at least one sample with expression"),
        (b"patient_id\t1-Mar\t2-Sep\na\t1\t2\n", "at least one gene with a name"),
        (GOOD.replace("000", "000").replace("0001", "0001-11A").replace("0002", "0002-10A").encode(), "tumour sample"),
    ],
)
def test_broken_tables_are_one_clear_line(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"expression\.tsv.*{message}") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)


def test_plain_text_named_gz(tmp_path):
    with pytest.raises(DataError, match=r"expression\.tsv\.gz: a readable table .* gzip"):
        read(tmp_path, GOOD, name="expression.tsv.gz")


def test_genes_without_any_value_are_left_out(tmp_path):
    table = read(tmp_path, "patient_id\tA\tB\np\t1\tNA\nq\t3\t\n")
    assert table.values.columns.tolist() == ["A"]
    assert table.exclusions.to_numpy().tolist() == [["gene", "B (column 3)", "no sample has a value"]]
