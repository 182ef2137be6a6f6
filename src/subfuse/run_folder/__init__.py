"""The folder of a run: the only place that knows where its files lie and what its tables hold."""

from subfuse.lazy import on_first_use

_NAMES = {
    "Job": "job",
    "read_predictions": "tables",
}
__all__ = list(_NAMES)
__getattr__ = on_first_use(__name__, _NAMES)
