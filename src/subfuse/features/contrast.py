"""Whether the patches of a slide differ in their features at all."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from subfuse.features.store import read_features, read_sample


class PatchContrast(NamedTuple):
    """How many patches a slide has, and the vector that they share."""

    n_patches: int
    shared: bytes | None  # None: they differ

    @property
    def is_flat(self) -> bool:
        """True where there are several patches that nothing tells apart."""
        return self.n_patches > 1 and self.shared is not None


def contrast_of(features: Float[np.ndarray, "patch feature"]) -> PatchContrast:
    """Returns whether patches differ.

    Example:
        >>> contrast_of(np.eye(2)).is_flat, contrast_of(np.ones((2, 3))).is_flat, contrast_of(np.ones((1, 3))).is_flat
        (False, True, False)
    """
    first = features[0] + 0  # no -0.0
    return PatchContrast(len(features), first.tobytes() if (features == first).all() else None)


def read_contrast(path: Path) -> PatchContrast:
    """Returns whether the patches of a prepared slide differ; reads few of them where they do.

    Raises:
        DataError: The file is missing, damaged or of another layout.
    """
    few = contrast_of(read_sample(path, 2).features)
    return few if few.shared is None else contrast_of(read_features(path, verify=False).features)
