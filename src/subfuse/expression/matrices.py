"""Expression as one matrix: plain tables in either orientation, cBioPortal, UCSC Xena, AnnData."""

import json
import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.exclusions import exclusion_table
from subfuse.expression.numeric_tables import NumericTable, read_numeric_table
from subfuse.expression.samples import SampleMatrix, assign_samples, read_sample_sheet, refuse_repeated
from subfuse.identifiers import composed, describe_mismatch, patient_of_barcode, site_of_barcode
from subfuse.tables import is_missing

_SYMBOL_COLUMNS = ("hugo_symbol", "gene_name", "gene_symbol", "symbol", "feature_name", "gene_symbols", "gene_names")
_ENSEMBL_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl", "ensembl_gene_id")
_GENE_TEXT = ("gene_id", "ensembl_id", "entrez_gene_id", "entrez_id", "gene_type", "gene_biotype", "description", "chr")
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
    table = read_numeric_table(path, text_columns=(*_SYMBOL_COLUMNS, *_GENE_TEXT))
    listed = frozenset(read_sample_sheet(sheet)) if sheet is not None and orientation is None else frozenset()
    orientation = orientation or _recognise_orientation(table, patients, listed, path)
    return _matrix(table, path, unit, sheet, genes_in_rows=orientation == "genes_by_patients")


def read_cbioportal(path: Path, *, unit: str | None = None, sheet: Path | None = None) -> SampleMatrix:
    """Returns a `data_mrna_seq_*.txt` of cBioPortal: genes × samples, the unit by the file's name where not declared.

    Raises:
        ConfigurationError: The unit is neither declared nor told by the name.
        DataError: Another layout; as `read_numeric_table`.
    """
    columns = (*_SYMBOL_COLUMNS, *_GENE_TEXT, "cytoband")
    table = read_numeric_table(path, text_columns=columns, comment="#", nameless_rows=True)
    if table.corner.lower() not in ("hugo_symbol", "entrez_gene_id"):
        raise DataError(
            f"{path}: a cBioPortal table with Hugo_Symbol or Entrez_Gene_Id as first column is required. "
            f"Found {table.corner!r}. Use `format: plain` for other matrices."
        )
    told = next((unit for part, unit in _CBIOPORTAL_UNITS if part in path.name.lower()), None)
    matrix = _matrix(table, path, _told_unit(unit, told, path, "the file's name"), sheet, genes_in_rows=True)
    if told in (None, matrix.unit):
        return matrix
    note = f"{path}: unit {matrix.unit} is declared and used, but the file's name says {told}. Check the unit."
    return replace(matrix, warnings=(*matrix.warnings, note))


def read_xena(path: Path, *, unit: str | None = None, sheet: Path | None = None) -> SampleMatrix:
    """Returns a table of UCSC Xena: genes × samples, the unit by the JSON file beside it where not declared.

    Raises:
        ConfigurationError: The unit is neither declared nor told.
        DataError: As `read_numeric_table`.
    """
    table = read_numeric_table(path, text_columns=(*_SYMBOL_COLUMNS, *_GENE_TEXT))
    told = _xena_unit(path)
    _refuse_other_unit(unit, told, path, "the JSON file beside it")
    return _matrix(table, path, _told_unit(unit, told, path, "a JSON file beside it"), sheet, genes_in_rows=True)


def read_anndata(
    path: Path,
    *,
    unit: str | None = None,
    layer: str | None = None,
    patient_column: str | None = None,
    sheet: Path | None = None,
) -> SampleMatrix:
    """Returns an AnnData file: observations are samples or patients, variables genes, values in `X` or in `layer`.

    Patients are `obs_names`, or the column `patient_column` of `obs`; observations without a name are excluded. A
    column of `var` called gene_name, gene_symbol, symbol or hugo_symbol gives symbols, or where names are only numbers
    one of Ensembl identifiers. `uns["unit"]` gives the unit where none is declared; a file that `subfuse prepare` wrote
    holds its values on the scale of models already.

    Raises:
        ConfigurationError: The unit is neither declared nor told.
        DataError: Not such a file, no values, natural logarithms, or `patient_column` is missing.
    """
    data = _read_h5ad(path)
    values, var = _values_of(data, layer, path)
    identifiers = data.obs_names.astype(str).tolist()
    samples = assign_samples(identifiers, sheet)
    if patient_column is not None:
        if patient_column not in data.obs:
            raise DataError(
                f"{path}: obs must have the column {patient_column!r} (expression.patient_column). "
                f"Found {preview(data.obs.columns)}."
            )
        names = _texts(data.obs[patient_column])
        samples["patient_id"] = [patient_of_barcode(name) for name in names]
    samples["place"] = [f"observation {name}" for name in identifiers]
    nameless = samples["patient_id"].map(is_missing)
    if nameless.all():
        raise DataError(f"{path}: observations with the name of a patient are required. Found none. Check obs.")
    if nameless.any():
        samples, values = samples[~nameless].reset_index(drop=True), values[~nameless.to_numpy()]
    refuse_repeated(samples, path)
    told = str(data.uns["unit"]) if "unit" in data.uns else None
    if told is not None and "scale" in data.uns:
        told = str(data.uns["scale"])  # written by `write_expression`: the values are finished
    if layer is None:  # else it speaks of X
        _refuse_other_unit(unit, told, path, 'uns["unit"]')
    unit = _told_unit(unit, told, path, 'uns["unit"]')
    _refuse_other_logarithm(data.uns, unit, layer, path)
    return SampleMatrix(
        values,
        samples,
        _genes_of_var(var),
        unit,
        path,
        _source(path, samples),
        exclusions=exclusion_table(
            ("expression", name, "no name of a patient") for name in pd.Series(identifiers)[nameless]
        ),
    )


def _read_h5ad(path: Path) -> Any:
    import anndata

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that are not unique: we say which, or which counts
            return anndata.read_h5ad(path)
    except Exception as error:  # whatever HDF5, AnnData or a plugin of theirs raises on a damaged file
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path}: a complete AnnData file is required. Found: {problem}.") from error


def _values_of(data: Any, layer: str | None, path: Path) -> tuple[Float[np.ndarray, "sample gene"], pd.DataFrame]:
    """Returns the chosen values, and the table of their variables."""
    available = [*map(str, data.layers), *(["raw"] if data.raw is not None else [])]
    if layer is None and data.X is None:
        found = (
            f"Found layers: {preview(available)}. Name one as `layer` in `expression`." if available else "Found none."
        )
        raise DataError(f"{path}: values in X are required. {found}")
    if layer is not None and layer not in available:
        raise DataError(
            f"{path}: the layer {layer!r} is required (expression.layer). Found {preview(available) or 'none'}."
        )
    use_raw = layer == "raw" and layer not in data.layers
    chosen = data.X if layer is None else data.raw.X if use_raw else data.layers[layer]
    try:
        dense = np.array(chosen.toarray() if hasattr(chosen, "toarray") else chosen, dtype=np.float32, order="C")
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: numbers are required. Found: {' '.join(str(error).split())[:200]}.") from error
    if not dense.size:
        raise DataError(f"{path}: at least one observation and one variable are required. Found {dense.shape}.")
    return dense, data.raw.var if use_raw else data.var


def _texts(column: pd.Series) -> list[str]:
    return ["" if pd.isna(cell) else str(cell).strip() for cell in column]


def _genes_of_var(var: pd.DataFrame) -> pd.DataFrame:
    names = [str(name) for name in var.index]
    annotations = pd.DataFrame({str(name).lower(): _texts(var[name]) for name in var})
    if all(name.isdigit() for name in names):
        names = next((annotations[name].tolist() for name in _ENSEMBL_COLUMNS if name in annotations), names)
    return _genes(names, annotations, [f"variable {number}" for number in range(1, len(names) + 1)])


def _refuse_other_logarithm(uns: Mapping[str, Any], unit: str, layer: str | None, path: Path) -> None:
    """Refuses X whose note of scanpy's log1p contradicts the unit; layers are judged by their sums."""
    if "log1p" not in uns or layer is not None or unit == "zscore":
        return
    note = uns["log1p"]
    base = note.get("base") if isinstance(note, Mapping) else None
    if base is not None and float(base) == 2 and unit.startswith("log2_"):
        return
    found = "natural logarithms" if base is None else f"logarithms to base {base}"
    raise DataError(
        f'{path}: {unit} is required, as declared. Found {found} in X (uns["log1p"]). Name a `layer` with counts or '
        'TPM, or save log2(x + 1) without uns["log1p"].'
    )


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
    return SampleMatrix(values, samples, _genes(names, annotations, gene_places), unit, path, _source(path, samples))


def _genes(names: Sequence[str], annotations: pd.DataFrame, places: Sequence[str]) -> pd.DataFrame:
    """Returns the gene axis: symbols of the annotation where it has some, else the names themselves."""
    symbols = next((annotations[column].tolist() for column in _SYMBOL_COLUMNS if column in annotations), None)
    chosen = [symbol or name for symbol, name in zip(symbols, names, strict=True)] if symbols else list(names)
    kinds = next((annotations[name].tolist() for name in ("gene_type", "gene_biotype") if name in annotations), None)
    labels = [f"{name} ({place})" for name, place in zip(chosen, places, strict=True)]
    identifiers = [name if name != symbol else "" for name, symbol in zip(names, chosen, strict=True)]
    return pd.DataFrame({"name": chosen, "gene_id": identifiers, "gene_type": kinds or "", "label": labels})


def _source(path: Path, samples: pd.DataFrame) -> dict[str, str]:
    matched = int((samples["patient_id"] != samples["sample"]).sum())
    return {"table": path.name, **({"samples": f"{matched} matched to patients"} if matched else {})}


def _told_unit(declared: str | None, told: str | None, path: Path, where: str) -> str:
    """Returns the unit: as declared, or as the source tells."""
    unit = declared or told
    if unit is None:
        raise ConfigurationError(
            f"{path}: `unit` of `expression` is required, since {where} does not tell it. "
            "Declare counts, rsem, fpkm, fpkm_uq, tpm, zscore, or a log2_ unit."
        )
    return unit


def _refuse_other_unit(declared: str | None, told: str | None, path: Path, where: str) -> None:
    """Refuses a declared unit that the source itself contradicts: one of them is wrong, and nothing tells which."""
    if None not in (declared, told) and told != declared:
        raise DataError(
            f"{path}: `unit` of `expression` must be that of the source. Found {declared} declared and {told} in "
            f"{where}. Correct `unit` or remove it, or correct the source."
        )


def _xena_unit(path: Path) -> str | None:
    beside = path.with_name(path.name + ".json")
    if not beside.exists():
        return None
    try:
        described = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{beside}: JSON is required. Found: {' '.join(str(error).split())}.") from error
    words = str(described.get("unit", "")) if isinstance(described, dict) else ""
    return _XENA_UNITS.get(re.sub(r"\s", "", words).lower())
