"""Coordination of conflicting gradients: the less confident subspace gives way to the more confident one."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class GradientCoordinator(ABC):
    """Resolves conflicts between the gradients of the subspaces at the classifier. Stateless."""

    @abstractmethod
    def coordinate(
        self,
        gradients: Float[Tensor, "subspace output embed"],
        confidence: Float[Tensor, " subspace"],
    ) -> Float[Tensor, "subspace output embed"]:
        """Returns the gradients to apply.

        Args:
            gradients: Gradient of the classifier's weight, one slice per subspace.
            confidence: Confidence of every subspace on the (global) batch; NaN where it is undefined.
        """


@dataclass(frozen=True)
class NoCoordination(GradientCoordinator):
    """Applies the gradients as they are."""

    def coordinate(
        self,
        gradients: Float[Tensor, "subspace output embed"],
        confidence: Float[Tensor, " subspace"],
    ) -> Float[Tensor, "subspace output embed"]:
        """Returns `gradients`."""
        return gradients


@dataclass(frozen=True)
class ConfidenceGuidedProjection(GradientCoordinator):
    r"""Removes from a subspace's gradient what opposes a more confident subspace, for every output on its own.

    For one output with gradients :math:`g` of the less and :math:`g'` of the more confident subspace: if
    :math:`g \cdot g' < 0`, rule `paper` replaces :math:`g` by its projection
    :math:`g - (g \cdot g' / \lVert g' \rVert^2)\, g'`, which is orthogonal to :math:`g'` and never longer than
    :math:`g`. Everything else is unchanged: outputs without conflict, the most confident subspace, subspaces of
    equal confidence with each other, and all gradients if any confidence is NaN. Positive scaling of the gradients
    scales the result, so loss scaling in mixed precision is harmless.

    With two subspaces no pair conflicts afterwards. With more, subspaces are treated from the most confident to the
    least, each giving way, one after the other, to the already coordinated gradients of those more confident, the most
    confident last. Guaranteed then is only that no subspace conflicts with the most confident one (the last of them by
    position, if several are equally confident); a conflict between two others may remain, because a later projection
    can undo an earlier one. The result does not depend on the order of the subspaces as long as confidences differ.

    Relative to the paper: rule `paper` is what its text describes. Its released code subtracts the component a
    second time and rescales the result to the length of the projection; this is rule `released`, a shortened
    reflection, which agrees with :math:`g'` instead of being orthogonal to it and may oppose :math:`g`. It is kept for
    comparison only. More than two subspaces are our extension.

    Example:
        >>> gradients = torch.tensor([[[1.0, 0.0]], [[-1.0, 1.0]]])
        >>> ConfidenceGuidedProjection().coordinate(gradients, torch.tensor([0.9, 0.4]))[1]
        tensor([[0., 1.]])
    """

    rule: Literal["paper", "released"] = "paper"

    def __post_init__(self) -> None:
        if self.rule not in ("paper", "released"):
            raise ValueError(f"rule must be 'paper' or 'released'. Found {self.rule!r}.")

    def coordinate(
        self,
        gradients: Float[Tensor, "subspace output embed"],
        confidence: Float[Tensor, " subspace"],
    ) -> Float[Tensor, "subspace output embed"]:
        """Returns the gradients after less confident subspaces gave way."""
        order = confidence.argsort(descending=True, stable=True)
        ranked_confidence = confidence[order]
        is_defined = ~confidence.isnan().any()
        coordinated: list[Float[Tensor, "output embed"]] = []
        for rank, gradient in enumerate(gradients[order]):
            for superior in reversed(range(rank)):
                is_less_confident = is_defined & (ranked_confidence[rank] < ranked_confidence[superior])
                gradient = _give_way(gradient, coordinated[superior], is_less_confident, rule=self.rule)
            coordinated.append(gradient)
        return torch.stack(coordinated)[order.argsort()]


class GradientConflict(NamedTuple):
    """How much the subspaces disagree at the classifier, for the log. NaN with a single subspace."""

    cosine: Float[Tensor, ""]  # mean over outputs and pairs of subspaces
    rate: Float[Tensor, ""]  # share of outputs and pairs with a negative inner product


def gradient_conflict(gradients: Float[Tensor, "subspace output embed"]) -> GradientConflict:
    """Returns the mean cosine between the subspaces' gradients and the share of conflicts.

    A gradient of zero conflicts with nothing and enters with cosine 0.

    Example:
        >>> gradient_conflict(torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [0.0, 1.0]]]))
        GradientConflict(cosine=tensor(-0.5000), rate=tensor(0.5000))
    """
    direction = _direction(gradients)
    cosine = torch.einsum("ice,jce->cij", direction, direction)
    first, second = torch.triu_indices(len(gradients), len(gradients), offset=1, device=gradients.device)
    pairs = cosine[:, first, second]  # output pair
    return GradientConflict(cosine=pairs.mean(), rate=(pairs < 0).to(gradients.dtype).mean())


def _give_way(
    gradient: Float[Tensor, "output embed"],
    superior: Float[Tensor, "output embed"],
    is_less_confident: Bool[Tensor, ""],
    *,
    rule: Literal["paper", "released"],
) -> Float[Tensor, "output embed"]:
    """Returns the rows of `gradient`, changed where they oppose the rows of a more confident subspace."""
    direction = _direction(superior)
    along = (gradient * direction).sum(dim=-1, keepdim=True)
    sine_squared = 1 - (_direction(gradient) * direction).sum(dim=-1, keepdim=True).square()
    changed = gradient - along * direction
    if rule == "released":
        # reflected, then as long as the projection
        changed = (changed - along * direction) * sine_squared.clamp(min=0).sqrt()
    # Of exactly opposite gradients only rounding errors remain, to whose direction others must not give way
    changed = torch.where(sine_squared > 4 * torch.finfo(changed.dtype).eps, changed, 0.0)
    # torch.where rather than a branch avoids waiting for the device
    return torch.where(is_less_confident & (along < 0), changed, gradient)


def _direction(vector: Float[Tensor, "*axes embed"]) -> Float[Tensor, "*axes embed"]:
    """Returns vectors of length 1, or 0 where the vector is zero; scaled first so that squares stay in range."""
    largest = vector.abs().amax(dim=-1, keepdim=True)
    scaled = vector / torch.where(largest > 0, largest, 1.0)
    length = scaled.norm(dim=-1, keepdim=True)
    return scaled / torch.where(length > 0, length, 1.0)
