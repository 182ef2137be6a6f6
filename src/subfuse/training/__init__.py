"""Training: gradient coordination, the loop, checkpoints."""

from subfuse.lazy import on_first_use

_NAMES = {
    "ArchitectureSettings": "settings",
    "ConfidenceGuidedProjection": "coordination",
    "FittedModel": "fitted_model",
    "GradientCoordinator": "coordination",
    "NoCoordination": "coordination",
    "TrainingPlan": "settings",
    "TrainingSettings": "settings",
    "load_fitted": "stored_model",
    "train_fold": "fitting",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
