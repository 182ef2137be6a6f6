import torch
from baseline_inputs import BATCH, PATCH, PATHWAYS, build, inputs, only_expression, only_slides
from survpath_transcription import transcribed

from subfuse.model.baselines.survpath import SurvPath


def test_logits_and_gradients_are_those_of_one_network_per_pathway_and_plain_attention():
    model = build("survpath").eval()
    plain = transcribed(model)
    batch = inputs(batch=2)
    logits = model(**batch).logits
    expected = torch.cat(
        [
            plain(
                batch["patches"][i : i + 1, mask], [batch["expression"][i : i + 1, list(g)] for g in PATHWAYS.values()]
            )
            for i, mask in enumerate(batch["patch_mask"])
        ]
    )
    torch.testing.assert_close(logits, expected)
    direction = torch.randn_like(logits)
    logits.backward(direction)
    expected.backward(direction)
    tokens = model.pathway_tokens
    for index, weight in enumerate(tokens.first_weight.grad.split(tokens.sizes)):
        (first, *_), (second, *_) = plain.pathways[index]
        torch.testing.assert_close(weight, first.weight.grad.T)
        torch.testing.assert_close(tokens.first_bias.grad[index], first.bias.grad)
        torch.testing.assert_close(tokens.second_weight.grad[index], second.weight.grad.T)
        torch.testing.assert_close(tokens.second_bias.grad[index], second.bias.grad)
    torch.testing.assert_close(model.patch_projection.weight.grad, plain.patch_projection.weight.grad)
    torch.testing.assert_close(model.to_qkv.weight.grad, plain.to_qkv.weight.grad)
    torch.testing.assert_close(model.feed_forward[0].bias.grad, plain.feed_forward[0].bias.grad)
    torch.testing.assert_close(model.feed_forward[4].weight.grad, plain.layer_norm.weight.grad)
    torch.testing.assert_close(model.head.weight.grad[0], plain.classifier.weight.grad)


def test_the_attention_is_a_dense_one_without_patches_to_patches():
    model, batch = build("survpath").eval(), inputs()
    batch["patch_mask"][1, 1:] = False  # a single patch
    output = model(**batch, need_attention=True)
    n = len(PATHWAYS)
    tokens = torch.cat(
        [model.pathway_tokens(batch["expression"], batch["expression_mask"]), model.patch_projection(batch["patches"])],
        dim=1,
    )
    query, key, value = model.to_qkv(tokens).chunk(3, dim=2)
    score = query @ key.transpose(1, 2) / 8**0.5
    is_token = torch.cat([torch.ones(BATCH, n, dtype=torch.bool), batch["patch_mask"]], dim=1)
    allowed = is_token[:, None].expand_as(score).clone()
    allowed[:, n:, n:] = False
    weight = score.masked_fill(~allowed, -torch.inf).softmax(dim=2)
    result = model.feed_forward(weight @ value)
    for i in range(BATCH):
        n_patches = int(batch["patch_mask"][i].sum())
        expected = torch.cat([result[i, :n].mean(0), result[i, n : n + n_patches].mean(0)])
        torch.testing.assert_close(output.embedding[i, 0], expected)
    torch.testing.assert_close(output.attention[:, 0], weight[:, :n, n:])
    assert output.attention.shape == (BATCH, 1, n, PATCH)


def test_without_expression_pathways_see_all_patches_equally():
    model, batch = build("survpath").eval(), inputs()
    output = model(**only_slides(batch), need_attention=True)
    equal = batch["patch_mask"].double() / batch["patch_mask"].sum(dim=1, keepdim=True)
    torch.testing.assert_close(output.attention[:, 0], equal[:, None].expand(-1, len(PATHWAYS), -1))
    assert output.embedding[:, 0, 8:].abs().max() == 0


def test_without_patches_the_patch_half_is_zero():
    output = build("survpath").eval()(**only_expression(inputs()))
    assert output.embedding[:, 0, 8:].abs().max() == 0
    torch.testing.assert_close(output.embedding, output.expression_embedding)


def test_size_is_as_published():
    model = SurvPath(4, pathways={"a": range(100), "b": range(100, 431)})
    pathways = 101 * 256 + 332 * 256 + 2 * 257 * 256
    feed_forward = 2 * 129 * 128 + 2 * 128
    expected = pathways + 1025 * 256 + 256 * 3 * 128 + feed_forward + (2 * 128 + 1) * 4
    assert sum(p.numel() for p in model.parameters()) == expected
