"""Every model at a small size, and inputs for it."""

import pytest
import torch
from torch import Tensor, nn

from subfuse.model.baselines.cmta import CMTA
from subfuse.model.baselines.expression import SNN
from subfuse.model.baselines.fusion import ConcatFusion, LateFusion
from subfuse.model.baselines.kronecker_fusion import PORPOISE, PathomicFusion
from subfuse.model.baselines.linear import LinearModel
from subfuse.model.baselines.mcat import MCAT
from subfuse.model.baselines.mil import ABMIL, CLAMSB, DSMIL, MeanMIL
from subfuse.model.baselines.survpath import SurvPath
from subfuse.model.baselines.transmil import TransMIL
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig

BATCH, PATCH, FEATURE, GENE, OUTPUT = 5, 7, 6, 11, 3
GENE_SETS = {"tumour": (0, 1, 2, 3), "microenvironment": (3, 4, 5, 6, 7, 8, 9, 10)}
PATHWAYS = {"one": (0, 4, 5), "two.named": (1, 2), "three": (3, 6, 7, 8), "four": (9, 10)}

SMALL = SubspaceFusionConfig(
    n_outputs=OUTPUT, patch_dim=FEATURE, embed_dim=8, grid=(9, 10), table_size=16, heads=2, head_dim=4, offset_groups=2
)

MODELS = {
    "subspace": lambda: SubspaceFusion(SMALL, GENE_SETS),
    "subspace-slides": lambda: SubspaceFusion(SMALL, dict.fromkeys(GENE_SETS, ()), n_genes=0),
    "mean": lambda: MeanMIL(OUTPUT, patch_dim=FEATURE, embed_dim=4),
    "abmil": lambda: ABMIL(OUTPUT, patch_dim=FEATURE, embed_dim=4),
    "gated-abmil": lambda: ABMIL(OUTPUT, patch_dim=FEATURE, embed_dim=4, gated=True),
    "clam-sb": lambda: CLAMSB(OUTPUT, patch_dim=FEATURE, embed_dim=8, attention_dim=4),
    "dsmil": lambda: DSMIL(OUTPUT, patch_dim=FEATURE, embed_dim=4, query_dim=9),
    "transmil": lambda: TransMIL(OUTPUT, patch_dim=FEATURE, embed_dim=8, heads=2, landmarks=4),
    "snn": lambda: SNN(OUTPUT, n_genes=GENE, embed_dim=4),
    "linear": lambda: LinearModel(OUTPUT, n_genes=GENE),
    "linear-slides": lambda: LinearModel(OUTPUT, patch_dim=FEATURE),
    "linear-both": lambda: LinearModel(OUTPUT, n_genes=GENE, patch_dim=FEATURE),
    "concat": lambda: ConcatFusion(OUTPUT, n_genes=GENE, patch_dim=FEATURE, embed_dim=4),
    "late-fusion": lambda: LateFusion(OUTPUT, n_genes=GENE, patch_dim=FEATURE, embed_dim=4),
    "pathomic": lambda: PathomicFusion(OUTPUT, n_genes=GENE, patch_dim=FEATURE, embed_dim=8),
    "porpoise": lambda: PORPOISE(OUTPUT, n_genes=GENE, patch_dim=FEATURE, embed_dim=16),
    "mcat": lambda: MCAT(OUTPUT, gene_sets=GENE_SETS, patch_dim=FEATURE, embed_dim=16, heads=4),
    "cmta": lambda: CMTA(OUTPUT, gene_sets=GENE_SETS, patch_dim=FEATURE, embed_dim=16, heads=4),
    "survpath": lambda: SurvPath(OUTPUT, pathways=PATHWAYS, patch_dim=FEATURE, token_dim=10, attention_dim=8),
}
SEEDS = {"subspace-slides": 4}  # both subspaces sample where there are patches
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)
SLIDE_ONLY = ["subspace-slides", "mean", "abmil", "gated-abmil", "clam-sb", "dsmil", "transmil", "linear-slides"]
MULTIMODAL = ["subspace", "concat", "late-fusion", "pathomic", "porpoise", "mcat", "cmta", "survpath", "linear-both"]


def build(name: str) -> nn.Module:
    """The untrained model in double precision."""
    with torch.random.fork_rng():
        torch.manual_seed(SEEDS.get(name, 3))
        model = MODELS[name]().double()
    with torch.no_grad():  # a ReLU of a narrow layer may be off for everybody
        for part, parameter in model.named_parameters():
            if part.endswith("bias") and not part.startswith("head"):
                parameter += 0.5
    return model


def inputs(batch: int = BATCH, patch: int = PATCH) -> dict[str, Tensor]:
    """Bags of different length, everybody with expression."""
    generator = torch.Generator().manual_seed(4)
    return {
        "patches": torch.randn(batch, patch, FEATURE, generator=generator, dtype=torch.float64),
        "coords": torch.rand(batch, patch, 2, generator=generator, dtype=torch.float64),
        "patch_mask": torch.arange(patch) < torch.arange(1, batch + 1)[:, None] + 2,
        "expression": torch.randn(batch, GENE, generator=generator, dtype=torch.float64),
        "expression_mask": torch.ones(batch, dtype=torch.bool),
    }


def only_slides(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with nobody's expression measured."""
    return batch | {"expression_mask": torch.zeros_like(batch["expression_mask"])}


def only_expression(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch with nobody having slides."""
    return batch | {"patch_mask": torch.zeros_like(batch["patch_mask"])}
