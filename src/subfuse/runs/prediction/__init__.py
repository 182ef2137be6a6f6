"""How trained models predict new patients: with which inputs, and beside what is known of their own patients."""

from subfuse.lazy import on_first_use

_NAMES = {
    "Predictor": "predictor",
    "Reference": "reference",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
