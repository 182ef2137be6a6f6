"""Genes over a cohort: how strong, in which direction, and how stable over the models of the folds."""

from itertools import combinations

import numpy as np
import pandas as pd

_TOP = 20  # genes of a fold's ranking that count as found


def gene_summary(values: pd.DataFrame, *, top: int = _TOP) -> pd.DataFrame:
    """Returns one row per subspace and gene, strongest first within its subspace.

    Columns: subspace, gene; `mean_absolute`, the mean absolute attribution over patients, of whom each weighs the same
    whatever the number of its models; `mean`, the signed mean; `sign`, the share of patients whose attribution is
    positive minus that of negative ones; `direction`, the rank correlation between expression and attribution
    (positive: higher expression raises the score), NaN where either does not vary; `association`, the rank
    correlation between expression and the subspace's share of the score, mean over folds: which genes go along with
    the share, whereas attribution says which ones the network uses (of genes that rise and fall together it may use
    any); `rank`, from 1 by `mean_absolute`; `mean_rank_over_folds`; `top_share`, the share of folds that rank
    the gene among their `top` (as many as the subspace has, at most). Models whose subspace says nothing, since
    their network has no share beside a linear path, rank no genes.

    Args:
        values: One row per patient, subspace and gene: fold, patient_id, subspace, gene, expression (standardised),
            attribution, share (of the subspace in the patient's score). A fold is a model: repeats have numbers of
            their own.
        top: Genes of a fold's ranking that count as found.
    """
    grouped = values.assign(absolute=values["attribution"].abs(), sign=np.sign(values["attribution"]))
    keys = ["subspace", "gene"]
    of_patients = grouped.groupby([*keys, "patient_id"], sort=False)[["absolute", "attribution", "sign"]].mean()
    summary = of_patients.groupby(keys, sort=False).mean()
    summary = summary.rename(columns={"absolute": "mean_absolute", "attribution": "mean"})
    summary["direction"] = _rank_correlation(values, "expression", "attribution")
    by_model = values.groupby("fold", sort=False)
    associations = {fold: _rank_correlation(rows, "expression", "share") for fold, rows in by_model}
    summary["association"] = pd.concat(associations, axis=1).mean(axis=1)
    summary["rank"] = _ranks(summary["mean_absolute"])
    by_fold = _strength_by_fold(values)
    ranks = by_fold.apply(_ranks)
    summary["mean_rank_over_folds"] = ranks.mean(axis=1)
    summary["top_share"] = (ranks <= top).astype(float).where(ranks.notna()).mean(axis=1)
    order = {name: place for place, name in enumerate(dict.fromkeys(values["subspace"]))}
    return summary.reset_index().sort_values(
        ["subspace", "rank"], key=lambda column: column.map(order) if column.name == "subspace" else column,
        ignore_index=True,
    )  # fmt: skip


def of_speaking_models(values: pd.DataFrame) -> pd.DataFrame:
    """Returns the rows of models that say something in the subspace: beside a linear path a network may have no share.

    A subspace in which no model does keeps all its rows.

    Args:
        values: As of `gene_summary`.
    """
    speaks = values["attribution"].fillna(0) != 0
    of_model = speaks.groupby([values["subspace"], values["fold"]], sort=False).transform("any")
    of_any = speaks.groupby(values["subspace"], sort=False).transform("any")
    return values[of_model | ~of_any]


def _strength_by_fold(values: pd.DataFrame) -> pd.DataFrame:
    """Returns each fold's mean absolute attribution: rows subspace and gene, one column per fold.

    It is NaN where the fold's model has no attribution in the subspace but zeros, which are no ranking.
    """
    absolute = values.assign(absolute=values["attribution"].abs())
    strength = absolute.pivot_table(index=["subspace", "gene"], columns="fold", values="absolute", sort=False)
    return strength.where(strength.groupby(level="subspace", sort=False).transform("max") > 0)


def rank_stability(values: pd.DataFrame) -> pd.DataFrame:
    """Returns, per subspace, the rank correlation of the genes' strength between the models of the folds.

    Columns: subspace, n_folds, mean_rank_correlation and lowest_rank_correlation over pairs of folds; NaN for one fold
    or fewer than three genes. Folds whose model says nothing in the subspace do not count.
    """
    rows = []
    for subspace, strength in _strength_by_fold(values).groupby(level="subspace", sort=False):
        by_fold = strength.dropna(axis=1, how="all")
        found = [
            by_fold[first].corr(by_fold[second], method="spearman") if len(by_fold) > 2 else np.nan
            for first, second in combinations(by_fold.columns, 2)
        ]
        rows.append(
            {
                "subspace": subspace,
                "n_folds": by_fold.shape[1],
                "mean_rank_correlation": float(np.mean(found)) if found else np.nan,
                "lowest_rank_correlation": float(np.min(found)) if found else np.nan,
            }
        )
    return pd.DataFrame(rows)


def values_of_top_genes(values: pd.DataFrame, summary: pd.DataFrame, *, top: int = _TOP) -> pd.DataFrame:
    """Returns the rows of the strongest genes of each subspace, strongest gene first: what a beeswarm plot shows."""
    chosen = summary[summary["rank"] <= top][["subspace", "gene", "rank"]]
    return chosen.merge(values, on=["subspace", "gene"], sort=False).drop(columns="rank")


def _ranks(strength: pd.Series) -> pd.Series:
    """Ranks within the subspace, 1 for the strongest."""
    return strength.groupby(level="subspace", sort=False).rank(ascending=False, method="first")


def _rank_correlation(values: pd.DataFrame, first: str, second: str) -> pd.Series:
    """Rank correlation over patients of each subspace and gene; NaN where either column does not vary."""
    keys = ["subspace", "gene"]
    ranked = values.groupby(keys, sort=False)[[first, second]].rank()
    ranked = ranked.set_index(pd.MultiIndex.from_frame(values[keys]))
    centred = ranked - ranked.groupby(level=keys, sort=False).transform("mean")
    products = pd.DataFrame(
        {"both": centred[first] * centred[second], "first": centred[first] ** 2, "second": centred[second] ** 2}
    )
    total = products.groupby(level=keys, sort=False).sum()
    norm = (total["first"] * total["second"]) ** 0.5
    return total["both"] / norm.where(norm > 0)
