"""What models of both modalities make of each: exchanged between patients, or hidden."""

from subfuse.lazy import on_first_use

_NAMES = {
    "by_available_modality": "available",
    "interactions": "exchanged",
    "modality_shuffles": "exchanged",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
