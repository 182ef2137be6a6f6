from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from subfuse.cohort.batches import BagBatch
from subfuse.explanation.explained_score import ExplainedScore
from subfuse.explanation.faithfulness import occlude_patches, windows_of
from subfuse.model.output import SubspaceFusionOutput

FEATURE, GENE, OUTPUT = 4, 3, 2


class SumOfPatches(nn.Module):
    """Subspace logits are sums over patches: what a patch adds is known."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, OUTPUT, FEATURE, generator=torch.Generator().manual_seed(0)))

    def forward(self, patches, coords, patch_mask, expression, expression_mask):
        logits = torch.einsum("bpf,scf->bsc", patches, self.weight)
        embedding = patches.new_zeros(len(patches), 2, 1)
        return SubspaceFusionOutput(
            logits=logits.sum(1),
            subspace_logits=logits,
            embedding=embedding,
            expression_embedding=embedding,
            sampling_grid=None,
        )


def batch_of(columns: int, rows: int, padding: int = 2) -> BagBatch:
    n = columns * rows
    mask = torch.arange(n + padding)[None] < n
    places = torch.arange(n + padding)
    coords = torch.stack([places % columns, places // columns], dim=-1)[None] * 128.0
    patches = torch.randn(1, n + padding, FEATURE, generator=torch.Generator().manual_seed(1)) * mask[..., None]
    return BagBatch(("a",), patches, coords, mask, torch.zeros(1, GENE), torch.tensor([True]), None)


@pytest.fixture
def score() -> ExplainedScore:
    return ExplainedScore("risk", torch.tensor([0.25, 1.5]))


def test_a_hidden_patch_loses_what_it_adds(score):
    model, batch = SumOfPatches(), batch_of(5, 3)
    falls = occlude_patches(model, batch, score)
    expected = torch.einsum("pf,scf,c->sp", batch.patches[0], model.weight, score.weights)
    torch.testing.assert_close(falls, expected.detach(), rtol=1e-4, atol=1e-5)
    assert (falls[:, 15:] == 0).all()


def test_windows_share_their_fall_equally_and_keep_the_total(score):
    model, batch = SumOfPatches(), batch_of(6, 4)
    single, windows = (occlude_patches(model, batch, score, max_windows=limit) for limit in (100, 7))
    torch.testing.assert_close(windows.sum(1), single.sum(1), rtol=1e-4, atol=1e-5)
    block = single[:, [0, 1, 6, 7]].mean(1)  # the first square of two by two
    torch.testing.assert_close(windows[:, [0, 1, 6, 7]], block[:, None].expand(2, 4), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("limit", "expected"), [(24, 24), (23, 6), (6, 6), (5, 4), (1, 1)])
def test_windows_are_the_smallest_squares_that_are_few_enough(limit, expected):
    window = windows_of(batch_of(6, 4), max_windows=limit)
    assert len(np.unique(window)) == expected == window.max() + 1


@pytest.mark.parametrize("limit", [23, 6, 5])
def test_windows_do_not_depend_on_where_the_tissue_lies_on_the_slide(limit):
    batch = batch_of(6, 4)
    moved = replace(batch, coords=batch.coords + torch.tensor([192.0, 1344.0]))
    assert (windows_of(moved, max_windows=limit) == windows_of(batch, max_windows=limit)).all()


def test_patches_that_overlap_have_windows_of_their_own_where_they_are_few_enough():
    batch = batch_of(6, 4)
    twice = replace(
        batch,
        patches=torch.cat([batch.patches, batch.patches], dim=1),
        coords=torch.cat([batch.coords, batch.coords + torch.tensor([1.0, 0.0])], dim=1),
        patch_mask=torch.cat([batch.patch_mask, batch.patch_mask], dim=1),
    )
    assert windows_of(twice, max_windows=48).tolist() == list(range(48))
    assert len(np.unique(windows_of(twice, max_windows=24))) == 24  # one cell of the grid each
    at_one_place = replace(batch, coords=torch.full_like(batch.coords, 640.0))
    assert windows_of(at_one_place, max_windows=1).tolist() == [0] * 24


def test_no_window_is_an_error():
    with pytest.raises(ValueError, match="at least 1"):
        windows_of(batch_of(2, 2), max_windows=0)


def test_a_patient_without_slides_has_nothing_to_hide(score):
    batch = batch_of(2, 2)
    without = replace(batch, patch_mask=torch.zeros_like(batch.patch_mask))
    assert (occlude_patches(SumOfPatches(), without, score) == 0).all()
