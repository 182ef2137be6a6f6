"""Expression as one table of text: in either orientation, of cBioPortal or of UCSC Xena."""

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.bounded_files import require_regular_file
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.expression.numeric_tables import NumericTable, read_numeric_table
from subfuse.expression.samples import SampleMatrix, assign_samples, read_sample_sheet, refuse_repeated
from subfuse.identifiers import composed, describe_mismatch, patient_of_barcode, site_of_barcode

_SYMBOL_COLUMNS = ("hugo_symbol", "gene_name", "gene_symbol", "symbol", "feature_name", "gene_symbols", "gene_names")
_GENE_TEXT = ("gene_id", "ensembl_id", "entrez_gene_id", "entrez_id", "gene_type", "gene_biotype", "description", "chr")
_EXONS = ("start", "end", "strand", "length")  # and chr, beside every gene in a table of featureCounts
_CYTOBAND = "cytoband"  # of cBioPortal
_CBIOPORTAL_UNITS = (  # part of the file's name: its unit; the first that fits
    ("zscore", "zscore"),
    ("v2_rsem", "rsem"),
    ("_rsem", "rsem"),
    ("_tpm", "tpm"),
    ("_fpkm", "fpkm"),
    ("_rpkm", "fpkm"),
    ("read_counts", "counts"),
    ("raw_counts", "counts"),
)
_XENA_UNITS = {  # "unit" of the JSON file beside a table, without spaces
    "log2(count+1)": "log2_counts",
    "log2(norm_count+1)": "log2_counts",
    "log2(expected_count+1)": "log2_counts",
    "log2(fpkm+1)": "log2_fpkm",
    "log2(fpkm-uq+1)": "log2_fpkm_uq",
    "log2(tpm+1)": "log2_tpm",
    "log2(tpm+0.001)": "log2_tpm_001",
    "log2(fpkm+0.001)": "log2_fpkm_001",
}


def read_plain(
    path: Path,
    *,
    unit: str,
    orientation: str | None = None,
    sheet: Path | None = None,
    patients: Collection[str] = (),
) -> SampleMatrix:
    """Returns a plain csv or tsv matrix.

    Args:
        path: The table.
        unit: Unit of its values.
        orientation: patients_by_genes or genes_by_patients; None: as `_recognise_orientation`.
        sheet: Which sample belongs to which patient, see `read_sample_sheet`.
        patients: Of the cohort, TCGA ones by their 12 characters.

    Raises:
        ConfigurationError: The orientation is ambiguous and not declared.
        DataError: As `read_numeric_table`; a sample that occurs twice; no patient of the cohort on either side.
    """
    if path.suffix == ".h5ad":
        raise ConfigurationError(f"{path}: an AnnData file needs `format: h5ad` in `expression`.")
    columns = (*_SYMBOL_COLUMNS, *_GENE_TEXT, *_EXONS)
    table = read_numeric_table(path, text_columns=columns, comment="# Program:featureCounts")
    listed = frozenset(read_sample_sheet(sheet)) if sheet is not None and orientation is None else frozenset()
    orientation = orientation or _recognise_orientation(table, patients, listed, path)
    return _matrix(table, path, unit, sheet, genes_in_rows=orientation == "genes_by_patients")


def read_beside_patients(
    path: Path, *, unit: str, suffix: str, patient_column: str, sheet: Path | None = None
) -> SampleMatrix:
    """Returns the expression in a table of patients or slides that has a column for each gene, such as `EGFR_rnaseq`.

    Args:
        path: The table.
        unit: Unit of its values.
        suffix: How the names of these columns end; the rest is the gene.
        patient_column: Whose the rows are. Rows of one patient with the same expression, one a slide, are one.
        sheet: Which sample belongs to which patient, see `read_sample_sheet`.

    Raises:
        DataError: No such column; as `read_numeric_table`; a row without identifier, or two of a patient that differ.
    """
    table = read_numeric_table(path, suffix=suffix, nameless_rows=True)
    if not table.columns:
        raise DataError(
            f"{path}: columns of genes that end in {suffix} are required. Found none. Correct `gene_suffix`."
        )
    named = {table.corner.lower(): table.rows} | {name: table.annotations[name].tolist() for name in table.annotations}
    identifiers = named.get(patient_column.lower())
    if identifiers is None:
        raise DataError(
            f"{path}: a column {patient_column} is required, as `patient_column` says. Found "
            f"{preview([name for name in named if name])}. Correct `patient_column`."
        )
    places = [f"row {number}" for number in range(table.first_line, table.first_line + len(table.rows))]
    if "" in identifiers:
        raise DataError(
            f"{path}, {places[identifiers.index('')]}: an identifier is required in {patient_column}. Found an empty "
            "cell. Fill it, or remove the row."
        )
    rows: dict[tuple[str, bytes], int] = {}
    for row, name in enumerate(identifiers):
        rows.setdefault((name, table.values[row].tobytes()), row)
    kept = list(rows.values())
    samples = assign_samples([identifiers[row] for row in kept], sheet)
    samples["place"] = [f"{places[row]} ({identifiers[row]})" for row in kept]
    refuse_repeated(samples, path)
    genes = [column.removesuffix(suffix) for column in table.columns]
    gene_places = [f"column {number}" for number in table.column_numbers]
    return SampleMatrix(
        table.values[kept],
        samples,
        gene_axis(genes, pd.DataFrame(), gene_places),
        unit,
        path,
        source_of(path, samples),
        warnings=table.notes,
    )


def read_cbioportal(path: Path, *, unit: str | None = None, sheet: Path | None = None) -> SampleMatrix:
    """Returns a `data_mrna_seq_*.txt` of cBioPortal: genes × samples, the unit by the file's name where not declared.

    Raises:
        ConfigurationError: The unit is neither declared nor told by the name.
        DataError: Another layout; as `read_numeric_table`.
    """
    columns = (*_SYMBOL_COLUMNS, *_GENE_TEXT, _CYTOBAND)
    table = read_numeric_table(path, text_columns=columns, comment="#", nameless_rows=True)
    if table.corner.lower() not in ("hugo_symbol", "entrez_gene_id"):
        raise DataError(
            f"{path}: a cBioPortal table with Hugo_Symbol or Entrez_Gene_Id as first column is required. "
            f"Found {table.corner!r}. Use `format: plain` for other matrices."
        )
    told = cbioportal_unit(path)
    matrix = _matrix(table, path, told_unit(unit, told, path, "the file's name"), sheet, genes_in_rows=True)
    if told in (None, matrix.unit):
        return matrix
    note = f"{path}: unit {matrix.unit} is declared and used, but the file's name says {told}. Check the unit."
    return replace(matrix, warnings=(*matrix.warnings, note))


def describes_genes(column: str) -> bool:
    """Returns whether a column of a table tells what its genes are, and holds no expression.

    Example:
        >>> describes_genes("Entrez_Gene_Id"), describes_genes("TCGA-02-0047-01")
        (True, False)
    """
    return column.lower() in (*_SYMBOL_COLUMNS, *_GENE_TEXT, *_EXONS, _CYTOBAND)


def cbioportal_unit(path: Path) -> str | None:
    """Returns the unit that the name of a cBioPortal table tells, None where it tells none.

    Example:
        >>> cbioportal_unit(Path("data_mrna_seq_v2_rsem.txt")), cbioportal_unit(Path("data_mrna_agilent.txt"))
        ('rsem', None)
    """
    return next((unit for part, unit in _CBIOPORTAL_UNITS if part in path.name.lower()), None)


def read_xena(path: Path, *, unit: str | None = None, sheet: Path | None = None) -> SampleMatrix:
    """Returns a table of UCSC Xena: genes × samples, the unit by the JSON file beside it where not declared.

    Raises:
        ConfigurationError: The unit is neither declared nor told.
        DataError: As `read_numeric_table`.
    """
    table = read_numeric_table(path, text_columns=(*_SYMBOL_COLUMNS, *_GENE_TEXT))
    beside = description_beside(path)
    told = None if beside is None else described_unit(beside)
    place = f"a JSON file beside it ({path.name.removesuffix('.gz')}.json)" if beside is None else beside.name
    refuse_other_unit(unit, told, path, place)
    return _matrix(table, path, told_unit(unit, told, path, place), sheet, genes_in_rows=True)


def _recognise_orientation(table: NumericTable, patients: Collection[str], listed: Collection[str], path: Path) -> str:
    """Returns patients_by_genes or genes_by_patients, by where the identifiers of patients or their samples are.

    A patient is one of `patients` or has a TCGA barcode; samples are those `listed` by a sheet. A column of gene
    symbols beside the first one makes rows genes. Where nothing tells and neither patients nor samples are known, rows
    are patients: the documented layout.

    Raises:
        ConfigurationError: Patients are on both sides.
        DataError: Patients are known, but on neither side.
    """

    def count(names: Sequence[str]) -> int:
        return sum(
            composed(name) in listed or patient_of_barcode(name) in patients or site_of_barcode(name) is not None
            for name in names
        )

    in_rows, in_columns = count(table.rows), count(table.columns)
    genes_in_rows = table.annotations.shape[1] > 0
    if in_rows and in_columns:
        raise ConfigurationError(
            f"{path}: the orientation is ambiguous: {in_rows} patients in the first column, {in_columns} in the "
            "header. Give `orientation: patients_by_genes` or `genes_by_patients` in `expression`."
        )
    if in_columns or genes_in_rows:
        return "genes_by_patients"
    if not in_rows and (patients or listed):
        sides = {"first column": table.rows, "header": table.columns}
        required = "samples of the sample sheet" if listed else "patients of the cohort"
        found = describe_mismatch(listed or patients, sides, of_ours="samples" if listed else "patients")
        remedy = "give the sheet of these samples" if listed else "give a `sample_sheet`"
        raise DataError(
            f"{path}: {required} are required in the first column or in the header. Found none. {found}. Use the same "
            f"identifiers, {remedy}, or declare the `orientation`."
        )
    return "patients_by_genes"


def _matrix(table: NumericTable, path: Path, unit: str, sheet: Path | None, *, genes_in_rows: bool) -> SampleMatrix:
    rows = range(table.first_line, table.first_line + len(table.rows))
    row_places = [f"row {number}" for number in rows]
    column_places = [f"column {number}" for number in table.column_numbers]
    identifiers, sample_places = (table.columns, column_places) if genes_in_rows else (table.rows, row_places)
    names, gene_places = (table.rows, row_places) if genes_in_rows else (table.columns, column_places)
    annotations = table.annotations if genes_in_rows else table.annotations.iloc[:0]
    if "entrez_gene_id" in annotations:  # cBioPortal: rows may lack a symbol
        names = [name or number for name, number in zip(names, annotations["entrez_gene_id"], strict=True)]
    values = np.ascontiguousarray(table.values.T) if genes_in_rows else table.values
    samples = assign_samples(identifiers, sheet)
    samples["place"] = [f"{place} ({name})" for place, name in zip(sample_places, identifiers, strict=True)]
    refuse_repeated(samples, path)
    return SampleMatrix(
        values,
        samples,
        gene_axis(names, annotations, gene_places),
        unit,
        path,
        source_of(path, samples),
        warnings=table.notes,
    )


def gene_axis(names: Sequence[str], annotations: pd.DataFrame, places: Sequence[str]) -> pd.DataFrame:
    """Returns the gene axis: symbols of the annotation where it has some, else the names themselves."""
    symbols = next((annotations[column].tolist() for column in _SYMBOL_COLUMNS if column in annotations), None)
    chosen = [symbol or name for symbol, name in zip(symbols, names, strict=True)] if symbols else list(names)
    kinds = next((annotations[name].tolist() for name in ("gene_type", "gene_biotype") if name in annotations), None)
    labels = [f"{name} ({place})" for name, place in zip(chosen, places, strict=True)]
    identifiers = [name if name != symbol else "" for name, symbol in zip(names, chosen, strict=True)]
    return pd.DataFrame({"name": chosen, "gene_id": identifiers, "gene_type": kinds or "", "label": labels})


def source_of(path: Path, samples: pd.DataFrame) -> dict[str, str]:
    """Returns what provenance says of a matrix: its file, and how many samples were matched to patients."""
    matched = int((samples["patient_id"] != samples["sample"]).sum())
    return {"table": path.name, **({"samples": f"{matched} matched to patients"} if matched else {})}


def told_unit(declared: str | None, told: str | None, path: Path, where: str) -> str:
    """Returns the unit: as declared, or as the source tells.

    Raises:
        ConfigurationError: Neither tells it.
    """
    unit = declared or told
    if unit is None:
        raise ConfigurationError(
            f"{path}: `unit` of `expression` is required, since {where} does not tell it. "
            "Declare counts, rsem, fpkm, fpkm_uq, tpm, zscore, or a log2_ unit."
        )
    return unit


def refuse_other_unit(declared: str | None, told: str | None, path: Path, where: str) -> None:
    """Refuses a declared unit that the source itself contradicts: one of them is wrong, and nothing tells which.

    Raises:
        DataError: Names both units and where the source has its own.
    """
    if None not in (declared, told) and told != declared:
        raise DataError(
            f"{path}: `unit` of `expression` must be that of the source. Found {declared} declared and {told} in "
            f"{where}. Correct `unit` or remove it, or correct the source."
        )


def description_beside(path: Path) -> Path | None:
    """Returns Xena's description of a table, which is named like the table, packed or not."""
    names = dict.fromkeys([f"{path.name}.json", f"{path.name.removesuffix('.gz')}.json"])
    return next((path.with_name(name) for name in names if path.with_name(name).exists()), None)


def described_unit(beside: Path) -> str | None:
    """Returns the unit that Xena's description of a table tells, None where it tells none that is known."""
    require_regular_file(beside, "JSON file")
    try:
        described = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{beside}: JSON is required. Found: {' '.join(str(error).split())}.") from error
    words = str(described.get("unit", "")) if isinstance(described, dict) else ""
    return _XENA_UNITS.get(re.sub(r"\s", "", words).lower())
