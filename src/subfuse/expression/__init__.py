"""Expression: matrices, GDC STAR and IvyGAP, units, gene names and gene sets, on one axis of genes."""
