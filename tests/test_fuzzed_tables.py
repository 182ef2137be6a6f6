"""Damaged tables and texts: every reader ends with a table or with one line of ours, whatever the bytes."""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from clinical_sections import patients_section
from damage import Reader, check_reader, damaged_text, rounds
from expression_sections import expression_section
from small_cohort import unchecked
from subfuse.audit.any_origin.any_table import auditable
from subfuse.audit.any_origin.prediction_files import read_prediction_files
from subfuse.bounded_files import require_regular_file
from subfuse.clinical.reading import read_clinical
from subfuse.cohort.cohort import read_cohort
from subfuse.cohort.cohort_file import read_cohort_file
from subfuse.cohort.fold_files import SPLITS, read_repeats
from subfuse.cohort.given_folds import given_folds
from subfuse.cohort.marker import PROVENANCE, mark_complete
from subfuse.errors import ConfigurationError, DataError
from subfuse.expression.gdc.listing import read_gdc_metadata, read_gdc_sheet
from subfuse.expression.gdc.star import read_star_file
from subfuse.expression.gene_names import read_aliases
from subfuse.expression.gene_sets import read_gmt
from subfuse.expression.reading import read_expression
from subfuse.expression.samples import read_sample_sheet
from subfuse.expression.upload import read_upload
from subfuse.features.feature_table import feature_row, read_feature_table
from subfuse.files import read_json
from subfuse.preparation.prepare import prepare
from subfuse.preparation.slides.slide_table import read_slides
from subfuse.serve.explanations import read_explanation, read_patch_scores
from subfuse.slides.source import SlideFolder
from trident_cohort import trident_cohort

MATRIX = "sample\tTCGA-02-0001-01A\tTCGA-02-0002-01A\nEGFR\t1\t2\nTP53\t3\t4\nVIM\t5\t6\n"
STAR = (
    "# gene-model: GENCODE v36\ngene_id\tgene_name\tgene_type\tunstranded\ttpm_unstranded\tfpkm_unstranded\t"
    "fpkm_uq_unstranded\nN_unmapped\t\t\t9\t\t\t\nENSG01.1\tEGFR\tprotein_coding\t3\t2\t1\t1\n"
)
GDC = "case_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\ttumor_grade\nA\tDead\t5\t'--\tG2\n"
CASES = [{"submitter_id": "A", "demographic": {"vital_status": "Dead"}, "diagnoses": [{"days_to_death": 5}]}]
FILES = [{"file_name": "a.tsv", "associated_entities": [{"entity_submitter_id": "TCGA-02-0001-01A"}], "cases": []}]
IVYGAP = {
    "fpkm_table.csv": "gene_id,101,102,103\n11,1,2,9\n12,3,2,9\n",
    "rows-genes.csv": "gene_id,gene_symbol\n11,EGFR\n12,TP53\n",
    "columns-samples.csv": "rna_well_id,tumor_name\n101,W1-1-1\n102,W1-1-1\n103,W2-2-1\n",
}
COHORT = """name: small
patients: {table: patients.csv, columns: {patient_id: case}}
slides: {table: slides.csv, folder: slides, mpp: 0.25}
expression: {table: expression.csv, unit: tpm}
gene_sets:
  tumour: tumour.gmt
  microenvironment: builtin
tasks:
  survival: {time: time_days, event: event}
  grade: {column: grade, classes: [G2, G4], ordinal: true}
covariates: [age]
splits: {folds: 2, validation: 0.25, stratify: [grade], seed: 3}
"""
RISKS = "".join(f"P{i},{i % 3},test,{10 * i + 5},{i % 2},{0.1 * i}\n" for i in range(9))
SURVIVAL = f"patient_id,fold,split,time_days,event,risk\n{RISKS}"
CLASSES = "patient_id,label,p_G2,p_G4\nA,G2,0.75,0.25\nB,G4,0.5,0.5\nC,G4,0,1\nD,,0.1,0.9\n"
PEOPLE = "patient_id,time_days,event,age,site\n" + "".join(f"P{i},{10 * i + 5},{i % 2},6{i},s\n" for i in range(9))
EXPLAINED = {
    "patient_id": "P", "task": "grade", "model": "subspace", "fold": 0, "score": 0.5, "score_name": "the score of G4",
    "ledger": [{"subspace": "tumour", "modality": "slides", "contribution": 0.5}], "gap": {"tumour": 0.0},
    "slides": ["s"], "not_drawn": {},
}  # fmt: skip
EXPLANATION = {
    "explanation.json": json.dumps(EXPLAINED, indent=1),
    "genes.csv": "gene,subspace,contribution\nEGFR,tumour,0.25\nTP53,tumour,-0.5\n",
    "patches.csv": "slide_id,x,y,tumour,total\ns,0,0,0.5,0.5\ns,256,0,-0.5,0.25\n",
    "points.csv": "slide_id,subspace,group,x,y\ns,tumour,0,10.5,7\n",
}


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content, encoding="utf-8")


def texts(contents: dict[str, str]) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        folder.mkdir()
        for name, content in contents.items():
            text(content)(folder / name)

    return write


def matrix(format: str) -> Callable[[Path], object]:
    return lambda path: read_expression(expression_section(table=path, format=format, unit="tpm"))


def clinical(format: str) -> Callable[[Path], object]:
    return lambda path: read_clinical(patients_section(table=str(path), format=format))


def folds(path: Path) -> object:
    (path.parent / "splits_other.csv").write_text("train,val\nd,a\nc,\nb,\n")
    patients = pd.DataFrame({"patient_id": list("abcd"), "event": [True, False] * 2})
    return given_folds(path.parent, patients, validation=0.3, stratify=["event"], seed=0)


def slides(path: Path) -> object:
    (path.parent / "slides").mkdir(exist_ok=True)
    for name in ("s1.svs", "s2.svs"):
        (path.parent / "slides" / name).touch()
    return read_slides(SlideFolder(table=path, folder=path.parent / "slides"), ["A", "B"])


def rows_of_features(path: Path) -> None:
    table = read_feature_table(path)
    for slide_id in table.index:
        feature_row(table, slide_id, path).slide_features(path)


def upload(path: Path) -> object:
    require_regular_file(path)  # what is sent is bytes, never a pipe
    return read_upload(path.read_bytes(), unit="tpm", genes=["EGFR", "TP53", "VIM"])


def predictions(path: Path) -> object:
    read = read_prediction_files([path])
    return auditable(read.predictions)


def people(path: Path) -> object:
    (path.parent / "m.csv").write_text(SURVIVAL)
    return read_prediction_files([path.parent / "m.csv"], patients=path, strata=["site"])


def explanation(folder: Path) -> None:
    read_explanation(folder, genes_per_subspace=3)
    read_patch_scores(folder, "s", patch_size_px=256)


def prepared(folder: Path) -> None:
    with unchecked():
        prepare(trident_cohort(folder.parent / "raw"), folder)


def marked(folder: Path) -> None:
    """Only what is not under the mark's hashes, and the mark itself, can have changed if it is read at all."""
    read_cohort(folder)
    read_repeats(folder / SPLITS)


def marked_anew(folder: Path) -> None:
    """As if another program had made what is damaged: the hashes are right, and each reader is asked."""
    mark = read_json(folder / PROVENANCE)
    mark_complete(folder, {name: value for name, value in mark.items() if name != "files"})
    read_cohort(folder)
    read_repeats(folder / SPLITS)


READERS = {
    "plain expression": Reader("e.csv", text("case,EGFR,TP53\nA,1,2\nB,3,4\nC,5,6\n"), matrix("plain")),
    "xena": Reader("e.tsv", text(MATRIX), matrix("xena")),
    "cbioportal expression": Reader(
        "data_mrna.txt", text(MATRIX.replace("sample", "Hugo_Symbol")), matrix("cbioportal")
    ),
    "ivygap": Reader(
        "ivygap", texts(IVYGAP), lambda path: read_expression(expression_section(folder=path, format="ivygap"))
    ),
    "star": Reader("s.tsv", text(STAR), read_star_file),
    "gdc sheet": Reader(
        "s.tsv", text("File Name\tCase ID\tSample ID\tSample Type\na\tA\tA-1\tPrimary Tumor\n"), read_gdc_sheet
    ),
    "gdc metadata": Reader("m.json", text(json.dumps(FILES)), read_gdc_metadata),
    "sample sheet": Reader(
        "s.csv", text("sample_id,patient_id,sample_type\nS1,A,Primary\nS2,A,Metastasis\n"), read_sample_sheet
    ),
    "aliases": Reader("a.csv", text("previous,approved\nH2AFZ,H2AZ1\nHN1,JPT1\n"), read_aliases),
    "gmt": Reader("s.gmt", text("one\tx\tEGFR\tTP53\ntwo\tx\tVIM\n"), read_gmt),
    "plain clinical": Reader(
        "p.csv", text("patient_id,time_days,event,age,grade\nA,5,1,60,G2\nB,9,0,50,G4\n"), clinical("plain")
    ),
    "gdc clinical": Reader("clinical.tsv", text(GDC), clinical("gdc")),
    "gdc json": Reader("clinical.json", text(json.dumps(CASES)), clinical("gdc")),
    "cbioportal clinical": Reader(
        "p.txt", text("#x\nPATIENT_ID\tOS_STATUS\tOS_MONTHS\nA\t1:DECEASED\t5\nB\t0:LIVING\t9\n"),
        clinical("cbioportal"),
    ),
    "given folds": Reader("splits_0.csv", text(",train,val,test\n0,a,b,c\n1,d,,\n"), folds),
    "slide table": Reader("s.csv", text("slide_id,patient_id,path,mpp\ns1,A,s1.svs,0.25\ns2,B,s2.svs,\n"), slides),
    "cohort file": Reader("cohort.yaml", text(COHORT), read_cohort_file),
    "feature table": Reader("f.csv", text("slide_id,area,year\ns1,2.5,2001\ns2,3e4,2002\n"), rows_of_features),
    "upload of two columns": Reader("u.csv", text("gene,value\nEGFR,1\nTP53,2.5\nVIM,3\n"), upload),
    "upload of a row": Reader("u.csv", text("case,EGFR,TP53,VIM\nA,1,2.5,3\n"), upload),
    "predicted risks": Reader("m.csv", text(SURVIVAL), predictions),
    "predicted classes": Reader("m.csv", text(CLASSES), predictions),
    "patients of an audit": Reader("people.csv", text(PEOPLE), people),
    "explanation": Reader("P", texts(EXPLANATION), explanation),
    "prepared folder": Reader("prepared", prepared, marked),
    "prepared folder, marked anew": Reader("prepared", prepared, marked_anew),
}  # fmt: skip


@pytest.mark.faults
@pytest.mark.walk
@pytest.mark.parametrize("reader", list(READERS))
def test_damaged_tables_end_in_a_line_of_ours(tmp_path, reader):
    check_reader(replace(READERS[reader], damage=damaged_text), tmp_path, rounds(12))


CASE = {
    "submitter_id": "A", "demographic": {"vital_status": "Dead", "days_to_death": 5},
    "diagnoses": [{"tumor_grade": "G2"}], "exposures": [{"a": "b"}, {"c": 1}], "family_histories": [{"d": "e"}],
    "follow_ups": [{"days_to_follow_up": 3}],
}  # fmt: skip
SAMPLE = {"sample_type": "Primary Tumor", "is_ffpe": False}
FILE = {**FILES[0], "cases": [{"submitter_id": "A", "samples": [SAMPLE]}]}
OTHERS = (None, 1, True, float("inf"), "text", [], {}, [None], ["a"], [[]], [{}], {"a": [1]})


def replaced(value: object, other: object) -> Iterator[object]:
    """Yields the value with each of its parts in turn replaced by another."""
    yield other
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts):
        for changed in replaced(part, other):
            whole = copy.copy(value)
            whole[key] = changed
            yield whole


@pytest.mark.parametrize(("content", "read"), [([CASE], clinical("gdc")), ([FILE], read_gdc_metadata)])
def test_other_json_ends_in_a_line_of_ours(tmp_path, content, read):
    path = tmp_path / "x.json"
    for other in OTHERS:
        for changed in replaced(content, other):
            path.write_text(json.dumps(changed))
            with contextlib.suppress(DataError, ConfigurationError):
                read(path)
