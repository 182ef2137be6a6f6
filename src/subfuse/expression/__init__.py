"""Expression: matrices, GDC STAR and IvyGAP, units, gene names and gene sets, on one axis of genes."""

from subfuse.lazy import on_first_use

_NAMES = {
    "ExpressionSection": "source",
    "ExpressionTable": "table",
    "GeneSetSource": "source",
    "load_gene_sets": "gene_sets",
    "read_expression": "reading",
    "read_gmt": "gene_sets",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
