"""Distillation: a model of slides alone learns from one that also reads expression."""

from subfuse.lazy import on_first_use

_NAMES = {"Teacher": "teacher", "TermWeights": "lessons"}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
