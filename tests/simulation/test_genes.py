"""Simulated genes: counts follow the latents through causal genes alone."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from subfuse.simulation.genes import draw_counts, draw_genes, star_table
from subfuse.simulation.patients import LATENTS


def test_causal_genes_and_no_others_follow_the_latents():
    generator = np.random.default_rng(0)
    genes = draw_genes(generator)
    views = generator.standard_normal((150, 2))
    tpm = [star_table(genes, draw_counts(genes, tuple(v), generator), generator)["tpm_unstranded"] for v in views]
    values = np.log2(np.array(tpm) + 1)

    standardised = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    correlation = np.abs(standardised.T @ (views - views.mean(axis=0)) / views.std(axis=0) / len(views))
    causal = genes.effect != 0
    for column in range(len(LATENTS)):
        assert np.median(correlation[causal[:, column], column]) > 0.5
        assert roc_auc_score(causal[:, column], correlation[:, column]) > 0.95
        # An independent variable correlates by 0.054 in the median at 150 samples.
        assert np.median(correlation[~causal[:, column], column]) < 0.09


def test_units_follow_the_formulas_of_the_gdc():
    generator = np.random.default_rng(1)
    genes = draw_genes(generator)
    counts = draw_counts(genes, (0.5, -1.0), generator)
    table = star_table(genes, counts, generator)
    coding = [i for i, kind in enumerate(genes.biotype) if kind == "protein_coding"]
    assert 0 < len(coding) < len(counts)
    for i in (0, 7, len(counts) - 1):
        fpkm = counts[i] * 1e9 / (sum(int(counts[j]) for j in coding) * genes.length[i])
        assert table["fpkm_unstranded"][i] == pytest.approx(fpkm)
        upper = sorted(int(counts[j]) for j in coding)[round(0.75 * (len(coding) - 1))]
        assert table["fpkm_uq_unstranded"][i] == pytest.approx(
            counts[i] * 1e9 / (upper * len(coding) * genes.length[i]), rel=0.01
        )
    # TPM are FPKM that add up to a million
    np.testing.assert_allclose(table["tpm_unstranded"], 1e6 * table["fpkm_unstranded"] / table["fpkm_unstranded"].sum())


def test_causal_genes_are_listed_with_the_only_latent_that_moves_them():
    genes = draw_genes(np.random.default_rng(2))
    listed = genes.causal_genes()
    assert listed["gene"].is_unique
    assert set(listed["subspace"]) == set(LATENTS)
    for gene, subspace, effect in listed.itertuples(index=False):
        row = genes.effect[genes.symbol.index(gene)]
        assert row[LATENTS.index(subspace)] == pytest.approx(effect, abs=1e-4)
        assert np.count_nonzero(row) == 1
    assert not any(gene.startswith("SIM") for gene in listed["gene"])
