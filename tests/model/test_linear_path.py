import pytest
import torch

from subfuse.model.baselines.fusion import ConcatFusion
from subfuse.model.baselines.linear import LinearModel
from subfuse.model.linear_path import WithLinearPath, networks_of, with_line
from subfuse.model.output import Ensemble, SubspaceFusionOutput

N, PATCH, FEATURE, GENE, OUTPUT = 3, 4, 5, 6, 2


def bags() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "patches": torch.randn(N, PATCH, FEATURE, generator=generator),
        "coords": torch.zeros(N, PATCH, 2),
        "patch_mask": torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [False] * 4]),
        "expression": torch.randn(N, GENE, generator=generator),
        "expression_mask": torch.tensor([True, False, True]),
    }


def network(seed: int) -> ConcatFusion:
    torch.manual_seed(seed)
    return ConcatFusion(OUTPUT, patch_dim=FEATURE, n_genes=GENE, embed_dim=8, dropout=0.0)


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_logits_are_the_shares_of_those_of_the_line_and_of_the_network(members, share):
    networks = [network(seed) for seed in range(members)]
    line = LinearModel(OUTPUT, n_genes=GENE, patch_dim=FEATURE)
    model = WithLinearPath(line, networks[0] if members == 1 else Ensemble(networks)).eval()
    model.network_share.fill_(share)
    model.line_share.fill_(line_share := 1 - share / 2)
    with torch.no_grad():
        output, of_line = model(**bags()), line(**bags()).logits
        of_network = torch.stack([alone(**bags()).logits for alone in networks]).mean(dim=0)
    parts = [share * of_network, line_share * of_line]
    torch.testing.assert_close(output.logits, sum(parts))
    torch.testing.assert_close(output.subspace_logits, torch.stack(parts, dim=1))
    assert torch.equal(output.subspace_logits.sum(dim=1), output.logits)
    assert share or torch.equal(output.logits, of_line)  # a network without a share leaves the line, to the last bit
    assert networks_of(model) == networks


def test_attention_is_that_of_the_network_where_it_is_asked_for():
    model = WithLinearPath(LinearModel(OUTPUT, n_genes=GENE, patch_dim=FEATURE), network(0)).eval()
    assert model(**bags()).attention is None
    expected = model.network(**bags(), need_attention=True).attention
    assert torch.equal(model(**bags(), need_attention=True).attention, expected)


def test_the_part_of_a_line_can_be_exchanged():
    parts, line = torch.randn(N, 4, OUTPUT), torch.randn(N, OUTPUT)
    none = torch.zeros(N, 4, 1)
    output = with_line(SubspaceFusionOutput(parts.sum(dim=1), parts, none, none, None), line)
    assert torch.equal(output.subspace_logits, torch.cat([parts[:, :3], line[:, None]], dim=1))
    torch.testing.assert_close(output.logits, parts[:, :3].sum(dim=1) + line)
