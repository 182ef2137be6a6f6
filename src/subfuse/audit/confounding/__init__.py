"""What else could explain a result: strata in which patients differ, hospitals, batches."""

from subfuse.lazy import on_first_use

_NAMES = {"confounder_findings": "confounders", "strata_of": "strata", "stratum_findings": "strata"}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
