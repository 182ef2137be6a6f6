import torch
from baseline_inputs import BATCH, GENE_SETS, PATCH, build, inputs, only_expression, only_slides

from subfuse.model.baselines.mcat import MCAT


def test_every_gene_set_asks_the_patches_with_its_own_genes():
    model, batch = build("mcat").eval(), inputs()
    attention = model(**batch, need_attention=True).attention
    assert attention.shape == (BATCH, 1, len(GENE_SETS), PATCH)
    other = batch["expression"].clone()
    other[:, 9] += 3.0  # of the microenvironment only
    changed = model(**batch | {"expression": other}, need_attention=True).attention
    torch.testing.assert_close(changed[:, 0, 0], attention[:, 0, 0])
    assert not torch.allclose(changed[:, 0, 1], attention[:, 0, 1])


def test_without_expression_every_patient_asks_with_the_bias():
    model, batch = build("mcat").eval(), inputs()
    batch["patches"] = batch["patches"][:1].expand_as(batch["patches"])
    batch["patch_mask"] = batch["patch_mask"][-1:].expand_as(batch["patch_mask"])
    attention = model(**only_slides(batch), need_attention=True).attention
    torch.testing.assert_close(attention, attention[:1, :, :1].expand_as(attention))


def test_the_embedding_of_expression_does_not_depend_on_slides():
    model, batch = build("mcat").eval(), inputs()
    torch.testing.assert_close(
        model(**batch).expression_embedding, model(**only_expression(batch)).expression_embedding
    )


def test_size_is_as_published():
    model = MCAT(4, gene_sets={"a": range(100), "b": range(100, 431)})
    encoder_layer = 4 * 257 * 256 + 257 * 512 + 513 * 256 + 4 * 256
    pooling = 2 * 257 * 256 + 256 + 257 * 256
    genes = 101 * 256 + 332 * 256 + 2 * 257 * 256
    fusion = 513 * 256 + 257 * 256
    expected = genes + 1025 * 256 + 4 * 257 * 256 + 2 * (2 * encoder_layer + pooling) + fusion + 257 * 4
    assert sum(p.numel() for p in model.parameters()) == expected
