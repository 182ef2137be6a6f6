"""Damaged tables: every reader ends with a table or with one line of ours, whatever the bytes."""

import contextlib
import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from clinical_sections import patients_section
from expression_sections import expression_section
from subfuse.clinical.reading import read_clinical
from subfuse.cohort.given_folds import given_folds
from subfuse.errors import ConfigurationError, DataError
from subfuse.expression.gdc.listing import read_gdc_metadata, read_gdc_sheet
from subfuse.expression.gdc.star import read_star_file
from subfuse.expression.gene_names import read_aliases
from subfuse.expression.gene_sets import read_gmt
from subfuse.expression.reading import read_expression
from subfuse.expression.samples import read_sample_sheet

ROUNDS = int(os.environ.get("SUBFUSE_FUZZ_ROUNDS", "12"))  # of each reader; some thousands find what is rare

MATRIX = "sample\tTCGA-02-0001-01A\tTCGA-02-0002-01A\nEGFR\t1\t2\nTP53\t3\t4\nVIM\t5\t6\n"
STAR = (
    "# gene-model: GENCODE v36\ngene_id\tgene_name\tgene_type\tunstranded\ttpm_unstranded\tfpkm_unstranded\t"
    "fpkm_uq_unstranded\nN_unmapped\t\t\t9\t\t\t\nENSG01.1\tEGFR\tprotein_coding\t3\t2\t1\t1\n"
)
GDC = "case_submitter_id\tvital_status\tdays_to_death\tdays_to_last_follow_up\ttumor_grade\nA\tDead\t5\t'--\tG2\n"
CASES = [{"submitter_id": "A", "demographic": {"vital_status": "Dead"}, "diagnoses": [{"days_to_death": 5}]}]
FILES = [{"file_name": "a.tsv", "associated_entities": [{"entity_submitter_id": "TCGA-02-0001-01A"}], "cases": []}]


def matrix(format: str) -> Callable[[Path], object]:
    return lambda path: read_expression(expression_section(table=path, format=format, unit="tpm"))


def clinical(format: str) -> Callable[[Path], object]:
    return lambda path: read_clinical(patients_section(table=str(path), format=format))


def folds(path: Path) -> object:
    (path.parent / "splits_other.csv").write_text("train,val\nd,a\nc,\nb,\n")
    patients = pd.DataFrame({"patient_id": list("abcd"), "event": [True, False] * 2})
    return given_folds(path.parent, patients, validation=0.3, stratify=["event"], seed=0)


READERS = {  # name of the file, content, reader
    "plain expression": ("e.csv", "case,EGFR,TP53\nA,1,2\nB,3,4\nC,5,6\n", matrix("plain")),
    "xena": ("e.tsv", MATRIX, matrix("xena")),
    "cbioportal expression": ("data_mrna.txt", MATRIX.replace("sample", "Hugo_Symbol"), matrix("cbioportal")),
    "star": ("s.tsv", STAR, read_star_file),
    "gdc sheet": ("s.tsv", "File Name\tCase ID\tSample ID\tSample Type\na\tA\tA-1\tPrimary Tumor\n", read_gdc_sheet),
    "gdc metadata": ("m.json", json.dumps(FILES), read_gdc_metadata),
    "sample sheet": ("s.csv", "sample_id,patient_id,sample_type\nS1,A,Primary\nS2,A,Metastasis\n", read_sample_sheet),
    "aliases": ("a.csv", "previous,approved\nH2AFZ,H2AZ1\nHN1,JPT1\n", read_aliases),
    "gmt": ("s.gmt", "one\tx\tEGFR\tTP53\ntwo\tx\tVIM\n", read_gmt),
    "plain clinical": ("p.csv", "patient_id,time_days,event,age\nA,5,1,60\nB,9,0,50\n", clinical("plain")),
    "gdc clinical": ("clinical.tsv", GDC, clinical("gdc")),
    "gdc json": ("clinical.json", json.dumps(CASES), clinical("gdc")),
    "cbioportal clinical": (
        "p.txt", "#x\nPATIENT_ID\tOS_STATUS\tOS_MONTHS\nA\t1:DECEASED\t5\nB\t0:LIVING\t9\n", clinical("cbioportal")
    ),
    "folds": ("splits_0.csv", ",train,val,test\n0,a,b,c\n1,d,,\n", folds),
}  # fmt: skip

CELLS = [
    b"",
    b"NA",
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"\xff",
    b'"',
    b"\x00",
    b"TCGA-02-0001-11A",
    b"0x1",
    b"1,5",
    b"true",
]
SCRAPS = [
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b'"',
    b"\x00",
    b"\t\t",
    b",,",
    b"\n\n",
    b"\xff\xfe",
    b"#",
    b"<html>",
    b"{}",
    b"[null]",
]


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Up to three damages: cut, repeated or exchanged lines, other cells, changed or inserted bytes or line ends."""
    for _ in range(chance.randint(1, 3)):
        lines = content.split(b"\n")
        place, line = chance.randrange(len(content) + 1), chance.randrange(len(lines))
        separator = b"\t" if b"\t" in content else b","
        cells = lines[line].split(separator)
        cells[chance.randrange(len(cells))] = chance.choice(CELLS)
        content = chance.choice(
            [
                content[:place],
                b"\n".join([*lines, lines[line]]),
                b"\n".join(lines[:line] + lines[line + 1 :]),
                b"\n".join(chance.sample(lines, len(lines))),
                b"\n".join([*lines[:line], separator.join(cells), *lines[line + 1 :]]),
                content[:place] + chance.choice(SCRAPS) + content[place:],
                content[:place] + bytes([chance.randrange(256)]) + content[place + 1 :],
                content.replace(b"\n", chance.choice([b"\r\n", b"\r"])),
                content.split(b"\n")[0],
                chance.choice(SCRAPS) + content,
            ]
        )
    return content


def read_damaged(tmp_path: Path, name: str, content: bytes, read: Callable[[Path], object], seed: int) -> None:
    folder = tmp_path / str(seed)
    folder.mkdir()
    (folder / name).write_bytes(damaged(content, random.Random(seed)))
    try:
        read(folder / name)
    except (DataError, ConfigurationError) as error:
        if len(str(error).splitlines()) != 1:
            pytest.fail(f"seed {seed}: several lines: {error}")
    except Exception as error:
        pytest.fail(f"seed {seed}: {type(error).__name__}: {error}. Content: {(folder / name).read_bytes()!r}")


@pytest.mark.faults
@pytest.mark.parametrize("reader", list(READERS))
def test_damaged_tables_end_in_a_line_of_ours(tmp_path, reader):
    name, content, read = READERS[reader]
    read(write(tmp_path / "sound" / name, content.encode()))
    for seed in range(ROUNDS):
        read_damaged(tmp_path, name, content.encode(), read, seed)


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir()
    path.write_bytes(content)
    return path


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


@pytest.mark.faults
def test_damaged_annotated_files_end_in_a_line_of_ours(tmp_path):
    index = pd.Index(["A", "B"])
    anndata.AnnData(np.ones((2, 3), np.float32), obs=pd.DataFrame(index=index)).write_h5ad(tmp_path / "e.h5ad")
    content = (tmp_path / "e.h5ad").read_bytes()
    for seed in range(ROUNDS):
        read_damaged(tmp_path, "e.h5ad", content, matrix("h5ad"), seed)
