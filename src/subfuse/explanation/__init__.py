"""Explanations: patches, genes, subspaces and modalities behind a prediction."""

from subfuse.explanation.attribution import (
    Attribution,
    contribution_ledger,
    converged_gradients,
    integrated_gradients,
    subspace_contributions,
)
from subfuse.explanation.cohort.cohort_explanation import explain_cohort
from subfuse.explanation.cohort.enrichment import enrich, enrich_subspaces
from subfuse.explanation.cohort.fold_explanation import FoldModel
from subfuse.explanation.heatmaps import colour_limit, heat_map, write_geojson

__all__ = [
    "Attribution",
    "FoldModel",
    "colour_limit",
    "contribution_ledger",
    "converged_gradients",
    "enrich",
    "enrich_subspaces",
    "explain_cohort",
    "heat_map",
    "integrated_gradients",
    "subspace_contributions",
    "write_geojson",
]
