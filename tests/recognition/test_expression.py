"""The section `expression` of a draft."""

import json

import pytest
import yaml
from recognised_folders import PATIENTS, STUDY, study, tpm

from subfuse.cohort.cohort_file import CohortFile, read_cohort_file
from subfuse.errors import ConfigurationError
from subfuse.expression.reading import read_expression
from subfuse.recognition.expression import expression_lines
from subfuse.recognition.kinds import find_tables

STAR = "x.rna_seq.augmented_star_gene_counts.tsv"
SHEET = f"File ID\tFile Name\tCase ID\tSample ID\nf\t{STAR}\tTCGA-02-0001\tTCGA-02-0001-01A\n"


def drafted(folder):
    text = "\n".join(expression_lines(folder, *find_tables(folder), folder))
    return text, (yaml.safe_load(text) or {}).get("expression")


def read(folder, section):
    content = {"name": "x", "patients": {"table": "p.csv"}, "expression": section}
    found = CohortFile.model_validate(content, context={"base": folder}).expression
    return read_expression(found, keep_genes=(), patients=PATIENTS)


def star(folder):
    for name in ("a", "b"):
        (folder / "star" / name).mkdir(parents=True)
        (folder / "star" / name / STAR.replace("x", name)).write_text("")
    return folder


def test_the_unit_of_a_plain_table_is_asked_with_what_its_cells_hold(tmp_path):
    tpm().to_csv(tmp_path / "e.csv")
    text, found = drafted(tmp_path)
    assert found == {"table": "e.csv", "unit": "FILL-IN"}
    assert f"{tpm().iloc[:38].to_numpy().max():g}" in text
    assert "whole" not in text
    tpm().round().astype(int).T.to_csv(tmp_path / "e.csv")
    assert ", whole numbers" in drafted(tmp_path)[0]
    assert len(read(tmp_path, {**found, "unit": "counts"}).values) == len(PATIENTS)


@pytest.mark.parametrize(
    ("values", "fitting", "told"),
    [
        (lambda tpm: (tpm - tpm.mean()) / tpm.std(), {"zscore", "log2_tpm_001", "log2_fpkm_001"}, True),
        (lambda tpm: tpm - tpm.mean(), {"zscore"}, True),
        (lambda tpm: tpm * 1.5, {"rsem", "fpkm", "fpkm_uq", "tpm", "zscore"}, False),
    ],
)
def test_asked_are_the_units_that_the_first_values_can_have(tmp_path, values, fitting, told):
    values(tpm()).round(4).to_csv(tmp_path / "e.csv")
    question = drafted(tmp_path)[0].partition("QUESTION: ")[2]
    assert set(question.partition("?")[0].split(", ")) == fitting
    assert ("values below 0 are z-scores (zscore)" in question) == told
    assert ("logarithms of x + 0.001" in question) == ("log2_tpm_001" in fitting)


def test_expression_among_the_columns_of_patients_is_read_from_there(tmp_path):
    table = tpm().add_suffix("_rnaseq").reset_index(names="case_id")
    table.assign(survival_months=1.5, censorship=0, EGFR_cnv=2).to_csv(tmp_path / "p.csv.zip")
    text, found = drafted(tmp_path)
    columns = {"gene_suffix": "_rnaseq", "patient_column": "case_id"}
    assert found == {"table": "p.csv.zip", **columns, "unit": "FILL-IN"}
    assert f"{tpm().shape[1]} columns of expression" in text
    values = read(tmp_path, {**found, "unit": "tpm"}).values
    assert values.shape == tpm().shape
    tpm().to_csv(tmp_path / "e.csv")  # a table of expression alone is rather meant
    assert drafted(tmp_path)[1]["table"] == "e.csv"


def test_units_that_the_source_tells_are_stated_and_not_declared(tmp_path):
    section = drafted(study(tmp_path / "s"))
    assert section[1] == {
        "format": "cbioportal",
        "table": "data_mrna_seq_v2_rsem.txt",
        "sample_sheet": "data_clinical_sample.txt",
    }
    assert "unit: rsem, as the name of the file says" in section[0]
    shown = tpm([f"{patient}-01" for patient in PATIENTS]).to_numpy()[:, :20]  # of the genes; identifiers are no values
    assert f"Its first rows hold {shown.min():g} to {shown.max():g}" in section[0]
    assert "not used, since they are z-scores of such a table: data_mrna_seq_v2_rsem_zscores_ref" in section[0]
    assert read(tmp_path / "s", section[1]).unit == "rsem"

    (tmp_path / "x").mkdir()
    tpm().T.to_csv(tmp_path / "x" / "HiSeq.gz", sep="\t")
    (tmp_path / "x" / "HiSeq.gz.json").write_text(json.dumps({"unit": "log2(x)"}))
    assert drafted(tmp_path / "x")[1] == {"format": "xena", "table": "HiSeq.gz", "unit": "FILL-IN"}
    (tmp_path / "x" / "HiSeq.gz.json").write_text(json.dumps({"unit": "log2(tpm+1)"}))
    text, found = drafted(tmp_path / "x")
    assert found == {"format": "xena", "table": "HiSeq.gz"}
    assert "log2_tpm, as the JSON file beside it says" in text

    from anndata import AnnData

    (tmp_path / "h").mkdir()
    AnnData(tpm(), uns={"unit": "tpm"}).write_h5ad(tmp_path / "h" / "e.h5ad")
    assert drafted(tmp_path / "h")[1] == {"format": "h5ad", "table": "e.h5ad"}
    assert read(tmp_path / "h", drafted(tmp_path / "h")[1]).unit == "tpm"
    AnnData(tpm(), uns={"unit": "TPM"}).write_h5ad(tmp_path / "h" / "e.h5ad")
    text, found = drafted(tmp_path / "h")
    assert found == {"format": "h5ad", "table": "e.h5ad", "unit": "FILL-IN"}
    assert "uns of the file says 'TPM'" in text
    assert read(tmp_path / "h", {**found, "unit": "tpm"}).unit == "tpm"
    AnnData(tpm()).write_h5ad(tmp_path / "h" / "e.h5ad")
    assert drafted(tmp_path / "h")[1] == {"format": "h5ad", "table": "e.h5ad", "unit": "FILL-IN"}


def test_a_study_whose_file_names_tell_no_unit_is_asked(tmp_path):
    _, found = drafted(study(tmp_path, expression=("data_mrna_agilent_microarray.txt",)))
    assert found["unit"] == "FILL-IN"


def test_a_study_that_has_z_scores_alone_is_read_from_them(tmp_path):
    study(tmp_path)
    (tmp_path / "data_mrna_seq_v2_rsem.txt").unlink()
    _, found = drafted(tmp_path)
    assert found["table"] == "data_mrna_seq_v2_rsem_zscores_ref_all_samples.txt"
    assert read(tmp_path, found).unit == "zscore"


def test_two_tables_are_both_named_and_none_is_chosen(tmp_path):
    text, found = drafted(study(tmp_path / STUDY, expression=("data_mrna_seq_v2_rsem.txt", "data_mrna_seq_fpkm.txt")))
    assert found == {"format": "cbioportal", "table": "FILL-IN"}
    assert "data_mrna_seq_fpkm.txt or data_mrna_seq_v2_rsem.txt" in text
    (tmp_path / "p").mkdir()
    for name in ("a.csv", "b.csv"):
        tpm().to_csv(tmp_path / "p" / name)
    text, found = drafted(tmp_path / "p")
    assert found == {"table": "FILL-IN"}
    assert "which of a.csv or b.csv? Then its unit" in text
    tpm().to_csv(star(tmp_path / "mixed") / "a.csv")
    text, found = drafted(tmp_path / "mixed")
    assert found == {"table": "FILL-IN"}
    assert "which of star or a.csv? Then its format and unit" in text


def test_star_files_need_what_says_whose_they_are(tmp_path):
    text, found = drafted(star(tmp_path))
    assert found == {"format": "gdc_star", "folder": "star", "unit": "tpm", "sample_sheet": "FILL-IN"}
    assert "chosen: the files hold counts, tpm, fpkm and fpkm_uq" in text
    path = tmp_path / "cohort.yaml"
    path.write_text(f"name: x\npatients: {{table: p.csv}}\n{text}\n")
    with pytest.raises(ConfigurationError, match=r"`expression\.sample_sheet`: .*place of FILL-IN"):
        read_cohort_file(path)
    path.unlink()
    file = {"file_name": STAR, "file_id": "x", "associated_entities": [{"entity_submitter_id": "TCGA-02-0001-01A"}]}
    (tmp_path / "metadata.cart.json").write_text(json.dumps([file]))
    assert drafted(tmp_path)[1]["metadata"] == "metadata.cart.json"
    (tmp_path / "sheet.tsv").write_text(SHEET)
    (tmp_path / "slides_manifest.txt").write_text("id\tfilename\tmd5\tsize\tstate\na\tb.svs\tc\t1\treleased\n")
    (tmp_path / "star_manifest.txt").write_text(f"id\tfilename\tmd5\tsize\tstate\na\t{STAR}\tc\t1\treleased\n")
    found = drafted(tmp_path)[1]
    assert (found["sample_sheet"], found["manifest"], "metadata" in found) == ("sheet.tsv", "star_manifest.txt", False)
    (tmp_path / "sheet2.tsv").write_text(SHEET)
    text, found = drafted(tmp_path)
    assert found["sample_sheet"] == "FILL-IN"
    assert "which of sheet.tsv or sheet2.tsv?" in text


def test_ivygap_and_sample_sheets_are_recognised(tmp_path):
    (tmp_path / "ivy").mkdir()
    (tmp_path / "ivy" / "fpkm_table.csv").write_text('"gene_id\\rna_well_id","1","2"\n10,0.5,1\n')
    (tmp_path / "ivy" / "rows-genes.csv").write_text("gene_id,gene_symbol\n10,EGFR\n")
    (tmp_path / "ivy" / "columns-samples.csv").write_text("rna_well_id,tumor_name\n1,W1-1-1\n2,W2-1-1\n")
    assert drafted(tmp_path)[1] == {"format": "ivygap", "folder": "ivy"}
    (tmp_path / "own").mkdir()
    tpm([f"S{i}" for i in range(24)]).to_csv(tmp_path / "own" / "e.csv")
    (tmp_path / "own" / "sheet.csv").write_text("sample_id,patient_id\nS1,P1\n")
    found = drafted(tmp_path / "own")[1]
    assert found == {"table": "e.csv", "unit": "FILL-IN", "sample_sheet": "sheet.csv"}


def test_matrices_of_subfolders_count_where_the_folder_has_none(tmp_path):
    (tmp_path / "sub").mkdir()
    tpm().to_csv(tmp_path / "sub" / "e.csv")
    assert drafted(tmp_path)[1]["table"] == "sub/e.csv"
    tpm().to_csv(tmp_path / "f.csv")
    assert drafted(tmp_path)[1]["table"] == "f.csv"
    (tmp_path / "other").mkdir()
    assert drafted(tmp_path / "other") == ("", None)


def test_a_blank_unit_is_refused_by_name(tmp_path):
    tpm().to_csv(tmp_path / "e.csv")
    with pytest.raises((ConfigurationError, ValueError), match="FILL-IN"):
        read(tmp_path, drafted(tmp_path)[1])


@pytest.mark.parametrize("name", ["rad_{}", "cg{:08d}", "original_firstorder_{}"])
@pytest.mark.parametrize("patients", [PATIENTS, [f"H{i:03d}" for i in range(24)]])
def test_numbers_that_are_not_called_as_genes_are_asked_about(tmp_path, name, patients):
    values = tpm(patients).iloc[:, :200]
    for table in (values, values.T):
        table.to_csv(tmp_path / "e.csv")
        assert "genes?" not in drafted(tmp_path)[0]
    values.columns = [name.format(i) for i in range(200)]
    values.to_csv(tmp_path / "e.csv")
    text, found = drafted(tmp_path)
    assert found == {"table": "e.csv", "unit": "FILL-IN"}
    assert f"Are {name.format(0)}, " in text
    assert "Few are known symbols" in text
    values.columns = [f"ENSG{i:011d}.{i % 9}" for i in range(200)]
    values.T.to_csv(tmp_path / "e.csv")
    assert "genes?" not in drafted(tmp_path)[0]


def test_the_probe_map_that_xena_names_gives_the_symbols(tmp_path):
    values = tpm()
    names = [f"ENSG{i:011d}" for i in range(values.shape[1])]
    values.set_axis(names, axis=1).T.rename_axis("Ensembl_ID").to_csv(tmp_path / "e.tsv.gz", sep="\t")
    described = {"unit": "fpkm", ":probeMap": "probeMap/genes.probeMap"}
    (tmp_path / "e.tsv.gz.json").write_text(json.dumps(described))
    text, found = drafted(tmp_path)
    assert found["aliases"] == "FILL-IN"
    assert "which table gives the symbols of its Ensembl identifiers" in text
    rows = [f"{name}\t{gene}\n" for name, gene in zip(names, values.columns, strict=True)]
    (tmp_path / "genes.probeMap").write_text("id\tgene\n" + "".join(rows))
    found = drafted(tmp_path)[1]
    assert found["aliases"] == "genes.probeMap"
    assert set(read(tmp_path, {**found, "unit": "fpkm"}).values) == set(values.columns)
