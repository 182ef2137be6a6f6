"""Which gene sets the ranked genes of a cohort belong to."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from subfuse.errors import ConfigurationError

COLUMNS = ("ranking", "gene_set", "n_genes", "es", "nes", "p_value", "fdr", "leading_genes")
MIN_GENES = 5  # of a set that are ranked
PERMUTATIONS = 1000


def enrich(
    ranking: pd.Series, gene_sets: Mapping[str, Sequence[str]], *, name: str, seed: int = 0, min_genes: int = MIN_GENES
) -> pd.DataFrame:
    """Returns the enrichment of gene sets in a ranking, most significant first; nothing is downloaded.

    Columns: ranking (its name), gene_set, n_genes (ranked ones), es, nes, p_value, fdr, leading_genes (separated by
    spaces). Sets with fewer than `min_genes` ranked genes, or with all of them, are left out: there is nothing to
    compare with.

    Args:
        ranking: Score by gene. Positive sets gather at the top, negative ones at the bottom.
        gene_sets: Set name to its genes.
        name: What the ranking is.
        seed: Of the permutations of genes.
        min_genes: Least number of ranked genes.

    Raises:
        ConfigurationError: The extra `omics` is missing.

    Source: Subramanian et al., Gene set enrichment analysis, PNAS 2005 (pre-ranked), through GSEApy.
    """
    ranking = ranking.dropna().sort_values(ascending=False, kind="stable")
    ranked = set(ranking.index)
    usable = {
        set_name: [gene for gene in genes if gene in ranked]
        for set_name, genes in gene_sets.items()
        if min_genes <= len(ranked.intersection(genes)) < len(ranked)
    }
    if not usable or ranking.nunique() < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    gseapy = _gseapy()
    result = gseapy.prerank(
        rnk=ranking,
        gene_sets=usable,
        outdir=None,
        min_size=min_genes,
        max_size=len(ranking),
        permutation_num=PERMUTATIONS,
        threads=1,
        seed=seed,
        no_plot=True,
    ).res2d
    table = pd.DataFrame(
        {
            "ranking": name,
            "gene_set": result["Term"].astype(str),
            "n_genes": [len(usable[str(term)]) for term in result["Term"]],
            "es": result["ES"].astype(float),
            "nes": result["NES"].astype(float),
            "p_value": result["NOM p-val"].astype(float),
            "fdr": result["FDR q-val"].astype(float),
            "leading_genes": [str(genes).replace(";", " ") for genes in result["Lead_genes"]],
        }
    )
    order = table.assign(weaker=-np.abs(table["nes"])).sort_values(["fdr", "weaker", "gene_set"]).index
    return table.loc[order].reset_index(drop=True)


def _gseapy() -> Any:
    try:
        import gseapy
    except ImportError as error:
        raise ConfigurationError(f"Enrichment needs GSEApy ({error}). Run: pip install 'subfuse[omics]'.") from error
    return gseapy
