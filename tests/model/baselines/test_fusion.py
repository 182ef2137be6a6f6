import pytest
import torch
from baseline_inputs import BATCH, FEATURE, GENE, OUTPUT, PATCH, build, inputs, only_expression, only_slides

from subfuse.model.baselines.expression import SNN
from subfuse.model.baselines.fusion import ConcatFusion, LateFusion
from subfuse.model.baselines.mil import ABMIL


def test_concat_fusion_is_the_sum_of_its_halves():
    model, batch = build("concat").eval(), inputs()
    everything = model(**batch).logits
    slides, expression = model(**only_slides(batch)).logits, model(**only_expression(batch)).logits
    torch.testing.assert_close(slides + expression - model.head.bias, everything)


def test_concat_fusion_of_a_missing_modality_is_zero_in_its_half():
    model, batch = build("concat").eval(), inputs()
    assert model(**only_expression(batch)).embedding[:, 0, :4].abs().max() == 0
    assert model(**only_slides(batch)).embedding[:, 0, 4:].abs().max() == 0


def test_late_fusion_is_an_abmil_and_an_snn_whose_logits_add_up():
    model, batch = build("late-fusion").eval(), inputs()
    abmil, snn = ABMIL(OUTPUT, patch_dim=FEATURE, embed_dim=4), SNN(OUTPUT, n_genes=GENE, embed_dim=4)
    for index, part in enumerate((abmil.double().eval(), snn.double().eval())):
        encoder = "slide_encoder" if part is abmil else "expression_encoder"
        part.get_submodule(encoder).load_state_dict(model.get_submodule(encoder).state_dict())
        with torch.no_grad():
            part.head.weight.copy_(model.head.weight[[index]])
            part.head.bias.copy_(model.head.bias / 2)
    output = model(**batch, need_attention=True)
    torch.testing.assert_close(output.subspace_logits, torch.stack([abmil(**batch).logits, snn(**batch).logits], 1))
    assert output.attention.shape == (BATCH, 2, 1, PATCH)
    torch.testing.assert_close(output.attention[:, :1], abmil(**batch, need_attention=True).attention)
    assert output.attention[:, 1].abs().max() == 0


def test_a_branch_of_late_fusion_never_sees_the_other_modality():
    model, batch = build("late-fusion").eval(), inputs()
    both = model(**batch).subspace_logits
    torch.testing.assert_close(model(**only_slides(batch)).subspace_logits[:, 0], both[:, 0])
    torch.testing.assert_close(model(**only_expression(batch)).subspace_logits[:, 1], both[:, 1])
    torch.testing.assert_close(
        model(**only_slides(batch)).subspace_logits[:, 1], (model.head.bias / 2).expand(BATCH, OUTPUT)
    )


@pytest.mark.parametrize("network", [ConcatFusion, LateFusion])
def test_sizes_are_those_of_both_branches(network):
    encoders = [*ABMIL(4).slide_encoder.parameters(), *SNN(4, n_genes=431).expression_encoder.parameters()]
    count = sum(p.numel() for p in encoders) + (2 * 128 + 1) * 4
    assert sum(p.numel() for p in network(4, n_genes=431).parameters()) == count
