"""Which gene sets the strongest genes of a subspace belong to, against what chance gives genes that go together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control

from subfuse.evaluation.floors import STABLE

COLUMNS = (
    "subspace", "ranking", "gene_set", "n_genes", "es", "nes", "p_value", "fdr", "stability", "leading_genes",
)  # fmt: skip
MIN_GENES = 5  # of a set, and of the subspace beside it
PERMUTATIONS = 4000


def enrich(
    ranking: pd.Series,
    gene_sets: Mapping[str, Sequence[str]],
    *,
    expression: pd.DataFrame,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> pd.DataFrame:
    """Returns the enrichment of gene sets among the ranked genes of one subspace, most significant first.

    Columns: gene_set; n_genes, the ranked ones; es, the enrichment score; nes, the score in units of its mean under
    chance; p_value; leading_genes (separated by spaces). Sets that have fewer than 5 ranked genes, or leave fewer than
    5 to compare with, are left out.

    Genes of one set rise and fall together, so that a model which learned from noise ranks them alike: permuted genes
    would make every set of them significant. Here chance is an outcome that has nothing to do with the patients: genes
    are ranked by their correlation with random numbers, one per patient, which keeps how they go together.
    p = (k + 1) / (n + 1), where k of the n random rankings with a score of the same sign reach the set's score: it is
    never 0.

    Relative to the paper: there the outcome is permuted and genes are ranked again; the network cannot be trained a
    thousand times, so the genes get the values of the ranking itself, in the order of their random correlations.

    Args:
        ranking: Value by gene, unique. Positive sets gather at the top, negative ones at the bottom. Where no value is
            negative, random correlations count by their size.
        gene_sets: Set name to its genes.
        expression: Of the ranked genes, one row per patient.
        seed: Of the random outcomes and of the order of equal values.
        permutations: Number of random outcomes.

    Source: Subramanian et al., Gene set enrichment analysis, PNAS 2005; Phipson and Smyth, Permutation p-values should
    never be zero, 2010; Wu and Smyth, Camera, 2012, on genes that are correlated.
    """
    generator = np.random.default_rng(seed)
    ranking = ranking.dropna()
    ranking = ranking.iloc[generator.permutation(len(ranking))].sort_values(ascending=False, kind="stable")
    members = {name: ranking.index.isin(list(genes)) for name, genes in gene_sets.items()}
    usable = {name: found for name, found in members.items() if MIN_GENES <= found.sum() <= len(found) - MIN_GENES}
    if not usable or ranking.nunique() < 2:
        return pd.DataFrame(columns=["gene_set", "n_genes", "es", "nes", "p_value", "leading_genes"])
    values = ranking.to_numpy(float)
    random = _random_places(
        expression[list(ranking.index)].to_numpy(float), permutations, generator, by_size=bool((values >= 0).all())
    )
    rows = []
    for name, is_member in usable.items():
        score = running_sum(values, np.flatnonzero(is_member)[None])
        es, chance = score.es[0], running_sum(values, random[:, is_member]).es
        same_sign = np.abs(chance[np.sign(chance) == np.sign(es)])
        reach = (same_sign >= abs(es)).sum()
        rows.append(
            {
                "gene_set": name,
                "n_genes": int(is_member.sum()),
                "es": es,
                "nes": es / same_sign.mean() if len(same_sign) else np.nan,
                "p_value": (reach + 1) / (len(same_sign) + 1),
                "leading_genes": " ".join(ranking.index[place] for place in score.leading_places()),
            }
        )
    return pd.DataFrame(rows).sort_values(["p_value", "gene_set"], ignore_index=True)


def enrich_subspaces(
    rankings: Mapping[str, pd.Series],
    gene_sets: Mapping[str, Sequence[str]],
    *,
    expression: pd.DataFrame,
    stability: Mapping[str, float],
    seed: int = 0,
) -> pd.DataFrame:
    """Returns the enrichment of gene sets in every subspace, in the columns `COLUMNS`.

    Genes are ranked within their subspace: how strong a gene can be depends on how many share the subspace. `fdr` is
    the false discovery rate (Benjamini-Hochberg) over all tests of the table. Where the models of the folds do not
    agree on the genes (`stability` below 0.5, or undefined) a set of them says nothing about the next cohort: the row
    has no `fdr`, and no part in that of others.

    Args:
        rankings: Name of each ranking to its values, indexed by subspace and gene.
        gene_sets: Set name to its genes.
        expression: One row per patient, columns are genes.
        stability: Mean rank correlation of the genes between folds, by subspace; see `rank_stability`.
        seed: See `enrich`.
    """
    tables = [
        enrich(values.droplevel("subspace"), gene_sets, expression=expression, seed=seed).assign(
            subspace=subspace, ranking=name, stability=stability.get(str(subspace), np.nan)
        )
        for name, ranking in rankings.items()
        for subspace, values in ranking.groupby(level="subspace", sort=False)
    ]
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.concat(filled, ignore_index=True)
    is_tested = table["stability"] >= STABLE
    table["fdr"] = np.nan
    if is_tested.any():
        table.loc[is_tested, "fdr"] = false_discovery_control(table.loc[is_tested, "p_value"])
    return table[list(COLUMNS)]


@dataclass(frozen=True)
class RunningSum:
    """The running sum along the ranking: up at a gene of the set, by its share of the set's values, else down.

    Args:
        es: Its largest deviation from 0.
        place: Places of the set's genes, first to last.
        after: The sum after each of them.
        before: The sum before each of them.
    """

    es: Float[np.ndarray, " row"]
    place: Int[np.ndarray, "row member"]
    after: Float[np.ndarray, "row member"]
    before: Float[np.ndarray, "row member"]

    def leading_places(self) -> list[int]:
        """Returns the places of the first row's genes up to the peak, or from the trough on."""
        if self.es[0] > 0:
            return self.place[0, : int(self.after[0].argmax()) + 1].tolist()
        return self.place[0, int(self.before[0].argmin()) :].tolist()


def running_sum(values: Float[np.ndarray, " gene"], places: Int[np.ndarray, "row member"]) -> RunningSum:
    """Returns the running sums of sets whose genes are at some places of a ranking.

    Args:
        values: The ranking's values, in order.
        places: Places of the genes of a set, a set per row.
    """
    places = np.sort(places, axis=1)
    n_members = places.shape[1]
    size = np.abs(values)[places]
    total = size.sum(axis=1, keepdims=True)
    size = np.where(total > 0, size, 1.0) / np.where(total > 0, total, n_members)
    missed = (places - np.arange(n_members)) / (len(values) - n_members)
    after = size.cumsum(axis=1) - missed
    before = after - size
    highest, lowest = after.max(axis=1), before.min(axis=1)
    return RunningSum(np.where(highest >= -lowest, highest, lowest), places, after, before)


def _random_places(
    expression: Float[np.ndarray, "patient gene"], count: int, generator: np.random.Generator, *, by_size: bool
) -> Int[np.ndarray, "row gene"]:
    """Returns the place of each gene in rankings by correlation with random outcomes."""
    centred = expression - expression.mean(axis=0)
    spread = np.sqrt((centred**2).sum(axis=0))
    standardised = centred / np.where(spread > 0, spread, 1.0)
    outcome = generator.normal(size=(count, len(expression)))
    correlation = outcome @ standardised
    constant: Bool[np.ndarray, " gene"] = spread == 0  # go along with nothing: anywhere
    correlation[:, constant] = generator.normal(size=(count, int(constant.sum())))
    order = np.argsort(-np.abs(correlation) if by_size else -correlation, axis=1)
    places = np.empty_like(order)
    np.put_along_axis(places, order, np.arange(order.shape[1])[None], axis=1)
    return places
