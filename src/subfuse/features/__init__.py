"""Patch features: encoders, our feature files and those of other tools."""

from subfuse.lazy import on_first_use

_NAMES = {
    "PatchEncoder": "encoder",
    "SlideFeatures": "store",
    "load_patch_encoder": "patch_encoders",
    "opened_features": "other_tools",
    "read_features": "store",
    "write_features": "store",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
