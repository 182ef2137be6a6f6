"""The folder of a run: where its jobs lie, what it was made from, and how its predictions are read and written."""

from subfuse.lazy import on_first_use

_NAMES = {
    "Job": "job",
    "read_predictions": "tables",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
