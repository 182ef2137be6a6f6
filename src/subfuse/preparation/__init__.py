"""From a cohort file to a prepared folder: tissue, patches, features, expression, labels, folds."""

from subfuse.lazy import on_first_use

_NAMES = {
    "CohortPlan": "plan",
    "Preparation": "prepare",
    "plan_cohort": "plan",
    "prepare_slide": "slides.slide",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
