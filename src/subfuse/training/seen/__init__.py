"""What training saw: who is unlike its patients, told without anything of a single one of them."""

from subfuse.lazy import on_first_use

_NAMES = {
    "SeenInputs": "inputs",
    "SeenRange": "distance",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
