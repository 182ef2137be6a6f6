"""Simulated cohorts in the raw formats, with ground truth."""

from subfuse.lazy import on_first_use

_NAMES = {
    "simulate": "cohort",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
