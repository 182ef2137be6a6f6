"""What a table is, by its content."""

import gzip
import json
import tarfile

import pandas as pd
import pytest
from recognised_folders import PATIENTS, clinical, study, tpm

from subfuse.recognition.kinds import (
    OTHER,
    SLIDE_FEATURES,
    find_tables,
    numbers_in,
    patient_column,
    star_files,
    study_name,
    visible_subfolders,
)
from workbook_files import write_xlsx

GDC = "case_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\nP1\tDead\t10\t'--\n"


def kinds(folder):
    direct, _ = find_tables(folder)
    return {table.path.name: table.kind for table in direct}


def test_tables_are_known_by_their_columns_and_cells(tmp_path):
    texts = {
        "clinical.tsv": GDC,
        "sheet.tsv": "File ID\tFile Name\tCase ID\tSample ID\nx\ty.tsv\tP1\tP1-01A\n",
        "manifest.txt": "id\tfilename\tmd5\tsize\tstate\na\tb\tc\t1\treleased\n",
        "slides.csv": "slide_id,patient_id\ns,P1\n",
        "stamp.csv": "PATIENT,FILENAME\nP1,s.h5\n",
        "clam.csv": "case_id,slide_id,label\nP1,s,tumour\n",
        "survpath.csv": ",case_id,slide_id,survival_months,censorship\n0,P1,s.svs,3.5,1\n",
        "features.csv": "slide_id," + ",".join(f"f{i}" for i in range(9)) + "\ns," + ",".join("123456789") + "\n",
        "process_list_autogen.csv": "slide_id,process,status,seg_level\ns.svs,0,processed,-1\n",
        "aliquot.tsv": "case_submitter_id\tproject_id\tsample_type\nP1\tTCGA-GBM\tPrimary\n",
        "samples.csv": "sample_id,patient_id\nS1,P1\n",
        "markers.csv": "Case ID;idh\nP1;WT\n",
        "prices.csv": "item,price\nmilk,2\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    clinical().to_csv(tmp_path / "patients.csv", index=False)
    tpm().to_csv(tmp_path / "matrix.csv")
    tpm().T.to_csv(tmp_path / "by_genes.tsv", sep="\t")
    tpm().T.to_csv(tmp_path / "xena.tsv.gz", sep="\t")
    (tmp_path / "xena.tsv.json").write_text("{}")
    (tmp_path / "few.h5ad").write_bytes(b"")
    (tmp_path / "sets.gmt").write_text("A\t\tEGFR\n")
    (tmp_path / ".hidden.csv").write_text("patient_id,event\nP,1\n")
    assert kinds(tmp_path) == {
        "clinical.tsv": "gdc clinical", "sheet.tsv": "gdc sheet", "manifest.txt": "gdc manifest",
        "slides.csv": "slides", "stamp.csv": "slides", "clam.csv": "slides of patients",
        "survpath.csv": "slides of patients",
        "features.csv": "slide features", "process_list_autogen.csv": "",
        "samples.csv": "sample sheet", "aliquot.tsv": "",
        "markers.csv": "patients", "prices.csv": "", "patients.csv": "patients", "matrix.csv": "matrix",
        "by_genes.tsv": "matrix", "xena.tsv.gz": "xena", "xena.tsv.json": "", "few.h5ad": "h5ad",
        "sets.gmt": "gene sets",
    }  # fmt: skip


def test_files_of_the_gdc_in_archives_and_json(tmp_path):
    (tmp_path / "clinical.tsv").write_text(GDC)
    with tarfile.open(tmp_path / "clinical.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "clinical.tsv", "clinical.tsv")
    case = {"submitter_id": "P2", "demographic": {"vital_status": "Dead", "days_to_death": 3}, "diagnoses": [
        {"days_to_last_follow_up": None}]}  # fmt: skip
    (tmp_path / "clinical.cart.json").write_text(json.dumps([case]))
    file = {"file_name": "a.tsv", "file_id": "x", "associated_entities": [{"entity_submitter_id": "TCGA-02-0001-01A"}]}
    (tmp_path / "metadata.cart.json").write_text(json.dumps([file]))
    (tmp_path / "other.json").write_text("[1]")
    with tarfile.open(tmp_path / "slides.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "other.json", "x.json")
    assert kinds(tmp_path) == {
        "clinical.tsv": "gdc clinical", "clinical.tar.gz": "gdc clinical", "clinical.cart.json": "gdc clinical",
        "metadata.cart.json": "gdc metadata", "other.json": "", "slides.tar.gz": "",
    }  # fmt: skip


@pytest.mark.parametrize("meta", [True, False])
def test_files_of_a_study_are_what_its_meta_files_or_their_names_say(tmp_path, meta):
    found = kinds(study(tmp_path / "s", meta=meta, expression=("data_RNA_Seq_v2_expression_median.txt",)))
    assert {name: kind for name, kind in found.items() if kind} == {
        "data_clinical_patient.txt": "cbioportal patients",
        "data_clinical_sample.txt": "cbioportal samples",
        "data_RNA_Seq_v2_expression_median.txt": "cbioportal expression",
        "data_RNA_Seq_v2_expression_median_zscores_ref_all_samples.txt": "cbioportal z-scores",
    }
    assert study_name(tmp_path / "s") == ("lgg_tcga_pan_can_atlas_2018" if meta else None)


def test_each_filled_sheet_of_a_workbook_is_a_table(tmp_path):
    sheets = {"Patients 2024": [["patient_id", "event"], ["0012", 1]], "Slides": [["slide_id"], ["s"]], "Notes": []}
    write_xlsx(tmp_path / "study.xlsx", sheets)
    write_xlsx(tmp_path / "one.xlsx", {"A": [["patient_id", "event"], ["0012", 1]]})
    assert kinds(tmp_path) == {
        "study.xlsx#Patients 2024": "patients", "study.xlsx#Slides": "slides", "one.xlsx": "patients",
    }  # fmt: skip


def test_damaged_files_are_told_and_the_others_found(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfea\x00")
    (tmp_path / "b.csv").write_text("<html>")
    (tmp_path / "c.xlsx").write_bytes(b"no workbook")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"patient_id,event\nP1,1\n")[:-9])
    (tmp_path / "e.csv").write_text("patient_id,event\nP1,1\n")
    direct, _ = find_tables(tmp_path)
    assert [table.path.name for table in direct if not table.problem] == ["e.csv"]
    assert all(table.path.name in table.problem and table.kind == "" for table in direct if table.problem)


def test_folders_of_many_tables_and_prepared_cohorts_are_passed_over(tmp_path):
    for place in ("few", "many", "prepared", "wsi_states"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "p.csv").write_text("patient_id,event\nP1,1\n")
    for number in range(30):
        (tmp_path / "many" / f"{number}.csv").write_text("patient_id,event\nP1,1\n")
    (tmp_path / "prepared" / "provenance.json").write_text("{}")
    _, below = find_tables(tmp_path)
    assert [table.path.parent.name for table in below] == ["few"]
    assert [path.name for path in visible_subfolders(tmp_path)] == ["few", "many"]


def test_star_files_are_found_wherever_they_lie(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    names = ("x.rna_seq.augmented_star_gene_counts.tsv", "y.rna_seq.augmented_star_gene_counts.tsv.gz", "z.tsv")
    for name in names:
        (tmp_path / "a" / "b" / name).write_text("")
    assert [path.name for path in star_files(tmp_path)] == list(names[:2])
    (tmp_path / names[0]).write_text("")
    assert kinds(tmp_path) == {}


def test_patients_are_identified_by_the_name_of_a_column():
    assert patient_column(["slide", "PATIENT_ID", "id"]) == "PATIENT_ID"
    assert patient_column(["gene", "length"]) is None


def test_numbers_are_columns_of_numbers_alone():
    table = pd.DataFrame({"id": ["1", "2"], "a": ["1", "NA"], "b": ["1", "x"], "c": ["NA", ""], "d": ["1e3", "-2.5"]})
    assert {name: list(values.dropna()) for name, values in numbers_in(table).items()} == {
        "a": [1.0],
        "d": [1000.0, -2.5],
    }


def test_a_clinical_table_as_parquet_is_no_features_of_slides(tmp_path):
    pytest.importorskip("pyarrow")
    clinical().to_parquet(tmp_path / "c.parquet")
    clinical().rename(columns={"patient_id": "slide_id"}).to_parquet(tmp_path / "f.parquet")
    clinical().set_index(pd.Index(PATIENTS, name="slide_id")).to_parquet(tmp_path / "i.parquet")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing")
    found = {table.path.stem: table for table in find_tables(tmp_path)[0]}
    assert {name: table.kind for name, table in found.items()} == {
        "c": OTHER, "f": SLIDE_FEATURES, "i": SLIDE_FEATURES, "x": OTHER,
    }  # fmt: skip
    for name in ("c", "x"):
        assert f"{name}.parquet: Parquet with the column slide_id is required" in found[name].problem


def test_deeper_tables_count_where_no_level_above_has_their_kind(tmp_path):
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    tpm().to_csv(deep / "rna.csv")
    clinical().to_csv(deep / "old.csv", index=False)
    clinical().to_csv(tmp_path / "a" / "b" / "p.csv", index=False)
    assert [table.path.name for table in find_tables(tmp_path)[1]] == ["p.csv", "rna.csv"]
    (deep / "e").mkdir()
    (deep / "rna.csv").rename(deep / "e" / "rna.csv")
    assert [table.path.name for table in find_tables(tmp_path)[1]] == ["p.csv"]


def test_a_folder_for_each_file_and_stores_are_passed_over(tmp_path):
    for i in range(21):
        (tmp_path / "downloads" / f"id{i}").mkdir(parents=True)
        clinical().to_csv(tmp_path / "downloads" / f"id{i}" / "p.csv", index=False)
    (tmp_path / "s.zarr").mkdir()
    clinical().to_csv(tmp_path / "s.zarr" / "p.csv", index=False)
    assert find_tables(tmp_path) == ([], [])
