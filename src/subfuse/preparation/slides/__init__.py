"""Slides of a cohort, one by one: which there are, tissue and patches of each, features made or taken over."""

from subfuse.lazy import on_first_use

_NAMES = {
    "import_slides": "feature_import",
    "inspect_slide": "slide",
    "prepare_slide": "slide",
    "read_slides": "slide_table",
    "survey_features": "feature_survey",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
