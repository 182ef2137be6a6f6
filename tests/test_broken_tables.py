"""Every file that a cohort file can name, damaged: one line that names it, exit code 3, nothing written."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from subfuse.cli import main
from subfuse.errors import DataError
from subfuse.expression.gdc.star import read_star_file
from subfuse.expression.numeric_tables import read_numeric_table

PATIENTS = [f"TCGA-02-{i:04d}" for i in range(12)]
DONORS = [f"W{i}" for i in range(12)]
GENES = ("EGFR", "CD44", "GFAP", "CD3D", "CD163")
STAR_HEADER = "gene_id\tgene_name\tgene_type\tunstranded\ttpm_unstranded\n"
COLUMNS = {"patient_id": "id", "time_days": "days", "event": "event"}
SECTIONS = {
    "plain": {
        "patients": {
            "table": "patients.csv",
            "columns": COLUMNS,
            "labels": {"table": "markers.csv", "columns": {"patient_id": "case", "idh": "idh"}},
        },
        "slides": {"table": "slides.csv", "folder": "slides"},
        "expression": {
            "table": "expression.csv", "unit": "counts", "sample_sheet": "samples.csv", "aliases": "aliases.tsv",
            "orientation": "patients_by_genes",
        },
        "gene_sets": {"tumour": "sets.gmt", "microenvironment": {"gmt": "sets.gmt", "sets": ["B"]}},
        "splits": {"folder": "splits"},
    },
    "sheet": {
        "slides": {"feature_table": "areas.csv"},
        "expression": {
            "format": "gdc_star", "folder": "star", "sample_sheet": "sheet.tsv", "manifest": "manifest.txt",
            "unit": "tpm",
        },
    },
    "metadata": {
        "expression": {"format": "gdc_star", "folder": "star", "metadata": "metadata.json", "unit": "tpm"},
    },
    "ivygap": {
        "patients": {"table": "donors.csv", "columns": COLUMNS},
        "expression": {"format": "ivygap", "folder": "ivygap"},
    },
    "portal": {"expression": {"format": "cbioportal", "table": "data_mrna_seq_tpm.txt"}},
    "xena": {"expression": {"format": "xena", "table": "xena.tsv", "unit": "log2_tpm", "aliases": "probes.tsv"}},
    "h5ad": {"expression": {"format": "h5ad", "table": "e.h5ad", "unit": "tpm"}},
}  # fmt: skip
FILES = [  # the sections that read a file, and the file
    *[("plain", name) for name in ("patients.csv", "markers.csv", "slides.csv", "expression.csv", "samples.csv",
                                   "aliases.tsv", "sets.gmt", "splits/fold_1.csv")],
    *[("sheet", name) for name in ("areas.csv", "sheet.tsv", "manifest.txt")],
    ("metadata", "metadata.json"),
    *[("ivygap", f"ivygap/{name}.csv") for name in ("fpkm_table", "rows-genes", "columns-samples")],
    ("portal", "data_mrna_seq_tpm.txt"),
    *[("xena", name) for name in ("xena.tsv", "probes.tsv")],
    ("h5ad", "e.h5ad"),
]  # fmt: skip
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "zero bytes": lambda _: b"",
    "web page": lambda _: b"<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n",
    "gzip": lambda content: gzip.compress(content, mtime=0),
}


@pytest.fixture(scope="module")
def downloads(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("a folder é")
    random = np.random.default_rng(0)
    days = random.integers(100, 3000, len(PATIENTS))
    write(folder / "patients.csv", {"id": PATIENTS, "days": days, "event": [0, 1] * 6})
    write(folder / "donors.csv", {"id": DONORS, "days": days, "event": [0, 1] * 6})
    write(folder / "markers.csv", {"case": PATIENTS, "idh": ["WT", "Mutant"] * 6})
    write(folder / "slides.csv", {"slide_id": ["s0", "s1"], "patient_id": PATIENTS[:2], "mpp": 0.5})
    write(folder / "areas.csv", {"slide_id": [f"{p}-DX1" for p in PATIENTS], "area": days, "nuclei": days * 2})
    (folder / "slides").mkdir()
    for name in ("s0", "s1"):
        Image.fromarray(np.full((300, 300, 3), 150, np.uint8)).save(folder / "slides" / f"{name}.png")
    values = pd.DataFrame(random.gamma(2, 20, (12, 5)).round(), index=[f"s{i}" for i in range(12)], columns=GENES)
    values.to_csv(folder / "expression.csv", index_label="sample")
    write(folder / "samples.csv", {"sample_id": values.index, "patient_id": PATIENTS})
    by_gene = values.T.set_axis([f"{p}-01" for p in PATIENTS], axis=1)
    by_gene.to_csv(folder / "data_mrna_seq_tpm.txt", sep="\t", index_label="Hugo_Symbol")
    np.log2(by_gene + 1).to_csv(folder / "xena.tsv", sep="\t", index_label="sample")
    data = anndata.AnnData(values.to_numpy(np.float32), pd.DataFrame(index=PATIENTS), pd.DataFrame(index=list(GENES)))
    data.write_h5ad(folder / "e.h5ad")
    (folder / "aliases.tsv").write_text("previous\tapproved\nOLD\tEGFR\n")
    (folder / "probes.tsv").write_text("id\tgene\nENSG00000146648.18\tEGFR\n")
    (folder / "sets.gmt").write_text("A\td\tEGFR\tCD44\nB\td\tCD3D\tCD163\n")
    for k in range(2):
        sides = {"train": PATIENTS[1 - k :: 2], "val": PATIENTS[k::2]}
        write(folder / "splits" / f"fold_{k}.csv", {name: pd.Series(side) for name, side in sides.items()})
    write_star(folder, values)
    write_ivygap(folder / "ivygap", values)
    return folder


def write(path: Path, columns: dict, *, separator: str = ",") -> None:
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(path, sep=separator, index=False)


def write_star(folder: Path, values: pd.DataFrame) -> None:
    names = [f"{i}.augmented_star_gene_counts.tsv" for i in range(len(PATIENTS))]
    (folder / "star").mkdir()
    for name, row in zip(names, values.to_numpy(), strict=True):
        lines = [f"ENSG{g:011d}.1\t{GENES[g]}\tprotein_coding\t{n:.0f}\t{n:.0f}\n" for g, n in enumerate(row)]
        (folder / "star" / name).write_text(STAR_HEADER + "".join(lines))
    sizes = [(folder / "star" / name).stat().st_size for name in names]
    samples = [f"{patient}-01A" for patient in PATIENTS]
    sheet = {"File ID": names, "File Name": names, "Case ID": PATIENTS, "Sample ID": samples}
    write(folder / "sheet.tsv", sheet, separator="\t")
    write(folder / "manifest.txt", {"id": names, "filename": names, "size": sizes}, separator="\t")
    files = zip(names, samples, strict=True)
    records = [{"file_name": name, "associated_entities": [{"entity_submitter_id": s}]} for name, s in files]
    (folder / "metadata.json").write_text(json.dumps(records))


def write_ivygap(folder: Path, values: pd.DataFrame) -> None:
    folder.mkdir()
    values.T.set_axis(range(12), axis=1).set_axis(range(5)).to_csv(folder / "fpkm_table.csv", index_label="gene_id")
    write(folder / "rows-genes.csv", {"gene_id": range(5), "gene_symbol": GENES})
    write(
        folder / "columns-samples.csv", {"rna_well_id": range(12), "tumor_name": [f"{donor}-1-1" for donor in DONORS]}
    )


@pytest.fixture
def cohort(downloads, tmp_path, request) -> Path:
    folder = tmp_path / "a folder é"
    shutil.copytree(downloads, folder)
    base = {
        "name": "small",
        "patients": {"table": "patients.csv", "columns": COLUMNS},
        "gene_sets": {"tumour": "sets.gmt", "microenvironment": {"gmt": "sets.gmt", "sets": ["B"]}},
        "splits": {"folds": 2, "validation": 0.3},
    }
    (folder / "cohort.yaml").write_text(yaml.safe_dump(base | SECTIONS[request.param]))
    return folder / "cohort.yaml"


@pytest.mark.parametrize("cohort", SECTIONS, indirect=True)
def test_undamaged_files_are_read(cohort, capsys):
    assert main(["check", str(cohort)]) == 0, capsys.readouterr().err
    assert "small (develop): 12 patients" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [*DAMAGES, "absent"])
@pytest.mark.parametrize(("cohort", "name"), FILES, indirect=["cohort"], ids=[name for _, name in FILES])
def test_a_damaged_file_is_named_in_one_line(cohort, name, damage, capsys):
    path = cohort.parent / name
    if damage == "absent":
        path.unlink()
    else:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    before = sorted(cohort.parent.rglob("*"))

    assert main(["prepare", str(cohort), "--out", str(cohort.parent / "prepared")]) == 3

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("subfuse: error: ")
    assert name.rpartition("/")[2] in line or (damage, name) == ("absent", "splits/fold_1.csv")
    assert not line.endswith(":")
    assert sorted(cohort.parent.rglob("*")) == before


MEASURED = """
import json, sys, tracemalloc
from pathlib import Path
from subfuse import bounded_files
from subfuse.errors import DataError
from subfuse.expression import numeric_tables
from subfuse.expression.gdc import star
path, most, read, keys = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.loads(sys.argv[4])
bounded_files._LARGEST_LINE = bounded_files._LARGEST_TEXT = numeric_tables._BYTES_PER_BLOCK = most
tracemalloc.start()
try:
    {"numeric": numeric_tables.read_numeric_table, "star": star.read_star_file}[read](path, **keys)
except DataError as error:
    print(tracemalloc.get_traced_memory()[1], error)
"""


@pytest.mark.parametrize("name", ["p.csv", "p.csv.gz"])
@pytest.mark.parametrize("read", ["numeric", "star"])
def test_a_giant_line_or_what_unpacks_to_gigabytes_is_refused_after_little_of_it(tmp_path, name, read):
    """In a process of its own: memory cannot be traced beside the threads of other libraries."""
    path, most = tmp_path / name, 1 << 20
    header = b"gene_id\tgene_name\tgene_type\tunstranded\n"
    keys = {"units": ["counts"]} if read == "star" else {"text_columns": ("gene_name", "gene_type")}
    opened = gzip.open if name.endswith(".gz") else open
    for content in (b"0" * (64 * most), b"A\tA\tx\t0\n" * (4 * most)):
        with opened(path, "wb") as file:
            file.write(header + b"A\tA\tx\t" + content)
        if b"\n" in content and not name.endswith(".gz"):
            continue  # a large plain table is a table
        arguments = [sys.executable, "-c", MEASURED, str(path), str(most), read, json.dumps(keys)]
        told = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
        peak, message = told.split(" ", 1)
        assert re.search(r"p.csv.*: a table .* Found a (line above 1 MB|file that unpacks to more)", message)
        assert int(peak) < 128 * most  # parsers keep several words a byte


@pytest.mark.parametrize("read", [read_numeric_table, read_star_file])
def test_other_bytes_are_named_with_their_line(tmp_path, read):
    rows = ["gene_id\tgene_name\tgene_type\tunstranded", "A\tA\tx\t1", "B\tCAFÉ\tx\t2"]
    (tmp_path / "p.tsv").write_bytes("\n".join(rows).encode("latin-1"))
    keys = {"units": ["counts"]} if read is read_star_file else {"text_columns": ("gene_name", "gene_type")}
    with pytest.raises(DataError, match=r"p.tsv: UTF-8 text is required. Found other bytes, .* in line 3"):
        read(tmp_path / "p.tsv", **keys)
