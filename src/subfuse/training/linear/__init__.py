"""Linear models, fitted to convergence with a penalty that is chosen by cross-validation."""

from subfuse.lazy import on_first_use

_NAMES = {"LinearFit": "path", "fit_line": "fit", "fit_linear": "fit"}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
