import pytest
import torch
from baseline_inputs import FEATURE, OUTPUT, PATCH, build, inputs
from torch import nn

from subfuse.model.baselines.mil import ABMIL, CLAMSB, DSMIL, MeanMIL


@pytest.mark.parametrize("name", ["mean", "abmil", "gated-abmil", "clam-sb", "dsmil", "transmil"])
def test_a_patient_without_patches_has_the_logits_of_an_embedding_of_zero(name: str):
    model, batch = build(name).eval(), inputs()
    batch["patch_mask"][2] = False
    output = model(**batch)
    assert output.embedding[2].abs().max() == 0
    expected = model.head.bias * (0.5 if name == "dsmil" else 1.0)  # half of a stream without a maximum
    torch.testing.assert_close(output.logits[2], expected)


@pytest.mark.parametrize("name", ["abmil", "gated-abmil", "clam-sb", "mean"])
def test_one_patch_gets_all_the_attention(name: str):
    output = build(name)(**inputs(patch=1), need_attention=True)
    torch.testing.assert_close(output.attention, torch.ones_like(output.attention))


def test_dsmil_written_out_patient_by_patient():
    model, batch = build("dsmil").eval(), inputs()
    output = model(**batch, need_attention=True)
    for i in range(len(output.logits)):
        bag = batch["patches"][i][batch["patch_mask"][i]]
        scores, queries, values = model.score(bag), model.query(bag), model.value(bag)
        parts = []
        for k in range(OUTPUT):
            critical = int(scores[:, k].argmax())
            similarity = torch.stack([query @ queries[critical] for query in queries])
            weight = torch.softmax(similarity / 3, dim=0)  # queries are 9 wide
            torch.testing.assert_close(output.attention[i, 0, k, : len(bag)], weight)
            parts.append(weight @ values)
        second = model.head.weight[0] @ torch.cat(parts) + model.head.bias
        torch.testing.assert_close(output.logits[i], 0.5 * (scores.max(dim=0).values + second))


def test_dsmil_with_one_output_agrees_with_torchmil():
    torchmil = pytest.importorskip("torchmil.models")
    theirs = torchmil.DSMIL((FEATURE,), att_dim=9).double()  # binary, with its patches as values
    ours = DSMIL(1, patch_dim=FEATURE, embed_dim=FEATURE, query_dim=9).double()
    ours.score.load_state_dict(theirs.inst_classifier.state_dict())
    ours.query.load_state_dict(theirs.q_nn.state_dict())
    with torch.no_grad():
        nn.init.eye_(ours.value.weight)
        ours.value.bias.zero_()
        ours.head.weight.copy_(theirs.bag_classifier.weight[None])
        ours.head.bias.copy_(theirs.bag_classifier.bias)
    batch = inputs()
    batch["patch_mask"][:] = True  # theirs may choose padding as the critical patch
    expected = theirs.predict(batch["patches"], batch["patch_mask"])
    torch.testing.assert_close(ours(**batch).logits[:, 0], expected)


def test_clam_agrees_with_torchmil():
    torchmil = pytest.importorskip("torchmil.models")
    ours = CLAMSB(1, patch_dim=FEATURE, embed_dim=8, attention_dim=4).double().eval()
    theirs = torchmil.CLAM_SB((FEATURE,), att_dim=4, gated=True, feat_ext=ours.patch_projection.float())
    theirs, ours = theirs.double().eval(), ours.double()
    for layer, name in ((ours.pooling.hidden, "fc1"), (ours.pooling.gate, "fc_gated"), (ours.pooling.score, "fc2")):
        part = getattr(theirs.pool, name)
        layer.load_state_dict(getattr(part, "module", part).state_dict())
    classifier = getattr(theirs.classifier, "module", theirs.classifier)
    with torch.no_grad():
        ours.head.weight.copy_(classifier.weight[None])
        ours.head.bias.copy_(classifier.bias)
    batch = inputs()
    torch.testing.assert_close(ours(**batch).logits[:, 0], theirs(batch["patches"], batch["patch_mask"]))


def test_the_critical_patch_is_never_padding():
    model, batch = build("dsmil").eval(), inputs()
    loud = batch["patches"].clone()
    loud[~batch["patch_mask"]] = 1e6
    torch.testing.assert_close(model(**batch | {"patches": loud}).logits, model(**batch).logits)


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (MeanMIL(4), 1025 * 128 + 129 * 4),
        # attention (1024 + 1) · 128 + 128, projection (1024 + 1) · 128, head (128 + 1) · 4
        (ABMIL(4), 1025 * 128 + 128 + 1025 * 128 + 129 * 4),
        (ABMIL(4, gated=True), 2 * 1025 * 128 + 128 + 1025 * 128 + 129 * 4),
        (CLAMSB(4), 1025 * 512 + 2 * 513 * 256 + 256 + 513 * 4),
        (DSMIL(4), 1025 * 4 + 2 * 1025 * 128 + (4 * 128 + 1) * 4),
    ],
)
def test_sizes_are_as_published(model: nn.Module, count: int):
    assert sum(p.numel() for p in model.parameters()) == count


def test_attention_of_dsmil_has_a_head_per_output():
    assert build("dsmil")(**inputs(), need_attention=True).attention.shape == (5, 1, OUTPUT, PATCH)
