"""Gene names: approved symbols in place of earlier ones, Ensembl identifiers without version, names lost to Excel."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

from subfuse.errors import DataError, preview
from subfuse.tables import read_text_table, require_columns

_ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{5,})(?:\.\d+)?(?:_PAR_Y)?$")
_OF_ENSEMBL = re.compile(r"^ENS[A-Z]*\d{5,}")  # genes, transcripts, proteins
_SYMBOL = re.compile(r"^(?:C(?:\d+|X|Y)orf\d+[A-Z]*|[A-Z][A-Z0-9]*)(?:[-/][A-Z0-9]+)*@?$")
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec"
_DATE = re.compile(
    rf"^(?:\d{{1,2}}-(?:{_MONTHS})|(?:{_MONTHS})-\d{{1,2}}|\d{{4}}-\d{{2}}-\d{{2}}(?: 00:00:00)?)$", re.IGNORECASE
)
_HEADERS = (("previous", "approved"), ("id", "gene"))  # ours, and the probe maps of UCSC Xena


@dataclass(frozen=True)
class NamedGenes:
    """Names of a gene axis, position by position."""

    names: tuple[str, ...]  # approved symbols; Ensembl identifiers without version where no symbol is known
    earlier: tuple[str, ...]  # names in the file where they differ by more than a version, else empty
    mangled: tuple[str, ...]  # names of the file that a spreadsheet turned into dates


@dataclass(frozen=True)
class MatchedGenes:
    """Wanted genes on another axis of names."""

    names: Mapping[str, str]  # wanted gene -> its name there
    missing: tuple[str, ...]  # wanted genes without any

    @property
    def renamed(self) -> dict[str, str]:
        """The wanted genes that have another name there."""
        return {gene: name for gene, name in self.names.items() if gene != name}


def read_aliases(path: Path) -> dict[str, str]:
    """Returns a table of names: earlier symbol or Ensembl identifier to approved symbol.

    Args:
        path: csv or tsv with the columns `previous` and `approved`, or a probe map of UCSC Xena (`id`, `gene`).
            Versions of Ensembl identifiers are ignored.

    Raises:
        DataError: Another table, an empty cell, or a name with two different approved symbols.
    """
    table = read_text_table(path)
    columns = next((pair for pair in _HEADERS if set(pair) <= set(table)), None)
    require_columns(table, {}, path, optional=[name for pair in _HEADERS for name in pair])
    if columns is None:
        raise DataError(
            f"{path}: the columns previous and approved (or id and gene) are required. Found {preview(table.columns)}."
        )
    aliases: dict[str, str] = {}
    for row, (name, approved) in enumerate(table[list(columns)].itertuples(index=False, name=None), start=2):
        name = _without_version(name)
        if columns[0] == "id" and not approved:
            continue  # a probe without gene
        if not name or not approved:
            raise DataError(f"{path}, row {row}: both names are required. Found {name!r} and {approved!r}.")
        if aliases.setdefault(name, approved) != approved:
            raise DataError(
                f"{path}, row {row}: one approved symbol per name is required. Found {aliases[name]} and {approved} "
                f"for {name}. Keep one."
            )
    return aliases


def gene_aliases(extension: Path | None = None) -> dict[str, str]:
    """Returns the built-in names, extended by those of a file, which win where both have a name.

    The built-in table holds earlier symbols of HGNC for the genes of the built-in sets and for families that were
    renamed as a whole, checked row by row against HGNC's previous and alias symbols of July 2023 (C1orf112 was renamed
    shortly after). Symbols that once meant two genes (such as MLL2 or QARS) are not in it.

    Raises:
        DataError: As `read_aliases`.
    """
    return {**_builtin_aliases(), **(read_aliases(extension) if extension is not None else {})}


def _without_version(name: str) -> str:
    """Returns an Ensembl gene identifier without version, other names unchanged.

    Example:
        >>> _without_version("ENSG00000146648.18"), _without_version("EGFR"), _without_version("RP11-34P13.7")
        ('ENSG00000146648', 'EGFR', 'RP11-34P13.7')
    """
    match = _ENSEMBL.match(name)
    return match[1] if match else name


def is_like_symbol(name: str) -> bool:
    """Returns True for a name in the form of HGNC's symbols, approved or not: capitals, digits and hyphens.

    Example:
        >>> [is_like_symbol(name) for name in ("TP53", "C1orf112", "7157", "ENST00000269305", "1007_s_at", "Trp53")]
        [True, True, False, False, False, False]
    """
    return _SYMBOL.match(name) is not None and _OF_ENSEMBL.match(name) is None


def is_identifier(name: str) -> bool:
    """Returns True for an Ensembl gene identifier, which is no symbol.

    Example:
        >>> is_identifier("ENSG00000146648.18"), is_identifier("EGFR")
        (True, False)
    """
    return _ENSEMBL.match(name) is not None


def approved_name(name: str, aliases: Mapping[str, str]) -> str:
    """Returns the approved symbol of a name; a name that the table does not know stays, without version.

    Example:
        >>> approved_name("H2AFZ", {"H2AFZ": "H2AZ1"}), approved_name("EGFR", {})
        ('H2AZ1', 'EGFR')
    """
    name = _without_version(name)
    for _ in range(3):  # an extension may lead to a name that the built-in table knows
        if name not in aliases:
            break
        name = _without_version(aliases[name])
    return name


def name_genes(names: Sequence[str], aliases: Mapping[str, str]) -> NamedGenes:
    """Returns approved names for the genes of a file.

    An earlier symbol stays as it is where the approved one is in the file as well: they may be two genes there.
    """
    stems = [_without_version(name) for name in names]
    present = set(stems)
    approved = [approved_name(stem, aliases) for stem in stems]
    final = [stem if new != stem and new in present else new for stem, new in zip(stems, approved, strict=True)]
    earlier = tuple(stem if stem != new else "" for stem, new in zip(stems, final, strict=True))
    return NamedGenes(tuple(final), earlier, tuple(name for name in final if _DATE.match(name)))


def both_names(gene: str, in_table: str | None) -> str:
    """Returns a gene for a message, with its name in the user's table where that is another.

    Example:
        >>> both_names("TMT1B", "METTL7B"), both_names("EGFR", None)
        ('TMT1B (METTL7B in your table)', 'EGFR')
    """
    return f"{gene} ({in_table} in your table)" if in_table else gene


def match_genes(wanted: Sequence[str], found: Collection[str], aliases: Mapping[str, str]) -> MatchedGenes:
    """Returns what each wanted gene is called among others: the same, else the name with the same approved symbol.

    A symbol matches only where it is unambiguous: one wanted gene and one other that no equal name has claimed.

    Example:
        >>> match_genes(["EGFR", "H2AFZ", "TP53"], ["H2AZ1", "EGFR"], {"H2AFZ": "H2AZ1"})
        MatchedGenes(names={'EGFR': 'EGFR', 'H2AFZ': 'H2AZ1'}, missing=('TP53',))
    """
    equal = set(wanted) & set(found)
    if len(equal) == len(wanted):
        return MatchedGenes({gene: gene for gene in wanted}, ())
    behind = {gene: approved_name(gene, aliases) for gene in wanted if gene not in equal}
    others = {name: approved_name(name, aliases) for name in found if name not in equal}
    n_wanted, n_others = Counter(behind.values()), Counter(others.values())
    of_symbol = {symbol: name for name, symbol in others.items() if n_wanted[symbol] == n_others[symbol] == 1}
    names = {gene: gene if gene in equal else of_symbol.get(behind[gene], "") for gene in wanted}
    missing = tuple(gene for gene, name in names.items() if not name)
    return MatchedGenes({gene: name for gene, name in names.items() if name}, missing)


def other_case(wanted: Iterable[str], found: Collection[str]) -> dict[str, str]:
    """Returns the wanted genes that others have in another case alone, with their names there.

    They are not taken for the same: symbols of a mouse differ from human ones in this way.

    Example:
        >>> other_case(["EGFR", "TP53", "VWF"], ["Egfr", "tp53", "VWF"])
        {'EGFR': 'Egfr', 'TP53': 'tp53'}
    """
    exact = frozenset(found)
    like = {name.lower(): name for name in sorted(exact, reverse=True)}
    return {gene: like[gene.lower()] for gene in wanted if gene not in exact and gene.lower() in like}


def case_hint(wanted: Iterable[str], found: Collection[str]) -> str:
    """Returns in a sentence which wanted genes others have in another case alone; nothing where there are none.

    Example:
        >>> case_hint(["EGFR", "TP53", "VWF"], ["egfr", "tp53", "VWF"])
        ' 2 differ only in case (`egfr` for EGFR, `tp53` for TP53): use one spelling.'
        >>> case_hint(["EGFR"], ["Egfr"]).partition(": ")[2]
        'names such as Egfr may be those of a mouse, which needs the symbols of its human orthologues.'
    """
    other = other_case(wanted, found)
    if not other:
        return ""
    of_mouse = [n for n in (*other.values(), *other) if n.capitalize() == n and not is_like_symbol(n)]
    remedy = (
        f"names such as {of_mouse[0]} may be those of a mouse, which needs the symbols of its human orthologues"
        if 2 * len(of_mouse) > len(other)
        else "use one spelling"
    )
    pairs = preview([f"`{name}` for {gene}" for gene, name in other.items()], 3)
    return f" {len(other)} differ{'s' * (len(other) == 1)} only in case ({pairs}): {remedy}."


@cache
def _builtin_aliases() -> Mapping[str, str]:
    with as_file(files("subfuse.expression") / "gene_sets" / "gene_aliases.tsv") as path:
        return read_aliases(path)
