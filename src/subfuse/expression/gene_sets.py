"""Gene sets: GMT files, the built-in tumour and microenvironment knowledge, and how much of it a cohort measures."""

from collections.abc import Mapping, Sequence
from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

from subfuse.bounded_files import require_regular_file
from subfuse.errors import ConfigurationError, DataError, preview
from subfuse.expression.gene_names import approved_name, case_hint, gene_aliases, is_like_symbol
from subfuse.expression.source import GeneSetSource

BUILTIN = ("tumour", "microenvironment")
_FEW_GENES = 0.5  # share of a subspace


def read_gmt(path: Path) -> dict[str, tuple[str, ...]]:
    """Returns the sets of a GMT file: name to gene symbols, sorted and without repetition.

    A line holds a name, a description and the genes, separated by tabs. Byte order mark, Windows line ends and empty
    lines are fine.

    Raises:
        DataError: A line has fewer than three fields, a gene with spaces (two symbols glued together), a name that
            occurred before, or the file has no set. Names file and line.
    """
    require_regular_file(Path(path), "GMT file")
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: a GMT file is required. Found: {error.strerror}. Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: a GMT file is UTF-8 text. Found other bytes. Save it as plain text.") from error
    sets: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, genes = _gmt_line(line, f"{path}, line {number}")
        if name in sets:
            raise DataError(f"{path}, line {number}: set names must be unique. Found {name!r} again. Rename one.")
        sets[name] = genes
    if not sets:
        raise DataError(f"{path}: at least one gene set is required. Found an empty file.")
    return sets


def load_gene_sets(
    sections: Mapping[str, GeneSetSource], aliases: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Returns each subspace's genes under their approved symbols: the sorted union of its sets.

    Args:
        sections: Subspace name to where its sets come from (`gene_sets` of the cohort file), in the order that the
            subspaces will have everywhere.
        aliases: Earlier names to approved ones; None: the built-in ones, see `gene_aliases`.

    Raises:
        ConfigurationError: `builtin` for a subspace that has no built-in sets, or a chosen set that the file lacks.
        DataError: The GMT file is malformed.
    """
    names = gene_aliases() if aliases is None else aliases
    return {
        subspace: tuple(sorted({gene for genes in _chosen_sets(subspace, source, names).values() for gene in genes}))
        for subspace, source in sections.items()
    }


def load_pathways(
    sections: Mapping[str, GeneSetSource], genes: Sequence[str], aliases: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    """Returns every single set behind the subspaces with its measured genes; sets without one are left out.

    A set that several subspaces use is there once. Where they mean different genes by the same name, the later one
    is called `<subspace>/<name>`.

    Args:
        sections: As for `load_gene_sets`.
        genes: The measured genes.
        aliases: As for `load_gene_sets`.

    Raises:
        ConfigurationError: As for `load_gene_sets`.
        DataError: As for `load_gene_sets`.
    """
    measured, names = set(genes), gene_aliases() if aliases is None else aliases
    pathways: dict[str, tuple[str, ...]] = {}
    for subspace, source in sections.items():
        for name, wanted in _chosen_sets(subspace, source, names).items():
            found = tuple(gene for gene in wanted if gene in measured)
            if found:
                pathways[name if pathways.get(name, found) == found else f"{subspace}/{name}"] = found
    return pathways


def restrict_to_axis(gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns each subspace's genes that are measured.

    Raises:
        DataError: A subspace has no gene on the axis: it could not be modelled.
    """
    measured = set(genes)
    restricted = {name: tuple(gene for gene in wanted if gene in measured) for name, wanted in gene_sets.items()}
    for name, found in restricted.items():
        if not found:
            remedy = case_hint(gene_sets[name], genes) or (
                " Use gene symbols (a table of identifiers and symbols is `expression.aliases`), or another GMT file."
            )
            raise DataError(
                f"gene_sets.{name}: at least one of its {len(gene_sets[name])} genes must be measured. Found none "
                f"among the {len(genes)} genes of the expression table (it has {preview(genes)}; the subspace has "
                f"{preview(gene_sets[name])}).{remedy}"
            )
    return restricted


def gene_indices(gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> dict[str, list[int]]:
    """Returns each subspace's positions on the gene axis, as models take them.

    Raises:
        DataError: A gene of a set is not on the axis (`restrict_to_axis` comes first).
    """
    position = {gene: index for index, gene in enumerate(genes)}
    for name, wanted in gene_sets.items():
        missing = [gene for gene in wanted if gene not in position]
        if missing:
            raise DataError(f"gene_sets.{name}: every gene must be on the gene axis. Missing: {preview(missing)}.")
    return {name: [position[gene] for gene in wanted] for name, wanted in gene_sets.items()}


def coverage(gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> pd.DataFrame:
    """Returns how much of every subspace is measured.

    Columns: `subspace`, `n_genes`, `n_found`, `fraction` (found / genes), `missing` (the first missing symbols),
    `overlap` (found genes that other subspaces share, for example `microenvironment: 2 (THY1, VIM)`).
    """
    measured = set(genes)
    found = {name: set(wanted) & measured for name, wanted in gene_sets.items()}
    rows = []
    for name, wanted in gene_sets.items():
        shared = {other: sorted(found[name] & found[other]) for other in gene_sets if other != name}
        rows.append(
            {
                "subspace": name,
                "n_genes": len(wanted),
                "n_found": len(found[name]),
                "fraction": len(found[name]) / len(wanted),
                "missing": preview([gene for gene in wanted if gene not in measured]),
                "overlap": "; ".join(f"{other}: {len(s)} ({preview(s)})" for other, s in shared.items() if s),
            }
        )
    return pd.DataFrame(rows, columns=["subspace", "n_genes", "n_found", "fraction", "missing", "overlap"])


def few_measured(found: pd.DataFrame, unknown: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns a warning for each subspace of whose genes fewer than half are measured, with what may be the cause.

    Args:
        found: As `coverage` returns it.
        unknown: Genes of the expression table that no set names; the warning shows some that are no symbols.
    """
    if found.empty:
        return ()
    others = [name for name in unknown if not is_like_symbol(name)]
    advice = (
        f"Where the expression table names genes by other identifiers than symbols (it has {preview(others, 3)}), give "
        "`expression.aliases`; where it is a panel, give a GMT file of what it measures"
        if others
        else "Where the expression table is a panel, give a GMT file of what it measures; where its symbols are "
        "earlier ones, give `expression.aliases`"
    )
    return tuple(
        f"gene_sets.{row.subspace}: {row.n_found} of {row.n_genes} genes are measured, and models see these alone. "
        f"{advice}; else look for the whole table."
        for row in found[found["n_found"] < _FEW_GENES * found["n_genes"]].itertuples()
    )


def measured_in_another_case(gene_sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> tuple[str, ...]:
    """Returns a warning where the expression table has genes of the sets in another case, which are not used."""
    hint = case_hint(sorted(set().union(*gene_sets.values())), genes)
    return (f"gene_sets: models do not see genes that the expression table spells otherwise.{hint}",) if hint else ()


def _gmt_line(line: str, place: str) -> tuple[str, tuple[str, ...]]:
    name, *rest = [field.strip() for field in line.split("\t")]
    genes = sorted({gene for gene in rest[1:] if gene})
    if not name or not genes:
        raise DataError(
            f"{place}: a name, a description and at least one gene, separated by tabs, are required. "
            f"Found {len(rest) + 1} field(s): {line[:60]!r}."
        )
    glued = [gene for gene in genes if len(gene.split()) > 1]
    if glued:
        raise DataError(f"{place}: gene symbols have no spaces. Found {preview(glued)}. Separate genes by tabs.")
    return name, tuple(genes)


def _chosen_sets(subspace: str, source: GeneSetSource, aliases: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    if source.gmt is None and subspace not in BUILTIN:
        raise ConfigurationError(
            f"gene_sets.{subspace}: built-in sets exist for {' and '.join(BUILTIN)}. Give a GMT file for this subspace."
        )
    sets = _read_builtin(subspace) if source.gmt is None else read_gmt(source.gmt)
    chosen = source.sets if source.sets is not None else tuple(sets)
    unknown = [name for name in chosen if name not in sets]
    if unknown:
        raise ConfigurationError(
            f"gene_sets.{subspace}.sets: not in {source.gmt or 'the built-in sets'}: {preview(unknown)}. "
            f"It has {preview(sets, limit=12)}."
        )
    return {name: tuple(sorted({approved_name(gene, aliases) for gene in sets[name]})) for name in chosen}


def _read_builtin(subspace: str) -> dict[str, tuple[str, ...]]:
    with as_file(files("subfuse.expression") / "gene_sets" / f"{subspace}.gmt") as path:
        return read_gmt(path)
