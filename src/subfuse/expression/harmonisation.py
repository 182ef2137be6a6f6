"""How well two cohorts' expression fits together: shared genes, missing ones, and shifts of their distributions."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.errors import DataError, preview
from subfuse.expression.table import ExpressionStandardiser, ExpressionTable

_QUANTILES = np.linspace(0.005, 0.995, 100)
_MEASURES = ("shift", "shift_max", "ks", "wasserstein")


def harmonise(
    reference: ExpressionTable | ExpressionStandardiser,
    other: ExpressionTable,
    gene_sets: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Returns how another cohort's expression compares with that of a reference, per gene set and over all genes.

    Genes are matched by name. Columns: `gene_set` (the last row is `all genes`), `n_genes` (of the set; of the
    reference in the last row), `n_shared` (in both), `missing` (symbols that the other cohort lacks but the reference
    has), `missing_in_reference`, and medians over the shared genes of

    - `shift`: |difference of means| / pooled spread (standardised mean difference; `shift_max` is the largest gene's),
    - `ks`: Kolmogorov-Smirnov statistic, 0 (same distribution) to 1 (disjoint),
    - `wasserstein`: mean distance of quantiles, in units of the reference's spread.

    Genes that are constant in both cohorts and equal have a shift of 0. Where no gene is shared, measures are NaN.

    Args:
        reference: The development cohort; or the standardiser of a trained model, which knows means and spreads only:
            `ks` and `wasserstein` are then NaN.
        other: The cohort that is compared.
        gene_sets: Subspace or set to gene symbols.

    Raises:
        DataError: Tables on different scales: nothing could be compared.
    """
    if isinstance(reference, ExpressionTable) and reference.scale != other.scale:
        raise DataError(
            f"expression must be on one scale in both cohorts. Found {reference.scale} (unit {reference.unit}) and "
            f"{other.scale} (unit {other.unit}). Prepare both from the same kind of unit, or both with "
            "`standardise: cohort`."
        )
    genes = reference.genes if isinstance(reference, ExpressionStandardiser) else reference.values.columns
    known, measured = set(genes), set(other.values.columns)
    shared = [gene for gene in genes if gene in measured]
    measures = _compare(reference, other, shared)
    rows = [
        _row(name, list(wanted), known, measured, measures)
        for name, wanted in {**gene_sets, "all genes": genes}.items()
    ]
    return pd.DataFrame(rows)


def _row(
    name: str, wanted: list[str], known: set[str], measured: set[str], measures: pd.DataFrame
) -> dict[str, object]:
    found = measures.loc[[gene for gene in wanted if gene in measures.index]]
    return {
        "gene_set": name,
        "n_genes": len(wanted),
        "n_shared": len(found),
        "missing": preview([gene for gene in wanted if gene in known and gene not in measured]),
        "missing_in_reference": preview([gene for gene in wanted if gene not in known]),
        **{measure: _summary(found[measure].to_numpy(), largest=measure == "shift_max") for measure in _MEASURES},
    }


def _summary(values: Float[np.ndarray, " gene"], *, largest: bool) -> float:
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan")
    return float(known.max() if largest else np.median(known))


def _compare(
    reference: ExpressionTable | ExpressionStandardiser, other: ExpressionTable, shared: list[str]
) -> pd.DataFrame:
    """Returns the measures of every shared gene."""
    if not shared:
        return pd.DataFrame(index=pd.Index([]), columns=list(_MEASURES), dtype=np.float64)
    new = other.values[shared].to_numpy(dtype=np.float64)
    if isinstance(reference, ExpressionStandardiser):
        position = {gene: index for index, gene in enumerate(reference.genes)}
        chosen = [position[gene] for gene in shared]
        mean, spread = reference.mean[chosen].astype(np.float64), reference.scale[chosen].astype(np.float64)
        ks = wasserstein = np.full(len(shared), np.nan)
    else:
        old = reference.values[shared].to_numpy(dtype=np.float64)
        mean, spread = old.mean(axis=0), old.std(axis=0)
        ks = np.array([_ks(np.sort(old[:, gene]), np.sort(new[:, gene])) for gene in range(len(shared))])
        distance = np.abs(np.quantile(old, _QUANTILES, axis=0) - np.quantile(new, _QUANTILES, axis=0)).mean(axis=0)
        wasserstein = _ratio(distance, spread)
    shift = _ratio(np.abs(new.mean(axis=0) - mean), np.sqrt((spread**2 + new.std(axis=0) ** 2) / 2))
    return pd.DataFrame({"shift": shift, "shift_max": shift, "ks": ks, "wasserstein": wasserstein}, index=shared)


def _ks(old: Float[np.ndarray, " patient"], new: Float[np.ndarray, " other"]) -> float:
    both = np.concatenate([old, new])
    share_old = np.searchsorted(old, both, side="right") / len(old)
    share_new = np.searchsorted(new, both, side="right") / len(new)
    return float(np.abs(share_old - share_new).max())


def _ratio(distance: Float[np.ndarray, " gene"], spread: Float[np.ndarray, " gene"]) -> Float[np.ndarray, " gene"]:
    """Returns distance / spread: 0 where both are 0, infinite where only the spread is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance <= 1e-6, 0.0, distance / spread)
