"""What models rely on over a cohort: genes, subspaces and modalities, enrichment, and how stable that is."""

from subfuse.lazy import on_first_use

_NAMES = {
    "FoldModel": "fold_explanation",
    "enrich": "enrichment",
    "enrich_subspaces": "enrichment",
    "explain_cohort": "cohort_explanation",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
