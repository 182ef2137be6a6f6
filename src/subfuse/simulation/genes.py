"""The genes of a simulated cohort, and what a patient's latents make of their counts."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from subfuse.expression.gene_sets import load_gene_sets
from subfuse.expression.source import GeneSetSource
from subfuse.simulation.patients import LATENTS

N_GENES = 1500
_CAUSAL_SHARE = {"tumour": 0.25, "microenvironment": 0.40}  # of the genes that only this subspace has


@dataclass(frozen=True)
class GeneModel:
    """How expression arises; one entry per gene of the count files."""

    symbol: tuple[str, ...]
    ensembl: tuple[str, ...]
    biotype: tuple[str, ...]
    length: Float[np.ndarray, " gene"]  # bases
    log_abundance: Float[np.ndarray, " gene"]
    effect: Float[np.ndarray, "gene 2"]  # on log abundance per unit of each latent's view; axes as LATENTS
    nuisance: Float[np.ndarray, "gene 3"]  # loadings of factors that have nothing to do with the latents
    dispersion: Float[np.ndarray, " gene"]  # of the negative binomial

    def causal_genes(self) -> pd.DataFrame:
        """Returns gene, subspace and effect of the causal genes."""
        rows, columns = np.nonzero(self.effect)
        return pd.DataFrame(
            {
                "gene": [self.symbol[i] for i in rows],
                "subspace": [LATENTS[j] for j in columns],
                "effect": self.effect[rows, columns].round(4),
            }
        )


def draw_genes(generator: np.random.Generator) -> GeneModel:
    """Returns the genes of a cohort: those of the built-in gene sets, the causal among them, and a background.

    Causal genes belong to one subspace only; seven in ten rise with the latent. The background is more abundant, so
    that the sum to a million does not pass the latents on to genes that are not causal.
    """
    gene_sets = load_gene_sets({latent: GeneSetSource() for latent in LATENTS})
    known = sorted(set().union(*gene_sets.values()))
    n_background = N_GENES - len(known)
    symbols = (*known, *(f"SIM{i:04d}" for i in range(1, n_background + 1)))
    is_background = np.arange(N_GENES) >= len(known)
    effect = np.zeros((N_GENES, len(LATENTS)))
    for column, latent in enumerate(LATENTS):
        only_here = set(gene_sets[latent]).difference(*(genes for name, genes in gene_sets.items() if name != latent))
        candidates = np.flatnonzero(np.isin(symbols, sorted(only_here)))
        causal = generator.choice(candidates, size=round(_CAUSAL_SHARE[latent] * len(candidates)), replace=False)
        sign = np.where(generator.random(len(causal)) < 0.7, 1.0, -1.0)
        effect[causal, column] = sign * generator.uniform(0.4, 0.8, size=len(causal))
    return GeneModel(
        symbol=symbols,
        ensembl=tuple(f"ENSG{90_000_000_000 + i}.{1 + i % 15}" for i in range(N_GENES)),
        biotype=tuple(
            "lncRNA" if background and i % 20 == 0 else "protein_coding" for i, background in enumerate(is_background)
        ),
        length=np.exp(generator.normal(7.8, 0.6, size=N_GENES)),
        log_abundance=generator.normal(0.0, 1.1, size=N_GENES) + 1.3 * is_background,
        effect=effect,
        nuisance=generator.normal(0.0, 0.2, size=(N_GENES, 3)),
        dispersion=generator.uniform(0.03, 0.15, size=N_GENES),
    )


def draw_counts(genes: GeneModel, view: tuple[float, float], generator: np.random.Generator) -> np.ndarray:
    """Returns the read counts of one sample: negative binomial, at a library size of about five million reads."""
    log_abundance = genes.log_abundance + genes.effect @ np.array(view)
    log_abundance += genes.nuisance @ generator.standard_normal(genes.nuisance.shape[1])
    reads = np.exp(log_abundance) * genes.length
    library = np.exp(generator.normal(np.log(5e6), 0.35))
    mean = library * reads / reads.sum()
    return generator.poisson(mean * generator.gamma(1.0 / genes.dispersion, genes.dispersion))


def star_table(genes: GeneModel, counts: np.ndarray, generator: np.random.Generator) -> pd.DataFrame:
    """Returns the gene rows of a GDC STAR count file; TPM sums to a million, FPKM and FPKM-UQ follow GDC's formulas."""
    first = generator.binomial(counts, 0.5)
    per_base = counts / genes.length
    is_coding = np.array(genes.biotype) == "protein_coding"
    upper_quartile = np.quantile(counts[is_coding], 0.75)
    return pd.DataFrame(
        {
            "gene_id": genes.ensembl,
            "gene_name": genes.symbol,
            "gene_type": genes.biotype,
            "unstranded": counts,
            "stranded_first": first,
            "stranded_second": counts - first,
            "tpm_unstranded": 1e6 * per_base / per_base.sum(),
            "fpkm_unstranded": 1e9 * per_base / counts[is_coding].sum(),
            "fpkm_uq_unstranded": 1e9 * per_base / (upper_quartile * is_coding.sum()),
        }
    )
