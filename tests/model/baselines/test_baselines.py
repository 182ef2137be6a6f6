"""Properties that every model shares; values are in the test file of each model."""

import pytest
import torch
from baseline_inputs import (
    BATCH,
    EVERY_MODEL,
    GENE,
    MODELS,
    MULTIMODAL,
    OUTPUT,
    PATCH,
    SLIDE_ONLY,
    build,
    inputs,
    only_expression,
    only_slides,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from subfuse.model.output import SubspaceFusionOutput

ORDERED = {"transmil"}  # patches form a square in the order of the bag
WITHOUT_ATTENTION = {"transmil", "snn", "linear"}
SUBSPACES = {"subspace": 2, "subspace-slides": 2, "late-fusion": 2}
WITH_SLIDES = pytest.mark.parametrize("name", SLIDE_ONLY + MULTIMODAL)
WITH_EXPRESSION = pytest.mark.parametrize("name", [name for name in MODELS if name not in SLIDE_ONLY])


def assert_same(a: SubspaceFusionOutput, b: SubspaceFusionOutput) -> None:
    for field in ("logits", "subspace_logits", "embedding", "expression_embedding"):
        torch.testing.assert_close(getattr(a, field), getattr(b, field))


def padded(batch: dict[str, Tensor], n: int) -> dict[str, Tensor]:
    """The batch with n patches of NaN more, all of them padding."""
    more = {
        key: torch.cat([batch[key], batch[key].new_full((len(batch[key]), n, batch[key].shape[2]), torch.nan)], dim=1)
        for key in ("patches", "coords")
    }
    mask = batch["patch_mask"]
    return batch | more | {"patch_mask": torch.cat([mask, mask.new_zeros(len(mask), n)], dim=1)}


@EVERY_MODEL
def test_shapes_and_that_the_shares_make_up_the_logits(name: str):
    output = build(name).eval()(**inputs())
    n_subspaces = SUBSPACES.get(name, 1)
    assert output.logits.shape == (BATCH, OUTPUT)
    assert output.subspace_logits.shape == (BATCH, n_subspaces, OUTPUT)
    assert output.embedding.shape == output.expression_embedding.shape
    assert output.embedding.shape[:2] == (BATCH, n_subspaces)
    assert (output.sampling_grid is not None) is name.startswith("subspace")
    torch.testing.assert_close(output.subspace_logits.sum(dim=1), output.logits)


@pytest.mark.parametrize("name", [name for name in MODELS if name != "dsmil"])  # its head is one of two streams
def test_the_head_gives_the_logits(name: str):
    model = build(name).eval()
    output = model(**inputs())
    torch.testing.assert_close(model.head(output.embedding), output.subspace_logits)


@EVERY_MODEL
def test_every_parameter_gets_a_gradient(name: str):
    model = build(name)
    output = model.eval()(**inputs())
    loss = output.logits.square().sum()
    (loss if output.alignment is None else loss + output.alignment.sum()).backward()
    without = [part for part, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@EVERY_MODEL
@pytest.mark.parametrize("present", [only_slides, only_expression])
def test_a_missing_modality_leaves_everything_finite(name: str, present):
    model, batch = build(name).train(), present(inputs())
    output = model(**batch, need_attention=True)
    output.logits.square().sum().backward()
    for value in (output.logits, output.embedding, output.expression_embedding, output.alignment, output.attention):
        assert value is None or value.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@EVERY_MODEL
def test_padding_does_not_matter(name: str):
    model, batch = build(name).eval(), inputs()
    assert_same(model(**padded(batch, 4)), model(**batch))


@EVERY_MODEL
def test_the_order_of_patches_does_not_matter(name: str):
    model, batch = build(name).eval(), inputs()
    order = torch.randperm(PATCH, generator=torch.Generator().manual_seed(5))
    shuffled = batch | {key: batch[key][:, order] for key in ("patches", "coords", "patch_mask")}
    if name in ORDERED:
        assert not torch.allclose(model(**shuffled).logits, model(**batch).logits)
    else:
        assert_same(model(**shuffled), model(**batch))


@EVERY_MODEL
def test_patients_do_not_influence_each_other(name: str):
    model, batch = build(name).eval(), inputs()
    together = model(**batch).logits
    alone = torch.cat([model(**{key: value[[i]] for key, value in batch.items()}).logits for i in range(BATCH)])
    torch.testing.assert_close(alone, together)


@EVERY_MODEL
def test_only_its_modalities_matter(name: str):
    model, batch = build(name).eval(), inputs()
    expected = model(**batch).logits
    other_slides = model(**batch | {"patches": 2 * batch["patches"] + 1}).logits
    other_expression = model(**batch | {"expression": 2 * batch["expression"] + 1}).logits
    assert torch.equal(expected, other_slides) is (name not in SLIDE_ONLY + MULTIMODAL)
    assert torch.equal(expected, other_expression) is (name in SLIDE_ONLY)


@EVERY_MODEL
def test_evaluation_is_deterministic_and_works_in_single_precision(name: str):
    model, batch = build(name).eval(), inputs()
    expected = model(**batch).logits
    assert torch.equal(model(**batch).logits, expected)
    single = {key: value.float() if value.is_floating_point() else value for key, value in batch.items()}
    logits = model.float()(**single).logits
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), expected, rtol=1e-3, atol=1e-4)


@EVERY_MODEL
@pytest.mark.parametrize("patch", [1, 2, 3])
def test_one_patient_with_few_patches(name: str, patch: int):
    model, batch = build(name).eval(), {key: value[:1] for key, value in inputs().items()}
    few = batch | {key: batch[key][:, :patch] for key in ("patches", "coords", "patch_mask")}
    output = model(**few, need_attention=True)
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention.shape[3] == patch


@WITH_EXPRESSION
def test_unmeasured_expression_is_ignored_whatever_it_holds(name: str):
    model, batch = build(name).eval(), inputs()
    unmeasured = torch.tensor([False, True, False, False, True])
    batch["expression_mask"] = ~unmeasured
    expected = model(**batch)
    batch["expression"] = torch.where(unmeasured[:, None], torch.nan, batch["expression"])
    output = model(**batch)
    output.logits.sum().backward()
    assert_same(output, expected)
    assert output.expression_embedding[unmeasured].abs().max() == 0
    assert output.expression_embedding[~unmeasured].abs().sum() > 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@WITH_SLIDES
def test_a_patient_without_slides_among_others(name: str):
    model, batch = build(name), inputs()
    batch["patch_mask"][2] = False
    batch["patches"][2] = torch.nan
    output = model(**batch, need_attention=True)
    output.logits.sum().backward()
    assert output.logits.isfinite().all()
    assert output.attention is None or output.attention[2].abs().max() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MULTIMODAL)
def test_either_modality_alone_still_tells_patients_apart(name: str):
    model = build(name).eval()
    for batch in (only_slides(inputs()), only_expression(inputs())):
        assert model(**batch).logits.std(dim=0).min() > 1e-4


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("subspace")])  # which refuse it
def test_a_batch_without_patches_or_expression(name: str):
    model, batch = build(name).eval(), inputs()
    nothing = batch | {key: batch[key][:, :0] for key in ("patches", "coords", "patch_mask")}
    nothing["expression_mask"] = torch.zeros(BATCH, dtype=torch.bool)
    logits = model(**nothing).logits
    torch.testing.assert_close(logits, logits[:1].expand(BATCH, OUTPUT))  # the same for everybody
    assert logits.isfinite().all()


@WITH_SLIDES
def test_attention_is_a_distribution_over_the_real_patches(name: str):
    model, batch = build(name).eval(), inputs()
    assert model(**batch).attention is None
    attention = model(**batch, need_attention=True).attention
    if name in WITHOUT_ATTENTION:
        assert attention is None
        return
    assert attention.shape[0] == BATCH
    assert attention.shape[3] == PATCH
    assert attention.movedim(3, 1)[~batch["patch_mask"]].abs().max() == 0
    total = attention[:, 0].sum(dim=-1)
    if name == "survpath":  # the rest goes to pathways
        assert ((total > 0) & (total < 1)).all()
    elif name.startswith("subspace"):  # none is left where the points of a head lie off the tissue
        assert ((total >= 0) & (total < 1 + 1e-9)).all()
    else:
        torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("name", sorted(WITHOUT_ATTENTION))
def test_models_without_attention_return_none(name: str):
    assert build(name)(**inputs(), need_attention=True).attention is None


def test_the_inputs_have_axes_of_different_size():
    assert len({BATCH, PATCH, GENE, OUTPUT, *inputs()["patches"].shape[2:]}) == 5


@EVERY_MODEL
def test_mixed_precision_is_close(name: str):
    model, batch = build(name).float().eval(), inputs()
    batch = {key: value.float() if value.is_floating_point() else value for key, value in batch.items()}
    expected = model(**batch).logits
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch, need_attention=True)
    torch.testing.assert_close(output.logits.float(), expected, rtol=0.1, atol=0.1)
    output.logits.float().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns, forward or backward."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(t.numel() for t in tree_leaves(result) if isinstance(t, Tensor))])
        return result


@WITH_SLIDES
def test_no_tensor_of_patches_by_patches_exists(name: str):
    n_patches = 800
    model, batch = build(name).float().train(), inputs(batch=1, patch=n_patches)
    batch = {key: value.float() if value.is_floating_point() else value for key, value in batch.items()}
    batch["patch_mask"][:] = True
    with LargestTensor() as largest:
        model(**batch).logits.sum().backward()
    assert largest.numel < n_patches**2 / 2
