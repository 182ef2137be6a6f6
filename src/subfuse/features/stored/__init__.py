"""What the feature files of a prepared folder rest on: the hash of their content, and features that stay elsewhere."""

from subfuse.lazy import on_first_use

_NAMES = {"FeaturesInPlace": "in_place", "require_content": "content"}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
