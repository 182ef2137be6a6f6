"""Bags: the patches and the expression of one patient, and padded batches of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from subfuse.data.cohort import Cohort, Patient
from subfuse.data.expression import ExpressionStandardiser
from subfuse.data.feature_store import read_features


@dataclass(frozen=True)
class SurvivalTarget:
    """Follow-up of the patients of a batch."""

    time_days: Float[Tensor, " batch"]
    event: Bool[Tensor, " batch"]  # True where the event was observed

    def to(self, device: torch.device) -> "SurvivalTarget":
        """Returns the target on a device."""
        return SurvivalTarget(self.time_days.to(device), self.event.to(device))


@dataclass(frozen=True)
class ClassTarget:
    """Class index of the patients of a batch."""

    label: Int[Tensor, " batch"]

    def to(self, device: torch.device) -> "ClassTarget":
        """Returns the target on a device."""
        return ClassTarget(self.label.to(device))


Target = SurvivalTarget | ClassTarget


@dataclass(frozen=True)
class Bag:
    """All patches of one patient, slides side by side, and the standardised expression."""

    patient_id: str
    patches: Float[np.ndarray, "patch feature"]  # no rows if the patient has no slide
    coords: Float[np.ndarray, "patch 2"]  # patch centres in µm, (x, y); slides stand side by side
    expression: Float[np.ndarray, " gene"] | None


@dataclass(frozen=True)
class BagBatch:
    """Bags padded to the longest. A missing modality is False in a mask, never a value."""

    patient_id: tuple[str, ...]
    patches: Float[Tensor, "batch patch feature"]  # padded with zeros
    coords: Float[Tensor, "batch patch 2"]  # patch centres in µm, (x, y)
    patch_mask: Bool[Tensor, "batch patch"]  # True where a patch is real
    expression: Float[Tensor, "batch gene"]  # standardised; zeros where not measured
    expression_mask: Bool[Tensor, " batch"]  # False where expression was not measured
    target: Target | None

    def inputs(self) -> dict[str, Tensor]:
        """Returns what a model's `forward` takes, by name."""
        return {
            "patches": self.patches,
            "coords": self.coords,
            "patch_mask": self.patch_mask,
            "expression": self.expression,
            "expression_mask": self.expression_mask,
        }

    def to(self, device: torch.device) -> "BagBatch":
        """Returns the batch on a device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "patient_id"}
        return replace(self, **{name: None if value is None else value.to(device) for name, value in moved.items()})
