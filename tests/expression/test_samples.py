"""One sample speaks for a patient, chosen by one rule in every source of expression."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from expression_tables import PATIENTS, matrix, plain, read

from expression_sections import expression_section
from subfuse.errors import DataError
from subfuse.expression.reading import read_expression
from subfuse.expression.samples import origin_of_sample, read_sample_sheet
from subfuse.expression.source import ExpressionSection

FIRST, DEEPER = "TCGA-A6-6650-01A-11R-1774-07", "TCGA-A6-6650-01A-11R-A278-07"
LATER = "TCGA-A6-6650-01B-02R-A277-07"  # formalin-fixed, and the deepest
OTHER = "TCGA-A6-5661-01A-01R-1653-07"
DEPTHS = {LATER: 4, FIRST: 1, DEEPER: 2, OTHER: 3}
GENES = {"EGFR": 6, "PTEN": 3, "VIM": 1}
STAR_SUFFIX = ".rna_seq.augmented_star_gene_counts.tsv"


def vials(unit: str) -> pd.DataFrame:
    """Genes × samples; TPM add up to a million but for the rounding of the file."""
    counts = pd.DataFrame({sample: {g: n * depth for g, n in GENES.items()} for sample, depth in DEPTHS.items()})
    return counts if unit == "counts" else counts / counts.sum() * 1e6 + np.array([0.01, 0, 0.02, 0.03])


def write(folder, source: str, unit: str) -> ExpressionSection:
    table = vials(unit)
    if source == "plain":
        table.T.to_csv(folder / "e.csv", index_label="sample")
        return expression_section(table=folder / "e.csv", unit=unit)
    if source == "xena":
        table.to_csv(folder / "e.tsv", sep="\t", index_label="sample")
        return expression_section(table=folder / "e.tsv", unit=unit, format="xena")
    if source == "cbioportal":
        table.to_csv(folder / "e.txt", sep="\t", index_label="Hugo_Symbol")
        return expression_section(table=folder / "e.txt", unit=unit, format="cbioportal")
    if source == "h5ad":
        anndata.AnnData(table.T.astype(np.float32)).write_h5ad(folder / "e.h5ad")
        return expression_section(table=folder / "e.h5ad", unit=unit, format="h5ad")
    return write_star(folder, source, unit)


def write_star(folder, source: str, unit: str) -> ExpressionSection:
    rows, records = [], []
    for number, (sample, depth) in enumerate(DEPTHS.items()):
        name = f"{'cabd'[number]}{STAR_SUFFIX}"
        lines = [f"ENSG0{i}.1\t{g}\tprotein_coding\t{n * depth}\t{n * 1e5}" for i, (g, n) in enumerate(GENES.items())]
        (folder / name).write_text("gene_id\tgene_name\tgene_type\tunstranded\ttpm_unstranded\n" + "\n".join(lines))
        rows.append((name, sample[:12], sample[:16], "Primary Tumor"))
        records.append({"file_name": name, "associated_entities": [{"entity_submitter_id": sample}]})
    if source == "star sheet":
        columns = ["File Name", "Case ID", "Sample ID", "Sample Type"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "sheet.tsv", sep="\t", index=False)
        return expression_section(folder=folder, format="gdc_star", unit=unit, sample_sheet=folder / "sheet.tsv")
    (folder / "metadata.json").write_text(json.dumps(records))
    return expression_section(folder=folder, format="gdc_star", unit=unit, metadata=folder / "metadata.json")


@pytest.mark.parametrize("unit", ["counts", "tpm"])
@pytest.mark.parametrize("source", ["plain", "xena", "cbioportal", "h5ad", "star sheet", "star metadata"])
def test_the_first_vial_speaks_for_the_patient_in_every_source(tmp_path, source, unit):
    table = read_expression(write(tmp_path, source, unit))
    assert list(table.values.index) == ["TCGA-A6-5661", "TCGA-A6-6650"]
    used = table.samples.loc["TCGA-A6-6650", "samples"]
    knows_depth = unit == "counts" or source.startswith("star")
    assert used == (f"{DEEPER[:16]} (b{STAR_SUFFIX})" if source == "star sheet" else DEEPER if knows_depth else FIRST)
    reasons = table.exclusions.set_index("id")["reason"]
    [later] = [reason for sample, reason in reasons.items() if "01B" in sample]
    assert "the first vial is frozen, later ones are often FFPE" in later
    [replicate] = [reason for sample, reason in reasons.items() if "01A" in sample]
    assert replicate.endswith("(a lower total)" if knows_depth else "(its identifier comes later)")


def test_rounding_of_tpm_decides_nothing(tmp_path):
    table = pd.DataFrame({"s": [FIRST, DEEPER], "EGFR": [600000, 600000.4], "VIM": [400000, 400000]})
    table.to_csv(tmp_path / "e.csv", index=False)
    read = read_expression(expression_section(table=tmp_path / "e.csv", unit="tpm"))
    assert read.samples["samples"].tolist() == [FIRST]


def test_the_next_file_is_read_where_the_first_cannot_be(tmp_path):
    section = write(tmp_path, "star metadata", "counts")
    for name in "ab":  # both frozen aliquots
        (tmp_path / f"{name}{STAR_SUFFIX}").write_text("damaged")
    read = read_expression(section)
    assert read.samples.loc["TCGA-A6-6650", "samples"] == LATER
    assert f"a{STAR_SUFFIX}" in read.exclusions["id"].tolist()


@pytest.mark.parametrize(
    ("keys", "rank", "vial"),
    [
        ({"sample": "TCGA-02-0047-01A", "words": "Solid Tissue Normal"}, 2, 0),
        ({"sample": "TCGA-02-0047-11A", "words": "Primary Tumor"}, 2, 0),
        ({"sample": "tcga-02-0047-03b", "words": "Not Reported"}, 0, 1),
        ({"sample": "TCGA-07-0227-20A"}, 2, 0),
        ({"sample": "S1", "words": "Recurrent Tumor Tumor Recurrence"}, 1, 0),
        ({"sample": "S1", "words": "Tumor", "preservation": "FFPE"}, 0, 100),
        ({"sample": "TCGA.02.0047.01B.11R", "preservation": "Formalin fixed"}, 0, 101),
        ({"sample": "S1", "preservation": "Snap Frozen"}, 0, 0),
    ],
)
def test_what_barcode_and_words_say_of_a_sample(keys, rank, vial):
    assert origin_of_sample(**keys)[1:] == (rank, vial, keys.get("words", ""))


def test_sample_sheets_say_what_is_formalin_fixed(tmp_path):
    path = tmp_path / "data_clinical_sample.txt"
    path.write_text("#x\nPATIENT_ID\tSAMPLE_ID\tIS_FFPE\nA\tS1\tYES\nA\tS2\tNO\n")
    assert {sample: origin.vial for sample, origin in read_sample_sheet(path).items()} == {"S1": 100, "S2": 0}
    table = "sample,EGFR,VIM\nS1,9,9\nS2,1,1\n"
    (tmp_path / "e.csv").write_text(table)
    read = read_expression(expression_section(table=tmp_path / "e.csv", unit="counts", sample_sheet=path))
    assert read.samples["samples"].tolist() == ["S2"]
    assert read.exclusions["reason"].tolist() == ["S2 of the same patient is used (frozen tissue comes before FFPE)"]


@pytest.mark.real_data
def test_tpm_and_counts_of_one_download_use_frozen_tissue(cases):
    for name, unit in (("tpm", "tpm"), ("counts", "counts")):
        section = expression_section(table=cases / "ffpe_aliquot" / f"{name}.tsv", unit=unit, format="xena")
        read = read_expression(section)
        assert read.samples.loc["TCGA-A6-6650", "samples"].startswith("TCGA-A6-6650-01A")
        assert "FFPE" in read.exclusions.set_index("id")["reason"][LATER]


def test_sample_barcodes_primary_first_and_never_normal(tmp_path):
    rows = ["TCGA-02-0001-02A,9,9", "TCGA-02-0001-01A,1,1", "TCGA-02-0001-01B,3,3", "TCGA-02-0002-11A,1,1"]
    table = plain(tmp_path, "\n".join(["case,G1,G2", *rows]))
    assert table.values.to_dict("index") == {"TCGA-02-0001": {"G1": 1.0, "G2": 1.0}}
    reasons = dict(zip(table.exclusions["id"], table.exclusions["reason"], strict=True))
    assert reasons["TCGA-02-0002-11A"] == "normal tissue"
    assert reasons["TCGA-02-0001-02A"] == "TCGA-02-0001-01A of the same patient is used (not the primary tumour)"
    assert "FFPE" in reasons["TCGA-02-0001-01B"]
    assert table.samples.loc["TCGA-02-0001", "samples"] == "TCGA-02-0001-01A"
    assert not [text for text in table.warnings if "primary" in text]


def test_a_recurrence_that_speaks_for_its_patient_is_named(tmp_path):
    table = plain(tmp_path, "case,G1,G2\nTCGA-02-0001-02A,9,9\nTCGA-02-0002-01A,1,1\nTCGA-02-0002-02A,3,3")
    (told,) = [text for text in table.warnings if "without a primary tumour" in text]
    assert "1 patient without a primary tumour" in told
    assert "(TCGA-02-0001-02A)" in told


def test_a_sample_sheet_names_patients_and_types(tmp_path):
    samples = ["s1", "s2", "s3", "s4"]
    matrix(samples, values=np.array([[1, 1], [3, 3], [7, 7], [9, 9]])).to_csv(tmp_path / "e.csv")
    sheet = "sample_id,patient_id,sample_type\ns1,a,Primary Tumor\ns2,a,Recurrent\ns3,b,Solid Tissue Normal\n"
    (tmp_path / "sheet.csv").write_text(sheet)
    found = read(tmp_path / "e.csv", unit="tpm", sample_sheet=tmp_path / "sheet.csv")
    assert found.values.loc["a"].tolist() == [1, 1]
    reasons = dict(zip(found.exclusions["id"], found.exclusions["reason"], strict=True))
    assert reasons["s3"] == "normal tissue"
    assert reasons["s4"] == "not in the sample sheet"
    assert "s1 of the same patient" in reasons["s2"]


@pytest.mark.parametrize(("format", "orientation"), [("plain", None), ("plain", "patients_by_genes"), ("h5ad", None)])
def test_a_sample_sheet_of_other_samples_names_both_sides_and_the_nearest(tmp_path, format, orientation):
    names = [f"case-{i}" for i in range(3)]
    path = tmp_path / f"e.{'h5ad' if format == 'h5ad' else 'csv'}"
    if format == "h5ad":
        anndata.AnnData(matrix(names)).write_h5ad(path)
    else:
        matrix(names).to_csv(path)
    (tmp_path / "sheet.csv").write_text("sample_id,patient_id\nCASE-2,a\nCASE-9,b\n")
    declared = {} if orientation is None else {"orientation": orientation}
    with pytest.raises(DataError, match=r"Found none.*nearest: (case-2 and CASE-2|CASE-2 and case-2), .* only in case"):
        read(path, unit="tpm", format=format, sample_sheet=tmp_path / "sheet.csv", patients=["a", "b"], **declared)


def test_a_sample_that_the_sheet_spells_otherwise_says_so(tmp_path):
    matrix(["s1", "s2", "s3"]).T.to_csv(tmp_path / "e.csv")
    (tmp_path / "sheet.csv").write_text("sample_id,patient_id,sample_type\ns1,a,\nS2,b,\n")
    found = read(tmp_path / "e.csv", unit="tpm", sample_sheet=tmp_path / "sheet.csv", patients=["a", "b"])
    reasons = dict(zip(found.exclusions["id"], found.exclusions["reason"], strict=True))
    assert found.values.index.tolist() == ["a"]  # the sheet tells the orientation
    assert reasons == {
        "s2": "not in the sample sheet; S2 is, which differs only in case",
        "s3": "not in the sample sheet",
    }
    (tmp_path / "sheet.csv").write_text("sample_id,patient_id,sample_type\ns1,a,Normal\n")
    with pytest.raises(DataError, match=r"normal tissue \(1\) .* \(2\). Commonest reason: .* \(2, for example s2\)"):
        read(tmp_path / "e.csv", unit="tpm", sample_sheet=tmp_path / "sheet.csv", patients=["a"])


@pytest.mark.parametrize(
    ("sheet", "message"),
    [
        ("id,patient_id\ns1,a\n", "columns sample_id and patient_id"),
        ("sample_id,patient_id\ns1,\n", "identifier and a patient"),
        ("sample_id,patient_id\ns1,a\ns1,b\n", "one patient. Found s1 of a, b"),
    ],
)
def test_broken_sample_sheets(tmp_path, sheet, message):
    matrix().to_csv(tmp_path / "e.csv")
    (tmp_path / "sheet.csv").write_text(sheet)
    with pytest.raises(DataError, match=f"sheet.csv.*{message}"):
        read(tmp_path / "e.csv", unit="tpm", sample_sheet=tmp_path / "sheet.csv")


def test_names_with_dots_of_r_are_barcodes(tmp_path):
    matrix([f"{p.replace('-', '.')}.01" for p in PATIENTS]).to_csv(tmp_path / "e.csv")
    assert read(tmp_path / "e.csv", unit="tpm").values.index.tolist() == PATIENTS


@pytest.mark.parametrize("header", [
    "Sample Type", "SAMPLE_TYPE", "Tissue Type", "tumor descriptor", "Tissue",
    "SampleType", "cases.samples.sample_type", "samples.sample_type",
])  # fmt: skip
def test_a_sample_sheet_says_what_is_no_tumour_under_any_of_its_usual_headers(tmp_path, header):
    path = tmp_path / "sheet.tsv"
    path.write_text(f"Sample ID\tPatient.ID\t{header}\nS1\tA\tSolid Tissue Normal\nS2\tA\t\n")
    assert {sample: origin.rank for sample, origin in read_sample_sheet(path).items()} == {"S1": 2, "S2": 0}


def test_a_column_that_names_the_organ_says_nothing_of_the_sample(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("sample_id,patient_id,tissue\nS1,A,Stomach\n")
    assert read_sample_sheet(path)["S1"].rank == 0


def test_two_columns_of_one_meaning_are_refused(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("sample_id,patient_id,Sample Type,sample.type\nS1,A,Tumor,Normal\n")
    with pytest.raises(DataError, match=r"one column sample_type is required\. Found Sample Type and sample\.type"):
        read_sample_sheet(path)


@pytest.mark.parametrize("header", ["Sample Type", "SampleType", "samples.sample_type"])
def test_a_usual_header_beside_the_columns_own_name_must_say_the_same(tmp_path, header):
    path = tmp_path / "sheet.csv"
    path.write_text(f"sample_id,patient_id,sample_type,{header}\nS1,A,Primary Tumor,Solid Tissue Normal\n")
    with pytest.raises(DataError, match=rf"one column sample_type is required\. Found sample_type and {header}"):
        read_sample_sheet(path)
    path.write_text(f"sample_id,patient_id,sample_type,{header}\nS1,A,Solid Tissue Normal,Solid Tissue Normal\n")
    assert read_sample_sheet(path)["S1"].rank == 2


def test_a_column_that_is_there_twice_with_other_cells_is_refused_under_any_of_its_headers(tmp_path):
    path = tmp_path / "sheet.csv"
    path.write_text("sample_id,patient_id,Sample Type,Sample Type\nS1,A,Tumor,Normal\n")
    with pytest.raises(DataError, match=r"Found twice: sample_type, with different cells"):
        read_sample_sheet(path)


def test_words_for_a_type_that_are_not_understood_are_named(tmp_path):
    (tmp_path / "sheet.csv").write_text("sample_id,patient_id,sample_type\nS1,A,Mittelschnitt\nS2,B,Recurrent Tumor\n")
    (tmp_path / "e.csv").write_text("sample,EGFR,VIM\nS1,9,9\nS2,1,1\n")
    sheet = {"sample_sheet": tmp_path / "sheet.csv", "orientation": "patients_by_genes"}
    table = read_expression(expression_section(table=tmp_path / "e.csv", unit="counts", **sheet))
    (note,) = [warning for warning in table.warnings if "no known type" in warning]
    assert "Mittelschnitt is no known type" in note
    assert "Recurrent" not in note.partition("Write")[0]
