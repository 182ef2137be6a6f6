import contextlib
import csv
import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subfuse.errors import DataError
from subfuse.expression.upload import LIMIT_BYTES, read_upload
from workbook_files import Formula, write_ods, write_xlsx

GENES = ("EGFR", "CD8A", "PTEN")
VALUES = {"EGFR": 7.0, "PTEN": 0.0, "CD8A": 1.5, "EXTRA": 3.0}
EXPECTED = np.log2([8.0, 2.5, 1.0])


def pairs(separator: str, header: str = "") -> str:
    return header + "\n".join(f"{gene}{separator}{value}" for gene, value in VALUES.items())


STAR = "# gene-model: GENCODE v36\n" + "\n".join(
    "\t".join(map(str, row))
    for row in [
        ("gene_id", "gene_name", "gene_type", "unstranded", "stranded_first", "stranded_second", "tpm_unstranded",
         "fpkm_unstranded", "fpkm_uq_unstranded"),
        ("N_unmapped", "", "", 5, 5, 5, "", "", ""),
        *((f"ENSG0000000000{i}.1", gene, "protein_coding", 9, 4, 5, value, 1, 1)
          for i, (gene, value) in enumerate(VALUES.items())),
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        pairs(","),
        pairs("\t", "gene\tvalue\n"),
        "\ufeff" + pairs(",", "symbol,tpm\r\n").replace("\n", "\r\n"),
        pairs(",") + "\n\n",
        "patient," + ",".join(VALUES) + "\nP1," + ",".join(map(str, VALUES.values())),
        "\t" + "\t".join(VALUES) + "\nP1\t" + "\t".join(map(str, VALUES.values())) + "\n",
        pairs(";").replace(".", ","),
        "\ufeff" + pairs(";", "Gen;TPM\r\n").replace(".", ",").replace("\n", "\r\n"),
        "id;" + ";".join(VALUES) + "\nP1;" + ";".join(map(str, VALUES.values())).replace(".", ","),
        pairs(";", "Gen;TPM\n"),
        STAR,
    ],
)
def test_every_layout_gives_the_values_of_the_genes(text):
    uploaded = read_upload(text.encode(), unit="tpm", genes=GENES)
    np.testing.assert_allclose(uploaded.values, EXPECTED, rtol=1e-6)
    assert uploaded.transform == "log2(TPM + 1)"
    assert uploaded.n_ignored == 1


def test_z_scores_stay_as_they_are():
    uploaded = read_upload(b"EGFR,-1\nCD8A,0.5\nPTEN,2", unit="zscore", genes=GENES)
    np.testing.assert_array_equal(uploaded.values, np.array([-1, 0.5, 2], np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\x00\x01\xff\xfe", "UTF-8"),
        (b"<html><body>sign in</body></html>", "web page"),
        (b"EGFR", "one patient is required"),
        (b"gene|value\nEGFR|1", "2 lines of 1 column.* Vertical bars seem to separate them"),
        (b"gene;value\nEGFR;1\nCD8A;2,5\nPTEN;1.5", r"row 3 \(CD8A\), column value: a number is required"),
        (b"id,EGFR,CD8A,PTEN\nP1,1,2,3\nP2,1,2,3", "one patient is required"),
        (b"EGFR,1\nCD8A,2", "Missing 1: PTEN"),
        (b"EGFR,1\ncd8a,2\nPten,3", r"Missing 2: CD8A, PTEN. 2 differ only in case \(`cd8a` for CD8A, `Pten` for PTEN"),
        (b"EGFR,1\nCD8A,2\nPTEN,high", r"row 3 \(PTEN\)"),
        (b"gene,value\nEGFR,1\nCD8A,2\nPTEN,high", r"row 4 \(PTEN\)"),
        (b"EGFR,1\nCD8A,2\nPTEN,-1", "at least 0"),
        (b"EGFR,1\nCD8A,2\nPTEN,", "PTEN"),
        (b"EGFR,1\nCD8A,2\nPTEN,inf", "PTEN"),
        (b"EGFR,1\nCD8A,2,3\nPTEN,4", "line 2 must have two columns"),
        (b"EGFR,0\nCD8A,0\nPTEN,0", "Found only zeros"),
        (b"gene,value", "Found only a header"),
        (b"a," * 300_000, "at most 200000 genes"),
        (b"EGFR," + b"1" * (LIMIT_BYTES + 1), "at most 10 MB"),
        (b"EGFR," + b"1" * 200_000, "field larger"),
    ],
)
def test_a_broken_file_is_one_sentence_without_our_folders(content, message):
    with pytest.raises(DataError, match=message) as caught:
        read_upload(content, unit="tpm", genes=GENES)
    assert tempfile.gettempdir() not in str(caught.value)


def test_decimal_commas_and_doubtful_units_are_said():
    with pytest.raises(DataError, match=r"^rna\.csv: line 2 must have two columns .* as 2\.5"):
        read_upload(b"EGFR,1\nCD8A,2,5\nPTEN,4", unit="tpm", genes=GENES, name="rna.csv")
    many = "\n".join(f"G{i},{i / 10}" for i in range(60))
    (warning,) = read_upload(many.encode(), unit="tpm", genes=["G1"], name="rna.csv").warnings
    assert warning.startswith("rna.csv: values look like logarithms (largest 5.9), declared unit tpm")


def test_a_star_file_has_no_z_scores():
    with pytest.raises(DataError, match="zscore"):
        read_upload(STAR.encode(), unit="zscore", genes=GENES)


def test_what_a_file_has_twice_or_empty_is_said():
    repeated = read_upload(b"gene,value\nEGFR,1\nCD8A,2\nPTEN,4\nCD8A,0.5\nEXTRA,1\nEXTRA,2", unit="tpm", genes=GENES)
    [warning] = repeated.warnings
    assert warning.startswith("CD8A: several values in the file, of which the highest is used. Left out: CD8A (row 5).")
    assert repeated.n_ignored == 3
    assert repeated.values[1] == pytest.approx(np.log2(3))
    both = read_upload(b"gene,value\nPPAP2B,1\nPLPP3,2", unit="tpm", genes=["PLPP3"])
    assert both.warnings == ("PPAP2B: an earlier symbol of PLPP3, which the file has too and is used.",)
    with pytest.raises(DataError, match=r"Missing 1: PTEN\. Of these there, but without a value: PTEN\. Give"):
        read_upload(b"gene,value\nEGFR,1\nCD8A,2\nPTEN,\nEXTRA,", unit="tpm", genes=GENES)


def test_a_missing_gene_is_found_empty_under_its_earlier_symbol():
    with pytest.raises(DataError, match=r"Missing 1: PLPP3\. Of these there, but without a value: PPAP2B\. Give"):
        read_upload(b"gene,value\nEGFR,1\nPPAP2B,", unit="tpm", genes=["EGFR", "PLPP3"])
    with pytest.raises(DataError, match=r"Missing 1: PTEN\. Of these there, but without a value: mine\. Give"):
        read_upload(b"gene,value\nEGFR,1\nmine,", unit="tpm", genes=["EGFR", "PTEN"], aliases={"mine": "PTEN"})


def leftovers() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("subfuse-upload-*"))


@pytest.mark.parametrize("content", [pairs(",").encode(), b"EGFR,high"])
def test_the_temporary_file_is_gone_afterwards(content, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with contextlib.suppress(DataError):
        read_upload(content, unit="tpm", genes=GENES)
    assert leftovers() == []


cells = st.text(max_size=6) | st.sampled_from([*VALUES, "1", "2.5", "-1", "nan", '"', "1e400", "#"])


def as_text(rows: list[list[str]], separator: str) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=separator).writerows(rows)
    return buffer.getvalue().encode("utf-8", "surrogatepass")


tables = st.builds(as_text, st.lists(st.lists(cells, min_size=1, max_size=4), max_size=5), st.sampled_from(",\t"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.binary(max_size=60) | tables, unit=st.sampled_from(["tpm", "counts", "fpkm", "log2_tpm", "zscore"]))
def test_whatever_is_uploaded_is_finite_or_an_error_with_a_reason(content, unit):
    try:
        uploaded = read_upload(content, unit=unit, genes=GENES)
    except DataError:
        return
    assert np.isfinite(uploaded.values).all()


@pytest.mark.parametrize("write", [write_xlsx, write_ods])
def test_a_workbook_with_one_sheet_is_read_whatever_it_is_called(tmp_path, write):
    rows = [["gene", "tpm"], *map(list, VALUES.items())]
    write(tmp_path / "one", {"Patient": rows, "Notes": []})
    uploaded = read_upload((tmp_path / "one").read_bytes(), unit="tpm", genes=GENES)
    np.testing.assert_allclose(uploaded.values, EXPECTED, rtol=1e-6)
    wide = [["patient", *VALUES], ["P1", *VALUES.values()]]
    write(tmp_path / "wide", {"Patient": wide})
    uploaded = read_upload((tmp_path / "wide").read_bytes(), unit="tpm", genes=GENES)
    np.testing.assert_allclose(uploaded.values, EXPECTED, rtol=1e-6)


def test_a_workbook_that_is_none_of_one_patient_is_one_line_about_the_file(tmp_path):
    rows = [["gene", "tpm"], *map(list, VALUES.items())]
    write_xlsx(tmp_path / "two.xlsx", {"A": rows, "B": rows})
    write_xlsx(tmp_path / "bad.xlsx", {"A": [*rows, ["EGFR", "high"]]})
    write_xlsx(tmp_path / "formula.xlsx", {"A": [*rows[:2], ["CD8A", Formula("1+1")]]})
    contents = {name: (tmp_path / f"{name}.xlsx").read_bytes() for name in ("two", "bad", "formula")}
    contents |= {"zip": b"PK\x03\x04 and nothing more", "old": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)}
    expected = {
        "two": r"a workbook with one sheet that holds something is required\. Found A, B",
        "bad": "high",
        "formula": "formula",
        "zip": "workbook",
        "old": r"Excel's old format \(\.xls\)",
    }
    for name, content in contents.items():
        with pytest.raises(DataError, match=expected[name]) as error:
            read_upload(content, unit="tpm", genes=GENES)
        assert str(error.value).startswith("the file")
        assert "subfuse-upload-" not in str(error.value)
