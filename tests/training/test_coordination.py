import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional

from subfuse.training.coordination import (
    ConfidenceGuidedProjection,
    GradientCoordinator,
    NoCoordination,
    gradient_conflict,
)

PAPER = ConfidenceGuidedProjection()
RELEASED = ConfidenceGuidedProjection(rule="released")
RULES = pytest.mark.parametrize("coordinator", [PAPER, RELEASED], ids=["paper", "released"])


@st.composite
def conflicts(draw: st.DrawFn, max_subspaces: int = 5) -> tuple[Tensor, Tensor]:
    """Gradients of any scale, with zero rows at times, and confidences that all differ."""
    n_subspaces = draw(st.integers(1, max_subspaces))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = 10.0 ** draw(st.integers(-12, 12))
    gradients = scale * torch.randn(n_subspaces, 6, 3, generator=generator, dtype=torch.float64)
    gradients = gradients * (torch.rand(n_subspaces, 6, 1, generator=generator) > draw(st.sampled_from([0.0, 0.3])))
    confidence = torch.randperm(n_subspaces, generator=generator).double()
    return gradients, confidence


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Cosine per output row, 0 where a vector is zero."""
    return (functional.normalize(a, dim=-1, eps=1e-300) * functional.normalize(b, dim=-1, eps=1e-300)).sum(dim=-1)


def assert_non_conflicting(a: Tensor, b: Tensor) -> None:
    # inner product of unscaled vectors: a nearly zero projection may point anywhere
    assert ((a * b).sum(dim=-1) >= -1e-9 * a.norm(dim=-1).max() * b.norm(dim=-1).max()).all()


def pair_at(degrees: float) -> Tensor:
    """The first subspace along x with length 2, the second of length 1 at an angle."""
    angle = math.radians(degrees)
    return torch.tensor([[[2.0, 0.0]], [[math.cos(angle), math.sin(angle)]]], dtype=torch.float64)


# --- values worked out by hand ------------------------------------------------------------------------------------


def test_the_opposing_component_is_removed():
    gradients = torch.tensor([[[1.0, 1.0]], [[-3.0, 1.0]]])  # (-3, 1) along (1, 1) is (-1, -1)
    expected = torch.tensor([[[1.0, 1.0]], [[-2.0, 2.0]]])
    torch.testing.assert_close(PAPER.coordinate(gradients, torch.tensor([0.8, 0.3])), expected)


def test_the_other_subspace_gives_way_when_it_is_less_confident():
    gradients = torch.tensor([[[1.0, 1.0]], [[-3.0, 1.0]]])  # (1, 1) along (-3, 1) is (0.6, -0.2)
    expected = torch.tensor([[[0.4, 1.2]], [[-3.0, 1.0]]])
    torch.testing.assert_close(PAPER.coordinate(gradients, torch.tensor([0.3, 0.8])), expected)


@pytest.mark.parametrize(("degrees", "cosine", "length"), [(120, 0.5, 0.866), (150, 0.866, 0.5), (175, 0.996, 0.0872)])
def test_the_released_rule_reflects_and_shortens(degrees: float, cosine: float, length: float):
    strong, weak = RELEASED.coordinate(pair_at(degrees), torch.tensor([1.0, 0.0]))
    assert inner(strong, weak).item() == pytest.approx(cosine, abs=1e-3)
    assert weak.norm().item() == pytest.approx(length, abs=1e-3)


def test_the_released_rule_turns_cosine_minus_072_into_plus_072_where_the_paper_gives_zero():
    gradients = pair_at(math.degrees(math.acos(-0.72)))
    confidence = torch.tensor([1.0, 0.0])
    assert inner(*RELEASED.coordinate(gradients, confidence)).item() == pytest.approx(0.72)
    assert inner(*PAPER.coordinate(gradients, confidence)).item() == pytest.approx(0, abs=1e-12)


def test_three_subspaces_give_way_one_after_the_other():
    gradients = torch.tensor([[[-1.0, -1.0, 1.0]], [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]])
    result = PAPER.coordinate(gradients, torch.tensor([0.1, 0.9, 0.5]))
    torch.testing.assert_close(result[0], torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(result[1:], gradients[1:])


def test_the_least_confident_gives_way_to_what_the_one_before_became():
    gradients = torch.tensor([[[1.0, 0.0]], [[-1.0, 1.0]], [[0.5, -1.0]]])
    expected = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.5, 0.0]]])  # against (-1, 1) it would be (0, -0.25)
    torch.testing.assert_close(PAPER.coordinate(gradients, torch.tensor([0.9, 0.5, 0.1])), expected)


# --- properties ---------------------------------------------------------------------------------------------------


def one_after_the_other(gradients: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Projections (Gram-Schmidt where there is a conflict), one subspace, superior and output at a time."""
    found = gradients.copy()
    ranked = sorted(range(len(gradients)), key=lambda index: -confidence[index])
    for rank, index in enumerate(ranked):
        for superior in reversed(ranked[:rank]):
            for row in range(gradients.shape[1]):
                ours, theirs = found[index, row], found[superior, row]
                if ours @ theirs < 0:
                    found[index, row] = ours - (ours @ theirs) / (theirs @ theirs) * theirs
    return found


@pytest.mark.parametrize("seed", range(5))
def test_projections_are_those_of_one_pair_after_the_other(seed: int):
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(5, 7, 3, generator=generator, dtype=torch.float64)
    confidence = torch.randperm(5, generator=generator).double()
    expected = torch.from_numpy(one_after_the_other(gradients.numpy(), confidence.numpy()))
    torch.testing.assert_close(PAPER.coordinate(gradients, confidence), expected)


@RULES
@given(case=conflicts())
@settings(deadline=None, max_examples=50)
def test_nobody_conflicts_with_the_most_confident(coordinator: GradientCoordinator, case: tuple[Tensor, Tensor]):
    gradients, confidence = case
    result = coordinator.coordinate(gradients, confidence)
    leader = result[confidence.argmax()]
    torch.testing.assert_close(leader, gradients[confidence.argmax()], atol=0, rtol=0)
    for other in result:
        assert_non_conflicting(other, leader)


@RULES
@given(case=conflicts())
@settings(deadline=None, max_examples=50)
def test_norms_never_grow_and_everything_is_finite(coordinator: GradientCoordinator, case: tuple[Tensor, Tensor]):
    gradients, confidence = case
    result = coordinator.coordinate(gradients, confidence)
    assert result.isfinite().all()
    assert (result.norm(dim=-1) <= gradients.norm(dim=-1) * (1 + 1e-9)).all()


@RULES
@given(case=conflicts(max_subspaces=2))
@settings(deadline=None, max_examples=50)
def test_rows_without_conflict_are_unchanged(coordinator: GradientCoordinator, case: tuple[Tensor, Tensor]):
    gradients, confidence = case
    agrees = (gradients[0] * gradients[-1]).sum(dim=-1) >= 0
    result = coordinator.coordinate(gradients, confidence)
    torch.testing.assert_close(result[:, agrees], gradients[:, agrees], atol=0, rtol=0)


@RULES
@given(case=conflicts(), factor=st.floats(1e-6, 1e6))
@settings(deadline=None, max_examples=50)
def test_positive_scaling_passes_through(coordinator: GradientCoordinator, case: tuple[Tensor, Tensor], factor: float):
    gradients, confidence = case
    expected = factor * coordinator.coordinate(gradients, confidence)
    tolerance = 1e-9 * float(expected.abs().max())
    torch.testing.assert_close(
        coordinator.coordinate(factor * gradients, confidence), expected, atol=tolerance, rtol=1e-6
    )


@RULES
@given(case=conflicts(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_permuting_subspaces_permutes_the_result(
    coordinator: GradientCoordinator, case: tuple[Tensor, Tensor], seed: int
):
    gradients, confidence = case
    order = torch.randperm(len(gradients), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        coordinator.coordinate(gradients[order], confidence[order]),
        coordinator.coordinate(gradients, confidence)[order],
        atol=0,
        rtol=0,
    )


@RULES
@given(case=conflicts())
@settings(deadline=None, max_examples=20)
def test_outputs_are_coordinated_independently(coordinator: GradientCoordinator, case: tuple[Tensor, Tensor]):
    gradients, confidence = case
    whole = coordinator.coordinate(gradients, confidence)
    parts = [coordinator.coordinate(gradients[:, [c]], confidence) for c in range(gradients.shape[1])]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=0, rtol=0)


# --- edges --------------------------------------------------------------------------------------------------------


@RULES
@pytest.mark.parametrize("confidence", [[0.5, 0.5], [math.nan, math.nan], [0.9, math.nan], [math.nan, 0.1]], ids=str)
def test_equal_or_undefined_confidence_changes_nothing(coordinator: GradientCoordinator, confidence: list[float]):
    gradients = pair_at(150)
    result = coordinator.coordinate(gradients, torch.tensor(confidence))
    torch.testing.assert_close(result, gradients, atol=0, rtol=0)


@RULES
def test_one_subspace_is_the_identity(coordinator: GradientCoordinator):
    gradients = pair_at(150)[:1]
    torch.testing.assert_close(coordinator.coordinate(gradients, torch.tensor([0.3])), gradients)


@RULES
@pytest.mark.parametrize("zero", [0, 1])
def test_zero_gradients_stay_zero_and_change_nobody(coordinator: GradientCoordinator, zero: int):
    gradients = pair_at(150)
    gradients[zero] = 0
    result = coordinator.coordinate(gradients, torch.tensor([0.9, 0.1]))
    torch.testing.assert_close(result, gradients, atol=0, rtol=0)


@RULES
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_single_precision_neither_underflows_nor_overflows(coordinator: GradientCoordinator, scale: float):
    confidence = torch.tensor([0.9, 0.1])
    expected = coordinator.coordinate(pair_at(150), confidence).float()
    result = coordinator.coordinate(scale * pair_at(150).float(), confidence) / scale
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-5)


def test_opposite_gradients_leave_only_the_confident_one():
    torch.testing.assert_close(
        PAPER.coordinate(pair_at(180), torch.tensor([0.9, 0.1])), torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]]).double()
    )


@RULES
def test_nobody_gives_way_to_what_rounding_leaves_of_opposite_gradients(coordinator: GradientCoordinator):
    third = torch.tensor([0.1, 0.3, 0.7])
    gradients = torch.stack([third / 3, -third, torch.randn(3, generator=torch.Generator().manual_seed(0))])[:, None]
    result = coordinator.coordinate(gradients, torch.tensor([0.9, 0.5, 0.1]))
    alone = coordinator.coordinate(gradients[[0, 2]], torch.tensor([0.9, 0.1]))
    assert result[1].abs().max() == 0
    torch.testing.assert_close(result[2], alone[1])


def test_no_coordination_is_the_identity():
    gradients = pair_at(150)
    assert NoCoordination().coordinate(gradients, torch.tensor([0.9, 0.1])) is gradients


def test_an_unknown_rule_is_rejected():
    with pytest.raises((ValueError, TypeCheckError), match=r"paper.*released"):  # the latter from the checks in tests
        ConfidenceGuidedProjection(rule="pcgrad")  # type: ignore[arg-type]


# --- log ----------------------------------------------------------------------------------------------------------


def test_conflict_of_three_subspaces_by_hand():
    # pairs: opposite, orthogonal, orthogonal; and for the second output: all equal
    gradients = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[-5.0, 0.0], [2.0, 2.0]], [[0.0, 3.0], [0.1, 0.1]]])
    conflict = gradient_conflict(gradients)
    assert conflict.cosine.item() == pytest.approx((-1 + 3) / 6)
    assert conflict.rate.item() == pytest.approx(1 / 6)


def test_conflict_is_undefined_for_one_subspace():
    conflict = gradient_conflict(pair_at(150)[:1])
    assert conflict.cosine.isnan()
    assert conflict.rate.isnan()


def test_zero_gradients_conflict_with_nobody():
    conflict = gradient_conflict(torch.zeros(2, 3, 4))
    assert conflict.cosine.item() == 0
    assert conflict.rate.item() == 0
