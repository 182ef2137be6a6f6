"""Expression of the Ivy Glioblastoma Atlas Project, in the three tables of the Allen Institute."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.errors import DataError, preview
from subfuse.expression.numeric_tables import read_numeric_table
from subfuse.expression.samples import OTHER_TUMOUR, PRIMARY, SampleMatrix, refuse_repeated
from subfuse.tables import read_text_table, require_columns

_TUMOUR = re.compile(r"^(W\d+)-(\d+)-\d+")  # donor, surgery, tumour


def patient_of_tumour(tumour: str) -> str:
    """Returns the donor of an IvyGAP tumour, block or slide; other names unchanged.

    Example:
        >>> patient_of_tumour("W35-1-1"), patient_of_tumour("W22-2-1-A.02"), patient_of_tumour("case 7")
        ('W35', 'W22', 'case 7')
    """
    match = _TUMOUR.match(tumour)
    return match[1] if match else tumour


def read_ivygap(folder: Path) -> SampleMatrix:
    """Returns FPKM of IvyGAP: several laser-microdissected samples per patient, to be averaged.

    The folder holds `fpkm_table.csv` (gene_id × rna_well_id), `rows-genes.csv` (gene_id, gene_symbol) and
    `columns-samples.csv` (rna_well_id, tumor_name). A tumour `W22-2-1` is the first of the second surgery on donor
    W22. The donor is the patient; where several surgeries have samples, the first one with samples is the primary
    tumour and the others are not used.

    Raises:
        DataError: A table is missing or of another layout, or a sample or gene of the FPKM table is not described.
    """
    path = _file(folder, "fpkm_table.csv")
    table = read_numeric_table(path)
    symbols = _lookup(_file(folder, "rows-genes.csv"), "gene_id", "gene_symbol", table.rows, path)
    tumours = _lookup(_file(folder, "columns-samples.csv"), "rna_well_id", "tumor_name", table.columns, path)
    samples = pd.DataFrame({"sample": table.columns, "patient_id": [patient_of_tumour(name) for name in tumours]})
    samples["surgery"] = [_surgery(name) for name in tumours]
    first = samples.groupby("patient_id")["surgery"].transform("min")
    samples["rank"] = np.where(samples["surgery"] == first, PRIMARY, OTHER_TUMOUR)
    samples["vial"] = 0
    samples["place"] = [f"column {number} ({name})" for number, name in zip(table.column_numbers, tumours, strict=True)]
    refuse_repeated(samples, path)
    names = [symbol or gene_id for symbol, gene_id in zip(symbols, table.rows, strict=True)]
    genes = pd.DataFrame({"name": names, "gene_id": table.rows, "gene_type": ""})
    genes["label"] = [f"{name} (gene_id {gene_id})" for name, gene_id in zip(names, table.rows, strict=True)]
    return SampleMatrix(
        values=np.ascontiguousarray(table.values.T),
        samples=samples.drop(columns="surgery"),
        genes=genes,
        unit="fpkm",
        path=path,
        source={"folder": folder.name, "samples": "mean over all samples of a donor's first tumour, on the scale used"},
        average=True,
    )


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise DataError(f"{folder}: {name} of the Allen Institute is required. Found none. Unpack gene_expression_matrix.")


def _lookup(path: Path, key: str, value: str, names: list[str], table: Path) -> list[str]:
    """Returns a column of a description for names of the FPKM table."""
    content = read_text_table(path)
    require_columns(content, {key: "as in the FPKM table", value: "what it is"}, path)
    known = dict(zip(content[key], content[value], strict=True))
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(f"{path}: every {key} of {table.name} is required. Missing: {preview(unknown)}.")
    return [known[name] for name in names]


def _surgery(tumour: str) -> int:
    match = _TUMOUR.match(tumour)
    return int(match[2]) if match else 1
