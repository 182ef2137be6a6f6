"""GDC STAR counts: all files of a folder as one matrix."""

import zlib
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from subfuse.bounded_files import open_bounded
from subfuse.errors import DataError, preview
from subfuse.exclusions import exclusion_table, join_exclusions
from subfuse.expression.gdc.listing import present_files, read_gdc_metadata, read_gdc_sheet
from subfuse.expression.gene_names import approved_name
from subfuse.expression.samples import (
    NORMAL,
    SampleMatrix,
    SampleOrigin,
    choose_samples,
)
from subfuse.tables import (
    other_bytes,
    read_first_line,
)

STAR_COLUMNS = {
    "counts": "unstranded",
    "tpm": "tpm_unstranded",
    "fpkm": "fpkm_unstranded",
    "fpkm_uq": "fpkm_uq_unstranded",
}


def read_gdc_star(
    folder: Path,
    *,
    unit: str,
    sample_sheet: Path | None = None,
    metadata: Path | None = None,
    manifest: Path | None = None,
    keep_genes: Collection[str],
    aliases: Mapping[str, str],
) -> SampleMatrix:
    """Returns the STAR files of a folder, one row per patient; files are read one by one into one matrix.

    Per patient the primary tumour comes before others and frozen tissue before FFPE, then the file with the largest
    total count; where none of these can be read, the next. Genes are the protein-coding ones and `keep_genes`; `totals`
    run over all genes. A file that is absent, of another size than in the manifest, or unreadable is excluded with the
    reason.

    Args:
        folder: Searched with its subfolders.
        unit: counts, tpm, fpkm or fpkm_uq.
        sample_sheet: Sample sheet of the GDC portal: which file belongs to which patient.
        metadata: Its metadata JSON instead.
        manifest: Manifest of the portal, which tells the size of each file.
        keep_genes: Approved symbols that are kept whatever their type.
        aliases: Names to approved symbols.

    Raises:
        DataError: No usable file, or files of different data releases. Names the file.
    """
    place = sample_sheet or metadata
    if place is None:
        raise ValueError("sample_sheet or metadata is required. Found neither.")
    listing = read_gdc_metadata(place) if sample_sheet is None else read_gdc_sheet(place)
    files, missing = present_files(folder, listing, place, manifest)
    candidates = files[files["rank"] != NORMAL].sort_values(["patient_id", "rank", "vial", "sample"], kind="stable")
    reader = _FolderReader(unit, candidates["patient_id"].nunique(), set(keep_genes), aliases)
    depth = np.zeros(len(files))
    unreadable: dict[int, str] = {}
    found: dict[str, tuple[int, int]] = {}  # patient -> rank and vial of the file that speaks for it
    for row, file in zip(candidates.index.tolist(), candidates.to_dict("records"), strict=True):
        if found.get(file["patient_id"], (file["rank"], file["vial"])) != (file["rank"], file["vial"]):
            continue
        try:
            content = read_star_file(file["path"], units={unit, "counts"})
        except DataError as error:
            unreadable[row] = str(error)
            continue
        depth[row] = reader.add(content, file["path"], file["patient_id"])
        found[file["patient_id"]] = (file["rank"], file["vial"])
    if reader.axis.empty and unreadable:
        raise DataError(next(iter(unreadable.values())))
    failed = exclusion_table(("expression", Path(files["path"].loc[row]).name, why) for row, why in unreadable.items())
    chosen, left_out = choose_samples(files.drop(index=list(unreadable)), depth, folder)
    rows = [reader.rows[patient] for patient in chosen["patient_id"]]
    return SampleMatrix(
        values=reader.values if rows == list(range(len(reader.values))) else reader.values[rows],
        samples=chosen[["sample", *SampleOrigin._fields]].assign(place=chosen["sample"]).reset_index(drop=True),
        genes=reader.genes(),
        unit=unit,
        path=folder,
        source={
            "folder": folder.name,
            "sample_sheet": place.name,
            "samples": "primary tumour before recurrent, frozen before FFPE, then highest total count",
            "genes": "protein_coding, and those of the gene sets",
        },
        totals=reader.totals[rows],
        summed=reader.summed,
        exclusions=join_exclusions([missing, failed, left_out]),
    )


def read_star_file(path: Path, *, units: Collection[str] = tuple(STAR_COLUMNS)) -> pd.DataFrame:
    """Returns the genes of a GDC `augmented_star_gene_counts.tsv`, without its four `N_` rows.

    Columns: gene_id (versioned Ensembl), gene_name, gene_type, and one numeric column per unit, under GDC's names.

    Raises:
        DataError: Not such a file, or a value that is not a finite number of at least 0. Names row and gene.
    """
    read_first_line(path)
    needed = ["gene_id", "gene_name", "gene_type", *(STAR_COLUMNS[unit] for unit in units)]
    try:
        with open_bounded(path) as file:
            content = pd.read_csv(
                file, sep="\t", comment="#", encoding="utf-8-sig", usecols=lambda name: name in needed, low_memory=False
            )
    except UnicodeDecodeError as error:
        raise other_bytes(path) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: a complete STAR file is required. Found: {' '.join(str(error).split())}.") from error
    if not isinstance(content.index, pd.RangeIndex):
        raise DataError(f"{path}: as many cells as in the header are required in every row. Found more. Load it again.")
    missing = [name for name in needed if name not in content]
    if missing:
        raise DataError(
            f"{path}: a GDC augmented_star_gene_counts table is required. Missing columns: {preview(missing)}."
        )
    content = content.loc[[not str(name).startswith("N_") for name in content["gene_id"]], needed]
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


class _FolderReader:
    """Collects STAR files: one row per patient, of the file with the largest total count so far."""

    def __init__(self, unit: str, n_patients: int, keep_genes: set[str], aliases: Mapping[str, str]) -> None:
        self.axis = pd.DataFrame(columns=["gene_id", "gene_name", "gene_type"])  # of the first file
        self.rows: dict[str, int] = {}  # patient -> row
        self.values = np.zeros((0, 0), dtype=np.float32)
        self.totals = np.zeros(n_patients)
        self._unit, self._keep_genes, self._aliases = unit, keep_genes, aliases
        self._columns = np.zeros(0, dtype=np.int64)
        self._depth: dict[str, float] = {}
        self._first = Path()

    @property
    def summed(self) -> tuple[str, ...]:
        """The genes of every file."""
        return tuple(self.axis["gene_id"].astype(str))

    def add(self, content: pd.DataFrame, path: Path, patient: str) -> float:
        """Takes a file in, if it has more counts than earlier ones of its patient; returns its total count."""
        if self.axis.empty:
            self._start(content, path)
        if not np.array_equal(content["gene_id"].to_numpy(), self.axis["gene_id"].to_numpy()):
            raise DataError(
                f"{path}: all STAR files must have the same genes in the same order ({len(self.axis)}, as in "
                f"{self._first.name}). Found {len(content)}. Do not mix GDC data releases."
            )
        total = float(content[STAR_COLUMNS["counts"]].sum())
        if total > self._depth.get(patient, -1.0):
            row = self.rows.setdefault(patient, len(self.rows))
            numbers = content[STAR_COLUMNS[self._unit]].to_numpy(dtype=np.float64)
            self.values[row] = numbers[self._columns]
            self.totals[row] = numbers.sum()
            self._depth[patient] = total
        return total

    def genes(self) -> pd.DataFrame:
        """Returns the kept genes as a SampleMatrix describes them."""
        kept = self.axis.iloc[self._columns].reset_index(drop=True)
        return kept.rename(columns={"gene_name": "name"}).assign(label=kept["gene_id"])

    def _start(self, content: pd.DataFrame, path: Path) -> None:
        self.axis = content[["gene_id", "gene_name", "gene_type"]].reset_index(drop=True)
        named = self.axis["gene_name"].fillna("")
        wanted = named.map(lambda name: approved_name(name, self._aliases) in self._keep_genes)
        self._columns = np.flatnonzero(((self.axis["gene_type"] == "protein_coding") | wanted) & (named != ""))
        if not len(self._columns):
            raise DataError(
                f"{path}: at least one protein-coding gene or gene of the gene sets is required. Found none."
            )
        self.values = np.zeros((len(self.totals), len(self._columns)), dtype=np.float32)
        self._first = path
