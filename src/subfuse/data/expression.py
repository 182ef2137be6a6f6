"""Expression tables: one unit, one named gene axis, one row per patient; and the standardiser of training patients."""

import csv
import warnings
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.data.barcodes import patient_of_barcode, sample_type_of_barcode
from subfuse.data.cohort_file import ExpressionSection
from subfuse.data.exclusions import exclusion_table, join_exclusions
from subfuse.data.tables import read_first_line, read_text_table, require_columns
from subfuse.errors import DataError, preview
from subfuse.files import atomic_path

STAR_COLUMNS = {
    "counts": "unstranded",
    "tpm": "tpm_unstranded",
    "fpkm": "fpkm_unstranded",
    "fpkm_uq": "fpkm_uq_unstranded",
}
STAR_SUFFIXES = (".augmented_star_gene_counts.tsv", ".augmented_star_gene_counts.tsv.gz")
_SCALES = {
    "counts": "log2_cpm",
    "fpkm": "log2_tpm",
    "fpkm_uq": "log2_tpm",
    "tpm": "log2_tpm",
    "log2_tpm": "log2_tpm",
    "zscore": "zscore",
}
SHEET_COLUMNS = {"File Name": "a STAR file", "Case ID": "its patient"}


@dataclass(frozen=True)
class ExpressionTable:
    """Expression of a cohort: patients × genes, float32, without missing values."""

    values: pd.DataFrame  # index: patient_id, sorted; columns: gene symbols, unique
    unit: str  # as declared in the cohort file
    transform: str  # from the unit to `values`, in words: log2(TPM + 1), ...
    source: Mapping[str, str]  # file or folder, and how samples were chosen
    genes: pd.DataFrame = field(default_factory=pd.DataFrame)  # per gene, where known: gene_id (versioned), gene_type
    exclusions: pd.DataFrame = field(default_factory=exclusion_table)  # level, id, reason

    @property
    def scale(self) -> str:
        """Scale of `values`, by which cohorts are comparable: log2_tpm, log2_cpm or zscore."""
        return _SCALES[self.unit]


@dataclass(frozen=True)
class ExpressionStandardiser:
    """Mean and scale of every gene over training patients: fitted once, stored with the weights."""

    genes: tuple[str, ...]
    mean: Float[np.ndarray, " gene"]
    scale: Float[np.ndarray, " gene"]  # standard deviation; 1 where a gene is constant

    @classmethod
    def fit(cls, values: Float[np.ndarray, "patient gene"], genes: Sequence[str]) -> "ExpressionStandardiser":
        """Fits mean and standard deviation (divided by n) per gene, computed in float64, kept in float32.

        NaN is an unknown value (of a covariate) and is ignored. A gene counts as constant when its spread is within
        float32 rounding of its mean: it then becomes 0 everywhere instead of amplified noise.

        Raises:
            ValueError: No patient, an infinite value, or another number of genes.
            DataError: A gene or covariate that is unknown for every patient: nothing could be learned of it.
        """
        if values.shape[0] == 0 or values.shape[1] != len(genes) or np.isinf(values).any():
            raise ValueError(
                f"values must be finite or NaN, with at least one patient and {len(genes)} genes. Found shape "
                f"{values.shape} with {np.count_nonzero(np.isinf(values))} values that are not finite."
            )
        unknown = [gene for gene, known in zip(genes, ~np.isnan(values).all(axis=0), strict=True) if not known]
        if unknown:
            raise DataError(
                f"{preview(unknown)} must be known for at least one training patient. Found none among "
                f"{values.shape[0]}. Use fewer folds, or remove it from `covariates` of the cohort file."
            )
        mean = np.nanmean(values, axis=0, dtype=np.float64)
        scale = np.nanstd(values, axis=0, dtype=np.float64)
        constant = scale <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
        scale[constant] = 1.0
        return cls(tuple(genes), mean.astype(np.float32), scale.astype(np.float32))

    def transform(self, values: Float[np.ndarray, "*batch gene"]) -> Float[np.ndarray, "*batch gene"]:
        """Returns (values - mean) / scale in float32, for genes in the order of `genes`; 0, the mean, where unknown.

        Raises:
            ValueError: Another number of genes.
        """
        if values.shape[-1] != len(self.genes):
            raise ValueError(f"values must have {len(self.genes)} genes. Found {values.shape[-1]}.")
        standard = ((values.astype(np.float32) - self.mean) / self.scale).astype(np.float32)
        return np.where(np.isnan(standard), np.float32(0), standard)


def read_expression(
    section: ExpressionSection, base: Path = Path(), *, keep_genes: Collection[str] = ()
) -> ExpressionTable:
    """Returns the expression table that a cohort file declares, on the scale that models take.

    Scale: `tpm` becomes log2(TPM + 1); `fpkm` and `fpkm_uq` become TPM first (a patient's values divided by their sum,
    times a million: the factor that separates FPKM-UQ from FPKM cancels); `counts` become log2(CPM + 1), since gene
    lengths are not known; `log2_tpm` and `zscore` stay. The sum runs over all genes of the file; `transform` says how
    many. Samples: primary tumour before recurrent, normal tissue never, then the highest total count; the others are
    listed in `exclusions`. Genes of STAR files: protein-coding ones and `keep_genes`. A symbol that occurs several
    times keeps its column with the highest mean.

    Args:
        section: `expression` of the cohort file.
        base: Folder that relative paths of the section refer to.
        keep_genes: Symbols that are kept whatever their type: those of the gene sets.

    Raises:
        DataError: A file that is missing, empty, not a table or of another layout; a value that is not a finite
            number, or negative where the unit forbids it; a patient that occurs twice. Names file, row and gene.
    """
    if section.format == "gdc_star":
        return _read_star(section, base, set(keep_genes))
    return _read_matrix(base / _given(section.table), section.unit)


def write_expression(path: Path, table: ExpressionTable) -> None:
    """Writes a table as AnnData: patients × genes, unit, transform and source in `uns`; atomically."""
    import anndata

    var = table.genes.reindex(table.values.columns) if len(table.genes) else pd.DataFrame(index=table.values.columns)
    data = anndata.AnnData(
        X=table.values.to_numpy(dtype=np.float32),
        obs=pd.DataFrame(index=table.values.index.astype(str)),
        var=var.fillna("").astype(str),
        uns={"unit": table.unit, "transform": table.transform, "source": dict(table.source)},
    )
    with atomic_path(path) as temporary:
        data.write_h5ad(temporary)


def read_expression_h5ad(path: Path) -> ExpressionTable:
    """Returns a table that `write_expression` wrote.

    Raises:
        DataError: The file is missing, truncated, or lacks unit and transform.
    """
    import anndata

    try:
        data = anndata.read_h5ad(path)
        unit, transform = str(data.uns["unit"]), str(data.uns["transform"])
        source = {str(key): str(value) for key, value in data.uns["source"].items()}
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        problem = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: a prepared expression file is required. Found: {problem}. Run `subfuse prepare` again."
        ) from error
    values = pd.DataFrame(np.asarray(data.X, dtype=np.float32), index=data.obs_names, columns=data.var_names)
    values.index.name = "patient_id"
    return ExpressionTable(values, unit, transform, source, genes=data.var.copy())


# --- patients × genes matrices ---------------------------------------------------------------------------------------


def _read_matrix(path: Path, unit: str) -> ExpressionTable:
    genes, identifiers, values = _read_cells(path)
    _check_values(values, path, identifiers, genes, unit)
    repeated = identifiers[identifiers.duplicated()]
    if len(repeated):
        raise DataError(
            f"{path}: one row per patient or sample is required. Found several of {preview(repeated.unique())}. "
            "Keep one, or give sample barcodes."
        )
    totals = np.zeros(len(values)) if unit == "zscore" else values.sum(axis=1, dtype=np.float64)
    samples = pd.DataFrame({"sample": identifiers, "total": totals})
    samples["patient_id"] = samples["sample"].map(patient_of_barcode)
    samples["rank"] = [_rank_of_code(sample_type_of_barcode(sample)) for sample in samples["sample"]]
    chosen, left_out = _choose_samples(samples, str(path))
    columns, dropped = _choose_columns(values, genes, unit, path)
    transformed, transform, empty_rows = _transform(values[chosen.index], unit)
    table = pd.DataFrame(transformed[:, columns], index=chosen["patient_id"], columns=[genes[c] for c in columns])
    matched = int((chosen["patient_id"] != chosen["sample"]).sum())
    source = {"table": path.name, **({"samples": f"{matched} matched by TCGA patient barcode"} if matched else {})}
    return _finish(table, unit, transform, source, (left_out, dropped), empty_rows)


def _read_cells(path: Path) -> tuple[list[str], pd.Series, np.ndarray]:
    """Returns gene symbols, row identifiers and values; cells that are empty or say NA become NaN."""
    first_line = read_first_line(path)
    separator = "\t" if first_line.count("\t") > first_line.count(",") else ","
    header = [name.strip() for name in next(csv.reader([first_line], delimiter=separator))]
    if len(header) < 2:
        raise DataError(
            f"{path}: a first column of patients and then one column per gene, separated by commas or tabs, are "
            f"required. Found a header with one column: {first_line[:60]!r}."
        )
    if not all(header[1:]):
        raise DataError(f"{path}: every column needs a gene symbol. Column {header.index('', 1) + 1} has none.")
    try:
        cells = _parse_cells(path, separator, {column: "float32" if column else "str" for column in range(len(header))})
    except ValueError:
        _raise_first_text(path, header, _parse_cells(path, separator, dict.fromkeys(range(len(header)), "str")))
        raise
    if cells.empty:
        raise DataError(f"{path}: at least one patient is required. Found only a header.")
    identifiers = cells[0].fillna("").str.strip()
    without = np.flatnonzero(identifiers == "")
    if len(without):
        raise DataError(f"{path}, row {without[0] + 2}: a patient identifier is required. Found an empty cell.")
    return header[1:], identifiers, cells.iloc[:, 1:].to_numpy(dtype=np.float32)


def _parse_cells(path: Path, separator: str, dtype: Mapping[Any, Any]) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # cells beyond the header would be cut off
            return pd.read_csv(
                path,
                sep=separator,
                header=None,
                names=list(dtype),
                skiprows=1,
                dtype=dtype,
                index_col=False,
                low_memory=False,  # small chunks are slow for thousands of columns
            )
    except pd.errors.ParserWarning as error:
        raise DataError(
            f"{path}: the header must name every column. Found {len(dtype)} names and longer rows below."
        ) from error
    except (pd.errors.ParserError, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: a complete table is required. Found: {' '.join(str(error).split())}.") from error


def _raise_first_text(path: Path, header: Sequence[str], cells: pd.DataFrame) -> None:
    for column, gene in enumerate(header[1:], start=1):
        text = pd.to_numeric(cells[column], errors="coerce").isna() & cells[column].notna()
        if text.any():
            row = int(text.idxmax())
            raise DataError(
                f"{path}, row {row + 2} ({cells.loc[row, 0]}), gene {gene}: a number is required. "
                f"Found {cells.loc[row, column]!r}. Correct the cell, or drop the gene or the patient."
            )


def _check_values(values: np.ndarray, path: Path, rows: pd.Series, genes: Sequence[str], unit: str) -> None:
    bad = ~np.isfinite(values)
    wanted = "a finite number"
    if not bad.any() and unit != "zscore":
        bad = values < 0
        wanted = f"a value of at least 0 ({unit})"
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{path}, row {row + 2} ({rows[row]}), gene {genes[column]}: {wanted} is required. "
            f"Found {values[row, column]:g} ({np.count_nonzero(bad)} such value(s)). "
            "Check the unit, or drop the gene or the patient."
        )


def _choose_columns(values: np.ndarray, genes: Sequence[str], unit: str, path: Path) -> tuple[list[int], pd.DataFrame]:
    """Returns the columns to keep, one per symbol, in their order; and what was dropped."""
    columns: dict[str, int] = {}
    dropped = []
    means = values.mean(axis=0, dtype=np.float64)
    for column, gene in enumerate(genes):
        if gene not in columns:
            columns[gene] = column
            continue
        if unit == "zscore":
            raise DataError(f"{path}: gene symbols must be unique for z-scores. Found {gene} twice. Keep one column.")
        loser = column if means[column] <= means[columns[gene]] else columns[gene]
        columns[gene] = column if loser != column else columns[gene]
        dropped.append(("gene", f"{gene} (column {loser + 2})", f"{gene} occurs again with a higher mean"))
    return sorted(columns.values()), exclusion_table(dropped)


# --- GDC STAR counts -------------------------------------------------------------------------------------------------


def _read_star(section: ExpressionSection, base: Path, keep_genes: set[str]) -> ExpressionTable:
    folder, unit = base / _given(section.folder), section.unit
    samples, missing = _read_sample_sheet(base / _given(section.sample_sheet), folder)
    axis: pd.DataFrame | None = None
    values = np.zeros((0, 0), dtype=np.float32)
    totals = np.zeros(len(samples))
    for row, path in enumerate(samples["path"]):
        content = read_star_file(path, units={unit, "counts"})
        if axis is None:
            axis = content[["gene_id", "gene_name", "gene_type"]].reset_index(drop=True)
            values = np.zeros((len(samples), len(axis)), dtype=np.float32)
        if not np.array_equal(content["gene_id"].to_numpy(), axis["gene_id"].to_numpy()):
            raise DataError(
                f"{path}: all STAR files must have the same genes in the same order ({len(axis)}, as in "
                f"{samples['path'].iloc[0].name}). Found {len(content)}. Do not mix GDC data releases."
            )
        values[row] = content[STAR_COLUMNS[unit]].to_numpy(dtype=np.float32)
        totals[row] = content[STAR_COLUMNS["counts"]].sum()
    assert axis is not None  # the sample sheet has at least one file that is present
    chosen, left_out = _choose_samples(samples.assign(total=totals), str(folder))
    transformed, transform, empty_rows = _transform(values[chosen.index], unit)
    columns, dropped = _star_axis(axis, values[chosen.index].mean(axis=0, dtype=np.float64), keep_genes)
    genes = axis.iloc[columns].set_index("gene_name")[["gene_id", "gene_type"]].rename_axis(index=None)
    table = pd.DataFrame(transformed[:, columns], index=chosen["patient_id"], columns=list(genes.index))
    source = {
        "folder": folder.name,
        "sample_sheet": _given(section.sample_sheet).name,
        "samples": "primary tumour before recurrent, then highest total count",
        "genes": "protein_coding, and those of the gene sets",
    }
    finished = _finish(table, unit, transform, source, (missing, left_out, dropped), empty_rows)
    return replace(finished, genes=genes)


def read_star_file(path: Path, *, units: Collection[str] = tuple(STAR_COLUMNS)) -> pd.DataFrame:
    """Returns the genes of a GDC `augmented_star_gene_counts.tsv`, without its four `N_` rows.

    Columns: gene_id (versioned Ensembl), gene_name, gene_type, and one numeric column per unit, under GDC's names.

    Raises:
        DataError: Not such a file, or a value that is not a finite number of at least 0. Names row and gene.
    """
    read_first_line(path)
    needed = ["gene_id", "gene_name", "gene_type", *(STAR_COLUMNS[unit] for unit in units)]
    try:
        content = pd.read_csv(
            path, sep="\t", comment="#", encoding="utf-8-sig", usecols=lambda name: name in needed, low_memory=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: a complete STAR file is required. Found: {' '.join(str(error).split())}.") from error
    missing = [name for name in needed if name not in content]
    if missing:
        raise DataError(
            f"{path}: a GDC augmented_star_gene_counts table is required. Missing columns: {preview(missing)}."
        )
    content = content[~content["gene_id"].str.startswith("N_", na=False)][needed]
    if content.empty:
        raise DataError(f"{path}: at least one gene is required. Found none.")
    for column in needed[3:]:
        numbers = pd.to_numeric(content[column], errors="coerce")
        bad = ~np.isfinite(numbers) | (numbers < 0)
        if bad.any():
            gene = content.loc[bad.idxmax()]
            raise DataError(
                f"{path}, gene {gene['gene_id']} ({gene['gene_name']}): {column} must be a finite number of at least "
                f"0. Found {gene[column]!r}. Load the file again."
            )
        content[column] = numbers
    return content.reset_index(drop=True)


def _read_sample_sheet(path: Path, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the STAR files that are present (path, sample, patient_id, rank) and what the sheet lists but is not."""
    sheet = read_text_table(path)
    require_columns(sheet, SHEET_COLUMNS, path)
    if not folder.is_dir():
        raise DataError(f"{folder}: a folder of STAR files is required. Found none. Check expression.folder.")
    present = {file.name: file for file in sorted(folder.rglob("*.tsv*")) if file.is_file()}
    rows, missing = [], []
    for record in sheet[sheet["File Name"].str.endswith(STAR_SUFFIXES)].to_dict("records"):
        file = present.get(record["File Name"]) or present.get(record["File Name"].removesuffix(".gz"))
        patient = patient_of_barcode(record["Case ID"].split(",")[0].strip())
        if file is None:
            missing.append(("expression", record["File Name"], f"listed for {patient} but not in {folder.name}/"))
            continue
        sample = record.get("Sample ID", "").split(",")[0].strip() or record["File Name"]
        rows.append({"path": file, "sample": sample, "patient_id": patient, "rank": _rank_of_record(record)})
    if not rows:
        raise DataError(
            f"{path}: at least one listed file named *{STAR_SUFFIXES[0]} must be in {folder}. "
            f"Found none; listed: {len(missing)}, in the folder: {len(present)}."
        )
    return pd.DataFrame(rows), exclusion_table(missing)


def _star_axis(axis: pd.DataFrame, means: np.ndarray, keep_genes: set[str]) -> tuple[list[int], pd.DataFrame]:
    """Returns the columns to keep, in file order, one per symbol, and the duplicates that were dropped."""
    wanted = (axis["gene_type"] == "protein_coding") | axis["gene_name"].isin(keep_genes)
    candidates = axis[wanted & axis["gene_name"].notna()].assign(mean=means[wanted & axis["gene_name"].notna()])
    ordered = candidates.sort_values(["mean", "gene_id"], ascending=[False, True], kind="stable")
    losers = ordered[ordered["gene_name"].duplicated()].sort_values("gene_id")
    pairs = zip(losers["gene_id"].astype(str), losers["gene_name"], strict=True)
    dropped = [("gene", gene_id, f"{name} occurs again with a higher mean") for gene_id, name in pairs]
    kept = sorted(set(candidates.index) - set(losers.index))
    if not kept:
        raise DataError(
            "expression: at least one protein-coding gene or gene of the gene sets is required. Found none."
        )
    return kept, exclusion_table(dropped)


# --- shared ----------------------------------------------------------------------------------------------------------


def _rank_of_code(code: int | None) -> int:
    """Returns 0 for a primary tumour or an unknown type, 1 for another tumour, 2 for normal tissue."""
    if code is None or code == 1:
        return 0
    return 2 if 10 <= code < 20 else 1


def _rank_of_record(record: Mapping[Any, str]) -> int:
    code = sample_type_of_barcode(record.get("Sample ID", "").split(",")[0].strip())
    if code is not None:
        return _rank_of_code(code)
    words = " ".join(record.get(name, "") for name in ("Sample Type", "Tissue Type", "Tumor Descriptor")).lower()
    if "normal" in words:
        return 2
    return 0 if "primary" in words or not words.strip() else 1


def _choose_samples(samples: pd.DataFrame, place: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns one sample per patient, sorted by patient, with its row number as index; and the others."""
    normal = samples["rank"] == 2
    ordered = samples[~normal].sort_values(
        ["patient_id", "rank", "total", "sample"], ascending=[True, True, False, True]
    )
    chosen = ordered.drop_duplicates("patient_id")
    if chosen.empty:
        raise DataError(f"{place}: at least one tumour sample is required. Found only normal tissue.")
    reasons = [("expression", str(sample), "normal tissue") for sample in samples.loc[normal, "sample"]]
    best = dict(zip(chosen["patient_id"], chosen["sample"], strict=True))
    others = ordered.drop(index=chosen.index)
    reasons += [
        ("expression", str(sample), f"{best[patient]} of the same patient is used")
        for patient, sample in zip(others["patient_id"], others["sample"], strict=True)
    ]
    return chosen, exclusion_table(reasons)


def _transform(values: np.ndarray, unit: str) -> tuple[np.ndarray, str, np.ndarray]:
    """Returns values on the models' scale, the transform in words, and which rows have no expression at all."""
    if unit in ("log2_tpm", "zscore"):
        return values, "none", np.zeros(len(values), dtype=bool)
    if unit == "tpm":
        return np.log2(values + 1), "log2(TPM + 1)", np.asarray(~values.any(axis=1))
    totals = values.sum(axis=1, dtype=np.float64)
    per_million = values / np.where(totals > 0, totals, 1)[:, None] * 1e6
    name = "CPM" if unit == "counts" else "TPM"
    transform = f"log2({name} + 1), {name} from {unit} over {values.shape[1]} genes"
    return np.log2(per_million + 1).astype(np.float32), transform, np.asarray(totals == 0)


def _finish(
    table: pd.DataFrame,
    unit: str,
    transform: str,
    source: Mapping[str, str],
    exclusions: Sequence[pd.DataFrame],
    empty_rows: np.ndarray,
) -> ExpressionTable:
    empty = exclusion_table(("expression", str(name), "no gene is expressed") for name in table.index[empty_rows])
    table = table.loc[~empty_rows].astype(np.float32)
    table.index.name = "patient_id"
    return ExpressionTable(table, unit, transform, source, exclusions=join_exclusions([*exclusions, empty]))


def _given(path: Path | None) -> Path:
    assert path is not None  # ExpressionSection checked that format and paths fit
    return path
