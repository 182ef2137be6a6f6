"""Training: gradient coordination, the loop, checkpoints."""

from subfuse.training.coordination import ConfidenceGuidedProjection, GradientCoordinator, NoCoordination

__all__ = ["ConfidenceGuidedProjection", "GradientCoordinator", "NoCoordination"]
