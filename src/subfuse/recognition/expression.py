"""What expression a folder holds: the section `expression` of its draft."""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from subfuse.bounded_files import open_bounded
from subfuse.errors import SubfuseError, preview
from subfuse.expression.gdc.listing import STAR_SUFFIXES
from subfuse.expression.gene_names import gene_aliases, is_identifier, is_like_symbol
from subfuse.expression.gene_sets import BUILTIN, load_gene_sets
from subfuse.expression.matrices import cbioportal_unit, described_unit, describes_genes, description_beside
from subfuse.expression.source import GeneSetSource
from subfuse.expression.units import MODEL_SCALE, fitting_units, told_by_negative
from subfuse.features.hdf5_files import opened_hdf5
from subfuse.recognition.kinds import (
    ANNDATA,
    GDC_MANIFEST,
    GDC_METADATA,
    GDC_SHEET,
    GENE_SUFFIX,
    MATRIX,
    SAMPLE_SHEET,
    STUDY_EXPRESSION,
    STUDY_SAMPLES,
    STUDY_ZSCORES,
    XENA,
    FoundTable,
    numbers_in,
    patient_column,
    star_files,
)
from subfuse.recognition.yaml_lines import asked, line, names_of, relative, remark
from subfuse.tables import read_json, read_text_table

_IVYGAP = ("fpkm_table.csv", "rows-genes.csv", "columns-samples.csv")
_MATRICES = (STUDY_EXPRESSION, XENA, ANNDATA, MATRIX)
_FORMATS = {STUDY_EXPRESSION: "cbioportal", STUDY_ZSCORES: "cbioportal", XENA: "xena", ANNDATA: "h5ad"}
_PROBE_MAP = ".probemap"
_LOOKED_AT = 40  # lines of a table
_FEW_GENES = (
    0.01  # share of names that are known by chance; of all human genes, the built-in sets hold several times that
)


def expression_lines(folder: Path, direct: Sequence[FoundTable], below: Sequence[FoundTable], base: Path) -> list[str]:
    """Returns the lines of the section, without which there is none: one source, or a question that names all of them.

    Args:
        folder: Where STAR files are searched for.
        direct: Tables directly in the folder.
        below: Tables of its subfolders, which count where no matrix is in the folder itself.
        base: The folder of the cohort file.
    """
    tables = [*direct, *below]
    star = star_files(folder)
    ivygap = sorted({table.path.parent for table in tables if table.path.name == _IVYGAP[0]})
    matrices = [] if ivygap else _matrices(direct) or ([] if star else _matrices(below))
    n_sources = bool(star) + len(ivygap) + len(matrices)
    if n_sources == 0:
        return _beside_patients(tables, base)
    if n_sources > 1:
        places = [*([_parent(star)] if star else []), *ivygap, *(table.path for table in matrices)]
        formats = {_FORMATS.get(table.kind, "plain") for table in matrices}
        shared = formats.pop() if len(formats) == 1 and len(matrices) == len(places) else None
        told = [line("format", shared)] if shared not in (None, "plain") else []
        what = "Then its unit" if shared else "Then its format and unit"
        return ["expression:", *told, asked("table", f"which of {names_of(places, base)}? {what}")]
    if star:
        return ["expression:", *_of_star(star, tables, base)]
    if ivygap:
        return ["expression:", line("format", "ivygap"), line("folder", relative(ivygap[0], base))]
    return ["expression:", *_of_matrix(matrices[0], tables, base)]


def _matrices(tables: Sequence[FoundTable]) -> list[FoundTable]:
    """Returns the tables that could be meant; z-scores of a study where it has nothing else."""
    found = [table for table in tables if table.kind in _MATRICES]
    return found or [table for table in tables if table.kind == STUDY_ZSCORES]


def _beside_patients(tables: Sequence[FoundTable], base: Path) -> list[str]:
    """Returns the lines of expression in the one table of patients that has it, as those of MCAT; else none."""
    found = [table for table in tables if any(str(name).endswith(GENE_SUFFIX) for name in table.start)]
    columns = [patient_column([str(name) for name in table.start]) for table in found]
    if len(found) != 1 or columns[0] is None:
        return []
    genes = found[0].start.filter(regex=f"{GENE_SUFFIX}$")
    return [
        "expression:",
        line("table", relative(found[0].path, base)),
        line("gene_suffix", GENE_SUFFIX, f"how its {genes.shape[1]} columns of expression end"),
        line("patient_column", columns[0]),
        _asked_unit(replace(found[0], start=genes)),
    ]


def _parent(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.parent for path in paths]))


def _of_star(files: Sequence[Path], tables: Sequence[FoundTable], base: Path) -> list[str]:
    lines = [
        line("format", "gdc_star"),
        line("folder", relative(_parent(files), base), f"files: {len(files)}"),
        line("unit", "tpm", "chosen: the files hold counts, tpm, fpkm and fpkm_uq"),
    ]
    listings = {
        key: [table.path for table in tables if table.kind == kind]
        for key, kind in (("sample_sheet", GDC_SHEET), ("metadata", GDC_METADATA))
    }
    key = "sample_sheet" if listings["sample_sheet"] or not listings["metadata"] else "metadata"
    paths = listings[key]
    if len(paths) == 1:
        lines.append(line(key, relative(paths[0], base)))
    elif paths:
        lines.append(asked(key, f"which of {names_of(paths, base)}?"))
    else:
        lines.append(asked(key, "which file says whose the files are? The portal's cart gives the sample sheet"))
    manifests = [table.path for table in tables if table.kind == GDC_MANIFEST and _lists_star(table)]
    return [*lines, *([line("manifest", relative(manifests[0], base))] if len(manifests) == 1 else [])]


def _lists_star(manifest: FoundTable) -> bool:
    return bool(manifest.start["filename"].str.endswith(STAR_SUFFIXES).any())


def _of_matrix(table: FoundTable, tables: Sequence[FoundTable], base: Path) -> list[str]:
    format = _FORMATS.get(table.kind)
    lines = [line("format", format)] if format else []
    lines.append(line("table", relative(table.path, base)))
    lines += _unit(table)
    lines += _aliases(table, base)
    kind = STUDY_SAMPLES if format == "cbioportal" else SAMPLE_SHEET
    sheets = [other.path for other in tables if other.kind == kind]
    if len(sheets) == 1:
        lines.append(line("sample_sheet", relative(sheets[0], base)))
    elif sheets:
        lines.append(remark(f"sample_sheet: one of {names_of(sheets, base)}, where samples are not patients"))
    zscores = [other.path for other in tables if other.kind == STUDY_ZSCORES and other is not table]
    if zscores:
        lines.append(remark(f"not used, since they are z-scores of such a table: {names_of(zscores, base)}"))
    return lines


def _aliases(table: FoundTable, base: Path) -> list[str]:
    """Returns the line of the table that gives symbols; a question where genes are Ensembl identifiers alone."""
    described = _probe_map(table.path) if table.kind == XENA else None
    if described is not None:
        return [line("aliases", relative(described, base), "as the JSON file beside it says")]
    if table.kind not in (XENA, MATRIX) or not any(_are_of_ensembl(names) for names in _names_of_genes(table)):
        return []
    beside = [path for path in sorted(table.path.parent.iterdir()) if path.name.lower().endswith(_PROBE_MAP)]
    if len(beside) == 1:
        return [line("aliases", relative(beside[0], base), "the probe map beside it")]
    asks = "which table gives the symbols of its Ensembl identifiers, a probe map or columns previous, approved?"
    return [asked("aliases", asks)]


def _names_of_genes(table: FoundTable) -> tuple[list[str], list[str]]:
    """Returns what may be the names of genes: the columns, and how the first rows begin."""
    return [str(name) for name in table.start.columns[1:]], _first_cells(table.path)


def _are_of_ensembl(names: Sequence[str]) -> bool:
    return 2 * sum(name.startswith("ENSG") for name in names) > len(names)


def _probe_map(path: Path) -> Path | None:
    """Returns the table of genes that Xena's description of a table names, None where there is none beside it."""
    beside = description_beside(path)
    described = {} if beside is None else read_json(beside)
    name = described.get(":probeMap") if isinstance(described, dict) else None
    found = path.with_name(Path(name).name) if isinstance(name, str) and Path(name).name else None
    return found if found is not None and found.is_file() else None


def _unit(table: FoundTable) -> list[str]:
    """Returns the line of the unit: none where the source tells it itself, a question where nothing does."""
    match table.kind:
        case "cbioportal expression" | "cbioportal z-scores":
            unit = cbioportal_unit(table.path)
            told = [] if unit is None else [remark(f"unit: {unit}, as the name of the file says.{_extent(table)}")]
        case "xena":
            beside = description_beside(table.path)
            unit = None if beside is None else described_unit(beside)
            told = [] if unit is None else [remark(f"unit: {unit}, as the JSON file beside it says")]
        case "h5ad":
            stated = _stated_unit(table.path)
            if stated is not None and stated not in MODEL_SCALE:
                return [asked("unit", f"{', '.join(MODEL_SCALE)}? uns of the file says {stated[:60]!r}")]
            told = [] if stated is None else [remark("unit: as uns of the file says")]
        case _:
            told = []
    return told or [_asked_unit(table)]


def _asked_unit(table: FoundTable) -> str:
    """Returns the line that asks for the unit: those that the first values can have."""
    values = _first_values(table)
    lowest = float(values.min(initial=0))
    units = ", ".join(fitting_units(values[None]))
    told = f"; {told_by_negative(lowest)}" if lowest < 0 else ""
    return asked("unit", f"{units}?{_extent(table)}{told}{_doubt(table)}")


def _doubt(table: FoundTable) -> str:
    """Returns a question where neither the columns nor the first rows of a plain table are called as genes are."""
    if table.kind != MATRIX:
        return ""
    columns, rows = _names_of_genes(table)
    if _are_like_genes(columns) or _are_like_genes(rows):
        return ""
    return f". Are {preview(columns, 3)} genes? Few are known symbols; if they are not, remove this section"


def _first_cells(path: Path) -> list[str]:
    """Returns how the first lines below the header begin, whether or not the header has a name for it."""
    with open_bounded(path) as file:
        lines = [line.decode("utf-8", errors="replace") for line, _ in zip(file, range(_LOOKED_AT), strict=False)]
    return [re.split(r"[,;\t]", line)[0].strip('"\r\n ') for line in lines if not line.startswith("#")][1:]


def _are_like_genes(names: Sequence[str]) -> bool:
    """Returns whether some names are known genes, or half of them symbols that differ in more than a number."""
    known = {**gene_aliases(), **{gene: gene for gene in _built_in_genes()}}
    if sum(name in known or is_identifier(name) for name in names) > _FEW_GENES * len(names):
        return True
    letters = {re.sub(r"[0-9]", "", name) for name in names if is_like_symbol(name)}
    return 2 * len(letters) > len(names)


def _built_in_genes() -> set[str]:
    sets = load_gene_sets({name: GeneSetSource() for name in BUILTIN})
    return {gene for subspace in sets.values() for gene in subspace}


def _stated_unit(path: Path) -> str | None:
    """Returns what `uns["unit"]` of an AnnData file says, whatever it is; None where it says nothing."""
    try:
        with opened_hdf5(path) as file:
            if "uns" not in file or "unit" not in file["uns"]:
                return None
            value = file["uns"]["unit"][()]
            return value.decode() if isinstance(value, bytes) else str(value)
    except SubfuseError:
        return None


def _extent(table: FoundTable) -> str:
    """Returns between what the first values of a table lie, for who knows the unit by that."""
    values = _first_values(table)
    if not len(values):
        return ""
    whole = ", whole numbers" if (values == np.rint(values)).all() else ""
    return f" Its first rows hold {values.min():g} to {values.max():g}{whole}"


def _first_values(table: FoundTable) -> Float[np.ndarray, " value"]:
    """Returns the known values of a table's first rows, none where they cannot be read."""
    start = table.start
    if start.empty:
        try:
            start = read_text_table(table.path, comment="#", n_lines=20)
        except SubfuseError:
            return np.zeros(0)
    numbers = numbers_in(start)
    values = numbers.loc[:, [not describes_genes(str(column)) for column in numbers]].to_numpy(dtype=float)
    return values[np.isfinite(values)]
