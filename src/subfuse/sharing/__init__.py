"""Models given to others: exported without their patients, loaded from a folder or the Hugging Face hub."""

from subfuse.lazy import on_first_use

_NAMES = {
    "SharedModels": "shared_models",
    "export_run": "export",
    "load_models": "places",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
