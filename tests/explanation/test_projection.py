from dataclasses import replace

import pytest
import torch

from subfuse.cohort.batches import BagBatch
from subfuse.explanation.attribution import integrated_gradients
from subfuse.explanation.projection import project_patches
from subfuse.model.baselines.linear import LinearModel
from subfuse.model.baselines.mil import MeanMIL
from subfuse.model.linear_path import WithLinearPath
from subfuse.model.output import Ensemble
from subfuse.model.subspace_fusion import SubspaceFusion, SubspaceFusionConfig

GENE_SETS = {"tumour": [0, 2, 1], "microenvironment": [1, 3, 4, 5], "third": [6]}
SIZES = {"embed_dim": 8, "grid": (6, 5), "heads": 2, "head_dim": 4, "offset_groups": 2, "table_size": 16}


def fusion(seed: int, patch_dim: int) -> SubspaceFusion:
    torch.manual_seed(seed)
    config = SubspaceFusionConfig(n_outputs=4, patch_dim=patch_dim, gene_hidden=(6,), **SIZES)
    return SubspaceFusion(config, GENE_SETS, n_genes=9).eval()


def batch_of(patch_dim: int) -> BagBatch:
    generator = torch.Generator().manual_seed(5)
    mask = torch.arange(11) < torch.tensor([[11], [7], [3]])
    return BagBatch(
        ("a", "b", "c"),
        torch.randn(3, 11, patch_dim, generator=generator) * mask[..., None],
        torch.randint(0, 6, (3, 11, 2), generator=generator) * 128.0,
        mask,
        torch.randn(3, 9, generator=generator),
        torch.tensor([True, False, True]),
        None,
    )


@pytest.mark.parametrize("patch_dim", [70, 10])  # wider and narrower than all projections together
@pytest.mark.parametrize("subspaces", [(0, 1, 2), (1,), (2, 0)])
@pytest.mark.parametrize("members", [1, 2])
def test_a_projected_model_says_the_same(patch_dim, subspaces, members):
    networks = [fusion(seed, patch_dim) for seed in range(members)]
    model, batch = networks[0] if members == 1 else Ensemble(networks), batch_of(patch_dim)
    part = project_patches(model, subspaces)
    projected = part.project(batch)
    assert projected.patches.shape[2] == min(patch_dim, members * len(subspaces) * 8)
    with torch.inference_mode():
        whole, found = model(**batch.inputs()), part.model(**projected.inputs())
    torch.testing.assert_close(found.subspace_logits, whole.subspace_logits[:, list(subspaces)], rtol=1e-4, atol=1e-6)
    assert [part.place_of(subspace) for subspace in subspaces] == list(range(len(subspaces)))
    assert not any(parameter.requires_grad for parameter in part.model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_attributions_of_one_subspace_alone_are_those_of_its_share():
    model, batch = fusion(0, 70), batch_of(70)
    part = project_patches(model, [1])
    expected = integrated_gradients(model, batch, lambda output: output.subspace_logits[:, 1, 2], steps=3)
    found = integrated_gradients(part.model, part.project(batch), lambda output: output.logits[:, 2], steps=3)
    for name in ("patch", "gene", "gap"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-3, atol=1e-6)


def test_another_model_stays_as_it_is():
    model, batch = MeanMIL(4, patch_dim=10), batch_of(10)
    part = project_patches(model, [0])
    assert part.model is model
    assert part.project(batch) is batch


def test_a_bag_without_patches_is_projected_too():
    model, batch = fusion(0, 70), batch_of(70)
    genes = replace(batch, patch_mask=torch.zeros_like(batch.patch_mask), expression_mask=torch.ones(3).bool())
    part = project_patches(model, [0])
    with torch.inference_mode():
        found = part.model(**part.project(genes).inputs()).logits
        torch.testing.assert_close(found, model(**genes.inputs()).subspace_logits[:, 0], rtol=1e-4, atol=1e-6)


def test_the_parts_of_a_network_beside_a_line_say_the_same():
    line, batch = LinearModel(4, n_genes=9, patch_dim=70), batch_of(70)
    model = WithLinearPath(line, fusion(0, 70)).eval()
    model.network_share.fill_(0.25)
    model.line_share.fill_(0.875)
    with torch.inference_mode():
        whole = model(**batch.inputs()).subspace_logits
        for index in range(4):
            part = project_patches(model, [index])
            assert (part.weight is None) == (index == 3)  # the line reads patches as they are
            output = part.model(**part.project(batch).inputs())
            found = output.subspace_logits[:, part.place_of(index)]
            torch.testing.assert_close(found, whole[:, index], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(output.logits, found)  # nothing else is in this part
    assert project_patches(model, range(4)).model is model
    undivided = WithLinearPath(line, MeanMIL(4, patch_dim=70)).eval()
    assert all(project_patches(undivided, [index]).model is undivided for index in range(2))
