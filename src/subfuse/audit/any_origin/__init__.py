"""Predictions of any origin, made auditable: what is missing, written otherwise or in several files."""

from subfuse.lazy import on_first_use

_NAMES = {"audit_files": "prediction_files", "auditable": "any_table", "read_prediction_files": "prediction_files"}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
