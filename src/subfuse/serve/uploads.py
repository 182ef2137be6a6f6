"""Expression of one patient as a user drops it on the page: checked and brought to the models' scale."""

import csv
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from subfuse.data.cohort_file import ExpressionSection, ExpressionUnit
from subfuse.data.expression import STAR_SUFFIXES, ExpressionTable, read_expression
from subfuse.data.tables import read_first_line
from subfuse.errors import DataError, preview

LIMIT_BYTES = 10_000_000
MAX_GENES = 200_000
_PATIENT = "uploaded"


@dataclass(frozen=True)
class UploadedExpression:
    """Expression of one patient on a cohort's gene axis."""

    values: Float[np.ndarray, " gene"]
    transform: str  # from the file's unit to the values, in words
    n_ignored: int  # genes of the file that the cohort does not have


def read_upload(content: bytes, *, unit: ExpressionUnit, genes: Sequence[str]) -> UploadedExpression:
    """Returns the expression in an uploaded file.

    Layouts: two columns (gene, value), with or without a header; one row of values below a header of gene symbols,
    whose first column names the patient; a GDC STAR count file. The file is read as the cohort's own would be, from a
    temporary folder that is gone afterwards.

    Args:
        content: The file, UTF-8 text.
        unit: Unit of its values: that of the cohort file.
        genes: The gene axis; the file must have all of them.

    Raises:
        DataError: Not such a file, a value that is not a number, more than one patient, or a gene is missing.
    """
    if len(content) > LIMIT_BYTES:
        raise DataError(f"the file must have at most {LIMIT_BYTES / 1e6:g} MB. Found {len(content) / 1e6:.1f} MB.")
    with tempfile.TemporaryDirectory(prefix="subfuse-upload-") as folder:
        try:
            table = _read(Path(folder), content, unit, genes)
        except DataError as error:
            message = str(error).replace(f"{folder}/", "").replace(folder, "upload")
            raise DataError(message) from error
        except (ValueError, csv.Error) as error:
            raise DataError(f"the file must be a table of numbers. Found: {' '.join(str(error).split())}.") from error
    return _on_axis(table, genes)


def _read(folder: Path, content: bytes, unit: ExpressionUnit, genes: Collection[str]) -> ExpressionTable:
    path = folder / "upload.csv"
    path.write_bytes(content)
    header = read_first_line(path)
    text = content.decode("utf-8-sig")
    if header.startswith(("# gene-model", "gene_id\tgene_name")):
        return _read_star(folder, content, unit, genes)
    lines = [line for line in text.splitlines() if line.strip()]
    separator = "\t" if header.count("\t") > header.count(",") else ","
    n_columns = len(next(csv.reader([header], delimiter=separator)))
    if max(n_columns, len(lines)) > MAX_GENES:
        raise DataError(f"the file must have at most {MAX_GENES} genes. Found {max(n_columns, len(lines))} cells.")
    if n_columns == 2:
        lines = _one_row(list(csv.reader(lines, delimiter=separator)))
    elif len(lines) != 2 or n_columns < 2:
        raise DataError(
            "one patient is required: two columns (gene, value), or a header of gene symbols and one row of values. "
            f"Found {len(lines)} lines of {n_columns} column(s)."
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return read_expression(ExpressionSection(table=path, unit=unit))


def _one_row(pairs: Sequence[Sequence[str]]) -> list[str]:
    """Turns rows of gene and value into a header of genes and one row of values."""
    ragged = next((i for i, pair in enumerate(pairs, start=1) if len(pair) != 2), None)
    if ragged is not None:
        raise DataError(f"line {ragged} must have two columns (gene, value). Found {len(pairs[ragged - 1])}.")
    rows = pairs if _is_number(pairs[0][1]) else pairs[1:]
    lines = ["patient_id", *(gene.strip() for gene, _ in rows)], [_PATIENT, *(value.strip() for _, value in rows)]
    return [",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in lines]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _read_star(folder: Path, content: bytes, unit: ExpressionUnit, genes: Collection[str]) -> ExpressionTable:
    if unit in ("log2_tpm", "zscore"):
        raise DataError(f"values in the unit {unit} are required, as in the cohort. Found a STAR file, which has none.")
    name = _PATIENT + STAR_SUFFIXES[0]
    (folder / name).write_bytes(content)
    sheet = folder / "sample_sheet.tsv"
    sheet.write_text(f"File Name\tCase ID\n{name}\t{_PATIENT}\n", encoding="utf-8")
    section = ExpressionSection(folder=folder, format="gdc_star", sample_sheet=sheet, unit=unit)
    return read_expression(section, keep_genes=genes)


def _on_axis(table: ExpressionTable, genes: Sequence[str]) -> UploadedExpression:
    if table.values.empty:
        raise DataError(f"at least one expressed gene is required. Found: {preview(table.exclusions['reason'])}.")
    missing = [gene for gene in genes if gene not in table.values.columns]
    if missing:
        raise DataError(
            f"all {len(genes)} genes of the cohort are required. Missing {len(missing)}: {preview(missing)}. "
            "Upload the whole profile."
        )
    values = table.values.iloc[0][list(genes)].to_numpy(dtype=np.float32)
    return UploadedExpression(values, table.transform, table.values.shape[1] - len(genes))
