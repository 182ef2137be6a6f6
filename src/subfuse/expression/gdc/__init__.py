"""Expression as the GDC gives it: one STAR file per sample, and what lists them."""

from subfuse.lazy import on_first_use

_NAMES = {"read_gdc_metadata": "listing", "read_gdc_sheet": "listing", "read_gdc_star": "star"}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
