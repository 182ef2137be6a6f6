"""What every model must be given: shapes that fit, a modality for each patient, finite values."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from subfuse.errors import preview


def check_shapes(
    patches: Tensor, coords: Tensor, patch_mask: Tensor, expression: Tensor, expression_mask: Tensor
) -> None:
    """Raises a ValueError if an input does not fit `patches`."""
    batch, n_patches = patches.shape[:2]
    required = {
        "coords": (coords, (batch, n_patches, 2)),
        "patch_mask": (patch_mask, (batch, n_patches)),
        "expression": (expression, (batch, expression.shape[-1])),
        "expression_mask": (expression_mask, (batch,)),
    }
    for name, (tensor, shape) in required.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must have the shape {shape} to fit patches. Found {tuple(tensor.shape)}.")


def check_modalities(
    patch_mask: Bool[Tensor, "batch patch"],
    expression_mask: Bool[Tensor, " batch"],
    genes: Sequence[Float[Tensor, "batch _"]],
) -> None:
    """Raises a ValueError if a patient has neither modality, or measured expression of a subspace is not finite.

    Both are asked together: an answer of the device is waited for.
    """
    has_nothing = ~(patch_mask.any(1) | expression_mask)
    is_bad = torch.stack([~part.sum(1).isfinite() for part in genes]).any(0) & expression_mask
    if not torch.cat([has_nothing, is_bad]).any():
        return
    if has_nothing.any():
        raise ValueError(
            "every patient must have a patch (patch_mask) or expression (expression_mask). "
            f"Found neither in batch rows {preview(has_nothing.nonzero().flatten().tolist())}."
        )
    raise ValueError(
        "expression must be finite where expression_mask is True. "
        f"Found NaN or infinity in batch rows {preview(is_bad.nonzero().flatten().tolist())}."
    )


def check_finite(patches: Float[Tensor, "batch patch feature"]) -> None:
    """Raises a ValueError if a feature is NaN or infinite."""
    is_bad = ~patches.isfinite().flatten(1).all(1)
    if is_bad.any():
        raise ValueError(
            "patches must be finite where patch_mask is True. "
            f"Found NaN or infinity in batch rows {preview(is_bad.nonzero().flatten().tolist())}."
        )
