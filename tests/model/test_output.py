import pytest
import torch

from subfuse.model import SubspaceFusion, SubspaceFusionConfig
from subfuse.model.baselines.mil import ABMIL
from subfuse.model.output import Ensemble, SubspaceHead, one_subspace

CONFIG = SubspaceFusionConfig(3, patch_dim=5, embed_dim=8, grid=(8, 8), table_size=16, heads=2, offset_groups=2)


def networks(count: int) -> list[SubspaceFusion]:
    torch.manual_seed(0)
    return [SubspaceFusion(CONFIG, {"one": [0, 1, 2, 3], "two": [3, 4, 5, 6]}).eval() for _ in range(count)]


def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "patches": torch.randn(2, 9, 5, generator=generator),
        "coords": 100.0
        * torch.stack(torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="xy"), -1)
        .reshape(1, 9, 2)
        .repeat(2, 1, 1),
        "patch_mask": torch.ones(2, 9, dtype=torch.bool),
        "expression": torch.randn(2, 7, generator=generator),
        "expression_mask": torch.tensor([True, True]),
    }


def test_logits_are_the_members_mean_and_subspaces_still_add_up_to_them():
    members = networks(3)
    output = Ensemble(members)(**inputs())
    alone = [member(**inputs()) for member in members]
    torch.testing.assert_close(output.logits, (alone[0].logits + alone[1].logits + alone[2].logits) / 3)
    torch.testing.assert_close(output.subspace_logits.sum(dim=1), output.logits)
    assert output.attention is None  # which nobody asked for


def test_every_member_looked_somewhere():
    members = networks(3)
    output = Ensemble(members)(**inputs(), need_attention=True)
    alone = members[1](**inputs(), need_attention=True)
    torch.testing.assert_close(output.sampling_grid[:, :, 2:4], alone.sampling_grid)  # two groups each
    torch.testing.assert_close(output.attention[:, :, 2:4], alone.attention)  # two heads each


def test_members_without_sampling_or_attention_have_none_together():
    output = Ensemble([ABMIL(3, patch_dim=5), ABMIL(3, patch_dim=5)]).eval()(**inputs())
    assert output.sampling_grid is None
    assert output.attention is None


def test_an_ensemble_of_none_is_an_error():
    with pytest.raises(ValueError, match="at least one network"):
        Ensemble([])


def test_a_head_starts_like_a_linear_layer_on_all_embeddings_side_by_side():
    torch.manual_seed(0)
    head, linear = SubspaceHead(3, 50, 12), torch.nn.Linear(36, 50)

    for ours, theirs in ((head.weight, linear.weight), (head.bias, linear.bias)):
        assert ours.abs().max() <= 1 / 6
        assert ours.min() < -0.9 / 6
        assert ours.max() > 0.9 / 6
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.3)


def test_one_subspace_has_all_of_the_logits():
    head = SubspaceHead(1, 3, 4)
    embedding = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))

    output = one_subspace(head, embedding)

    expected = embedding @ head.weight[0].T + head.bias
    torch.testing.assert_close(output.logits, expected)
    torch.testing.assert_close(output.subspace_logits, expected[:, None])
    assert output.expression_embedding.abs().sum() == 0
