"""Expression of one patient as a user hands it in: checked and brought to the models' scale."""

import csv
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float

from subfuse.bounded_files import open_unpacked, tables_of
from subfuse.cells import number_hint
from subfuse.errors import DataError, SubfuseError, preview
from subfuse.expression.gdc.listing import STAR_SUFFIXES
from subfuse.expression.gdc.star import STAR_COLUMNS
from subfuse.expression.gene_names import approved_name, case_hint, gene_aliases, match_genes
from subfuse.expression.reading import read_expression
from subfuse.expression.source import ExpressionUnit, GdcStarFolder, PlainMatrix, StarUnit
from subfuse.expression.table import ExpressionTable
from subfuse.expression.units import ShareBasis, UnitMismatch
from subfuse.tables import has_semicolons, read_first_line, separator_hint

LIMIT_BYTES = 10_000_000
_MAX_GENES = 200_000
_OF_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # first bytes: xlsx and ods, and Excel's old format
_PAIR_WITH_COMMA = re.compile(r"[^;,\t]+;[+-]?\d*,\d+")
_PATIENT = "value"  # the header of a file without one, which messages show


@dataclass(frozen=True)
class UploadedExpression:
    """Expression of one patient on a cohort's gene axis."""

    values: Float[np.ndarray, " gene"]
    scale: str  # of the values: log2_tpm, log2_cpm or zscore
    transform: str  # from the file's unit to the values, in words
    basis: ShareBasis | None  # the genes below the sums
    n_ignored: int  # genes of the file that are not used: unknown to the cohort, repeated, or without a value
    n_renamed: int  # genes of the cohort that the file has under an earlier or later symbol
    warnings: tuple[str, ...]  # why the unit is doubtful, and which genes are there twice


def read_upload(
    content: bytes,
    *,
    unit: ExpressionUnit,
    genes: Sequence[str],
    aliases: Mapping[str, str] | None = None,
    name: str = "the file",
    remedy: str = "Convert the file.",
) -> UploadedExpression:
    """Returns the expression in an uploaded file.

    Layouts: two columns (gene, value), with or without a header; one row of values below a header of gene symbols,
    whose first column names the patient; a GDC STAR count file; or a workbook (xlsx, ods) with one such sheet. The file
    is read as the cohort's own would be, decimal commas between semicolons among it, from a temporary folder that is
    gone afterwards.

    Args:
        content: The file, UTF-8 text or a workbook.
        unit: Unit of its values: that of the cohort file.
        genes: The gene axis; the file must have all of them, by these or by earlier or later symbols.
        aliases: Names to approved symbols; None: the built-in ones, see `gene_aliases`.
        name: What messages call the file.
        remedy: What to do about a file in another unit.

    Raises:
        DataError: Not such a file, a value that is not a number, more than one patient, or a gene is missing.
    """
    names = gene_aliases() if aliases is None else aliases
    with tempfile.TemporaryDirectory(prefix="subfuse-upload-") as folder:
        n_added = 0

        def in_file(text: str) -> str:
            text = re.sub(re.escape(folder) + r"(/[\w.]+)?", lambda _: name, text)
            return re.sub(r"\brow (\d+)\b", lambda row: f"row {int(row[1]) - n_added}", text)

        try:
            section, n_added = _section(Path(folder), content, unit, remedy)
            table = read_expression(section, aliases=names, keep_genes=genes)
            uploaded = _on_axis(table, genes, names)
        except (SubfuseError, ValueError, csv.Error) as error:
            message = in_file(_problem(error, unit, remedy))
            raise DataError(message if message.startswith(name) else f"{name}: {message}") from error
    return replace(uploaded, warnings=tuple(map(in_file, uploaded.warnings)))


def _problem(error: Exception, unit: ExpressionUnit, remedy: str) -> str:
    """Returns in words what is wrong with a file."""
    if isinstance(error, UnitMismatch):
        seems = f": {error.seems}, as it seems" if error.seems else ""
        return f"{error.problem}{seems}. The unit {unit} is required. {remedy}"
    text = " ".join(str(error).split())
    return text if isinstance(error, SubfuseError) else f"a table of numbers is required. Found: {text}."


def _of_sheet(folder: Path, content: bytes) -> bytes:
    """Returns the one sheet of a workbook as CSV, and anything else as it is."""
    if not content.startswith(_OF_WORKBOOKS):
        return content
    path = folder / "upload.xlsx"  # what it is, the content says
    path.write_bytes(content)
    sheets = [found.name.partition("#")[2] for found in tables_of(path)]
    if len(sheets) > 1:
        raise DataError(
            f"a workbook with one sheet that holds something is required. Found {preview(sheets)}. Save the sheet of "
            "this patient alone, or as CSV."
        )
    return open_unpacked(path).read()


def _section(
    folder: Path, content: bytes, unit: ExpressionUnit, remedy: str
) -> tuple[PlainMatrix | GdcStarFolder, int]:
    """Writes the file to a folder; returns what a cohort file would say about it, and how many rows were added."""
    if len(content) > LIMIT_BYTES:
        raise DataError(f"at most {LIMIT_BYTES / 1e6:g} MB are required. Found {len(content) / 1e6:.1f} MB.")
    path, content = folder / "upload.csv", _of_sheet(folder, content)
    path.write_bytes(content)
    header = read_first_line(path)
    if header.startswith("# gene-model") or {"gene_id", "gene_name", "unstranded"} <= set(header.split("\t")):
        return _star_section(folder, content, unit, remedy), 0
    lines = [line for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    separator = _separator(header)
    first = next(csv.reader([header], delimiter=separator))
    if max(len(first), len(lines)) > _MAX_GENES:
        raise DataError(f"at most {_MAX_GENES} genes are required. Found {max(len(first), len(lines))} cells.")
    if len(first) == 2:
        _require_pairs(csv.reader(lines, delimiter=separator))
        n_added = int(_is_number(first[1].replace(",", ".") if separator == ";" else first[1]))  # the header
        values = lines if n_added else lines[1:]
        path.write_text("\n".join([f"gene{separator}{_PATIENT}", *values]) + "\n", encoding="utf-8")
        return PlainMatrix(table=path, unit=unit, orientation="genes_by_patients"), n_added
    if len(lines) != 2 or len(first) < 2:
        raise DataError(
            "one patient is required: two columns (gene, value), or a header of gene symbols and one row of values. "
            f"Found {len(lines)} lines of {len(first)} column(s).{separator_hint(header)}"
        )
    return PlainMatrix(table=path, unit=unit, orientation="patients_by_genes"), 0


def _separator(header: str) -> str:
    """Returns what separates columns, by the first line, which may hold a value: `EGFR;7,5`."""
    if has_semicolons(header) or _PAIR_WITH_COMMA.fullmatch(header.strip()):
        return ";"
    return "\t" if header.count("\t") > header.count(",") else ","


def _require_pairs(rows: Iterable[Sequence[str]]) -> None:
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            hint = number_hint(",".join(row[1:]))
            raise DataError(f"line {number} must have two columns (gene, value). Found {len(row)}.{hint}")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _star_section(folder: Path, content: bytes, unit: ExpressionUnit, remedy: str) -> GdcStarFolder:
    if unit not in STAR_COLUMNS:
        raise DataError(
            f"values in the unit {unit} are required, as in the cohort. Found a STAR file, which has "
            f"{preview(STAR_COLUMNS)}. {remedy}"
        )
    name = _PATIENT + STAR_SUFFIXES[0]
    (folder / name).write_bytes(content)
    sheet = folder / "sample_sheet.tsv"
    sheet.write_text(f"File Name\tCase ID\n{name}\t{_PATIENT}\n", encoding="utf-8")
    return GdcStarFolder(folder=folder, sample_sheet=sheet, unit=cast(StarUnit, unit))


def _on_axis(table: ExpressionTable, genes: Sequence[str], aliases: Mapping[str, str]) -> UploadedExpression:
    found = match_genes(genes, table.values.columns, aliases)
    if found.missing:
        raise DataError(
            f"all {len(genes)} genes of the cohort are required. Missing {len(found.missing)}: "
            f"{preview(found.missing)}.{_without_value(found.missing, table.unmeasured, aliases)}"
            f"{case_hint(found.missing, table.values.columns)} Give the whole profile."
        )
    values = table.values.iloc[0][[found.names[gene] for gene in genes]].to_numpy(dtype=np.float32)
    n_ignored = table.values.shape[1] - len(genes) + int((table.exclusions["level"] == "gene").sum())
    warnings = (*table.warnings, *_repeated(table, set(found.names.values()), aliases))
    n_renamed = len(found.renamed)
    return UploadedExpression(values, table.scale, table.transform, table.basis, n_ignored, n_renamed, warnings)


def _without_value(missing: Sequence[str], unmeasured: Collection[str], aliases: Mapping[str, str]) -> str:
    """Returns which of the missing genes are in the file, but have an empty cell there."""
    names = match_genes(missing, unmeasured, aliases).names
    return f" Of these there, but without a value: {preview(names.values())}." if names else ""


def _repeated(table: ExpressionTable, used: Collection[str], aliases: Mapping[str, str]) -> Iterator[str]:
    """Yields warnings on the genes that a file has several times, by one symbol or two: one of their values is used."""
    again = {label: name for label, name in table.repeated.items() if name in used}
    if again:
        yield (
            f"{preview(dict.fromkeys(again.values()))}: several values in the file, of which the highest is used. "
            f"Left out: {preview(again)}. Keep the right ones."
        )
    for name in table.values.columns:
        approved = approved_name(name, aliases)
        if name not in used and approved in used:
            yield f"{name}: an earlier symbol of {approved}, which the file has too and is used."
