"""What the models of a task rely on over all patients: subspaces, genes, gene sets, and whether that is true."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from subfuse.errors import counted, listed
from subfuse.evaluation.floors import LEAST_EXPLAINED, STABLE
from subfuse.evaluation.metrics import number, p_value_text
from subfuse.report.figures.reliance import GenePoints, RemovalCurve, beeswarm, removal_curves
from subfuse.report.run_files import RunFiles
from subfuse.report.statements import Drawn, PlainTable, interval_text, titled
from subfuse.run_folder.explanations import CohortExplanation
from subfuse.training.models import subspace_title

TOP_GENES = 12
TOP_SETS = 12
MAX_FIGURE_BYTES = 1_500_000  # of all tasks, so that the report stays below 15 MB; the tables say the same
_MEASURES = {
    "deletion": "Deletion against random order",
    "insertion": "Insertion against random order",
    "random_weights": "Rank correlation with random weights",
    "random_weights_absolute": "The same, absolute values",
}
_ORDERS = {"deletion": "highest first", "random": "random order", "insertion": "lowest first"}
_UNSTABLE = "genes not stable over folds"
_DIRECTION = 0.3  # rank correlation from which on a gene's direction is put into words


def reliance_section(run: RunFiles) -> list[dict[str, Any]]:
    """Returns one part per task whose models were explained over the cohort; none where that was not done."""
    order = {task: place for place, task in enumerate(run.tasks)}
    room = MAX_FIGURE_BYTES
    parts = []
    for explained in sorted(run.cohort_explanations, key=lambda found: order.get(found.task, len(order))):
        part = _of_task(explained)
        room -= sum(len(drawn.svg) for drawn in part["figures"])
        parts.append(part if room >= 0 else part | {"figures": []})
    return parts


def _of_task(explained: CohortExplanation) -> dict[str, Any]:
    return {
        "title": titled(explained.task),
        "gist": _most(explained.summary.get("shares", ())),
        "lede": _lede(explained.summary),
        "shares": _share_rows(explained.summary.get("shares", [])),
        "figures": [*_beeswarms(explained), *_removal_figures(explained)],
        "genes": _gene_table(explained),
        "genes_reserve": _gene_reserve(explained),
        "stability": _stability(explained.stability),
        "enrichment": _enrichment_table(explained.enrichment),
        "enrichment_reserve": _fdr_reserve(explained.enrichment),
        "faithfulness": _faithfulness_table(explained.faithfulness),
    }


def _lede(summary: Mapping[str, Any]) -> str:
    if not summary:
        return ""
    size = (
        f"{counted(summary['n_patients'], 'patient')}, each explained by "
        f"{'a model' if summary['n_models'] > 1 else 'the model'} that did not train on them"
    )
    gap = summary.get("relative_gap")
    detail = "" if gap is None else f" Median completeness gap {gap['median']:.1%}, largest {gap['largest']:.1%}."
    explained = summary.get("explained", {})
    score = listed(f"{name} ({counted(n, 'patient')})" for name, n in explained.items())
    return f"{size}. What is explained: {score}.{detail}" if score else f"{size}.{detail}"


def _most(shares: Sequence[Mapping[str, Any]]) -> str:
    """Returns the subspace and modality with the largest share of the contributions; empty if none is known."""
    known = [row for row in shares if row["share"] is not None]
    if not known:
        return ""
    row = max(known, key=lambda row: row["share"])
    return f"most on {row['modality']}, {subspace_title(row['subspace'])} ({row['share']:.0%})"


def _share_rows(shares: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    return [
        {
            "subspace": subspace_title(str(row["subspace"])),
            "modality": str(row["modality"]),
            "fraction": f"{row['share'] or 0:.3f}",
            "share": "undefined" if row["share"] is None else f"{row['share']:.0%}",
            "mean": number(np.nan if row["mean"] is None else row["mean"], signed=True),
        }
        for row in shares
    ]


def _top(genes: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yields the strongest genes of each subspace, in the order of the table."""
    for subspace, rows in genes.groupby("subspace", sort=False) if len(genes) else ():
        strongest = rows.sort_values("rank").head(TOP_GENES)
        yield str(subspace), strongest[strongest["mean_absolute"] > 0]


def _beeswarms(explained: CohortExplanation) -> Iterator[Drawn]:
    values = explained.values
    for subspace, rows in _top(explained.genes) if len(values) else ():
        of_subspace = values[values["subspace"] == subspace].dropna(subset=["attribution", "expression"])
        points = []
        for gene in rows["gene"]:
            found = of_subspace[of_subspace["gene"] == gene]
            columns = (found[name].to_numpy(dtype=float) for name in ("attribution", "expression"))
            points.append(GenePoints(str(gene), *columns))
        points = [row for row in points if len(row.contribution)]
        if not points:
            continue
        directions = [f"{row['gene']} {_direction(explained, row)}".strip() for row in rows.to_dict("records")]
        yield Drawn(
            Markup(beeswarm(points, score_name=_score_name(explained))),
            title=f"Genes over patients, {subspace_title(subspace)}",
            caption=f"One point per patient, by contribution to {_score_name(explained)}, strongest gene on top; "
            "integrated gradients. Triangles: expression above the training mean; circles: below.",
            alt=f"Contribution of the strongest genes of {subspace_title(subspace)} to {_score_name(explained)} in "
            f"every patient: {'; '.join(directions)}.",
        )


def _direction(explained: CohortExplanation, row: Mapping[Any, Any]) -> str:
    """Returns a gene's direction in words; none where the explained class, and so the score, differs by patient."""
    correlation = row["direction"]
    if len(explained.summary.get("explained", ())) > 1:
        return ""
    if np.isnan(correlation) or abs(correlation) < _DIRECTION:
        return "no clear direction"
    return f"higher expression {'raises' if correlation > 0 else 'lowers'} {_score_name(explained)}"


def _score_name(explained: CohortExplanation) -> str:
    """Returns what is explained: the hazard, the score of a class, or that of each patient's predicted class."""
    return str(explained.summary.get("score_name", "the explained score"))


def _gene_table(explained: CohortExplanation) -> PlainTable | None:
    columns = ("Subspace", "Rank", "Gene", "Mean |contribution|", "Folds with it on top",
               "Expression and share", "Direction")  # fmt: skip
    n_models = explained.summary.get("n_models", 0)
    speaking = _speaking(explained.stability)
    rows = [
        (
            subspace_title(subspace),
            str(int(row["rank"])),
            str(row["gene"]),
            f"{row['mean_absolute']:.3g}",
            _on_top(row["top_share"], speaking.get(subspace, n_models), n_models),
            number(row.get("association", np.nan), signed=True),
            _direction(explained, row) or "not defined: the class that is explained differs by patient",
        )
        for subspace, genes in _top(explained.genes)
        for row in genes.to_dict("records")
    ]
    return PlainTable(columns, rows, frozenset({columns[1], *columns[3:6]})) if rows else None


def _gene_reserve(explained: CohortExplanation) -> str:
    """Returns what speaks against genes that are on top in many folds, once for the whole table; empty for nothing."""
    table, n_patients = explained.stability, explained.summary.get("n_patients", LEAST_EXPLAINED)
    unstable = table.loc[table["mean_rank_correlation"] < STABLE, "subspace"].tolist() if len(table) else []
    reserves = [f"{_UNSTABLE} in {', '.join(map(subspace_title, map(str, unstable)))}"] if unstable else []
    reserves += [f"only {counted(n_patients, 'patient')}"] if n_patients < LEAST_EXPLAINED else []
    little = f"Trust the ranks little: {'; '.join(reserves)}." if reserves else ""
    n_models = explained.summary.get("n_models", 0)
    silent = [f"{subspace_title(name)} in {n_models - n}" for name, n in _speaking(table).items() if n < n_models]
    left_out = (
        "Left out are folds in which no gene says anything, as in a network without a share beside its linear path: "
        f"{', '.join(silent)} of {n_models}."
    )
    return " ".join(filter(None, (left_out if silent else "", little)))


def _speaking(stability: pd.DataFrame) -> dict[str, int]:
    """Returns the number of folds whose model says something in each subspace."""
    return dict(zip(stability["subspace"], stability["n_folds"].astype(int), strict=True)) if len(stability) else {}


def _on_top(share: float, n_speaking: int, n_models: int) -> str:
    """Returns in which share of the folds that speak a gene is on top, and how many these are if not all."""
    if np.isnan(share):
        return "undefined"
    return f"{share:.0%}" if n_speaking >= n_models else f"{share:.0%} of {n_speaking} of {n_models} folds"


def _stability(table: pd.DataFrame) -> str:
    """Returns how alike the models of the folds rank the genes."""
    known = table.dropna(subset=["mean_rank_correlation"]) if len(table) else table
    parts = [
        f"{subspace_title(row['subspace'])} {number(row['mean_rank_correlation'])} "
        f"(lowest {number(row['lowest_rank_correlation'])})"
        for row in known.to_dict("records")
    ]
    if not parts:
        return "Stability over folds is undefined: it needs two models that rank the genes, and three genes."
    return f"Rank correlation of the genes' strength between the models of the folds: {', '.join(parts)}."


def _enrichment_table(table: pd.DataFrame | None) -> PlainTable | str:
    if table is None:
        return "Enrichment of gene sets was not computed."
    if table.empty:
        return "No gene set has enough ranked genes for a test of enrichment."
    columns = ("Subspace", "Ranking", "Gene set", "Genes", "Normalised score", "p", "FDR", "Leading genes")
    rows = [
        (
            subspace_title(str(row["subspace"])),
            str(row["ranking"]),
            str(row["gene_set"]),
            str(row["n_genes"]),
            number(row["nes"], signed=True),
            p_value_text(row["p_value"]),
            "none" if pd.isna(row["fdr"]) else p_value_text(row["fdr"]),
            "" if pd.isna(row["leading_genes"]) else _first_genes(str(row["leading_genes"])),
        )
        for _, found in table.groupby(["subspace", "ranking"], sort=False)
        for row in found.head(TOP_SETS).to_dict("records")
    ]
    return PlainTable(columns, rows, frozenset(columns[3:7]))


def _fdr_reserve(table: pd.DataFrame | None) -> str:
    """Returns which subspaces have no false discovery rate, and why; empty where all have one."""
    if table is None or table.empty:
        return ""
    without = table[table["fdr"].isna()].drop_duplicates("subspace")
    whys = without["stability"].isna().map({True: "stability undefined", False: _UNSTABLE})
    told = ", ".join(
        f"{subspace_title(subspace)} ({why})" for subspace, why in zip(without["subspace"], whys, strict=True)
    )
    return f"No FDR in {told}." if told else ""


def _first_genes(genes: str) -> str:
    names = genes.split()
    return " ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _faithfulness_table(summary: Mapping[str, Any]) -> PlainTable | None:
    columns = ("Of", "Test", "Mean", "95 % interval", "Patients", "Better than random")
    rows = [
        (
            inputs,
            _MEASURES.get(measure, measure),
            number(np.nan if entry["mean"] is None else entry["mean"], signed=True),
            _interval(entry),
            str(entry["n_patients"]),
            f"{entry['better_than_random']:.0%}" if entry.get("better_than_random") is not None else "",
        )
        for inputs, measures in summary.items()
        for measure, entry in measures.items()
    ]
    return PlainTable(columns, rows, frozenset(columns[2:])) if rows else None


def _interval(entry: Mapping[str, Any]) -> str:
    return interval_text(*(np.nan if entry[name] is None else entry[name] for name in ("lower", "upper")))


def _removal_figures(explained: CohortExplanation) -> Iterator[Drawn]:
    """Yields, per kind of input, how the score changes while it is replaced in three orders."""
    curves, score = explained.curves, _score_name(explained)
    for inputs, rows in curves.groupby("input", sort=False) if len(curves) else ():
        by_order = {str(order): of_order.sort_values("removed") for order, of_order in rows.groupby("order")}
        half = {order: number(float(found["change"].iloc[len(found) // 2])) for order, found in by_order.items()}
        described = "; ".join(f"{_ORDERS[order]} {change}" for order, change in half.items())
        yield Drawn(
            Markup(removal_curves({name: _removal_curve(found) for name, found in by_order.items()}, score_name=score)),
            title=f"Are the explanations true? {str(inputs).capitalize()}",
            caption=f"Mean over {counted(int(rows['n_patients'].max()), 'patient')} while {inputs} are replaced by the "
            f"average one. If the attributions are true, replacing the highest first lowers {score} faster than "
            "random order, and the lowest first slower. Bands: 95 % interval of the difference from random order.",
            alt=f"Change of {score} with half of the {inputs} replaced: {described}.",
        )


def _removal_curve(found: pd.DataFrame) -> RemovalCurve:
    removed, change, difference, lower, upper = (
        found[name].to_numpy(dtype=float) for name in ("removed", "change", "against_random", "lower", "upper")
    )
    return RemovalCurve(removed, change, change + lower - difference, change + upper - difference)
