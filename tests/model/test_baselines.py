import math

import pytest
import torch
from torch import Tensor, nn

from subfuse.model.baselines import ABMIL, SNN, AttentionPooling, ConcatFusion, LinearModel
from subfuse.model.subspace_fusion import SubspaceFusionOutput

BATCH, PATCH, FEATURE, GENE, OUTPUT, EMBED = 5, 7, 6, 11, 3, 4

MODELS = {
    "abmil": lambda: ABMIL(OUTPUT, patch_dim=FEATURE, embed_dim=EMBED),
    "snn": lambda: SNN(OUTPUT, n_genes=GENE, embed_dim=EMBED),
    "concat": lambda: ConcatFusion(OUTPUT, n_genes=GENE, patch_dim=FEATURE, embed_dim=EMBED),
    "linear": lambda: LinearModel(OUTPUT, n_genes=GENE),
}
EVERY_MODEL = pytest.mark.parametrize("name", MODELS)
WITH_SLIDES = pytest.mark.parametrize("name", ["abmil", "concat"])
WITH_EXPRESSION = pytest.mark.parametrize("name", ["snn", "concat", "linear"])


def build(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = MODELS[name]().double()
    with torch.no_grad():  # the last ReLU of a narrow encoder may be off for everybody
        for part, parameter in model.named_parameters():
            if part.endswith(("layers.3.bias", "projection.bias")):
                parameter += 1
    return model


def inputs(batch: int = BATCH, patch: int = PATCH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    patch_mask = torch.arange(patch) < torch.arange(1, batch + 1)[:, None] + 2
    return {
        "patches": torch.randn(batch, patch, FEATURE, generator=generator, dtype=torch.float64),
        "coords": torch.rand(batch, patch, 2, generator=generator, dtype=torch.float64),
        "patch_mask": patch_mask,
        "expression": torch.randn(batch, GENE, generator=generator, dtype=torch.float64),
        "expression_mask": torch.ones(batch, dtype=torch.bool),
    }


def assert_same(a: SubspaceFusionOutput, b: SubspaceFusionOutput) -> None:
    for field in ("logits", "subspace_logits", "embedding", "expression_embedding"):
        torch.testing.assert_close(getattr(a, field), getattr(b, field))


@EVERY_MODEL
def test_a_baseline_is_one_subspace_that_makes_up_the_logits(name: str):
    model = build(name).eval()
    output = model(**inputs())
    torch.testing.assert_close(output.subspace_logits.sum(dim=1), output.logits)
    torch.testing.assert_close(output.logits, output.embedding[:, 0] @ model.head.weight[0].T + model.head.bias)
    assert output.logits.shape == (BATCH, OUTPUT)
    assert output.sampling_grid is None


@EVERY_MODEL
def test_every_parameter_gets_a_gradient(name: str):
    model = build(name)
    model.eval()(**inputs()).logits.square().sum().backward()
    without = [part for part, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@EVERY_MODEL
def test_padding_does_not_matter(name: str):
    model, batch = build(name).eval(), inputs()
    more = {key: batch[key] for key in ("expression", "expression_mask")}
    for key in ("patches", "coords"):
        more[key] = torch.cat([batch[key], torch.full((BATCH, 4, batch[key].shape[2]), torch.nan).double()], dim=1)
    more["patch_mask"] = torch.cat([batch["patch_mask"], torch.zeros(BATCH, 4, dtype=torch.bool)], dim=1)
    assert_same(model(**more), model(**batch))


@EVERY_MODEL
def test_the_order_of_patches_does_not_matter(name: str):
    model, batch = build(name).eval(), inputs()
    order = torch.randperm(PATCH, generator=torch.Generator().manual_seed(5))
    shuffled = batch | {key: batch[key][:, order] for key in ("patches", "coords", "patch_mask")}
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
    other_slides = model(**batch | {"patches": batch["patches"] + 1}).logits
    other_expression = model(**batch | {"expression": batch["expression"] + 1}).logits
    assert torch.equal(expected, other_slides) is ("slides" not in model.modalities)
    assert torch.equal(expected, other_expression) is ("expression" not in model.modalities)


@WITH_EXPRESSION
def test_unmeasured_expression_is_an_embedding_of_zero_whatever_it_holds(name: str):
    model, batch = build(name), inputs()
    batch["expression_mask"] = torch.tensor([True, False, True, True, False])
    batch["expression"][~batch["expression_mask"]] = torch.nan
    output = model(**batch)
    output.logits.sum().backward()
    assert output.logits.isfinite().all()
    assert output.expression_embedding[~batch["expression_mask"]].abs().max() == 0
    assert output.expression_embedding[batch["expression_mask"]].abs().sum() > 0
    assert all(p.grad.isfinite().all() for p in model.parameters())


@WITH_SLIDES
def test_a_patient_without_patches_has_an_embedding_of_zero(name: str):
    model, batch = build(name), inputs()
    batch["patch_mask"][2] = False
    batch["patches"][2] = torch.nan
    output = model(**batch, need_attention=True)
    output.logits.sum().backward()
    assert output.embedding[2, 0, :EMBED].abs().max() == 0
    assert output.embedding[3, 0, :EMBED].abs().sum() > 0
    assert output.attention[2].abs().max() == 0
    assert all(p.grad.isfinite().all() for p in model.parameters())


@EVERY_MODEL
def test_a_batch_without_patches_or_expression_gives_the_bias(name: str):
    model, batch = build(name).eval(), inputs(patch=1)
    nothing = batch | {key: batch[key][:, :0] for key in ("patches", "coords", "patch_mask")}
    nothing["expression_mask"] = torch.zeros(BATCH, dtype=torch.bool)
    torch.testing.assert_close(model(**nothing).logits, model.head.bias.expand(BATCH, OUTPUT))


@WITH_SLIDES
def test_attention_is_a_distribution_over_the_real_patches(name: str):
    model, batch = build(name).eval(), inputs()
    attention = model(**batch, need_attention=True).attention
    assert attention.shape == (BATCH, 1, 1, PATCH)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(BATCH, 1, 1).double())
    assert attention[:, 0, 0][~batch["patch_mask"]].abs().max() == 0
    assert model(**batch).attention is None


@pytest.mark.parametrize("name", ["snn", "linear"])
def test_models_without_attention_return_none(name: str):
    assert build(name)(**inputs(), need_attention=True).attention is None


@WITH_SLIDES
def test_one_patch_gets_all_the_attention(name: str):
    output = build(name)(**inputs(patch=1), need_attention=True)
    torch.testing.assert_close(output.attention, torch.ones(BATCH, 1, 1, 1).double())


def test_attention_pooling_by_hand():
    """Scores tanh(x) of 0 and atanh(1/2) differ by 1/2; the third patch is padding."""
    pooling = AttentionPooling(2, 1)
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.tensor([[1.0, 0.0]]))
        pooling.hidden.bias.zero_()
        pooling.score.weight.fill_(2 * math.log(3))  # scores 0 and log 3: weights 1/4 and 3/4
    patches = torch.tensor([[[0.0, 8.0], [math.atanh(0.5), 4.0], [9.0, 9.0]]])
    pooled, attention = pooling(patches, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(attention, torch.tensor([[0.25, 0.75, 0.0]]))
    torch.testing.assert_close(pooled, torch.tensor([[0.75 * math.atanh(0.5), 5.0]]))


def test_concat_fusion_is_the_sum_of_its_halves():
    model, batch = build("concat").eval(), inputs()
    everything = model(**batch).logits
    slides = model(**batch | {"expression_mask": torch.zeros(BATCH, dtype=torch.bool)}).logits
    expression = model(**batch | {"patch_mask": torch.zeros(BATCH, PATCH, dtype=torch.bool)}).logits
    torch.testing.assert_close(slides + expression - model.head.bias, everything)


def test_the_linear_model_is_linear_in_expression():
    model, batch = build("linear"), inputs()
    doubled = model(**batch | {"expression": 2 * batch["expression"]}).logits
    torch.testing.assert_close(doubled - model.head.bias, 2 * (model(**batch).logits - model.head.bias))


@pytest.mark.parametrize(
    ("model", "count"),
    [
        # attention (1024 + 1) · 128 + 128, projection (1024 + 1) · 128, head (128 + 1) · 4
        (ABMIL(4), 131_328 + 131_200 + 516),
        # 431 genes: 64, 48, 32, 128; head
        (SNN(4, n_genes=431), 432 * 64 + 65 * 48 + 49 * 32 + 33 * 128 + 516),
        (LinearModel(1, n_genes=431), 432),
    ],
)
def test_sizes_are_as_published(model: nn.Module, count: int):
    assert sum(p.numel() for p in model.parameters()) == count
