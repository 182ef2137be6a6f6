"""Training: gradient coordination, the loop, checkpoints."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subfuse.training.coordination import ConfidenceGuidedProjection, GradientCoordinator, NoCoordination

__all__ = ["ConfidenceGuidedProjection", "GradientCoordinator", "NoCoordination"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'subfuse.training' has no attribute {name!r}")
    return getattr(import_module("subfuse.training.coordination"), name)  # on first use: it loads torch
