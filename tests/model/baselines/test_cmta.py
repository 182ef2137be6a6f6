import pytest
import torch
from baseline_inputs import BATCH, build, inputs, only_expression, only_slides
from torch import nn

from subfuse.model.baselines.cmta import CMTA, ClassTokenTransformer, SelfAttention


def test_means_of_summary_and_translation_are_fused_and_aligned_by_half_their_distance():
    model, batch = build("cmta").eval(), inputs()
    summaries = {}
    for name in ("patch_encoder", "gene_encoder", "patch_decoder", "gene_decoder"):
        model.get_submodule(name).register_forward_hook(
            lambda module, args, result, name=name: summaries.__setitem__(name, result[0])
        )
    output = model(**batch)
    means = [0.5 * (summaries[f"{name}_encoder"] + summaries[f"{name}_decoder"]) for name in ("patch", "gene")]
    torch.testing.assert_close(output.embedding[:, 0], model.fusion(torch.cat(means, dim=1)))
    torch.testing.assert_close(output.expression_embedding[:, 0], means[1])
    alignment = output.alignment
    distance = (summaries["patch_encoder"] - summaries["patch_decoder"]).abs().mean(dim=1)
    distance = distance + (summaries["gene_encoder"] - summaries["gene_decoder"]).abs().mean(dim=1)
    torch.testing.assert_close(alignment, 0.5 * distance)
    for name, follows in (("patch_encoder", False), ("gene_encoder", False), ("patch_decoder", True)):
        (gradient,) = torch.autograd.grad(alignment.sum(), summaries[name], retain_graph=True, allow_unused=True)
        assert (gradient is not None) is follows


def test_patients_with_one_modality_are_not_aligned():
    model, batch = build("cmta").eval(), inputs()
    batch["expression_mask"][1] = False
    batch["patch_mask"][3] = False
    alignment = model(**batch).alignment
    assert (alignment > 0).tolist() == [True, False, True, False, True]
    assert model(**only_slides(batch)).alignment.abs().max() == 0
    assert model(**only_expression(inputs())).alignment.abs().max() == 0


def test_the_weight_of_the_alignment():
    assert CMTA(2, gene_sets={"a": (0,)}, patch_dim=3).alignment_weight == 0.5
    twice, batch = build("cmta").eval(), inputs()
    once = twice(**batch).alignment
    twice.alignment_weight = 1.0
    torch.testing.assert_close(twice(**batch).alignment, 2 * once)


@pytest.mark.parametrize("masked", [0, 2])
def test_self_attention_agrees_with_pytorch(masked: int):
    ours = SelfAttention(8, heads=2, dropout=0.1).double().eval()
    theirs = nn.MultiheadAttention(8, 2, batch_first=True).double().eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.to_qkv.weight)
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(ours.projection.state_dict())
    tokens = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = (torch.arange(5) < 5 - masked).expand(3, 5)
    normed = ours.norm(tokens)
    expected = tokens + theirs(normed, normed, normed, key_padding_mask=~mask)[0]
    torch.testing.assert_close(ours(tokens, mask), expected)


def test_the_class_token_takes_part_in_attention():
    generator = torch.Generator().manual_seed(0)
    encoder = ClassTokenTransformer(8, heads=2, dropout=0.1).double().eval()
    tokens, mask = torch.randn(3, 5, 8, generator=generator, dtype=torch.float64), torch.arange(5) < 4
    everything = torch.cat([encoder.class_token.expand(3, 1, 8), tokens[:, mask]], dim=1)
    for layer in encoder.layers:
        everything = layer(everything, torch.ones(3, 5, dtype=torch.bool))
    summary, others = encoder(tokens, mask.expand(3, 5))
    torch.testing.assert_close(summary, encoder.norm(everything)[:, 0])
    torch.testing.assert_close(others[:, mask], encoder.norm(everything)[:, 1:])


def test_without_expression_the_slides_speak_for_themselves():
    model, batch = build("cmta").eval(), inputs()
    output = model(**only_slides(batch))
    summary, _ = model.patch_encoder(model.patch_projection(batch["patches"]), batch["patch_mask"])
    expected = model.fusion(torch.cat([summary, torch.zeros(BATCH, 16).double()], dim=1))
    torch.testing.assert_close(output.embedding[:, 0], expected)


def test_size_is_as_published():
    model = CMTA(4, gene_sets={"a": range(100), "b": range(100, 431)})
    genes = 101 * 256 + 332 * 256 + 2 * 257 * 256
    transformer = 256 + 2 * (512 + 256 * 768 + 257 * 256) + 512
    fusion = 513 * 256 + 257 * 256
    expected = genes + 1025 * 256 + 4 * transformer + 2 * 4 * 257 * 256 + fusion + 257 * 4
    assert sum(p.numel() for p in model.parameters()) == expected
    assert {layer.heads for layer in model.modules() if isinstance(layer, SelfAttention)} == {8}
