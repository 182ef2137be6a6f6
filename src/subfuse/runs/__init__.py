"""Runs: cross-validation, external validation, new patients, explanations of a trained run; converted checkpoints."""

from subfuse.lazy import on_first_use

_NAMES = {
    "CrossValidationResult": "cross_validation",
    "NewPatientPrediction": "new_patient",
    "Run": "run",
    "cross_validate": "cross_validation",
    "load_converted": "released_checkpoint",
    "load_run": "run",
    "predict_new_patient": "new_patient",
    "train_model": "single_training",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
